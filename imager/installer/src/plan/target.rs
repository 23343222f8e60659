//! Which disk gets the OS, what stands against it, and where everything goes on it.

use serde::Serialize;
use siris_ibu::{ByteSize, Sha256};
use siris_slots::guid::GuidSource;
use siris_slots::layout::{KeptEntry, Layout, LayoutError, SectorSize, Sizes};

use super::{Purpose, keep, pools, who};
use crate::answers::{Answers, DiskSpec, Target};
use crate::facts::{Content, Disk, DiskName, Facts, Firmware, Partition};
use crate::refusal::Refusals;

/// A disk that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TargetPlan {
    /// The disk.
    pub disk: DiskName,
    /// What a person types to confirm it: its serial number, or what else it is known by.
    pub identity: String,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its number among all that the kernel has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diskseq: Option<u64>,
    /// Size.
    pub size: ByteSize,
    /// Bytes of a logical sector.
    pub sector: u64,
    /// Whether it gets boot code for legacy BIOS.
    pub bios: bool,
    /// What is lost, in words.
    pub lost: Vec<String>,
    /// Ranges that are cleared before anything is written.
    pub wipes: Vec<Wipe>,
    /// Partitions that stay.
    pub kept: Vec<Kept>,
    /// Partitions that are made.
    pub parts: Vec<PartPlan>,
    /// The entries of what stays.
    #[serde(skip)]
    pub entries: Vec<KeptEntry>,
    /// What was carried over from it, kept on it until the install is done: a rerun finds it there.
    #[serde(skip)]
    pub stash: Option<Vec<u8>>,
}

/// A range that is cleared, so that nobody recognises what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Wipe {
    /// First byte.
    pub start: u64,
    /// Length.
    pub len: u64,
}

/// A partition that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kept {
    /// Its number.
    pub number: u32,
    /// Its number before.
    pub was: u32,
    /// First byte.
    pub start: u64,
    /// Length.
    pub size: ByteSize,
    /// What it carries, in words.
    pub carries: String,
}

/// A partition that is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PartPlan {
    /// Its number.
    pub number: u32,
    /// Its label.
    pub label: String,
    /// First byte.
    pub start: u64,
    /// Length.
    pub size: ByteSize,
}

impl TargetPlan {
    /// Has `bytes` kept on the disk from the first write until the last, where no partition that stays is in the way.
    pub(crate) fn keep_stash(&mut self, bytes: Vec<u8>, start: u64, len: u64) -> bool {
        let end = start + len;
        if self.kept.iter().any(|kept| kept.start < end && start < kept.start + kept.size.bytes()) {
            return false;
        }
        self.wipes = super::keep::spare(&self.wipes, start, end);
        self.stash = Some(bytes);
        true
    }

    /// Where everything goes: the same as was decided, since it is computed from what was decided.
    pub(crate) fn guids(&self, seed: Sha256) -> GuidSource {
        GuidSource::Seed(Sha256::of(format!("{seed} {}", self.disk).as_bytes()))
    }
}

/// The targets, as far as they can be told; everything that stands against them is refused.
pub(super) fn choose(
    facts: &Facts,
    answers: &Answers,
    sizes: &Sizes,
    purpose: &Purpose<'_>,
    refusals: &mut Refusals,
) -> Vec<TargetPlan> {
    let first = match &answers.target {
        Target::Auto => auto(facts, answers, sizes, refusals),
        Target::Disk(spec) => named("target", facts, spec, refusals),
    };
    let second = answers.mirror.as_ref().and_then(|spec| named("target.mirror", facts, spec, refusals));
    if let (Some(first), Some(second)) = (first, second)
        && first.name == second.name
    {
        refusals.add("mirror-same-disk", format!("{} is named as target and as mirror", who(first)), "name two disks");
    }
    let disks: Vec<&Disk> = first.into_iter().chain(second).collect();
    let mut targets = Vec::new();
    for disk in disks {
        let kept = keep::resolve(disk, &answers.keep, refusals);
        let before = refusals.0.len();
        check(disk, &kept, facts, answers, sizes, refusals);
        match lay_out(disk, &kept, facts, sizes, purpose.seed) {
            Some(Ok(target)) => targets.push(target),
            Some(Err(error)) if refusals.0.len() == before => refusals.add(
                if error.code() == "layout-kept" { "keep-impossible" } else { "target-too-small" },
                format!("{}: {error}", who(disk)),
                "keep fewer partitions, or name another disk",
            ),
            // What stands against it was said.
            Some(Err(_)) | None => {}
        }
    }
    targets
}

fn list(disks: &[&Disk]) -> String {
    match disks {
        [] => "none".to_owned(),
        disks => disks.iter().map(|disk| who(disk)).collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn named<'a>(path: &str, facts: &'a Facts, spec: &DiskSpec, refusals: &mut Refusals) -> Option<&'a Disk> {
    let found: Vec<&Disk> = facts.disks.iter().filter(|disk| spec.matches(disk)).collect();
    match found[..] {
        [disk] => Some(disk),
        [] => {
            let all: Vec<&Disk> = facts.disks.iter().collect();
            refusals.add(
                "target-not-found",
                format!("{path}: no disk is {spec}"),
                format!("name one that is there: {}", list(&all)),
            );
            None
        }
        _ => {
            refusals.add(
                "target-ambiguous",
                format!("{path}: {spec} fits {} disks: {}", found.len(), list(&found)),
                "name it by something only one of them has",
            );
            None
        }
    }
}

/// The only disk that can be it. One that carries a pool, is in use, is the medium or may be somebody's stick cannot.
fn auto<'a>(facts: &'a Facts, answers: &Answers, sizes: &Sizes, refusals: &mut Refusals) -> Option<&'a Disk> {
    let fits = |disk: &&Disk| {
        let mut against = Refusals::default();
        check(disk, &[], facts, answers, sizes, &mut against);
        against.0.is_empty() && !disk.removable && disk.transport.as_deref() != Some("usb")
    };
    let found: Vec<&Disk> = facts.disks.iter().filter(fits).collect();
    match found[..] {
        [disk] => Some(disk),
        [] => {
            refusals.add(
                "target-not-found",
                "target = \"auto\": no disk of this machine can take the OS",
                "name one to learn what stands against it; `siris-installer inspect` shows all",
            );
            None
        }
        _ => {
            refusals.add(
                "target-ambiguous",
                format!("target = \"auto\": {} disks can take the OS", found.len()),
                format!("name one of them: {}", list(&found)),
            );
            None
        }
    }
}

/// Everything that stands against `disk` as a target.
fn check(disk: &Disk, kept: &[&Partition], facts: &Facts, answers: &Answers, sizes: &Sizes, refusals: &mut Refusals) {
    let name = who(disk);
    if facts.is_medium(disk) {
        refusals.add("target-is-medium", format!("{name} is what the installer came on"), "name another disk");
    }
    let other_path = facts.disks.iter().find(|other| other.path_of.as_ref() == Some(&disk.name));
    if let Some(other) = disk.path_of.as_ref().or(other_path.map(|other| &other.name)) {
        refusals.add(
            "target-multipath",
            format!("{name} is reached by another path too, /dev/{other}"),
            "unplug one path of the OS disk, or name another disk",
        );
    }
    if let Some(why) = &disk.unreadable {
        refusals.add("target-unreadable", format!("{name} cannot be read: {why}"), "name another disk");
    }
    if !disk.used_as.is_empty() {
        refusals.add(
            "target-mounted",
            format!("{name} is in use ({})", disk.used_as.join(", ")),
            "unmount it, or name another disk",
        );
    }
    if !disk.holders.is_empty() {
        refusals.add(
            "target-has-holders",
            format!("{name} is held by {}", disk.holders.join(", ")),
            "stop what is assembled on it, or boot the medium again",
        );
    }
    let sector = SectorSize::from_bytes(disk.sector);
    if sector.is_none() || (sector == Some(SectorSize::S4096) && facts.firmware == Firmware::Bios) {
        refusals.add(
            "target-sector-size",
            format!("{name} has sectors of {} bytes, which {:?} cannot boot from", disk.sector, facts.firmware),
            "name a disk with sectors of 512 bytes, or boot the machine under UEFI",
        );
    }
    if disk.size < sizes.smallest_disk() {
        refusals.add(
            "target-too-small",
            format!("{name} is too small: {} are needed", sizes.smallest_disk().rounded()),
            "name a larger disk",
        );
    }
    for (part, content) in disk.contents() {
        let Content::Zfs(zfs) = content else { continue };
        if part.is_some_and(|part| kept.contains(&part)) {
            continue;
        }
        if let Some(why) = pools::in_the_way(zfs, facts, answers) {
            let place = part.map(|part| format!(", partition {}", part.number)).unwrap_or_default();
            let others: Vec<&Disk> = facts.disks.iter().filter(|disk| free(disk)).collect();
            refusals.add(
                "target-in-pool",
                format!("{name}{place} {why}"),
                format!("name the OS disk as target; disks without a pool: {}", list(&others)),
            );
        }
    }
}

fn free(disk: &Disk) -> bool {
    !disk.contents().any(|(_, content)| matches!(content, Content::Zfs(_)))
}

fn lay_out(
    disk: &Disk,
    kept: &[&Partition],
    facts: &Facts,
    sizes: &Sizes,
    seed: Sha256,
) -> Option<Result<TargetPlan, LayoutError>> {
    let sector = SectorSize::from_bytes(disk.sector)?;
    let entries = keep::entries(kept);
    let mut target = TargetPlan {
        disk: disk.name.clone(),
        identity: disk.identity().to_owned(),
        model: disk.model.clone(),
        diskseq: disk.diskseq,
        size: disk.size,
        sector: disk.sector,
        bios: sector == SectorSize::S512,
        lost: lost(disk, kept, facts),
        wipes: keep::wipes(disk, kept),
        kept: Vec::new(),
        parts: Vec::new(),
        entries,
        stash: None,
    };
    let layout = match Layout::plan_beside(disk.size, sector, sizes, &target.guids(seed), &target.entries) {
        Ok(layout) => layout,
        Err(error) => return Some(Err(error)),
    };
    target.parts = layout
        .entries()
        .iter()
        .map(|entry| PartPlan {
            number: entry.part.number(),
            label: entry.part.label().to_owned(),
            start: layout.start(entry.part),
            size: ByteSize::from_bytes(layout.len(entry.part)),
        })
        .collect();
    target.kept = keep::plans(kept, &layout, facts);
    Some(Ok(target))
}

pub(super) fn lost(disk: &Disk, kept: &[&Partition], facts: &Facts) -> Vec<String> {
    let mut lost = Vec::new();
    for (part, content) in disk.contents().filter(|(part, _)| part.is_none_or(|part| !kept.contains(&part))) {
        let place = part.map(|part| format!("partition {}: ", part.number)).unwrap_or_default();
        let what = pools::wiped(content, facts).unwrap_or_else(|| crate::report::content(content, facts));
        lost.push(format!("{place}{what}"));
    }
    lost
}
