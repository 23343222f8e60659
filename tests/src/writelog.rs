//! What a machine wrote to a disk, write by write, as QEMU's `blklogwrites` recorded it; and every state of the disk
//! that a power cut could have left.
//!
//! The format is that of the kernel's dm-log-writes: a superblock, then entries, each a header in a sector of its own
//! and the data (Documentation/admin-guide/device-mapper/log-writes.rst).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// Bytes of a sector of the log, and of the disk.
pub const SECTOR: u64 = 512;

/// One write.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// First byte on the disk.
    pub start: u64,
    /// Length.
    pub len: u64,
    /// Where its data is in the log; none for a discard, after which zeros are read.
    data: Option<u64>,
}

/// A recording.
#[derive(Debug)]
pub struct WriteLog {
    file: File,
    writes: Vec<Write>,
    /// Numbers of writes before which everything earlier was flushed.
    flushes: Vec<usize>,
}

impl WriteLog {
    /// Reads the index of a recording.
    ///
    /// # Errors
    /// When it is none, or cut off.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let word = |at: u64| -> io::Result<u64> {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at)?;
            Ok(u64::from_le_bytes(bytes))
        };
        ensure!(word(0)? == MAGIC && word(8)? == 1, "{} is no log of writes", path.display());
        let (count, sector) = (word(16)?, word(24)? & 0xffff_ffff);
        ensure!(sector == SECTOR, "the log has sectors of {sector} bytes");
        let (mut writes, mut flushes, mut at) = (Vec::new(), Vec::new(), SECTOR);
        for _ in 0..count {
            let (start, sectors, flags) = (word(at)? * SECTOR, word(at + 8)?, word(at + 16)?);
            ensure!(flags & MARK == 0, "the log has a mark");
            at += SECTOR;
            if flags & FLUSH != 0 {
                flushes.push(writes.len());
            }
            let len = sectors * SECTOR;
            if flags & DISCARD != 0 {
                writes.push(Write { start, len, data: None });
            } else if len > 0 {
                writes.push(Write { start, len, data: Some(at) });
                at += len;
            }
        }
        flushes.dedup();
        Ok(WriteLog { file, writes, flushes })
    }

    /// All writes, in their order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The writes between two flushes, by number.
    pub fn epochs(&self) -> Vec<Range<usize>> {
        let ends = self.flushes.iter().copied().chain([self.writes.len()]);
        let mut begin = 0;
        let epochs = ends.map(|end| std::mem::replace(&mut begin, end)..end);
        epochs.filter(|epoch| !epoch.is_empty()).collect()
    }

    /// What was written.
    ///
    /// # Errors
    /// When the log ends before.
    pub fn data(&self, write: &Write) -> Result<Vec<u8>> {
        let mut bytes = vec![0; write.len as usize];
        if let Some(at) = write.data {
            self.file.read_exact_at(&mut bytes, at).context("the log is cut off")?;
        }
        Ok(bytes)
    }

    /// Brings `disk`, a raw image of the disk as it was before, to what it was after the first `count` writes, and the
    /// first half of the next one where `torn`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replay(&self, disk: &File, count: usize, torn: bool) -> Result<()> {
        for write in &self.writes[..count] {
            disk.write_all_at(&self.data(write)?, write.start)?;
        }
        if let Some(write) = self.writes.get(count).filter(|_| torn) {
            disk.write_all_at(&self.data(write)?[..half(write)], write.start)?;
        }
        Ok(())
    }
}

/// The bytes of a torn write that got onto the disk: whole sectors.
fn half(write: &Write) -> usize {
    (write.len / SECTOR / 2 * SECTOR) as usize
}

/// A set of sectors.
#[derive(Debug, Clone)]
struct Sectors(Vec<u64>);

impl Sectors {
    fn of(bytes: u64) -> Self {
        Sectors(vec![0; (bytes / SECTOR / 64 + 1) as usize])
    }

    fn has(&self, sector: u64) -> bool {
        self.0[(sector / 64) as usize] >> (sector % 64) & 1 == 1
    }

    /// Returns whether it was in before.
    fn set(&mut self, sector: u64, value: bool) -> bool {
        let (word, bit) = (&mut self.0[(sector / 64) as usize], 1 << (sector % 64));
        let before = *word & bit != 0;
        if value {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        before
    }
}

/// A state of the disk, told by what it differs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Sectors that count and are not as before all writes.
    pub from_old: u64,
    /// Sectors that count and are not as after all writes.
    pub from_new: u64,
}

/// Where in the recording a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// After so many writes.
    After(usize),
    /// In the middle of this write.
    Torn(usize),
    /// At the end of an epoch, without this write of it.
    Without(usize),
}

/// Follows a disk through a recording.
///
/// Small ranges ("heads": partition tables) are kept as they are, for a judge to read; of all else it is known which
/// sectors differ from the disk before and after all writes.
pub struct Follower<'a> {
    log: &'a WriteLog,
    before: &'a File,
    after: &'a File,
    heads: Vec<(Range<u64>, Vec<u8>)>,
    /// Sectors that do not count.
    free: Vec<Range<u64>>,
    size: u64,
}

impl<'a> Follower<'a> {
    /// Of a disk that was `before` and became `after`, both raw; what lies in `heads` is judged as it is, what lies in
    /// `free` does not count.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn new(
        log: &'a WriteLog,
        before: &'a File,
        after: &'a File,
        heads: &[Range<u64>],
        free: Vec<Range<u64>>,
    ) -> Result<Self> {
        let size = before.metadata()?.len();
        ensure!(after.metadata()?.len() == size, "the disk changed its size");
        let heads = heads.iter().map(|range| Ok((range.clone(), read(before, range)?))).collect::<Result<_>>()?;
        Ok(Follower { log, before, after, heads, free, size })
    }

    fn counts(&self, byte: u64) -> bool {
        let within = |range: &Range<u64>| range.contains(&byte);
        !self.free.iter().any(within) && !self.heads.iter().any(|(range, _)| within(range))
    }

    /// Shows `judge` every state that a power cut can leave: after each write, in the middle of each, and, as nothing
    /// is ordered between two flushes, the end of each epoch without any one of its writes. Returns how many.
    ///
    /// # Errors
    /// When the judge objects, or something cannot be read.
    pub fn every_cut(mut self, mut judge: impl FnMut(Cut, &mut Heads<'_>, State) -> Result<()>) -> Result<u64> {
        let mut not_old = Sectors::of(self.size);
        let mut not_new = self.differing()?;
        let mut state =
            State { from_old: 0, from_new: not_new.0.iter().map(|word| u64::from(word.count_ones())).sum() };
        let mut judged = 0;
        for epoch in self.log.epochs() {
            let heads_before = self.heads.clone();
            // For each write, the sectors it changed, and whether they differed before it.
            let mut undo: Vec<Vec<(u64, bool, bool)>> = Vec::new();
            for number in epoch.clone() {
                let write = self.log.writes()[number];
                let data = self.log.data(&write)?;
                let (old, new) = (read_at(self.before, &write)?, read_at(self.after, &write)?);
                let mut changed = Vec::new();
                for n in 0..(write.len / SECTOR) as usize {
                    if n * SECTOR as usize == half(&write) && n > 0 {
                        put(&mut self.heads, write.start, &data[..half(&write)]);
                        judge(Cut::Torn(number), &mut Heads::new(&self.heads, self.size), state)?;
                        judged += 1;
                    }
                    let at = write.start + n as u64 * SECTOR;
                    if !self.counts(at) {
                        continue;
                    }
                    let (sector, bytes) = (at / SECTOR, n * SECTOR as usize..(n + 1) * SECTOR as usize);
                    let differs = (data[bytes.clone()] != old[bytes.clone()], data[bytes.clone()] != new[bytes]);
                    let was = (not_old.set(sector, differs.0), not_new.set(sector, differs.1));
                    state = shifted(state, was, differs);
                    changed.push((sector, was.0, was.1));
                }
                put(&mut self.heads, write.start, &data);
                undo.push(changed);
                judge(Cut::After(number), &mut Heads::new(&self.heads, self.size), state)?;
                judged += 1;
            }
            for (index, number) in epoch.clone().enumerate() {
                // What a later write of the epoch covers is as that one left it.
                let later: Vec<Write> = (number + 1..epoch.end).map(|later| self.log.writes()[later]).collect();
                let covered = |sector: u64| {
                    let at = sector * SECTOR;
                    later.iter().any(|write| (write.start..write.start + write.len).contains(&at))
                };
                let mut without = state;
                let overlaps = later.iter().any(|l| {
                    let write = self.log.writes()[number];
                    l.start < write.start + write.len && write.start < l.start + l.len
                });
                for (sector, old, new) in &undo[index] {
                    if !(overlaps && covered(*sector)) {
                        without = shifted(without, (not_old.has(*sector), not_new.has(*sector)), (*old, *new));
                    }
                }
                let mut heads = heads_before.clone();
                for other in epoch.clone().filter(|other| *other != number) {
                    let write = self.log.writes()[other];
                    if heads.iter().any(|(range, _)| range.start < write.start + write.len && write.start < range.end) {
                        put(&mut heads, write.start, &self.log.data(&write)?);
                    }
                }
                judge(Cut::Without(number), &mut Heads::new(&heads, self.size), without)?;
                judged += 1;
            }
        }
        Ok(judged)
    }

    /// Sectors that writes touch and that count, where the disk before differs from the disk after.
    fn differing(&self) -> Result<Sectors> {
        let mut sectors = Sectors::of(self.size);
        for write in self.log.writes() {
            let (old, new) = (read_at(self.before, write)?, read_at(self.after, write)?);
            for n in 0..(write.len / SECTOR) as usize {
                let at = write.start + n as u64 * SECTOR;
                let bytes = n * SECTOR as usize..(n + 1) * SECTOR as usize;
                if self.counts(at) && old[bytes.clone()] != new[bytes] {
                    sectors.set(at / SECTOR, true);
                }
            }
        }
        Ok(sectors)
    }
}

fn shifted(state: State, was: (bool, bool), is: (bool, bool)) -> State {
    let shift = |count: u64, was: bool, is: bool| count + u64::from(is) - u64::from(was);
    State { from_old: shift(state.from_old, was.0, is.0), from_new: shift(state.from_new, was.1, is.1) }
}

fn read(file: &File, range: &Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

fn read_at(file: &File, write: &Write) -> Result<Vec<u8>> {
    read(file, &(write.start..write.start + write.len))
}

fn put(heads: &mut [(Range<u64>, Vec<u8>)], start: u64, data: &[u8]) {
    let end = start + data.len() as u64;
    for (range, bytes) in heads.iter_mut().filter(|(range, _)| range.start < end && start < range.end) {
        let (from, to) = (start.max(range.start), end.min(range.end));
        bytes[(from - range.start) as usize..(to - range.start) as usize]
            .copy_from_slice(&data[(from - start) as usize..(to - start) as usize]);
    }
}

/// A disk of which the heads can be read; all else reads as zeros.
pub struct Heads<'a> {
    heads: &'a [(Range<u64>, Vec<u8>)],
    size: u64,
    at: u64,
}

impl<'a> Heads<'a> {
    fn new(heads: &'a [(Range<u64>, Vec<u8>)], size: u64) -> Self {
        Heads { heads, size, at: 0 }
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Heads<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = (buffer.len() as u64).min(self.size.saturating_sub(self.at)) as usize;
        buffer[..len].fill(0);
        let (start, end) = (self.at, self.at + len as u64);
        for (range, bytes) in self.heads.iter().filter(|(range, _)| range.start < end && start < range.end) {
            let (from, to) = (start.max(range.start), end.min(range.end));
            buffer[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&bytes[(from - range.start) as usize..(to - range.start) as usize]);
        }
        self.at = end;
        Ok(len)
    }
}

impl Seek for Heads<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = |base: u64, offset: i64| {
            base.checked_add_signed(offset).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        };
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(offset) => place(self.size, offset)?,
            SeekFrom::Current(offset) => place(self.at, offset)?,
        };
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A recording of writes (sector, fill, sectors); a fill of 0 with no sectors is a flush.
    fn recording(entries: &[(u64, u8, u64)]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let sector = |words: &[u64]| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.resize(512, 0);
            bytes
        };
        let mut all = sector(&[MAGIC, 1, entries.len() as u64, 512]);
        for (start, fill, sectors) in entries {
            all.extend(sector(&[*start, *sectors, if *sectors == 0 { FLUSH } else { 0 }, 0]));
            all.extend(vec![*fill; (*sectors * SECTOR) as usize]);
        }
        file.write_all(&all).unwrap();
        file
    }

    fn disk(fills: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        fills.iter().for_each(|fill| file.write_all(&[*fill; 512]).unwrap());
        file
    }

    #[test]
    fn every_state_of_a_cut_is_shown() {
        let file = recording(&[(1, 7, 2), (0, 9, 1), (0, 0, 0), (3, 8, 1)]);
        let log = WriteLog::open(file.path()).unwrap();
        assert_eq!(log.epochs(), [0..2, 2..3]);
        let (before, after) = (disk(&[1, 1, 1, 1]), disk(&[9, 7, 7, 8]));
        // Sector 0 is read as it is; sector 3 does not count.
        let (head, free): (Range<u64>, Range<u64>) = (0..512, 1536..2048);
        let follower = Follower::new(&log, &before, &after, std::slice::from_ref(&head), Vec::from([free])).unwrap();
        let mut seen = Vec::new();
        let judged = follower.every_cut(|cut, heads, state| {
            let mut first = [0; 1];
            heads.seek(SeekFrom::Start(0))?;
            heads.read_exact(&mut first)?;
            seen.push((cut, first[0], state.from_old, state.from_new));
            Ok(())
        });
        let wanted = [
            (Cut::Torn(0), 1, 1, 1),
            (Cut::After(0), 1, 2, 0),
            (Cut::After(1), 9, 2, 0),
            (Cut::Without(0), 9, 0, 2),
            (Cut::Without(1), 1, 2, 0),
            (Cut::After(2), 9, 2, 0),
            (Cut::Without(2), 9, 2, 0),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(judged.unwrap(), 7);
        let replayed = disk(&[1, 1, 1, 1]);
        log.replay(&replayed, 0, true).unwrap();
        let mut bytes = vec![0; 2048];
        replayed.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!([bytes[0], bytes[512], bytes[1024], bytes[1536]], [1, 7, 1, 1]);
    }

    #[test]
    fn what_is_no_recording_is_said_to_be_none() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 1024]).unwrap();
        assert!(WriteLog::open(file.path()).unwrap_err().to_string().contains("no log"));
    }
}
