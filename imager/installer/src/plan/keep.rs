//! Partitions of the target that stay, and what is cleared around them.

use siris_slots::Slot;
use siris_slots::layout::{KeptEntry, Layout, MOVED, Part};

use super::{Kept, Wipe, who};
use crate::answers::Keep;
use crate::facts::{Disk, Facts, Partition, TableKind};
use crate::refusal::Refusals;

const MIB: u64 = 1 << 20;
/// Bytes of the first sector that are boot code; what follows is the partition table.
const BOOT_CODE: u64 = 440;
/// Bytes of one array of partition entries.
const ENTRIES: u64 = 128 * 128;

/// The partitions that are meant. One that is not there, or not alone, is refused: to go on without it would lose it.
pub(super) fn resolve<'a>(disk: &'a Disk, keep: &[Keep], refusals: &mut Refusals) -> Vec<&'a Partition> {
    let mut kept: Vec<&Partition> = Vec::new();
    for wanted in keep {
        let fits = |part: &&Partition| match wanted {
            Keep::Number(number) => part.number == *number,
            Keep::Label(label) => part.label.as_ref() == Some(label),
            Keep::Guid(guid) => part.guid.as_ref() == Some(guid),
        };
        let mut found: Vec<&Partition> = disk.partitions.iter().filter(fits).collect();
        if let (Keep::Number(number), [part]) = (wanted, &found[..])
            && is_own(part)
        {
            // An earlier try of this install has given its number to a partition of ours.
            found = disk.partitions.iter().filter(|part| part.number == number + MOVED).collect();
        }
        match found[..] {
            [part] if is_own(part) => refusals.add(
                "keep-own",
                format!("{}: partition {wanted} is part of a SIRIS OS, which is written anew", who(disk)),
                format!("partitions on it: {}", list(disk)),
            ),
            [part] => kept.push(part),
            _ => refusals.add(
                "keep-not-found",
                format!("{}: {} partitions are {wanted}, one is wanted", who(disk), found.len()),
                format!("partitions on it: {}", list(disk)),
            ),
        }
    }
    kept.sort_by_key(|part| part.number);
    kept.dedup();
    let readable = disk.table == TableKind::Gpt && kept.iter().all(|part| part.entry.is_some());
    if !keep.is_empty() && !readable {
        refusals.add(
            "keep-needs-gpt",
            format!("{} has no sound GPT of the usual form, in which entries could be kept", who(disk)),
            "convert or repair its partition table first (gdisk), or name another disk",
        );
    }
    kept
}

/// Whether it is one of ours, but for the two whose types everybody uses.
fn is_own(part: &Partition) -> bool {
    let parts = [Part::Boot(Slot::A), Part::Root(Slot::A), Part::State];
    parts.iter().any(|own| part.kind.eq_ignore_ascii_case(&own.type_guid().to_string()))
        || ["siris-bios", "siris-esp"].iter().any(|label| part.label.as_deref() == Some(label))
}

fn list(disk: &Disk) -> String {
    let part = |part: &Partition| match &part.label {
        Some(label) => format!("{} (label:{label})", part.number),
        None => part.number.to_string(),
    };
    let parts: Vec<String> = disk.partitions.iter().map(part).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Their entries.
pub(super) fn entries(kept: &[&Partition]) -> Vec<KeptEntry> {
    let entry = |part: &&Partition| {
        let mut raw = [0; 128];
        hex::decode_to_slice(part.entry.as_ref()?, &mut raw).ok()?;
        Some(KeptEntry::new(part.number, raw))
    };
    kept.iter().filter_map(entry).collect()
}

/// What the plan says of them.
pub(super) fn plans(kept: &[&Partition], layout: &Layout, facts: &Facts) -> Vec<Kept> {
    let plan = |part: &&Partition| {
        let start = part.start / layout.sector().bytes();
        let number = layout.kept().iter().find(|entry| entry.first_lba() == start).map_or(0, KeptEntry::number);
        let carries: Vec<String> = part.content.iter().map(|content| crate::report::content(content, facts)).collect();
        let carries = if carries.is_empty() { "nothing recognised".to_owned() } else { carries.join(", ") };
        Kept { number, was: part.number, start: part.start, size: part.size, carries }
    };
    kept.iter().map(plan).collect()
}

/// The first and the last MiB of the disk and of each partition that goes: labels of ZFS, md, LVM and file systems are
/// there, and would be recognised again where a new partition happens to begin or end at the same place. Never a byte
/// of what stays; nor of the partition table where something stays, for that is replaced as a whole.
pub(super) fn wipes(disk: &Disk, kept: &[&Partition]) -> Vec<Wipe> {
    let size = disk.size.bytes();
    let edges = |start: u64, len: u64| {
        let edge = len.min(MIB);
        [(start, start + edge), (start + len - edge, start + len)]
    };
    let mut ranges: Vec<(u64, u64)> = edges(0, size).into();
    let going = disk.partitions.iter().filter(|part| !kept.contains(part));
    ranges.extend(going.flat_map(|part| edges(part.start, part.size.bytes())));
    let mut stays: Vec<(u64, u64)> = kept.iter().map(|part| (part.start, part.end())).collect();
    if !kept.is_empty() {
        let table = ENTRIES + disk.sector;
        stays.extend([(BOOT_CODE, table + disk.sector), (size - table, size)]);
    }
    for (start, end) in stays {
        ranges = ranges.iter().flat_map(|range| without(*range, start, end)).collect();
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged.into_iter().map(|(start, end)| Wipe { start, len: end - start }).collect()
}

/// The same ranges, less one that is not cleared.
pub(super) fn spare(wipes: &[Wipe], start: u64, end: u64) -> Vec<Wipe> {
    let ranges = wipes.iter().flat_map(|wipe| without((wipe.start, wipe.start + wipe.len), start, end));
    ranges.map(|(start, end)| Wipe { start, len: end - start }).collect()
}

/// What is left of a range when another is taken out of it.
fn without((from, to): (u64, u64), start: u64, end: u64) -> Vec<(u64, u64)> {
    let parts = [(from, to.min(start)), (from.max(end), to)];
    parts.into_iter().filter(|(from, to)| from < to).collect()
}
