//! From one version to the next and back, with the pool in use.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::{NEW_POOL, must_contain, standard, standard_spec};
use super::{GROUP, INSTALL, NEWER, booted, bundle, install, restart};
use crate::case::Case;
use crate::lab::Bench;
use crate::machine::{Firmware, Spec};
use crate::vm::{Machine, Vm};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::from([Case::full(
        GROUP,
        "a bundle streamed to the box is tried, kept, and left again, its pool there throughout",
        there_and_back,
    )]);
    for (firmware, name) in [(Firmware::Bios, "BIOS"), (Firmware::Uefi, "UEFI")] {
        let name =
            format!("three upgrades one after the other under {name}, while a pool is written to, lose none of it");
        cases.push(Case::full(GROUP, name, move |bench| rounds(bench, firmware)));
    }
    cases
}

/// Goes to where the data are.
const THERE: &str = "cd \"$(zfs get -Hpo value mountpoint tank/data)\"";
/// Writes there until it is stopped: a line of `sums` for each file that is there for good.
const WRITER: &str = "n=$(wc -l < sums); while :; do n=$((n+1)); head -c 50000 /dev/urandom > $n && sync $n && \
    sha256sum $n > line && cat line >> sums && sync sums; sleep 1; done";
/// Checks all of it, and prints how much there is.
const CHECK: &str = "head -n $(wc -l < sums) sums | sha256sum --quiet --check && wc -l < sums";

fn rounds(bench: &Bench<'_>, firmware: Firmware) -> Result<()> {
    let spec = Spec { firmware, ..standard_spec(bench.lab)? };
    let mut vm = Machine::new(bench, spec)?.start()?;
    vm.wait_healthy()?;
    let disk = "/dev/disk/by-id/virtio-data";
    vm.guest.ok(&format!(
        "{NEW_POOL}new_pool tank mirror {disk}0 {disk}1 && zfs create tank/data && {THERE} && : > sums"
    ))?;
    for (version, slot) in [(NEWER, "b"), ("0.9.1", "a"), ("0.9.2", "b")] {
        vm.guest
            .ok(&format!("systemd-run --quiet --expand-environment=no --unit writer sh -c '{THERE} && {WRITER}'"))?;
        let file = bundle(bench, version, "")?;
        install(&vm, &fs::read(&file)?)?;
        fs::remove_file(&file)?;
        let before: u64 = vm.guest.ok(&format!("{THERE} && {CHECK}"))?.parse()?;
        restart(&mut vm, "systemctl reboot")?;
        vm.wait_healthy()?;
        let kept = format!("sirisctl upgrade status | grep -q '{slot} *good *3 *{version} *booted'");
        vm.guest.eventually(Duration::from_secs(120), &kept).with_context(|| format!("{version} is kept"))?;
        ensure!(vm.guest.ok("zpool list -Ho name,health")? == "tank\tONLINE", "the pool is not there");
        vm.guest.ok("[ \"$(zfs get -Ho value mounted tank/data)\" = yes ] || zfs mount tank/data")?;
        let after: u64 = vm.guest.ok(&format!("{THERE} && {CHECK}"))?.parse()?;
        ensure!(before > 0 && after >= before, "{before} files were safe, and {after} are there in {version}");
        println!("       {version} in slot {slot}: {after} files, {before} of them before the reboot");
    }
    Ok(())
}

fn there_and_back(bench: &Bench<'_>) -> Result<()> {
    let bytes = fs::read(bundle(bench, NEWER, "")?)?;
    let mut vm = standard(bench)?;
    let disk = "/dev/disk/by-id/virtio-data";
    let sum = vm.guest.ok(&format!(
        "{NEW_POOL}new_pool tank mirror {disk}0 {disk}1 && zfs create tank/data && \
         f=$(zfs get -Hpo value mountpoint tank/data)/file && head -c 20000000 /dev/urandom > $f && zpool sync tank && sha256sum < $f"
    ))?;
    ensure!(booted(&vm)?.starts_with("a good 3 "), "{}", booted(&vm)?);

    let half = vm.guest.run_for(INSTALL, "sirisctl upgrade install -", &bytes[..bytes.len() / 2])?;
    ensure!(half.status == Some(1) && half.text.contains("bundle-truncated"), "half a bundle: {half}");
    let slots = vm.guest.ok("sirisctl upgrade status")?;
    must_contain(&slots, "the next boot tries slot a", "the slots after half a bundle")?;

    let about = vm.guest.run_for(INSTALL, "sirisctl upgrade inspect -", &bytes)?;
    must_contain(&about.text, NEWER, "what the bundle is")?;
    must_contain(&about.text, "may be installed", "what the bundle is")?;
    install(&vm, &bytes)?;
    must_contain(&vm.guest.ok("sirisctl upgrade status")?, "the next boot tries slot b", "the slots")?;
    // The box waits for what must not be cut off.
    vm.guest.ok(
        "systemd-run --quiet --unit hold systemd-inhibit --what=shutdown --mode=block --why='a restore' sleep infinity",
    )?;
    vm.guest.eventually(Duration::from_secs(30), "systemd-inhibit --list | grep -q 'a restore'")?;
    vm.guest.ok("sirisctl upgrade reboot idle")?;
    vm.guest.eventually(
        Duration::from_secs(60),
        "journalctl -u siris-reboot-when-idle | grep -q 'waiting for .*a restore'",
    )?;
    restart(&mut vm, "systemctl stop hold")?;
    vm.wait_healthy()?;
    let kept = "sirisctl upgrade status | grep -q 'b *good *3 *0.9.0 *booted'";
    vm.guest.eventually(Duration::from_secs(120), kept).context("the new slot is kept")?;
    pool_is_there(&vm, &sum)?;

    must_contain(&vm.guest.ok("sirisctl upgrade rollback")?, "slot a", "the way back")?;
    vm.reboot()?;
    ensure!(booted(&vm)?.starts_with("a good 3 "), "{}", booted(&vm)?);
    pool_is_there(&vm, &sum)
}

fn pool_is_there(vm: &Vm<'_>, sum: &str) -> Result<()> {
    ensure!(vm.guest.ok("zpool list -Ho name,health")? == "tank\tONLINE", "the pool is not there");
    let found = vm.guest.ok("[ \"$(zfs get -Ho value mounted tank/data)\" = yes ] || zfs mount tank/data; \
         sha256sum < \"$(zfs get -Hpo value mountpoint tank/data)/file\"")?;
    ensure!(found == sum, "the pool came back with other data");
    Ok(())
}
