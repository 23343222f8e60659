//! Deltas: what a box that has one system need not fetch of the next.
//!
//! Both kinds speak of an *image*: the boot image and behind it the root image, in blocks of 4096 bytes that are
//! numbered from 0 ([`Shape`]). A block is known by its [`BlockId`], and is copied where the old image has it.
//!
//! | kind       | from          | missing blocks come as                                                        |
//! |------------|---------------|-------------------------------------------------------------------------------|
//! | [`blocks`] | any version   | the frames that hold them, by ranges of a file that lies beside the bundle    |
//! | [`patch`]  | one version   | one file, compressed against what the old image has in their place            |
//!
//! [`Assembly`] puts the new image together from front to back, so that the slot writer writes it as it writes any
//! other. It hashes every block once, and makes the verity tree of these hashes: the tree is never fetched.
//!
//! Nothing in a delta is signed, and nothing of it is believed: what it makes is compared with the digests of the signed
//! manifest by who writes it. A delta that lies, or an old image that is damaged, costs time and nothing else.

pub mod blocks;
pub mod known;
pub mod patch;

mod assembly;

pub use assembly::{Assembly, Counts};
pub use known::Known;

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use crate::manifest::Manifest;
use crate::verity::{BLOCK, DIGEST_LEN};
use crate::{Class, Sha256};

/// Bytes of a block.
pub const BLOCK_LEN: usize = BLOCK as usize;
/// Blocks handled at once.
pub(crate) const BATCH: usize = 64;
/// A boot or root image beyond this is no image: block numbers fit in 32 bits.
const MAX_BLOCKS: u64 = 1 << 31;

/// Why a delta cannot be used. The whole bundle still can.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The file with the missing blocks, or what it is fetched with, failed.
    #[error("reading the delta")]
    Fetch(#[source] io::Error),
    /// The system that is there cannot be read.
    #[error("reading the system that is there")]
    Old(#[source] io::Error),
    /// The file is none, or not this one's.
    #[error("not the delta that is wanted: {0}")]
    Malformed(&'static str),
    /// It was made for another pair of systems.
    #[error("the delta is for other systems than these")]
    OtherSystem,
    /// What it holds does not decode, or is not what it says.
    #[error("the delta is corrupt at block {0} of the image")]
    Corrupt(u64),
}

impl DeltaError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "delta-fetch",
            Self::Old(_) => "delta-old",
            Self::Malformed(_) => "delta-malformed",
            Self::OtherSystem => "delta-other-system",
            Self::Corrupt(_) => "delta-corrupt",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Fetch(_) => Class::Environment,
            Self::Old(_) => Class::Host,
            Self::Malformed(_) | Self::OtherSystem | Self::Corrupt(_) => Class::Input,
        }
    }
}

/// How many blocks an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Of the boot image.
    pub boot: u64,
    /// Of the root image.
    pub root: u64,
}

impl Shape {
    /// The image that a manifest describes.
    pub fn of(manifest: &Manifest) -> Self {
        Self { boot: manifest.boot.size.bytes() / BLOCK, root: manifest.verity.data_blocks }
    }

    /// All of them.
    pub fn blocks(self) -> u64 {
        self.boot + self.root
    }

    /// Which part of a read is of the boot image, and which of the root image.
    fn split(self, first: u64, into: &mut [u8]) -> io::Result<(Half<'_>, Half<'_>)> {
        let blocks = (into.len() / BLOCK_LEN) as u64;
        if first + blocks > self.blocks() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let in_boot = self.boot.saturating_sub(first).min(blocks) as usize * BLOCK_LEN;
        let (boot, root) = into.split_at_mut(in_boot);
        Ok(((first, boot), (first.saturating_sub(self.boot), root)))
    }

    fn checked(boot: u64, root: u64) -> Result<Self, DeltaError> {
        match boot < MAX_BLOCKS && root < MAX_BLOCKS && boot + root > 0 {
            true => Ok(Self { boot, root }),
            false => Err(DeltaError::Malformed("its image has an impossible size")),
        }
    }
}

/// What a block is known by: the first eight bytes of its salted hash, as they are in the leaves of the verity tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u64);

impl BlockId {
    /// Bytes that it takes in a file.
    pub const LEN: usize = 8;

    fn of(digest: &[u8; DIGEST_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest;
        Self::from_bytes([a, b, c, d, e, f, g, h])
    }

    fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        self.0.to_le_bytes()
    }
}

/// An image that is there.
pub trait Blocks {
    /// Reads whole blocks from block `first` on.
    ///
    /// # Errors
    /// When they cannot be read; `UnexpectedEof` beyond the end.
    fn read_blocks(&mut self, first: u64, into: &mut [u8]) -> io::Result<()>;
}

impl Blocks for &[u8] {
    fn read_blocks(&mut self, first: u64, into: &mut [u8]) -> io::Result<()> {
        let start = first as usize * BLOCK_LEN;
        let bytes = self.get(start..start + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}

/// An image whose two halves are somewhere on a device.
#[derive(Debug)]
pub struct Placed<D> {
    /// The device.
    pub device: D,
    /// Where the boot image begins, in bytes.
    pub boot: u64,
    /// Where the root image begins, in bytes.
    pub root: u64,
    /// Its size.
    pub shape: Shape,
}

impl<D: Read + Seek> Blocks for Placed<D> {
    fn read_blocks(&mut self, first: u64, into: &mut [u8]) -> io::Result<()> {
        let (boot, root) = self.shape.split(first, into)?;
        read_at(&mut self.device, self.boot, boot)?;
        read_at(&mut self.device, self.root, root)
    }
}

/// An image whose two halves are files.
#[derive(Debug)]
pub struct Joined<B, R> {
    /// The boot image.
    pub boot: B,
    /// The root image.
    pub root: R,
    /// Its size.
    pub shape: Shape,
}

impl<B: Read + Seek, R: Read + Seek> Blocks for Joined<B, R> {
    fn read_blocks(&mut self, first: u64, into: &mut [u8]) -> io::Result<()> {
        let (boot, root) = self.shape.split(first, into)?;
        read_at(&mut self.boot, 0, boot)?;
        read_at(&mut self.root, 0, root)
    }
}

/// What is to be read of one half: the block of it, and where its bytes go.
type Half<'a> = (u64, &'a mut [u8]);

fn read_at(device: &mut (impl Read + Seek), start: u64, (first, into): Half<'_>) -> io::Result<()> {
    if into.is_empty() {
        return Ok(());
    }
    device.seek(SeekFrom::Start(start + first * BLOCK))?;
    device.read_exact(into)
}

/// A file of which parts can be had.
pub trait Remote {
    /// A reader of these parts of it, one after the other. They are in order and do not overlap.
    ///
    /// # Errors
    /// When they cannot be had. The reader's own errors are as final.
    fn parts(&self, parts: &[Range<u64>]) -> io::Result<Box<dyn Read>>;
}

/// Where blocks of the new image come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The old image has them from this block on.
    Old(u64),
    /// They are where they have to be: an earlier attempt, or an earlier system, left them there.
    There,
    /// They have to be fetched.
    Fetched,
}

/// Blocks in a row with one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) blocks: u64,
    pub(crate) origin: Origin,
}

/// Adds a block to runs, which have all blocks before it.
pub(crate) fn add(runs: &mut Vec<Run>, origin: Origin) {
    if let Some(last) = runs.last_mut() {
        let continues = match (last.origin, origin) {
            (Origin::Old(first), Origin::Old(block)) => block == first + last.blocks,
            (there, origin) => there == origin,
        };
        if continues {
            last.blocks += 1;
            return;
        }
    }
    runs.push(Run { blocks: 1, origin });
}

/// Reads a little-endian number at `at`; callers have checked the length.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

fn digest_at(bytes: &[u8], at: usize) -> Sha256 {
    let mut digest = [0; DIGEST_LEN];
    digest.copy_from_slice(&bytes[at..at + DIGEST_LEN]);
    Sha256::from_bytes(digest)
}

/// Decodes a frame that must have exactly `len` bytes.
fn decode(frame: &[u8], len: usize) -> Option<Vec<u8>> {
    let bytes = zstd::bulk::decompress(frame, len).ok()?;
    (bytes.len() == len).then_some(bytes)
}

#[cfg(test)]
mod tests;
