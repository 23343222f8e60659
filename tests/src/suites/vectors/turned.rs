//! The two ends change places, and one takes over from a machine that is gone.

use anyhow::{Result, ensure};

use super::super::{must_contain, standard};
use super::{DISKS, GROUP, SYNC, must_be_equal};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, Two, source, target};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(GROUP, "both ends change places and back, and one takes over when the other is gone", turned)]
}

/// Writes a file where a dataset is mounted, for all to see.
pub(super) fn write(vm: &Vm<'_>, dataset: &str, file: &str) -> Result<()> {
    vm.guest.ok(&format!(
        "dir=$(zfs get -Ho value mountpoint {dataset}) && mountpoint -q $dir && head -c 2000000 /dev/urandom > $dir/{file}"
    ))?;
    Ok(())
}

fn point(vm: &Vm<'_>) -> Result<String> {
    vm.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))
}

fn synced(two: &Two<'_>) -> Result<()> {
    let done = two.office.guest.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    ensure!(done.status == Some(0), "a sync: {done}");
    must_be_equal(two)
}

fn turned(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    write(office, &source(), "first")?;
    point(office)?;
    office.guest.ok(&format!("sirisctl vector add {ASSET} vault"))?;
    synced(&two)?;
    // The agent there has seen it by the time that it is asked.
    let listed = format!("sirisctl dataset list | grep -q {ASSET}");
    vault.guest.eventually(SYNC, &listed)?;
    let refused = vault.guest.refused(&format!("sirisctl dataset snapshot {ASSET}"))?;
    must_contain(&refused, "dataset-is-replica", "a point of a replica")?;

    // With a key that may only have streams received nothing changes places, and nothing has changed.
    let refused = office.guest.refused("sirisctl vector turn 1")?;
    must_contain(&refused, "peer-not-allowed", "a turn that the other box does not allow")?;
    write(office, &source(), "second")?;
    let key = office.guest.ok("sirisctl machine key vault")?;
    let device = office.guest.ok("cat /var/lib/siris/device-id")?;
    vault.guest.ok(&format!(
        "! sirisctl machine allow office --device {device} --key '{key}' --prefix vault/home/agents --receive --send && \
         sirisctl machine allow office --device {device} --key '{key}' --prefix vault/home/agents --receive --send --replace"
    ))?;
    let refused = vault.guest.refused(&format!("sirisctl dataset snapshot {ASSET}"))?;
    must_contain(&refused, "dataset-is-replica", "a point of a replica whose source may also fetch from it")?;

    // What is being written is not cut off: nothing changes places.
    let dir = office.guest.ok(&format!("zfs get -Ho value mountpoint {}", source()))?;
    office.guest.ok(&format!("systemd-run --quiet --unit writer sh -c 'exec 3>>{dir}/open; sleep 3600'"))?;
    office.guest.eventually(SYNC, &format!("[ -e {dir}/open ]"))?;
    let refused = office.guest.run_for(SYNC, "sirisctl vector turn 1", b"")?;
    ensure!(refused.status == Some(1), "a turn while something is written: {refused}");
    must_contain(&refused.text, "zfs-busy", "a turn while something is written")?;
    office.guest.ok(&format!("systemctl stop writer && touch {dir}/more && rm {dir}/more"))?;

    // What was written and is in no point yet goes along.
    write(office, &source(), "late")?;
    let said = office.guest.run_for(SYNC, "sirisctl vector turn 1", b"")?;
    ensure!(said.status == Some(0), "a turn: {said}");
    must_contain(&said.text, &format!("from vault:{} to {} now", target(), source()), "what became of it")?;
    office.guest.refused(&format!("touch $(zfs get -Ho value mountpoint {})/more", source()))?;
    let refused = office.guest.refused(&format!("sirisctl dataset snapshot {ASSET}"))?;
    must_contain(&refused, "dataset-is-replica", "a point of what was the primary")?;
    must_contain(&office.guest.ok("sirisctl dataset list")?, "replica", "the role here")?;
    vault.guest.eventually(SYNC, "sirisctl dataset list | grep -q primary")?;
    write(vault, &target(), "on-vault")?;
    point(vault)?;
    synced(&two)?;
    must_contain(&office.guest.ok("sirisctl vector show 1")?, "behind      not at all", "a vector that fetches")?;

    // And back.
    let said = office.guest.run_for(SYNC, "sirisctl vector turn 1", b"")?;
    ensure!(said.status == Some(0), "a turn back: {said}");
    write(office, &source(), "on-office")?;
    point(office)?;
    synced(&two)?;
    let files = vault.guest.ok(&format!("ls $(zfs get -Ho value mountpoint {})", target()))?;
    let refused = vault.guest.refused(&format!("sirisctl dataset snapshot {ASSET}"))?;
    must_contain(&refused, "dataset-is-replica", "a point of what stepped down")?;
    for file in ["first", "second", "late", "on-vault", "on-office"] {
        must_contain(&files, file, "what is there in the end")?;
    }

    // The office burns down.
    vault.guest.ok(&format!("sirisctl dataset take-over {ASSET} && sirisctl dataset list | grep -q primary"))?;
    write(vault, &target(), "after")?;
    point(vault)?;
    // It did not: it is told, and changes nothing.
    write(office, &source(), "meanwhile")?;
    point(office)?;
    let refused = office.guest.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    must_contain(&refused.text, "target-is-primary", "a sync into what somebody took over")?;
    let stranger =
        vault.guest.refused(&format!("runuser -u nobody -- sirisctl dataset take-over {ASSET} </dev/null"))?;
    must_contain(&stranger, "not-authorized", "a take-over by a stranger")
}
