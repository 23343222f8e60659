//! A pool that shares the OS disk: the old system beside it goes, the pool's partition stays to the bit.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{INSTALL, answers, escrow_is_on, first_boot, spec, started};
use crate::case::Case;
use crate::disk;
use crate::lab::Bench;
use crate::machine::{Bus, Carrier, Firmware, Spec};
use crate::suites::{NEW_POOL, PARTITION, must_contain};
use crate::vm::Machine;

/// The address of the node, which the new system takes over: the one that QEMU leads SSH to.
const ADDRESS: &str = "10.0.2.15";
/// The OS disk, in MiB, and where the pool's partition begins.
const SIZE: u32 = 20 * 1024;
const POOL_AT: u64 = 19 << 30;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let name = "a node whose pool shares the OS disk is re-imaged, its pool's partition and its network kept";
    vec![Case::full(super::GROUP, name, shared_disk)]
}

/// Bytes of a disk from the first one of the pool's partition on, but for the end, where the second table lies.
fn digest(bench: &Bench<'_>, disk: &Path) -> Result<String> {
    let range: Range<u64> = POOL_AT..(u64::from(SIZE) << 20) - (1 << 20);
    disk::digest_range(bench.lab, disk, range)
}

fn shared_disk(bench: &Bench<'_>) -> Result<()> {
    let node = Spec::bare(Firmware::Bios, Bus::Sata)
        .with("ssh.authorized_keys.root", &bench.lab.public_key()?)
        .with_data_disks(&[SIZE]);
    let mut vm = Machine::new(bench, node)?.start()?;
    vm.wait_healthy()?;
    // The old system is in use, and its journal not empty, when the power goes.
    let script = format!(
        "set -e\n{NEW_POOL}{PARTITION}d=/dev/disk/by-id/virtio-data0\n\
         partition $d -n 1:2048:+1M -t 1:ef02 -n 2:0:+4G -n 3:{}:-2M -t 3:bf01 -c 3:pool\n\
         mkfs.ext4 -q $d-part2\nmkdir /run/old\nmount $d-part2 /run/old\nmkdir -p /run/old/etc/network\n\
         echo 'PRETTY_NAME=\"Old Linux 16.04\"' > /run/old/etc/os-release\necho node7 > /run/old/etc/hostname\n\
         nic=$(ls -d /sys/class/net/*/device | cut -d/ -f5)\n\
         printf 'auto lo\\niface lo inet loopback\\nauto %s\\niface %s inet static\\n address {ADDRESS}\\n netmask 255.255.255.0\\n\
          gateway 10.0.2.2\\n dns-nameservers 10.0.2.3\\n' $nic $nic > /run/old/etc/network/interfaces\nsync\n\
         new_pool shared $d-part3\nzfs create shared/data\n\
         head -c 50000000 /dev/urandom > /srv/pools/shared/shared/data/file\nzfs snapshot shared/data@1568402268\n\
         zpool sync shared\nsha256sum < /srv/pools/shared/shared/data/file\n\
         dd if=/dev/zero of=/run/old/big bs=1M count=8 status=none\nsync -d /run/old/big\n",
        POOL_AT / 512
    );
    let made = vm.guest.run_for(Duration::from_secs(240), "bash -s", script.as_bytes())?;
    ensure!(made.status == Some(0), "the node: {made}");
    let sum = made.text.trim().to_owned();
    let hostid = vm.guest.ok("hostid")?;
    vm.guest.eventually(Duration::from_secs(240), &escrow_is_on(&["shared"]))?;
    let node = vm.cut_power()?;

    let more = "[target]\ndisk = \"serial:os\"\nkeep-partitions = [\"label:pool\"]\n\
                [[pools]]\nname = \"shared\"\n[network]\nmode = \"carry-over\"\n";
    let mut spec = spec(bench, Firmware::Bios, Bus::Virtio, Carrier::UsbCd, &answers(bench, more)?)?;
    spec.data_disks_mib.clear();
    spec.disk_gib = SIZE / 1024;
    let machine = Machine::blank(bench, spec)?;
    fs::rename(node.disk("data0"), machine.disk("os"))?;
    let before = digest(bench, &machine.disk("os"))?;
    let mut vm = started(machine)?;
    vm.serial.wait("proven:", INSTALL).context("install")?;
    let mut machine = vm.switched_off(Duration::from_secs(180))?;
    ensure!(digest(bench, &machine.disk("os"))? == before, "the pool's partition is not what it was before");

    machine.spec_mut().medium = None;
    machine.spec_mut().credentials.clear();
    let vm = first_boot(machine)?;
    ensure!(vm.guest.ok("hostid")? == hostid, "the host id was not carried over");
    ensure!(vm.guest.ok("zpool list -Ho name,health")? == "shared\tONLINE", "the pool was not imported");
    let found = vm.guest.ok("[ \"$(zfs get -Ho value mounted shared/data)\" = yes ] || zfs mount shared/data; \
         sha256sum < \"$(zfs get -Hpo value mountpoint shared/data)/file\"")?;
    ensure!(found == sum, "the pool came back with other data");
    // What a router advertises is taken by the old system too.
    let addresses = vm.guest.ok("ip -o -4 address")?;
    must_contain(&addresses, &format!("{ADDRESS}/24"), "the new system's addresses")?;
    ensure!(!addresses.contains("dynamic"), "the new system asked for an address: {addresses}");
    must_contain(&vm.guest.ok("resolvectl dns")?, "10.0.2.3", "the new system's name servers")
}
