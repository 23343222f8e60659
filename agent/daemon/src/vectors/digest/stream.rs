//! What changed between two snapshots, as an incremental stream of ZFS has it.
//!
//! In: the bytes of `zfs send -i`. Out: for each object the chunks of it that were written or freed. Owns: what each kind of
//! record says of an object (as [`siris_zfs::record`], OpenZFS 2.3). Never: guesses. A record, a feature or a flag that is not known here makes the stream one of which nothing is known.
//!
//! Field notes, from the sender's code: an object's record comes for each one whose 16 KiB of the object table changed, and
//! behind it a range freed from the end of its last block on, so neither says that the object changed. Holes that were never
//! anything else are sent as freed again whenever the block that lists them changed. And an object that was freed and used
//! again for another file comes like one that was written to: that it is another file, its owner has to see elsewhere.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::ops::Range;

use siris_zfs::Guid;
use siris_zfs::record::{END, FILE_SYSTEM, ONE, Order, RECORD, Record};

use super::CHUNK;

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// Kinds of records.
const OBJECT: u32 = 1;
const FREE_OBJECTS: u32 = 2;
const WRITE: u32 = 3;
const FREE: u32 = 4;
const SPILL: u32 = 7;
const WRITE_EMBEDDED: u32 = 8;

/// Features that change nothing of how records are read: spilled attributes; embedded, LZ4, large, compressed and zstd
/// blocks; large dnodes; holds; the switch to large blocks; long names; large directories. Not among them: deduplicated,
/// resumed, redacted and raw streams.
const FEATURES: u64 =
    1 << 2 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29;
/// Flags of a header that are known and are none of a clone's stream: names without case, records of what is free, spilled
/// attributes.
const FLAGS: u32 = 1 << 1 | 1 << 2 | 1 << 3;

/// A stream of which nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It broke off.
    #[error("the stream broke off")]
    Read(#[from] io::Error),
    /// It is not what was asked for, or holds something that is not known.
    #[error("{0}")]
    Unknown(String),
}

fn unknown<T>(what: impl Into<String>) -> Result<T, StreamError> {
    Err(StreamError::Unknown(what.into()))
}

/// What was written or freed.
#[derive(Debug, Default)]
pub struct Changes {
    /// By object, the numbers of its chunks; in order and apart from each other.
    chunks: HashMap<u64, Vec<Range<u64>>>,
    /// By object, the byte from which on all is free. Not by chunks: it comes for files that nobody touched, too, and must not
    /// have their last chunks read.
    ends: HashMap<u64, u64>,
    /// Objects that are free now.
    free: Vec<Range<u64>>,
}

impl Changes {
    /// Reads the stream from one snapshot to another to its end.
    ///
    /// # Errors
    /// When it breaks off, is another one, or has something in it that is not known.
    pub fn read(stream: &mut dyn Read, from: Guid, to: Guid) -> Result<Self, StreamError> {
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        let mut bytes = [0; RECORD];
        stream.read_exact(&mut bytes)?;
        let order = begin(&bytes, from, to)?;
        let mut changes = Changes::default();
        loop {
            stream.read_exact(&mut bytes)?;
            let record = Record::new(&bytes, order);
            let kind = record.kind();
            let Some((at, payload)) = shape(&record) else {
                return unknown(format!("a record of kind {kind} is not known"));
            };
            // Each record names the snapshot: whatever was misread before shows here.
            if record.u64(at) != to.as_u64() {
                return unknown("a record is not the snapshot's");
            }
            match kind {
                FREE_OBJECTS => add(&mut changes.free, record.u64(8), record.u64(16), 1),
                WRITE => changes.touch(record.u64(8), record.u64(24), record.u64(32)),
                FREE | WRITE_EMBEDDED => changes.touch(record.u64(8), record.u64(16), record.u64(24)),
                END => break,
                // Attributes, which are read anew anyway.
                _ => {}
            }
            if io::copy(&mut stream.by_ref().take(payload), &mut io::sink())? != payload {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        if stream.read(&mut [0])? != 0 {
            return unknown("something follows the stream's end");
        }
        changes.chunks.values_mut().for_each(sort);
        sort(&mut changes.free);
        Ok(changes)
    }

    fn touch(&mut self, object: u64, offset: u64, length: u64) {
        if offset.saturating_add(length) == u64::MAX {
            let end = self.ends.entry(object).or_insert(offset);
            *end = offset.min(*end);
            return;
        }
        add(self.chunks.entry(object).or_default(), offset, length, CHUNK);
    }

    /// Whether something of a chunk of an object, these bytes, may be other than it was.
    pub fn touches(&self, object: u64, chunk: &Range<u64>) -> bool {
        // A file that is there and yet free fits nothing: nothing is known of it.
        contains(&self.free, object)
            || self.ends.get(&object).is_some_and(|end| *end < chunk.end)
            || self.chunks.get(&object).is_some_and(|chunks| contains(chunks, chunk.start / CHUNK))
    }
}

/// Adds what lies in `length` from `offset` on, in units; to the last range where it goes on there.
fn add(ranges: &mut Vec<Range<u64>>, offset: u64, length: u64, unit: u64) {
    if length == 0 {
        return;
    }
    let (start, end) = (offset / unit, offset.saturating_add(length).div_ceil(unit));
    match ranges.last_mut() {
        Some(last) if last.start <= start && start <= last.end => last.end = last.end.max(end),
        _ => ranges.push(start..end),
    }
}

fn sort(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
}

fn contains(ranges: &[Range<u64>], number: u64) -> bool {
    let at = ranges.partition_point(|range| range.end <= number);
    ranges.get(at).is_some_and(|range| range.start <= number)
}

/// Checks the header; gives the byte order.
fn begin(bytes: &[u8; RECORD], from: Guid, to: Guid) -> Result<Order, StreamError> {
    let Some(header) = Record::header(bytes) else { return unknown("no stream of ZFS") };
    if (header.leads_in(), header.of()) != (ONE, FILE_SYSTEM) {
        return unknown("not one stream of one file system");
    }
    let (features, flags) = (header.features(), header.flags());
    // What a header brings along says that the stream is not a plain one.
    if features & !FEATURES != 0 || flags & !FLAGS != 0 || header.payload() != 0 {
        return unknown(format!("a stream with features {features:#x} and flags {flags:#x} is not known"));
    }
    if (header.to(), header.from()) != (to.as_u64(), from.as_u64()) {
        return unknown("the stream is between other snapshots");
    }
    Ok(header.order())
}

/// Where the snapshot's guid is in a record, and how many bytes follow it; `None` where its kind is not known.
fn shape(record: &Record<'_>) -> Option<(usize, u64)> {
    let aligned = |length: u32| u64::from(length).next_multiple_of(8);
    let compressed = |is: bool, size: usize, plain: usize| record.u64(if is { size } else { plain });
    Some(match record.kind() {
        OBJECT if record.u32(36) == 0 => (40, aligned(record.u32(28))),
        FREE_OBJECTS => (24, 0),
        WRITE => (40, compressed(record.byte(50) != 0, 96, 32)),
        FREE => (32, 0),
        END => (40, 0),
        SPILL => (24, compressed(record.u64(40) != 0, 40, 16)),
        WRITE_EMBEDDED => (32, aligned(record.u32(52))),
        _ => return None,
    })
}

#[cfg(test)]
pub(in super::super) mod tests;
