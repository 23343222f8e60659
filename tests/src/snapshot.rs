//! Booted machines that are kept, so that a suite boots once.
//!
//! A snapshot is a folder of the cache: the disks as they were, frozen, and the machine's state. Machines made from
//! it lay overlays over the frozen disks, so any number can run from one. The folder is named by everything that
//! went into it (image, machine, accelerator), and comes into being under its final name when it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::disk;
use crate::lab::{Bench, Lab, remove_dir};
use crate::machine::Spec;
use crate::vm::{Machine, Vm};

/// How many snapshots are kept; the ones unused for the longest go first.
const KEPT: usize = 4;
/// The state of a machine that was booted, and no more.
const HEALTHY: &str = "healthy";

/// A machine of that kind, booted, healthy, with a shell; boots one first if there is no snapshot yet.
///
/// # Errors
/// When it does not boot, or cannot be saved or restored.
pub fn booted<'a>(bench: &Bench<'a>, spec: &Spec) -> Result<Vm<'a>> {
    prepared(bench, spec, HEALTHY, |_| Ok(()))
}

/// As [`booted`], in the state that `prepare` has brought it to.
///
/// # Errors
/// When it does not boot, `prepare` fails, or it cannot be saved or restored.
pub fn prepared<'a>(
    bench: &Bench<'a>,
    spec: &Spec,
    state: &str,
    prepare: impl FnOnce(&Vm<'a>) -> Result<()>,
) -> Result<Vm<'a>> {
    let mut vm = restored(bench, spec, state, |vm| well(vm, prepare))?;
    awaken(&mut vm)?;
    Ok(vm)
}

/// As [`booted`], with a recording of what is written to its OS disk from now on; `before` becomes a raw image of that
/// disk as it is now.
///
/// # Errors
/// When it does not boot, or cannot be saved or restored.
pub fn recorded<'a>(bench: &Bench<'a>, spec: &Spec, before: &Path) -> Result<Vm<'a>> {
    let saved = saved(bench, spec, HEALTHY, |vm| well(vm, |_| Ok(())))?;
    let machine = Machine::continuing(bench, Spec { record_os: true, ..spec.clone() }, &saved)?;
    disk::raw(bench.lab, &machine.disk("os"), before)?;
    let mut vm = machine.resume(&saved.join("state"))?;
    awaken(&mut vm)?;
    Ok(vm)
}

/// A machine of that kind in the state that `prepare` brings it to.
///
/// # Errors
/// When `prepare` fails, or the machine cannot be saved or restored.
pub fn restored<'a>(
    bench: &Bench<'a>,
    spec: &Spec,
    state: &str,
    prepare: impl FnOnce(&mut Vm<'a>) -> Result<()>,
) -> Result<Vm<'a>> {
    let saved = saved(bench, spec, state, prepare)?;
    Machine::continuing(bench, spec.clone(), &saved)?.resume(&saved.join("state"))
}

fn well<'a>(vm: &mut Vm<'a>, prepare: impl FnOnce(&Vm<'a>) -> Result<()>) -> Result<()> {
    vm.wait_healthy()?;
    prepare(vm)?;
    vm.guest.disconnect();
    Ok(())
}

fn awaken(vm: &mut Vm<'_>) -> Result<()> {
    vm.guest.connect(Duration::from_secs(60))?;
    // Its clock stood still in the meantime.
    vm.guest.ok(&format!("date -s @{} >/dev/null", time_now()?)).map(drop)
}

/// Where the snapshot is kept; makes it first if there is none.
fn saved<'a>(
    bench: &Bench<'a>,
    spec: &Spec,
    state: &str,
    prepare: impl FnOnce(&mut Vm<'a>) -> Result<()>,
) -> Result<PathBuf> {
    ensure!(spec.can_be_saved(), "such a machine cannot be saved: {spec:?}");
    let _one_at_a_time = bench.lab.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let saved = place(bench.lab, spec, state)?;
    if !saved.exists() {
        make(bench, spec, &saved, prepare).context("make a snapshot of a booted machine")?;
    }
    // Marks it as used.
    fs::write(saved.join("used"), "")?;
    Ok(saved)
}

fn place(lab: &Lab, spec: &Spec, state: &str) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(format!("1 {state} {} {spec:?} {}", lab.accel().name(), lab.public_key()?));
    Ok(lab.cache().join(format!("booted-{}-{}", lab.image().identity(), &hex::encode(hash.finalize())[..16])))
}

fn make<'a>(
    bench: &Bench<'a>,
    spec: &Spec,
    saved: &PathBuf,
    prepare: impl FnOnce(&mut Vm<'a>) -> Result<()>,
) -> Result<()> {
    drop_old(bench.lab)?;
    // What starts from a medium has nothing on its disk yet.
    let machine = match spec.medium {
        Some(_) => Machine::blank(bench, spec.clone())?,
        None => Machine::new(bench, spec.clone())?,
    };
    let mut vm = machine.start()?;
    prepare(&mut vm)?;
    let half = saved.with_extension("half");
    remove_dir(&half)?;
    fs::create_dir_all(&half)?;
    vm.qmp.save_state(&half.join("state"))?;
    let names = vm.machine().disk_names();
    let disks: Vec<_> =
        names.iter().map(|name| (vm.machine().disk(name), half.join(format!("{name}.qcow2")))).collect();
    vm.qmp.execute("query-status", json!({}))?;
    drop(vm.cut_power()?);
    for (from, to) in disks {
        fs::rename(&from, &to).with_context(|| format!("keep {}", from.display()))?;
    }
    fs::rename(&half, saved)?;
    Ok(())
}

fn drop_old(lab: &Lab) -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(lab.cache())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("booted-") {
            let used = fs::metadata(entry.path().join("used")).and_then(|meta| meta.modified()).ok();
            found.push((used, entry.path()));
        }
    }
    found.sort();
    for (_, path) in found.iter().rev().skip(KEPT - 1) {
        remove_dir(path)?;
    }
    Ok(())
}

fn time_now() -> Result<u64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())
}
