//! The power goes at any write of an upgrade.
//!
//! One upgrade is recorded, write by write: the install, the reboot into the new system, and its being kept. Every state
//! of the disk that a power cut could have left is judged here: the boot loader boots the old system, whole, or the new
//! one, whole. What is written beside the slots counts as follows: the boot environment is read as it is; the rest of the
//! EFI partition, the old slot, and the partition table never differ from what they were; the state partition is ext4,
//! whose journal is not judged here, but by booting: a spread of the states is given to machines.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use siris_host::cmd::{Cmd, Tool};
use siris_slots::Slot;
use siris_slots::bootenv::{BLOCK, BootEnv, Outcome, decide};

use super::super::standard_spec;
use super::{GROUP, NEWER, booted, bundle, install, restart};
use crate::case::Case;
use crate::disk::{self, Partitions};
use crate::lab::{Bench, remove_dir};
use crate::slots;
use crate::snapshot;
use crate::vm::Machine;
use crate::writelog::{Cut, Follower, Heads, Write, WriteLog};

/// Places at which the quick tier cuts the power.
const PLACES: usize = 6;
/// Places at which the full tier does, and how many of them make a case.
const FORTY: usize = 40;
const TEN: usize = 10;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = (0..PLACES)
        .map(|place| {
            let name = format!(
                "after a power cut in an upgrade, place {} of {PLACES}, the old or the new system boots",
                place + 1
            );
            Case::quick(GROUP, name, move |bench| boots_at(bench, place))
        })
        .collect();
    cases.push(Case::quick(
        GROUP,
        "at each write of an upgrade a power cut leaves the old system or the new one",
        judged,
    ));
    cases.extend((0..FORTY / TEN).map(|ten| {
        let name =
            format!("after a power cut at forty places of an upgrade, places {} to {}", ten * TEN + 1, (ten + 1) * TEN);
        Case::full(GROUP, name, move |bench| boots_at_ten(bench, ten))
    }));
    cases
}

/// Held while the recording is made, so that it is made once.
static RECORDING: Mutex<()> = Mutex::new(());

/// A recorded upgrade.
struct Recorded {
    dir: PathBuf,
    /// Where the boot environment is.
    environment: Range<u64>,
    partitions: Partitions,
}

impl Recorded {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn open(&self, name: &str) -> Result<File> {
        File::open(self.file(name)).with_context(|| format!("open the recording's {name}"))
    }

    fn log(&self) -> Result<WriteLog> {
        WriteLog::open(&self.file("writes"))
    }

    /// The bytes of partitions, by name.
    fn ranges(&self, names: &[&str]) -> Result<Vec<Range<u64>>> {
        names.iter().map(|name| self.partitions.range(name)).collect()
    }
}

/// The recording, made once for an image.
fn recorded(bench: &Bench<'_>) -> Result<Recorded> {
    let lab = bench.lab;
    let _one_at_a_time = RECORDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let start = slots::file_offset(lab, "siris-esp", siris_slots::bootenv::PATH, 0)?;
    let dir = lab.cache().join(format!("upgrade-{}", lab.image().identity()));
    let partitions = Partitions::of(lab.image().path())?;
    let recorded = Recorded { dir, environment: start..start + BLOCK as u64, partitions };
    if recorded.dir.exists() {
        return Ok(recorded);
    }
    let half = recorded.dir.with_extension("half");
    remove_dir(&half)?;
    fs::create_dir_all(&half)?;
    let file = bundle(bench, NEWER, "")?;
    let mut vm = snapshot::recorded(bench, &standard_spec(lab)?, &half.join("before"))?;
    install(&vm, &fs::read(&file)?)?;
    restart(&mut vm, "systemctl reboot")?;
    vm.wait_healthy()?;
    let kept = format!("sirisctl upgrade status | grep -q 'b *good *3 *{NEWER} *booted'");
    vm.guest.eventually(Duration::from_secs(120), &kept).context("the new system is kept")?;
    let machine = vm.cut_power()?;
    disk::raw(lab, &machine.disk("os"), &half.join("after"))?;
    fs::rename(machine.writes(), half.join("writes"))?;
    fs::rename(file, half.join("bundle"))?;
    fs::rename(&half, &recorded.dir)?;
    Ok(recorded)
}

/// What the boot loader would boot.
fn boots(disk: &mut (impl Read + Seek), recorded: &Recorded) -> Result<Slot> {
    let mut block = [0; BLOCK];
    disk.seek(SeekFrom::Start(recorded.environment.start))?;
    disk.read_exact(&mut block)?;
    let env = BootEnv::parse(&block).context("the boot environment")?;
    // The old slot is whole, which is judged; and the new one must be where it may be booted at all.
    match decide(&env, |_| true, true).outcome {
        Outcome::Boot(slot) => Ok(slot),
        Outcome::Halt => bail!("nothing would be booted: {env:?}"),
    }
}

fn judged(bench: &Bench<'_>) -> Result<()> {
    let recorded = recorded(bench)?;
    let log = recorded.log()?;
    let (before, after) = (recorded.open("before")?, recorded.open("after")?);
    let all = ["siris-bios", "siris-esp", "siris-boot-a", "siris-a", "siris-boot-b", "siris-b", "siris-state"];
    let heads = [recorded.environment.clone()];

    // Nothing but the new slot, the boot environment and the state partition changes, at any time.
    let changing = recorded.ranges(&["siris-boot-b", "siris-b", "siris-state"])?;
    Follower::new(&log, &before, &after, &heads, changing)?.every_cut(|cut, _, state| {
        ensure!(state.from_old == 0, "{cut:?}: {} sectors beside the new slot changed", state.from_old);
        Ok(())
    })?;

    // The new slot is booted only where it is what it is in the end.
    let slot = recorded.ranges(&["siris-boot-b", "siris-b"])?;
    let beside = outside(&slot, before.metadata()?.len());
    let mut outcomes: BTreeMap<Slot, u64> = BTreeMap::new();
    let judged =
        Follower::new(&log, &before, &after, &heads, beside)?.every_cut(|cut, disk: &mut Heads<'_>, state| {
            let slot = boots(disk, &recorded).with_context(|| format!("{cut:?}"))?;
            ensure!(
                slot == Slot::A || state.from_new == 0,
                "{cut:?}: the new slot would be booted, and {} sectors of it are missing",
                state.from_new
            );
            *outcomes.entry(slot).or_default() += 1;
            Ok(())
        })?;
    let (old, new) = (outcomes.get(&Slot::A).copied().unwrap_or(0), outcomes.get(&Slot::B).copied().unwrap_or(0));
    let within =
        |write: &Write| all.iter().find(|name| recorded.partitions.range(name).is_ok_and(|r| r.contains(&write.start)));
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    log.writes()
        .iter()
        .for_each(|write| *places.entry(within(write).copied().unwrap_or("the table")).or_default() += 1);
    let places: Vec<String> = places.iter().map(|(name, count)| format!("{count} to {name}")).collect();
    println!(
        "       {} writes ({}) in {} epochs; {judged} cuts: {old} old system, {new} new system",
        log.writes().len(),
        places.join(", "),
        log.epochs().len()
    );
    ensure!(old > 0 && new > 0, "not both outcomes were seen");
    Ok(())
}

/// What lies beside `ranges`, which are in their order, on a disk of that size.
fn outside(ranges: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let mut at = 0;
    let mut gaps: Vec<Range<u64>> =
        ranges.iter().map(|range| std::mem::replace(&mut at, range.end)..range.start).collect();
    gaps.push(at..size);
    gaps
}

/// Where power is cut: around each write of the boot environment first, then evenly.
fn spread(log: &WriteLog, recorded: &Recorded, wanted: usize) -> Vec<Cut> {
    let touches =
        |write: &Write| write.start < recorded.environment.end && recorded.environment.start < write.start + write.len;
    let numbers = log.writes().iter().enumerate().filter(|(_, write)| touches(write)).map(|(number, _)| number);
    // Not yet written, half written, and written and nothing more.
    let mut cuts: Vec<Cut> = numbers.flat_map(|n| [Cut::After(n), Cut::Torn(n), Cut::After(n + 1)]).collect();
    if cuts.len() > wanted / 2 {
        let step = (cuts.len() - 1) as f64 / (wanted / 2 - 1) as f64;
        cuts = (0..wanted / 2).map(|n| cuts[(n as f64 * step).round() as usize]).collect();
    }
    let writes = log.writes().len();
    let missing = wanted - cuts.len();
    cuts.extend((0..missing).map(|n| {
        let at = (n + 1) * writes / (missing + 1);
        if n % 2 == 0 { Cut::After(at) } else { Cut::Torn(at) }
    }));
    cuts
}

fn boots_at(bench: &Bench<'_>, place: usize) -> Result<()> {
    let recorded = recorded(bench)?;
    let log = recorded.log()?;
    let cut = spread(&log, &recorded, PLACES)[place];
    boots_after(bench, &recorded, &log, cut, place.is_multiple_of(2)).with_context(|| format!("{cut:?}"))
}

fn boots_at_ten(bench: &Bench<'_>, ten: usize) -> Result<()> {
    let recorded = recorded(bench)?;
    let log = recorded.log()?;
    for (number, cut) in spread(&log, &recorded, FORTY).into_iter().enumerate().skip(ten * TEN).take(TEN) {
        boots_after(bench, &recorded, &log, cut, number % TEN == 1).with_context(|| format!("{cut:?}"))?;
    }
    Ok(())
}

/// Boots a disk as the cut has left it, which must be the system that is foreseen, healthy; where `again`, and where that
/// is the old one, the upgrade is made again.
fn boots_after(bench: &Bench<'_>, recorded: &Recorded, log: &WriteLog, cut: Cut, again: bool) -> Result<()> {
    let base = bench.dir().join("cut.raw");
    let copy = Cmd::new(Tool::Cp).args(["--sparse=always", "--reflink=auto"]).arg(recorded.file("before")).arg(&base);
    copy.run()?;
    let mut file = File::options().read(true).write(true).open(&base)?;
    match cut {
        Cut::After(count) => log.replay(&file, count, false)?,
        Cut::Torn(count) => log.replay(&file, count, true)?,
        Cut::Without(number) => bail!("write {number} cannot be left out here"),
    }
    let foreseen = boots(&mut file, recorded)?;
    let mut vm = Machine::over(bench, standard_spec(bench.lab)?, &base)?.start()?;
    vm.wait_healthy()?;
    let good = format!("sirisctl upgrade status | grep -q '{foreseen} *good *3 .*booted'");
    vm.guest.eventually(Duration::from_secs(120), &good).with_context(|| format!("slot {foreseen} was foreseen"))?;
    let found = booted(&vm)?;
    let runs_new = found.ends_with(NEWER);
    ensure!(runs_new == (foreseen == Slot::B), "slot {foreseen} holds another version: {found}");
    let mut told = "booted";
    if again && !runs_new {
        install(&vm, &fs::read(recorded.file("bundle"))?)?;
        vm.guest.ok("sirisctl upgrade status | grep -q 'the next boot tries slot b'")?;
        let machine = vm.cut_power()?;
        let now = bench.dir().join("now.raw");
        disk::raw(bench.lab, &machine.disk("os"), &now)?;
        for name in ["siris-boot-b", "siris-b"] {
            ensure!(disk::same(&now, &recorded.file("after"), name)?, "{name} is not what an upgrade makes it");
        }
        fs::remove_file(&now)?;
        told = "booted, and upgraded again";
    }
    fs::remove_file(&base)?;
    println!("       {cut:?}: slot {foreseen} {told}");
    Ok(())
}
