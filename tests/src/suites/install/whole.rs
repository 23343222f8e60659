//! A full install: a pool is made, two disks carry the system, and an old system boots no more.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use siris_ibu::ByteSize;
use siris_slots::SectorSize;
use siris_slots::device::Zeros;
use siris_slots::fat::{self, FatFile, FatSpec};

use super::{INSTALL, answers};
use crate::case::Case;
use crate::disk;
use crate::lab::Bench;
use crate::machine::{Bus, Carrier, Firmware, Sectors, Spec};
use crate::suites::must_contain;
use crate::vm::{BOOT, Machine};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let full =
        "a full install from a medium labelled SIRISCFG makes the pool and a mirrored pair, and ends an old system";
    let mut cases = vec![Case::full(super::GROUP, full, everything)];
    for (bus, sectors, name) in [
        (Bus::Scsi, Sectors::S512e, "installs under UEFI onto a 512e disk on virtio-scsi, and boots it"),
        (Bus::Scsi, Sectors::S4096, "installs under UEFI onto a 4Kn disk on virtio-scsi, and boots it"),
        (Bus::Nvme, Sectors::S4096, "installs under UEFI onto a 4Kn NVMe disk, and boots it"),
    ] {
        cases.push(Case::full(super::GROUP, name, move |bench| sector_sizes(bench, bus, sectors)));
    }
    cases
}

/// What is written on a stick labelled SIRISCFG.
fn config(bench: &Bench<'_>, answers: &str) -> Result<std::path::PathBuf> {
    let path = bench.dir().join("siriscfg.raw");
    let spec = FatSpec { size: ByteSize::mib(8), sector: SectorSize::S512, label: "SIRISCFG", volume_id: 7 };
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    file.set_len(spec.size.bytes())?;
    let mut content = answers.as_bytes();
    let mut files = [FatFile { path: "install.toml", content: &mut content }];
    fat::build(&mut file, &spec, &mut files, Zeros::Skip)?;
    Ok(path)
}

fn everything(bench: &Bench<'_>) -> Result<()> {
    let wanted = "[target]\ndisk = \"serial:os\"\nmirror = \"serial:data0\"\n[other-os]\ndefault = \"disable\"\n\
                  [pool]\nname = \"homePool\"\nlayout = \"raidz1\"\n\
                  disks = [\"serial:data1\", \"serial:data2\", \"serial:data3\"]\n";
    let answers = answers(bench, wanted)?.replace("os-only", "full").replace("poweroff", "reboot");
    let mut spec = Spec::bare(Firmware::Bios, Bus::Sata)
        .with_data_disks(&[16 * 1024, 256, 256, 256, 16 * 1024])
        .with_medium(Carrier::UsbCd, bench.lab.iso()?);
    spec.memory_mib = 4096;
    spec.config = Some(config(bench, &answers)?);
    let machine = Machine::blank(bench, spec)?;
    // An old system, which would boot.
    fs::remove_file(machine.disk("data4"))?;
    disk::overlay(bench.lab, bench.lab.image().path(), "raw", &machine.disk("data4"), Some(16))?;

    let mut vm = super::started(machine)?;
    vm.serial.wait("proven:", INSTALL).context("install")?;
    // The firmware still prefers the medium.
    vm.serial.forget();
    vm.serial.wait("installed from this medium", Duration::from_secs(180)).context("the second start")?;
    vm.wait_healthy()?;
    let pool = vm.guest.ok("zpool list -Ho name,health && zpool status homePool")?;
    must_contain(&pool, "homePool\tONLINE", "the pool")?;
    must_contain(&pool, "raidz1-0", "the pool")?;
    vm.guest.eventually(Duration::from_secs(240), &super::escrow_is_on(&["homePool"]))?;
    let device_id = vm.guest.ok("cat /var/lib/siris/device-id")?;
    let receipt = vm.guest.ok("sirisctl receipt > /tmp/receipt && siris-installer verify-receipt /tmp/receipt")?;
    must_contain(&receipt, "the proof holds", "the receipt")?;
    let booted = vm.guest.ok("root=$(tr ' ' '\\n' < /proc/cmdline | sed -n 's/^siris.root=//p' | tr A-Z a-z); \
         lsblk -ndo SERIAL /dev/$(lsblk -ndo PKNAME /dev/disk/by-partuuid/$root)")?;
    let machine = vm.power_off()?;

    // The other one of the pair, alone: it has never run, and knows nothing yet. The medium may have chosen either.
    let other = if booted == "data0" { "os" } else { "data0" };
    let mut spec = machine.spec().clone();
    (spec.medium, spec.config) = (None, None);
    spec.data_disks_mib = vec![16, 256, 256, 256];
    let alone = Machine::blank(bench, spec.clone())?;
    fs::rename(machine.disk(other), alone.disk("os"))?;
    for name in ["data1", "data2", "data3"] {
        fs::rename(machine.disk(name), alone.disk(name))?;
    }
    let vm = super::first_boot(alone).context("the other disk of the pair")?;
    ensure!(vm.guest.ok("cat /var/lib/siris/device-id")? == device_id, "the other disk of the pair is another box");
    must_contain(&vm.guest.ok("sirisctl status")?, "node7", "the status")?;
    must_contain(&vm.guest.ok("zpool list -Ho name,health")?, "homePool\tONLINE", "the pool")?;
    drop(vm.cut_power()?);

    // The old system, alone: firmware finds nothing on it.
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let mut spec = Spec::bare(firmware, Bus::Sata);
        spec.disk_gib = 16;
        let old = Machine::blank(bench, spec)?;
        fs::copy(machine.disk("data4"), old.disk("os"))?;
        let mut vm = old.start()?;
        let says = [
            "No bootable device",
            "Linux version",
            "SIRIS:",
            "login:",
            "Shell>",
            "BdsDxe: No bootable option",
            "UEFI Interactive",
        ];
        let said = vm.serial.wait_any(&says, BOOT / 4);
        ensure!(!matches!(said, Ok(1..=3)), "the old system still boots under {firmware:?}");
        drop(vm.cut_power()?);
    }
    Ok(())
}

fn sector_sizes(bench: &Bench<'_>, bus: Bus, sectors: Sectors) -> Result<()> {
    let answers = answers(bench, "[target]\ndisk = \"auto\"\n")?;
    let mut spec = Spec::bare(Firmware::Uefi, bus)
        .with("ssh.authorized_keys.root", &bench.lab.public_key()?)
        .with("siris.install", &answers)
        .with_medium(Carrier::UsbCd, bench.lab.iso()?);
    (spec.memory_mib, spec.sectors) = (4096, sectors);
    let mut vm = super::started(Machine::blank(bench, spec)?)?;
    vm.serial.wait("proven:", INSTALL).context("install")?;
    let mut machine = vm.switched_off(Duration::from_secs(180))?;
    machine.spec_mut().medium = None;
    let mut vm = machine.start()?;
    vm.wait_healthy()?;
    let size = vm.guest.ok("blockdev --getss $(readlink -f /dev/disk/by-partlabel/siris-state)")?;
    let wanted = if sectors == Sectors::S4096 { "4096" } else { "512" };
    ensure!(size == wanted, "the disk has sectors of {size} bytes");
    must_contain(&vm.guest.ok("sirisctl status")?, "node7", "the status")
}
