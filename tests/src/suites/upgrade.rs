//! Upgrades: from one version to the next and back, with the pool in use; what becomes of a new system that is no good;
//! and of a box whose power goes meanwhile.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{NEW_POOL, must_contain, standard_spec};
use crate::case::Case;
use crate::guest::Done;
use crate::lab::Bench;
use crate::snapshot;
use crate::sources::Sources;
use crate::vm::Vm;

mod fetch;
mod power;
mod reboot;
mod refusals;
mod rounds;
mod trial;
mod watchdog;

const GROUP: &str = "upgrade";
/// How long writing a slot may take before it counts as hung.
const INSTALL: Duration = Duration::from_secs(900);
/// The version that is newer than the image under test.
const NEWER: &str = "0.9.0";

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = rounds::cases();
    cases.extend(trial::cases());
    cases.extend(watchdog::cases());
    cases.extend(refusals::cases());
    cases.extend(reboot::cases());
    cases.extend(fetch::cases());
    cases.extend(power::cases());
    cases
}

/// A bundle of the image under test under another version, with what else `options` ask for beside it.
fn bundle(bench: &Bench<'_>, version: &str, options: &str) -> Result<PathBuf> {
    bundle_of(bench, "siris", version, options)
}

fn bundle_of(bench: &Bench<'_>, profile: &str, version: &str, options: &str) -> Result<PathBuf> {
    let out = bench.dir().join(format!("{profile}-{version}"));
    let sources = Sources::here(bench.lab.repository())?;
    let script = format!("\"$XTASK\" ibu {profile} --version {version} --out '{}' {options}", out.display());
    sources.shell(&script).log(bench.dir().join("build.log")).run()?;
    Ok(out.join("latest.ibu").canonicalize()?)
}

/// Runs an install; prints how it ended, and how much memory the process that writes the slot had at most, looked at
/// once a second.
fn watched(vm: &Vm<'_>, install: &str, input: &[u8]) -> Result<Done> {
    let script = format!(
        "exec 3<&0; {install} <&3 & p=$!
        while kill -0 $p 2>/dev/null; do
            m=$(grep VmHWM /proc/$(systemctl show -P MainPID siris-upgrade.service)/status 2>/dev/null) && last=$m
            sleep 1
        done
        wait $p; s=$?; echo \"PEAK $last\"; exit $s"
    );
    let done = vm.guest.run_for(INSTALL, &script, input)?;
    let told = done.text.lines().filter(|line| line.starts_with("PEAK") || line.contains("holds"));
    println!("       {}", told.collect::<Vec<_>>().join("; "));
    Ok(done)
}

/// Writes a bundle into the other slot, from standard input.
fn install(vm: &Vm<'_>, bundle: &[u8]) -> Result<()> {
    let done = watched(vm, "sirisctl upgrade install -", bundle)?;
    ensure!(done.status == Some(0), "the install: {done}");
    Ok(())
}

/// The standard machine with a mirror, `tank`, and a newer version in slot B, which the next boot tries. Made once, and
/// kept; what is on its disks is all there, so that its power may be cut.
fn armed<'a>(bench: &Bench<'a>) -> Result<Vm<'a>> {
    snapshot::prepared(bench, &standard_spec(bench.lab)?, "armed", |vm| {
        let disk = "/dev/disk/by-id/virtio-data";
        vm.guest.ok(&format!("{NEW_POOL}new_pool tank mirror {disk}0 {disk}1"))?;
        install(vm, &fs::read(bundle(bench, NEWER, "")?)?)?;
        must_contain(&vm.guest.ok("sync; sirisctl upgrade status")?, "the next boot tries slot b", "the slots")
    })
}

/// The slot that is booted, and the version in it.
fn booted(vm: &Vm<'_>) -> Result<String> {
    let slots = vm.guest.ok("sirisctl upgrade status")?;
    let row = slots.lines().find(|line| line.contains("booted")).context("no slot is booted")?;
    let words: Vec<&str> = row.split_whitespace().collect();
    Ok(words[..4.min(words.len())].join(" "))
}

/// Runs a command after which the machine starts anew, sooner or later.
fn restart(vm: &mut Vm<'_>, command: &str) -> Result<()> {
    vm.serial.forget();
    // The connection breaks before the status comes back, or nothing comes any more.
    let _ = vm.guest.run_for(Duration::from_secs(20), command, b"");
    vm.guest.disconnect();
    Ok(())
}
