//! Room beside partitions that stay.

use siris_ibu::ByteSize;

use super::{ENTRIES, LayoutError, MIB, Part, SectorSize};
use crate::table::{ENTRY, GptPart};

/// A partition of another system that stays, with the bytes of its entry in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEntry {
    number: u32,
    raw: [u8; ENTRY],
}

impl KeptEntry {
    /// The partition `number` whose entry in a GPT has these bytes.
    pub fn new(number: u32, raw: [u8; ENTRY]) -> Self {
        Self { number, raw }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its entry.
    pub fn raw(&self) -> &[u8; ENTRY] {
        &self.raw
    }

    /// Its first sector.
    pub fn first_lba(&self) -> u64 {
        self.lba(32)
    }

    /// Its last sector.
    pub fn last_lba(&self) -> u64 {
        self.lba(40)
    }

    fn lba(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.raw[at..at + 8]);
        u64::from_le_bytes(bytes)
    }
}

impl From<&GptPart> for KeptEntry {
    fn from(part: &GptPart) -> Self {
        Self { number: part.number, raw: part.raw }
    }
}

/// The gaps between what stays: first byte and the one behind the last, both on a MiB, in their order.
pub(super) fn gaps(disk: ByteSize, sector: SectorSize, kept: &[KeptEntry]) -> Result<Vec<(u64, u64)>, LayoutError> {
    let bytes = sector.bytes();
    // The first header and entries follow the first sector; the backup header is the last sector, its entries are
    // before it.
    let first_usable = 2 * bytes + ENTRIES;
    let usable_end = (disk.bytes() / bytes - 1) * bytes - ENTRIES;
    let mut ranges = Vec::new();
    for entry in kept {
        let fault = |why| LayoutError::Kept { number: entry.number, why };
        let (first, last) = (entry.first_lba(), entry.last_lba());
        let end = last.checked_add(1).and_then(|end| end.checked_mul(bytes)).filter(|_| first <= last);
        let end = end.ok_or_else(|| fault("its entry makes no sense"))?;
        let start = first * bytes;
        if start < first_usable || end > usable_end {
            return Err(fault("it lies where the partition table has to be"));
        }
        ranges.push((start, end, entry.number));
    }
    ranges.sort_unstable();
    let (mut gaps, mut at) = (Vec::new(), MIB);
    for (start, end, number) in ranges.iter().copied().chain([(usable_end, usable_end, 0)]) {
        // Kept partitions that overlap would both be damaged by either's owner; whoever made them has to decide.
        if ranges.iter().any(|(other, other_end, n)| *n != number && start < *other_end && *other < end) {
            return Err(LayoutError::Kept { number, why: "it overlaps another one that is kept" });
        }
        let (from, to) = (at.next_multiple_of(MIB), start / MIB * MIB);
        if from < to {
            gaps.push((from, to));
        }
        at = at.max(end);
    }
    Ok(gaps)
}

/// Takes `len` bytes out of the first gap that has them.
pub(super) fn take(gaps: &mut [(u64, u64)], len: u64) -> Option<(u64, u64)> {
    let gap = gaps.iter_mut().find(|(start, end)| end - start >= len)?;
    let start = gap.0;
    gap.0 += len;
    Some((start, start + len))
}

/// The largest gap, if it has at least `least` bytes; of several, the first.
pub(super) fn largest(gaps: &[(u64, u64)], least: u64) -> Option<(u64, u64)> {
    let best = gaps.iter().copied().reduce(|best, gap| if gap.1 - gap.0 > best.1 - best.0 { gap } else { best })?;
    (best.1 - best.0 >= least).then_some(best)
}

/// What is added to the number of a kept partition that has one of ours. The same one again at each install, so that
/// whoever named a partition by its number finds it after it was moved.
pub const MOVED: u32 = 100;

/// The same entries with numbers that are not ours, by number.
pub(super) fn renumber(kept: &[KeptEntry]) -> Vec<KeptEntry> {
    let ours = Part::ALL.len() as u32;
    let mut all: Vec<KeptEntry> = kept.iter().filter(|entry| entry.number > ours).cloned().collect();
    let mut moved: Vec<&KeptEntry> = kept.iter().filter(|entry| entry.number <= ours).collect();
    moved.sort_by_key(|entry| entry.number);
    for entry in moved {
        let wanted = [entry.number + MOVED].into_iter().chain(ours + 1..);
        let free = wanted.into_iter().find(|number| all.iter().all(|other| other.number != *number));
        // Numbers do not run out: there are as many as entries, and some.
        all.push(KeptEntry { number: free.unwrap_or(entry.number), raw: entry.raw });
    }
    all.sort_by_key(|entry| entry.number);
    all
}
