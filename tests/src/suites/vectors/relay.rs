//! A box between two that do not reach each other.

use anyhow::{Result, ensure};

use super::{DISKS, GROUP, SYNC, digest, marks};
use crate::case::Case;
use crate::lab::Bench;
use crate::suites::standard;
use crate::two::{ASSET, OTHER, Two, renew, source, target};

/// The suite's cases.
pub(super) fn cases() -> Vec<Case> {
    vec![Case::full(GROUP, "a box relays a dataset from one machine to another", relayed).alone()]
}

fn relayed(bench: &Bench<'_>) -> Result<()> {
    let two = Two::apart(standard(bench)?, standard(bench)?, DISKS)?;
    let between = standard(bench)?;
    renew(&between)?;
    let (office, relay) = (&two.office.guest, &between.guest);
    // It is let in by both: by one to fetch, by the other to bring.
    let device = relay.ok("cat /var/lib/siris/device-id")?;
    for (vm, name, port, prefix, right) in [
        (&two.office, "office", OTHER, "tank/home/agents", "--send"),
        (&two.vault, "vault", OTHER + 1, "vault/home/agents", "--receive"),
    ] {
        relay.forward(port, vm.guest.port())?;
        let key = relay.ok(&format!("sirisctl machine key {name}"))?;
        let allow = format!("sirisctl machine allow between --device {device} --key '{key}' --prefix {prefix} {right}");
        let allowed = vm.guest.ok(&allow)?;
        relay.ok(&format!("sirisctl machine add {name} 127.0.0.1:{port} --prefix {prefix} {allowed}"))?;
    }
    let image = format!("$(zfs get -Ho value mountpoint {})/sdb.img", source());
    office
        .ok(&format!("dd if=/dev/urandom of={image} bs=1M count=8 status=none && sirisctl dataset snapshot {ASSET}"))?;
    relay.ok(&format!("sirisctl vector add {ASSET} vault --from office"))?;
    let said = relay.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    ensure!(said.status == Some(0), "the first one: {said}");
    office.ok(&format!(
        "dd if=/dev/urandom of={image} bs=1M count=1 conv=notrunc status=none && sirisctl dataset snapshot {ASSET}"
    ))?;
    let behind = relay.ok("sirisctl vector show 1")?;
    ensure!(behind.contains("behind      1 point"), "what is shown: {behind}");
    let said = relay.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    ensure!(said.status == Some(0), "the second one: {said}");
    let (ours, theirs) = (digest(&two.office, &source())?, digest(&two.vault, &target())?);
    ensure!(ours == theirs, "the contents differ: {ours} and {theirs}");
    let proven = relay.run_for(SYNC, "sirisctl vector verify 1", b"")?;
    ensure!(proven.status == Some(0) && proven.text.contains("is the same on both"), "a proof: {proven}");
    relay.ok("sirisctl vector list | grep -q 'office:tank/home/agents.*vault:vault/home/agents'")?;
    // Nothing is left anywhere, and the machine is needed no more.
    relay.refused("sirisctl machine remove office")?;
    relay.ok("sirisctl vector remove 1 && sirisctl machine remove office")?;
    for (vm, dataset) in [(&two.office, source()), (&two.vault, target())] {
        let left = marks(vm, &dataset)?;
        ensure!(left == "-", "of {dataset} is still marked {left}");
    }
    Ok(())
}
