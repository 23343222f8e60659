//! The property tests of vectors on real ZFS, beside the model that they are run on thousands of times.
//!
//! Owns: nothing of them. They are the unit tests of `agent/daemon/src/vectors/tests/real.rs`, run as they are on a machine.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use siris_build::Progress;

use super::super::standard;
use super::GROUP;
use crate::case::Case;
use crate::lab::Bench;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let answers = "the model of ZFS that is tested with answers as real ZFS does";
    let happens = "whatever happens to three machines on real ZFS, the next sync completes and leaves nothing";
    vec![
        Case::full(GROUP, answers, |bench| tested(bench, "the_model_answers_as_real_zfs_does")),
        Case::full(GROUP, happens, |bench| tested(bench, "whatever_happens_on_real_zfs")),
    ]
}

/// Where the program and the pools' files are.
const DIR: &str = "/state/siris-tests";
const UPLOAD: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(1500);

fn tested(bench: &Bench<'_>, test: &str) -> Result<()> {
    let program = siris_build::agent_tests(bench.lab.repository(), &Progress::new())?;
    let vm = standard(bench)?;
    // Pools come and go: the box's own agent has nothing to do with them.
    vm.guest.ok(&format!("systemctl stop siris-agent && mkdir -p {DIR}"))?;
    let put = format!("cat > {DIR}/tests && chmod 755 {DIR}/tests");
    let put = vm.guest.run_for(UPLOAD, &put, &fs::read(&program)?)?;
    ensure!(put.status == Some(0), "the program with the tests: {put}");
    let run =
        format!("SIRIS_TEST_POOLS={DIR} RUST_BACKTRACE=0 {DIR}/tests --ignored --nocapture --test-threads=1 {test}");
    let done = vm.guest.run_for(LIMIT, &run, b"")?;
    ensure!(done.status == Some(0) && done.text.contains("1 passed"), "{test}: {done}");
    let left = vm.guest.ok("zpool list -Ho name")?;
    ensure!(left.is_empty() || left == "no pools available", "pools are left: {left}");
    Ok(())
}
