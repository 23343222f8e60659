//! The power goes at any write of an install.
//!
//! One install over an old system is recorded, write by write. Every state of the disk that a power cut could have left
//! is judged here: it is the old system, whole; or nothing that boots; or the new one, whole. A spread of them is then
//! given to machines, which install again and boot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use siris_host::cmd::{Cmd, Tool};
use siris_slots::table::{self, Table};

use super::{AGAIN, DISKS, INSTALL, answers, digests, look, spec, start, started, storage_node, with_medium};
use crate::case::Case;
use crate::disk::{self, Partitions};
use crate::lab::{Bench, Lab, remove_dir};
use crate::machine::{Bus, Carrier, Firmware, Spec};
use crate::snapshot;
use crate::vm::{BOOT, Machine, Vm};
use crate::writelog::{Cut, Follower, SECTOR, WriteLog};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = (0..PLACES)
        .map(|place| {
            let name =
                format!("after a power cut in an install, place {} of {PLACES}, the next one completes it", place + 1);
            Case::quick(super::GROUP, name, move |bench| completed_at(bench, place))
        })
        .collect();
    cases.push(Case::quick(
        super::GROUP,
        "at each write of an install a power cut leaves the old system, none, or the new one",
        judged,
    ));
    cases.extend((0..SIXTY / TEN).map(|ten| {
        let (first, last) = (ten * TEN + 1, (ten + 1) * TEN);
        let name = format!("after a power cut at sixty places of an install, places {first} to {last}");
        Case::full(super::GROUP, name, move |bench| completed(bench, ten))
    }));
    cases
}

/// Places at which the quick tier cuts the power.
const PLACES: usize = 6;
/// Places at which the full tier does, and how many of them make a case.
const SIXTY: usize = 60;
const TEN: usize = 10;

/// What holds a partition table, and nothing of a system, at either end of a disk.
const TABLE: u64 = 64 << 10;
/// What is written after the partition table: the receipt, and the install's id.
const SEAL_MAX: u64 = 4 << 20;

/// Held while the recording is made, so that it is made once.
static RECORDING: Mutex<()> = Mutex::new(());

/// A recorded install.
struct Recorded {
    dir: PathBuf,
}

impl Recorded {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn log(&self) -> Result<WriteLog> {
        WriteLog::open(&self.file("writes"))
    }
}

const TARGET: &str = "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"tank\"\nmembers = 4\n";
/// The installer's status where the disk has been installed with these answers already.
const ALREADY: i32 = 7;

/// When the medium was made.
fn stamp(lab: &Lab) -> Result<u64> {
    Ok(fs::metadata(lab.iso()?)?.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_secs())
}

/// The recording, made once for an image and its medium: a storage node that runs an older install is installed anew.
fn recorded(bench: &Bench<'_>) -> Result<Recorded> {
    let lab = bench.lab;
    let _one_at_a_time = RECORDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dir = lab.cache().join(format!("install-{}-{}", lab.image().identity(), stamp(lab)?));
    if dir.exists() {
        return Ok(Recorded { dir });
    }
    let half = Recorded { dir: dir.with_extension("half") };
    remove_dir(&half.dir)?;
    fs::create_dir_all(&half.dir)?;
    let node = storage_node(bench)?.machine;
    disk::raw(lab, &node.disk("os"), &half.file("before"))?;
    let mut spec = spec(bench, Firmware::Bios, Bus::Sata, Carrier::SataCd, &answers(bench, TARGET)?)?;
    spec.record_os = true;
    let machine = with_medium(bench, &node, spec)?;
    fs::rename(node.disk("os"), machine.disk("os"))?;
    let mut vm = started(machine)?;
    vm.serial.wait("proven:", INSTALL).context("the install that is recorded")?;
    let machine = vm.switched_off(Duration::from_secs(180))?;
    disk::raw(lab, &machine.disk("os"), &half.file("after"))?;
    fs::rename(machine.writes(), half.file("writes"))?;
    for number in 0..DISKS.len() {
        let name = format!("data{number}");
        // Without the snapshot below it.
        let convert = lab.tool(Tool::QemuImg).args(["convert", "-O", "qcow2"]);
        convert.arg(machine.disk(&name)).arg(half.file(&format!("{name}.qcow2"))).run()?;
    }
    fs::rename(&half.dir, &dir)?;
    Ok(Recorded { dir })
}

fn guid(disk: &File) -> Result<String> {
    match table::read(&mut &*disk, disk.metadata()?.len(), SECTOR)? {
        Table::Gpt(gpt) => Ok(gpt.guid.to_string()),
        other => bail!("a whole system has another table: {other:?}"),
    }
}

/// Ranges written after the last write of the partition table, none of them in a slot.
fn seal(log: &WriteLog, after: &Path) -> Result<Vec<Range<u64>>> {
    let size = fs::metadata(after)?.len();
    let is_table = |start: u64, len: u64| start < TABLE || start + len > size - TABLE;
    let writes = log.writes();
    let last = writes.iter().rposition(|write| is_table(write.start, write.len)).context("no table was written")?;
    let ranges: Vec<Range<u64>> = writes[last + 1..].iter().map(|write| write.start..write.start + write.len).collect();
    ensure!(!ranges.is_empty(), "nothing was written after the table");
    let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    ensure!(bytes <= SEAL_MAX, "{bytes} bytes were written after the table");
    let partitions = Partitions::of(after)?;
    for name in ["siris-boot-a", "siris-a"] {
        let slot = partitions.range(name)?;
        ensure!(
            !ranges.iter().any(|range| range.start < slot.end && slot.start < range.end),
            "{name} was written after the table"
        );
    }
    Ok(ranges)
}

fn judged(bench: &Bench<'_>) -> Result<()> {
    let recorded = recorded(bench)?;
    let log = recorded.log()?;
    let (before, after) = (File::open(recorded.file("before"))?, File::open(recorded.file("after"))?);
    let (old, new) = (guid(&before)?, guid(&after)?);
    ensure!(old != new, "the disk has the same GUID before and after");
    let size = before.metadata()?.len();
    let heads = [0..TABLE, size - TABLE..size];
    let follower = Follower::new(&log, &before, &after, &heads, seal(&log, &recorded.file("after"))?)?;
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    let judged = follower.every_cut(|cut, disk, state| {
        let outcome = match table::read(disk, size, SECTOR)? {
            Table::Gpt(gpt) if gpt.guid.to_string() == old => {
                ensure!(state.from_old == 0, "{cut:?}: the old table, and {} sectors of it changed", state.from_old);
                "old system"
            }
            Table::Gpt(gpt) if gpt.guid.to_string() == new => {
                ensure!(state.from_new == 0, "{cut:?}: the new table, and {} sectors are missing", state.from_new);
                "new system"
            }
            Table::Gpt(gpt) => bail!("{cut:?}: a table of neither system, {}", gpt.guid),
            _ => "nothing that boots",
        };
        *outcomes.entry(outcome).or_default() += 1;
        Ok(())
    })?;
    let told: Vec<String> = outcomes.iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!(
        "       {} writes in {} epochs; {judged} cuts: {}",
        log.writes().len(),
        log.epochs().len(),
        told.join(", ")
    );
    ensure!(outcomes.len() == 3, "not all three outcomes were seen");
    Ok(())
}

/// Where power is cut: at the ends of phases first, then evenly.
fn spread(log: &WriteLog, wanted: usize) -> Vec<Cut> {
    let epochs = log.epochs();
    let mut cuts: Vec<Cut> = epochs.iter().map(|epoch| Cut::After(epoch.end)).collect();
    cuts.push(Cut::After(1));
    if cuts.len() > wanted {
        // The first, the last, and what lies evenly between.
        let step = (cuts.len() - 1) as f64 / (wanted - 1) as f64;
        cuts = (0..wanted).map(|n| cuts[(n as f64 * step).round() as usize]).collect();
    }
    let writes = log.writes().len();
    let missing = wanted.saturating_sub(cuts.len());
    cuts.extend((0..missing).map(|n| {
        let at = (n + 1) * writes / (missing + 1);
        if n % 2 == 0 { Cut::After(at) } else { Cut::Torn(at) }
    }));
    cuts
}

fn completed(bench: &Bench<'_>, ten: usize) -> Result<()> {
    let recorded = recorded(bench)?;
    let log = recorded.log()?;
    for (number, cut) in spread(&log, SIXTY).into_iter().enumerate().skip(ten * TEN).take(TEN) {
        complete(bench, &recorded, &log, cut, number % TEN == 1).with_context(|| format!("{cut:?}"))?;
        println!("       {} of {SIXTY}: {cut:?}, completed", number + 1);
    }
    Ok(())
}

fn completed_at(bench: &Bench<'_>, place: usize) -> Result<()> {
    let recorded = recorded(bench)?;
    let log = recorded.log()?;
    let cut = spread(&log, PLACES)[place];
    // One cut early and one late is also booted: what boots is the same bytes after all of them.
    complete(bench, &recorded, &log, cut, place % 3 == 1).with_context(|| format!("{cut:?}"))
}

/// A live system in memory, of a machine that has no disk yet but a blank one; made once, and kept.
fn live<'a>(bench: &Bench<'a>) -> Result<Vm<'a>> {
    let mut spec = Spec::bare(Firmware::Bios, Bus::Sata)
        .with("ssh.authorized_keys.root", &bench.lab.public_key()?)
        .with_medium(Carrier::SataCd, bench.lab.iso()?)
        .on_scsi();
    spec.memory_mib = 4096;
    let mut vm = snapshot::restored(bench, &spec, &format!("live {}", stamp(bench.lab)?), |vm| {
        start(vm)?;
        look(vm)?;
        vm.guest.disconnect();
        Ok(())
    })?;
    vm.guest.connect(Duration::from_secs(60))?;
    Ok(vm)
}

/// The parts of the disk that are the same after every install of an image: all that boots, but for the EFI partition,
/// whose boot environment names the install.
const SAME: [&str; 3] = ["siris-bios", "siris-boot-a", "siris-a"];

/// Installs over a disk as the cut has left it, which must become what the undisturbed install made; where `boots`, it is
/// also booted.
fn complete(bench: &Bench<'_>, recorded: &Recorded, log: &WriteLog, cut: Cut, boots: bool) -> Result<()> {
    let base = bench.dir().join("cut.raw");
    let copy = Cmd::new(Tool::Cp).args(["--sparse=always", "--reflink=auto"]).arg(recorded.file("before")).arg(&base);
    copy.run()?;
    let file = File::options().write(true).open(&base)?;
    match cut {
        Cut::After(count) => log.replay(&file, count, false)?,
        Cut::Torn(count) => log.replay(&file, count, true)?,
        Cut::Without(number) => bail!("write {number} cannot be left out here"),
    }
    let mut spec = Spec::bare(Firmware::Bios, Bus::Scsi).with_data_disks(&DISKS).on_scsi();
    spec.disk_gib = 16;
    let machine = Machine::over(bench, spec, &base)?;
    for number in 0..DISKS.len() {
        let name = format!("data{number}");
        fs::remove_file(machine.disk(&name))?;
        disk::overlay(bench.lab, &recorded.file(&format!("{name}.qcow2")), "qcow2", &machine.disk(&name), None)?;
    }
    let before = digests(&machine)?;
    let mut vm = live(bench)?;
    for (unit, name) in (1..).zip(machine.disk_names()) {
        vm.plug(if name == "os" { "target" } else { &name }, &machine.disk(&name), unit)?;
    }
    let run = "udevadm wait --settle --timeout=60 /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_target; cat > /run/a.toml; \
               siris-installer install --unattended --answers /run/a.toml";
    let answers = answers(bench, &TARGET.replace("serial:os", "serial:target"))?.replace("poweroff", "stay");
    let done = vm.guest.run_for(INSTALL, run, answers.as_bytes())?;
    ensure!(
        done.status == Some(0) && done.text.contains("proven:") || done.status == Some(ALREADY),
        "the install after the cut: {done}"
    );
    drop(vm.cut_power()?);
    ensure!(digests(&machine)? == before, "a disk of the pool is not what it was before");
    let now = bench.dir().join("now.raw");
    disk::raw(bench.lab, &machine.disk("os"), &now)?;
    let after = recorded.file("after");
    for name in SAME {
        ensure!(disk::same(&now, &after, name)?, "{name} is not what an install makes it");
    }
    fs::remove_file(&now)?;
    let os = machine.disk("os");
    if boots {
        // What it says once its pool is imported and has told it who it is.
        let mut vm = machine.start()?;
        vm.serial.wait(AGAIN, BOOT).context("the new system finds itself on its pool")?;
        drop(vm.cut_power()?);
    }
    // A case of ten places would keep ten of them.
    Ok(fs::remove_file(os)?)
}
