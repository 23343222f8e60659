//! What may not be installed is refused before anything is written, and what is asked for by its path is installed.

use std::fs;

use anyhow::{Result, ensure};

use super::super::{must_contain, standard, standard_spec};
use super::{GROUP, INSTALL, NEWER, bundle, bundle_of};
use crate::case::Case;
use crate::lab::Bench;
use crate::slots;
use crate::vm::{Machine, Vm};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::full(
            GROUP,
            "a bundle of another product, and one that is not newer, are refused before a write",
            refused,
        ),
        Case::full(
            GROUP,
            "a bundle on another disk is installed by its path, an older one where that is allowed",
            by_path,
        ),
    ]
}

/// A bundle of the very version that runs.
fn same(bench: &Bench<'_>) -> Result<Vec<u8>> {
    Ok(fs::read(bundle(bench, &slots::manifest(bench.lab)?.version.to_string(), "")?)?)
}

/// Digests of the slot that is not booted: its boot partition, and the first and the last MiB of its root.
fn other_slot(vm: &Vm<'_>) -> Result<String> {
    vm.guest.ok("echo 1 > /proc/sys/vm/drop_caches; cd /dev/disk/by-partlabel && sha256sum < siris-boot-b && \
         head -c 1M siris-b | sha256sum && tail -c 1M siris-b | sha256sum")
}

fn refused(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    let before = other_slot(&vm)?;
    let alto = fs::read(bundle_of(bench, "alto", NEWER, "")?)?;
    for (bytes, code) in [(alto, "wrong-product"), (same(bench)?, "downgrade")] {
        let about = vm.guest.run_for(INSTALL, "sirisctl upgrade inspect -", &bytes)?;
        must_contain(&about.text, "not for this box", "what the bundle is")?;
        let done = vm.guest.run_for(INSTALL, "sirisctl upgrade install -", &bytes)?;
        ensure!(done.status.is_some_and(|status| status != 0) && done.text.contains(code), "{code}: {done}");
    }
    // Whatever it is: a system that finds no room to work in would leave itself again.
    vm.guest.ok("fallocate -l $(($(df --output=avail -B1 /state | tail -1) * 98 / 100)) /var/lib/siris/fill")?;
    let newer = fs::read(bundle(bench, NEWER, "")?)?;
    let done = vm.guest.run_for(INSTALL, "sirisctl upgrade install -", &newer)?;
    ensure!(done.status.is_some_and(|status| status != 0) && done.text.contains("state-low"), "a full /state: {done}");
    vm.guest.ok("rm /var/lib/siris/fill")?;
    must_contain(&vm.guest.ok("sirisctl upgrade status")?, "the next boot tries slot a", "the slots")?;
    ensure!(other_slot(&vm)? == before, "a refused bundle was written");
    Ok(())
}

fn by_path(bench: &Bench<'_>) -> Result<()> {
    let mut spec = standard_spec(bench.lab)?;
    spec.data_disks_mib = Vec::from([1024]);
    let mut vm = Machine::new(bench, spec)?.start()?;
    vm.wait_healthy()?;
    vm.guest.ok(
        "mkfs.ext4 -q /dev/disk/by-id/virtio-data0; mkdir /run/stick; mount /dev/disk/by-id/virtio-data0 /run/stick",
    )?;
    let put = vm.guest.run_for(INSTALL, "cat > /run/stick/siris.ibu && sync /run/stick/siris.ibu", &same(bench)?)?;
    ensure!(put.status == Some(0), "the bundle on the other disk: {put}");
    let call = |method: &str, options: &str| {
        format!(
            "busctl call org.siris.Agent1 /org/siris/Agent1/upgrade org.siris.Agent1.Upgrade {method} 'sa{{sv}}' \
             /run/stick/siris.ibu {options}"
        )
    };
    let about = vm.guest.ok(&call("InspectBundle", "0"))?;
    must_contain(&about, "downgrade", "what the bundle is")?;
    let ended = "busctl get-property org.siris.Agent1 /org/siris/Agent1/upgrade org.siris.Agent1.Upgrade \
                 Operation LastError | tee /dev/stderr | grep -q idle";
    vm.guest.run(&call("InstallBundle", "0"))?;
    let said = vm.guest.eventually(INSTALL, ended)?;
    must_contain(&said, "downgrade", "the end of an install that is not allowed")?;
    vm.guest.ok(&call("InstallBundle", "1 allow-downgrade b true"))?;
    vm.guest.eventually(INSTALL, ended)?;
    must_contain(&vm.guest.ok("sirisctl upgrade status")?, "the next boot tries slot b", "the slots")
}
