//! Installing from the medium: the system comes onto the one disk it was told, and no other disk is touched.
//!
//! That a pool's disks are as they were is found out from outside: the SHA-256 of all of each, before and after.

mod bmc;
mod kept;
mod matrix;
mod power;
mod refusals;
mod whole;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{NEW_POOL, must_contain, standard};
use crate::case::Case;
use crate::disk;
use crate::lab::Bench;
use crate::machine::{Bus, Carrier, Firmware, Spec};
use crate::sources::Sources;
use crate::vm::{BOOT, Machine, Vm};

const GROUP: &str = "install";
/// How long an install may take before it counts as hung.
const INSTALL: Duration = Duration::from_secs(900);
/// Bytes a second of a slow medium.
const SLOW: u32 = 256 * 1024;
/// The data disks of the machines here.
const DISKS: [u32; 4] = [256; 4];

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::quick(
            GROUP,
            "a storage node's OS disk is replaced from a USB CD, its pool untouched and then imported",
            |bench| replace(bench, Firmware::Bios, Bus::Sata, Carrier::UsbCd),
        ),
        Case::quick(GROUP, "a refused install writes nothing at all", refused),
        Case::full(GROUP, "a medium with answers installs once, and boots the disk from then on", once),
        Case::full(GROUP, "a slow medium is read once, and asked for again when it was pulled", slow_and_pulled),
        Case::full(GROUP, "inspecting shows the disks and writes nothing", looked_at),
        Case::full(GROUP, "a person at the serial console is asked, and installs", by_hand),
    ];
    for (firmware, bus, carrier, name) in [
        (Firmware::Uefi, Bus::Nvme, Carrier::SataCd, "the same under UEFI, from a SATA CD onto NVMe"),
        (Firmware::Uefi, Bus::Virtio, Carrier::UsbDisk, "the same under UEFI, from a USB stick onto virtio"),
        (Firmware::Bios, Bus::Virtio, Carrier::UsbDisk, "the same under BIOS, from a USB stick onto virtio"),
    ] {
        cases.push(Case::full(GROUP, name, move |bench| replace(bench, firmware, bus, carrier)));
    }
    cases.extend(bmc::cases());
    cases.extend(matrix::cases());
    cases.extend(kept::cases());
    cases.extend(refusals::cases());
    cases.extend(power::cases());
    cases.extend(whole::cases());
    cases.into_iter().map(Case::with_iso).collect()
}

/// What a new system says when its pools know who it is; it reboots then.
const AGAIN: &str = "as its pools know it";

/// The new system's first boot, and the second one, after it has found itself on its pools.
fn first_boot<'a>(machine: Machine<'a>) -> Result<Vm<'a>> {
    let mut vm = machine.start()?;
    vm.serial.wait(AGAIN, BOOT).context("the box finds itself on its pools")?;
    vm.serial.forget();
    vm.wait_healthy()?;
    Ok(vm)
}

/// A shell test that succeeds once the box's identity is kept on these pools.
fn escrow_is_on(pools: &[&str]) -> String {
    let ask = |pool: &&str| {
        format!(
            "[ \"$(zfs get -Ho value org.siris:current {pool}/siris-escrow)\" = \"$(cat /var/lib/siris/device-id)\" ]"
        )
    };
    let why = "systemctl status --no-pager siris-escrow.path siris-escrow.service; cat /var/lib/siris/pools.toml";
    format!("{} || {{ {why}; false; }}", pools.iter().map(ask).collect::<Vec<_>>().join(" && "))
}

/// A storage node, off.
struct Node<'a> {
    machine: Machine<'a>,
    /// The digest of the file in its pool `tank`.
    data: String,
    device_id: String,
}

/// A machine off, with a pool on its four data disks that was in use when the power went, and the digest of its file.
fn storage_node<'a>(bench: &Bench<'a>) -> Result<Node<'a>> {
    let vm = standard(bench)?;
    let by_id = "/dev/disk/by-id/virtio-data";
    vm.guest
        .ok(&format!("{NEW_POOL}new_pool tank raidz2 {by_id}0 {by_id}1 {by_id}2 {by_id}3 && zfs create tank/data"))?;
    let mount = vm.guest.ok("zfs get -Hpo value mountpoint tank/data")?;
    let digest = vm.guest.ok(&format!(
        "head -c 20000000 /dev/urandom > {mount}/file && zfs snapshot tank/data@1568402268 && zpool sync tank && sha256sum < {mount}/file"
    ))?;
    vm.guest
        .eventually(Duration::from_secs(240), &escrow_is_on(&["tank"]))
        .context("the box's identity on its pool")?;
    let device_id = vm.guest.ok("cat /var/lib/siris/device-id")?;
    Ok(Node { data: digest, device_id, machine: vm.cut_power()? })
}

/// The node with its OS disk replaced by a blank one, and the medium in it.
fn with_medium<'a>(bench: &Bench<'a>, node: &Machine<'a>, spec: Spec) -> Result<Machine<'a>> {
    let machine = Machine::blank(bench, spec)?;
    for number in 0..DISKS.len() {
        let name = format!("data{number}");
        fs::rename(node.disk(&name), machine.disk(&name))?;
    }
    Ok(machine)
}

/// The digest of each of its disks but the first.
fn digests(machine: &Machine<'_>) -> Result<Vec<String>> {
    (0..machine.spec().data_disks_mib.len())
        .map(|number| disk::digest(machine.lab(), &machine.disk(&format!("data{number}"))))
        .collect()
}

fn answers(bench: &Bench<'_>, more: &str) -> Result<String> {
    Ok(format!(
        "schema = 1\nid = \"test-1\"\nmode = \"os-only\"\nend = \"poweroff\"\n\
         [identity]\nrole = \"cloud\"\nhostname = \"node7\"\n[access]\nssh-keys = [\"{}\"]\n{more}",
        bench.lab.public_key()?
    ))
}

fn spec(bench: &Bench<'_>, firmware: Firmware, bus: Bus, carrier: Carrier, answers: &str) -> Result<Spec> {
    let mut spec = Spec::bare(firmware, bus)
        .with("ssh.authorized_keys.root", &bench.lab.public_key()?)
        .with("siris.install", answers)
        .with_data_disks(&DISKS)
        .with_medium(carrier, bench.lab.iso()?);
    spec.memory_mib = 4096;
    Ok(spec)
}

/// Chooses the default of the medium's menu at once.
fn start(vm: &mut Vm<'_>) -> Result<()> {
    vm.serial.wait("executed automatically", Duration::from_secs(120)).context("the medium's menu")?;
    vm.serial.type_text("\r")
}

/// The machine, switched on, with that chosen.
fn started<'a>(machine: Machine<'a>) -> Result<Vm<'a>> {
    let mut vm = machine.start()?;
    start(&mut vm)?;
    Ok(vm)
}

/// Waits until a live system has shown its disks, and lets us in.
fn look(vm: &mut Vm<'_>) -> Result<()> {
    vm.serial.wait("Nothing was written", INSTALL).context("the table of disks")?;
    vm.guest.connect(Duration::from_secs(120)).context("the live system's SSH")
}

fn replace(bench: &Bench<'_>, firmware: Firmware, bus: Bus, carrier: Carrier) -> Result<()> {
    let Node { machine: node, data, device_id } = storage_node(bench)?;
    let target = "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"tank\"\nmembers = 4\n";
    let machine = with_medium(bench, &node, spec(bench, firmware, bus, carrier, &answers(bench, target)?)?)?;
    let before = digests(&machine)?;
    let mut vm = started(machine)?;
    vm.serial.wait("proven:", INSTALL).context("install")?;
    let mut machine = vm.switched_off(Duration::from_secs(180))?;
    ensure!(digests(&machine)? == before, "a disk of the pool is not what it was before the install");

    machine.spec_mut().medium = None;
    machine.spec_mut().credentials.clear();
    let vm = first_boot(machine)?;
    let status = vm.guest.ok("sirisctl status")?;
    must_contain(&status, "node7", "the status")?;
    must_contain(&status, "cloud", "the status")?;
    ensure!(vm.guest.ok("cat /var/lib/siris/device-id")? == device_id, "the box is not who it was");
    ensure!(vm.guest.ok("zpool list -Ho name,health")? == "tank\tONLINE", "the pool was not imported at first boot");
    let found = vm.guest.ok("[ \"$(zfs get -Ho value mounted tank/data)\" = yes ] || zfs mount tank/data; \
         sha256sum < \"$(zfs get -Hpo value mountpoint tank/data)/file\"")?;
    ensure!(found == data, "the pool came back with other data");
    must_contain(&vm.guest.ok("zfs list -t snapshot -Ho name")?, "tank/data@1568402268", "the snapshots")?;
    let receipt = vm.guest.ok("sirisctl receipt > /tmp/receipt && siris-installer verify-receipt /tmp/receipt")?;
    must_contain(&receipt, "the proof holds", "the receipt")
}

/// A medium with answers on it, as a release engineer makes it.
fn medium_with(bench: &Bench<'_>, answers: &str) -> Result<std::path::PathBuf> {
    let (file, out) = (bench.dir().join("install.toml"), bench.dir().join("medium"));
    fs::write(&file, answers)?;
    let sources = Sources::here(bench.lab.repository())?;
    let script = format!("\"$XTASK\" iso siris --answers '{}' --out '{}'", file.display(), out.display());
    sources.shell(&script).log(bench.dir().join("build.log")).run()?;
    Ok(out.join("latest.iso").canonicalize()?)
}

/// A BMC that keeps the CD first: the machine starts from it again and again.
fn once(bench: &Bench<'_>) -> Result<()> {
    let answers = answers(bench, "[target]\ndisk = \"auto\"\n")?.replace("poweroff", "reboot");
    let mut spec = Spec::bare(Firmware::Bios, Bus::Sata).with_medium(Carrier::UsbCd, &medium_with(bench, &answers)?);
    spec.memory_mib = 4096;
    let mut vm = Machine::blank(bench, spec)?.start()?;
    vm.serial.wait("proven:", INSTALL).context("install")?;
    vm.serial.forget();
    vm.serial.wait("this install is done", Duration::from_secs(180)).context("the second start from the medium")?;
    vm.wait_healthy()?;
    must_contain(&vm.guest.ok("sirisctl status")?, "node7", "the status")
}

/// A BMC's virtual CD: slow, pulled in the middle of the read, and attached again.
fn slow_and_pulled(bench: &Bench<'_>) -> Result<()> {
    let iso = bench.lab.iso()?;
    let mut spec = Spec::bare(Firmware::Bios, Bus::Sata).with_medium(Carrier::UsbCd, iso);
    spec.memory_mib = 4096;
    spec.medium.iter_mut().for_each(|medium| medium.rate = Some(SLOW));
    let mut vm = started(Machine::blank(bench, spec)?)?;
    // The boot loader reads kernel and initrd at that rate too.
    vm.serial.wait("s after the kernel: loading", Duration::from_secs(400))?;
    let said = vm.serial.text();
    let first = said.lines().find(|line| line.contains("s after the kernel")).unwrap_or_default();
    println!("       {}", first.trim());
    vm.serial.wait("reading [", Duration::from_secs(60))?;
    vm.serial.wait(" 1 %", Duration::from_secs(120))?;
    vm.qmp.execute("device_del", json!({ "id": "stick" }))?;
    vm.serial.wait("attach the medium again", Duration::from_secs(120)).context("the medium was pulled")?;

    let file = json!({ "driver": "file", "filename": iso, "read-only": true });
    let node = json!({ "driver": "raw", "node-name": "again", "read-only": true, "file": file });
    vm.qmp.execute("blockdev-add", node)?;
    // A USB CD drive as the machine had it before: made of a node, it takes two devices.
    let bridge = json!({ "driver": "usb-bot", "id": "bridge", "bus": "usb.0" });
    vm.qmp.execute("device_add", bridge)?;
    let drive = json!({ "driver": "scsi-cd", "id": "disc", "bus": "bridge.0", "drive": "again" });
    vm.qmp.execute("device_add", drive)?;
    vm.qmp
        .execute("qom-set", json!({ "path": "/machine/peripheral/bridge", "property": "attached", "value": true }))?;
    vm.serial.wait("everything is in memory", Duration::from_secs(300)).context("the medium was attached again")?;

    let stats = vm.qmp.execute("query-blockstats", json!({}))?;
    let disc = stats.as_array().into_iter().flatten().find(|entry| entry["qdev"].to_string().contains("disc"));
    let read = disc.and_then(|entry| entry["stats"]["rd_bytes"].as_u64()).context("QEMU counts no reads")?;
    let bundle = fs::metadata(iso)?.len();
    println!("       read {read} bytes of the medium's {bundle} after it was attached again");
    ensure!(read as f64 <= bundle as f64 * 1.02, "{read} bytes were read of {bundle}");
    Ok(())
}

/// A technician at the serial console installs without answers: chooses, sees the plan, types the target's serial.
fn by_hand(bench: &Bench<'_>) -> Result<()> {
    let mut spec = Spec::bare(Firmware::Bios, Bus::Virtio).with_medium(Carrier::UsbCd, bench.lab.iso()?);
    spec.memory_mib = 4096;
    let mut vm = Machine::blank(bench, spec)?.start()?;
    vm.serial.wait("executed automatically", Duration::from_secs(120)).context("the medium's menu")?;
    // One down, from Inspect to Install.
    vm.serial.type_text("\u{e}\r")?;
    let key = bench.lab.public_key()?;
    let talk = [
        ("Disk for the system", "vda"),
        ("Role of the box", ""),
        ("Host name", "node9"),
        ("SSH", key.as_str()),
        ("SSH", ""),
        ("Network", ""),
    ];
    for (question, answer) in talk {
        vm.serial.wait(question, INSTALL).with_context(|| format!("asked for {question}"))?;
        vm.serial.type_text(&format!("{answer}\r"))?;
    }
    // A plan that is longer than a screen comes in pages.
    let question = ["serial number:", "-- more"];
    while vm.serial.wait_any(&question, Duration::from_secs(120)).context("asked to confirm")? == 1 {
        vm.serial.type_text("\r")?;
    }
    vm.serial.type_text("os\r")?;
    vm.serial.wait("proven:", INSTALL).context("install")?;
    let mut machine = vm.cut_power()?;
    machine.spec_mut().medium = None;
    let mut vm = machine.start()?;
    vm.wait_healthy()?;
    must_contain(&vm.guest.ok("sirisctl status")?, "node9", "the status")
}

/// A look at the disks.
fn looked_at(bench: &Bench<'_>) -> Result<()> {
    let mut spec = Spec::bare(Firmware::Uefi, Bus::Virtio).with_medium(Carrier::UsbCd, bench.lab.iso()?);
    spec.memory_mib = 4096;
    let mut vm = started(Machine::blank(bench, spec)?)?;
    vm.serial.wait("serial", INSTALL).context("the table of disks")?;
    vm.serial.wait("Nothing was written", Duration::from_secs(60))?;
    let machine = vm.cut_power()?;
    let blank = disk::digest(bench.lab, &machine.disk("os"))?;
    let zeros = bench.dir().join("zeros.qcow2");
    disk::blank(bench.lab, &zeros, machine.spec().disk_gib * 1024)?;
    ensure!(blank == disk::digest(bench.lab, &zeros)?, "looking at the disks has written to one");
    Ok(())
}

fn refused(bench: &Bench<'_>) -> Result<()> {
    let node = storage_node(bench)?.machine;
    let target = "[target]\ndisk = \"serial:data0\"\n";
    let spec = spec(bench, Firmware::Bios, Bus::Sata, Carrier::UsbCd, &answers(bench, target)?)?;
    let machine = with_medium(bench, &node, spec)?;
    let (before, blank) = (digests(&machine)?, disk::digest(bench.lab, &machine.disk("os"))?);
    let mut vm = started(machine)?;
    vm.serial.wait("target-in-pool", INSTALL).context("the refusal")?;
    vm.serial.wait("ended with status 3", Duration::from_secs(60))?;
    let machine = vm.cut_power()?;
    ensure!(digests(&machine)? == before, "a disk of the pool was written to");
    ensure!(disk::digest(bench.lab, &machine.disk("os"))? == blank, "the OS disk was written to");
    Ok(())
}
