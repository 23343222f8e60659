//! The patch (`NAME-OLD-to-NEW.patch`): one image as the difference to another one.
//!
//! Made once, at release time, for each of the last few releases, and fetched whole. Numbers are little-endian:
//!
//! | bytes   | what                                                                          |
//! |---------|-------------------------------------------------------------------------------|
//! | 0-7     | `SIRISDLT`                                                                    |
//! | 8-11    | 1, the format                                                                 |
//! | 12-15   | zero                                                                          |
//! | 16-47   | root hash of the old root image                                               |
//! | 48-79   | root hash of the new one                                                      |
//! | 80-111  | blocks of the old boot and root image and of the new ones, 8 bytes each       |
//! | 112-119 | length of the list                                                            |
//! | 120-127 | length of the list, decoded                                                   |
//! | 128-    | the list: one zstd frame                                                      |
//! | then    | the groups, each one zstd frame                                               |
//!
//! The list is 4-byte numbers: how many runs there are, and of each its length in blocks and the block of the old
//! image that it begins with, or `FFFFFFFF` for blocks that are in groups; then of each group its length in blocks,
//! the first block and the number of blocks of the old image that its frame refers to as a prefix, and the length of
//! the frame. A group holds at most 4 MiB and refers to 8 MiB at most, so that whoever applies it needs little memory.

use std::io::{self, Read, Write};

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

use super::assembly::Missing;
use super::known::{Known, each_hash};
use super::{BATCH, BLOCK_LEN, BlockId, Blocks, DeltaError, Origin, Run, Shape, add, decode, digest_at, number};
use crate::Sha256;
use crate::verity::{Salt, Verity};

const MAGIC: &[u8; 8] = b"SIRISDLT";
const FORMAT: u32 = 1;
const HEAD: usize = 128;
const IN_GROUPS: u32 = u32::MAX;
/// Most blocks of a group.
const GROUP_MAX: u64 = 1024;
/// Most blocks of the old image that a group refers to.
const PREFIX_MAX: u64 = 2048;
/// Blocks on either side of where a group's old content should be that are referred to as well.
const MARGIN: u64 = 256;
/// Fewer equal blocks in a row say nothing of where the content around them was.
const ANCHOR: u64 = 8;
/// log2 of a window that spans prefix and group.
const WINDOW_LOG: u32 = 24;

/// The blocks of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    blocks: u64,
    /// What it refers to in the old image: first block and number of blocks.
    prefix: (u64, u64),
    /// Bytes of its frame.
    len: u64,
}

/// An image, and what is known of it.
pub struct Side<'a> {
    /// Its blocks.
    pub blocks: &'a mut dyn Blocks,
    /// How many they are.
    pub shape: Shape,
    /// The verity of its root image.
    pub verity: &'a Verity,
}

/// Writes the patch from `old` to `new`.
///
/// # Errors
/// When an image cannot be read or the patch cannot be written.
pub fn write(out: &mut dyn Write, old: Side<'_>, new: Side<'_>, level: i32) -> io::Result<()> {
    let known = Known::look(old.blocks, old.shape, new.verity.salt, None)?;
    let runs = runs(&known, new.blocks, new.shape, new.verity.salt)?;
    let mut groups = groups(&runs, old.shape.blocks());
    let (mut frames, mut first) = (Vec::new(), 0);
    // Where the blocks of groups are in the new image.
    let mut missing = Vec::new();
    for run in &runs {
        if run.origin == Origin::Fetched {
            missing.extend(first..first + run.blocks);
        }
        first += run.blocks;
    }
    let mut missing = missing.into_iter();
    for group in &mut groups {
        let mut content = vec![0; group.blocks as usize * BLOCK_LEN];
        for into in content.chunks_exact_mut(BLOCK_LEN) {
            // Groups have exactly the missing blocks.
            let block = missing.next().ok_or(io::ErrorKind::UnexpectedEof)?;
            new.blocks.read_blocks(block, into)?;
        }
        let mut prefix = vec![0; group.prefix.1 as usize * BLOCK_LEN];
        old.blocks.read_blocks(group.prefix.0, &mut prefix)?;
        let frame = compress(&content, &prefix, level)?;
        group.len = frame.len() as u64;
        frames.push(frame);
    }
    let decoded = list(&runs, &groups);
    let list = zstd::bulk::compress(&decoded, level)?;
    out.write_all(MAGIC)?;
    out.write_all(&FORMAT.to_le_bytes())?;
    out.write_all(&[0; 4])?;
    for hash in [old.verity.root_hash, new.verity.root_hash] {
        out.write_all(hash.as_bytes())?;
    }
    let numbers = [old.shape.boot, old.shape.root, new.shape.boot, new.shape.root];
    for number in numbers.into_iter().chain([list.len() as u64, decoded.len() as u64]) {
        out.write_all(&number.to_le_bytes())?;
    }
    out.write_all(&list)?;
    frames.iter().try_for_each(|frame| out.write_all(frame))
}

fn runs(known: &Known, image: &mut dyn Blocks, shape: Shape, salt: Salt) -> io::Result<Vec<Run>> {
    let (mut runs, mut last) = (Vec::new(), None);
    each_hash(image, 0, shape.blocks(), salt, |_, digest| {
        last = known.find(BlockId::of(digest), last);
        add(&mut runs, last.map_or(Origin::Fetched, Origin::Old));
    })?;
    Ok(runs)
}

/// Where in the old image the content of a block of the new one should have been: between what is equal before and
/// behind it.
struct Guess {
    /// (block of the new image, block of the old one), ascending in the first.
    anchors: Vec<(u64, u64)>,
    old_blocks: u64,
}

impl Guess {
    fn of(runs: &[Run], old_blocks: u64) -> Self {
        let (mut anchors, mut first) = (vec![(0, 0)], 0);
        for run in runs {
            if let Origin::Old(old) = run.origin
                && run.blocks >= ANCHOR
            {
                anchors.extend([(first, old), (first + run.blocks, old + run.blocks)]);
            }
            first += run.blocks;
        }
        Self { anchors, old_blocks }
    }

    fn at(&self, block: u64) -> u64 {
        let behind = self.anchors.partition_point(|(new, _)| *new <= block);
        let (new, old) = self.anchors[behind.saturating_sub(1)];
        let straight = old + (block - new);
        let guess = match self.anchors.get(behind) {
            Some((next_new, next_old)) if *next_old > old => {
                old + (block - new) * (next_old - old) / (next_new - new).max(1)
            }
            _ => straight,
        };
        guess.min(self.old_blocks.saturating_sub(1))
    }
}

/// Puts the missing blocks into groups, each with the part of the old image that should be like it.
fn groups(runs: &[Run], old_blocks: u64) -> Vec<Group> {
    let guess = Guess::of(runs, old_blocks);
    let mut groups: Vec<Group> = Vec::new();
    // Of the group being filled: blocks, and the span of the guesses.
    let mut open: Option<(u64, u64, u64)> = None;
    let close = |open: &mut Option<(u64, u64, u64)>, groups: &mut Vec<Group>| {
        if let Some((blocks, low, high)) = open.take() {
            let first = low.saturating_sub(MARGIN);
            let len = (high + MARGIN).min(old_blocks).saturating_sub(first).min(PREFIX_MAX);
            groups.push(Group { blocks, prefix: (first, len), len: 0 });
        }
    };
    let mut first = 0;
    for run in runs {
        for block in (first..first + run.blocks).filter(|_| run.origin == Origin::Fetched) {
            let at = guess.at(block);
            open = match open {
                Some((blocks, low, high))
                    if blocks < GROUP_MAX && high.max(at + 1) - low.min(at) <= PREFIX_MAX - 2 * MARGIN =>
                {
                    Some((blocks + 1, low.min(at), high.max(at + 1)))
                }
                _ => {
                    close(&mut open, &mut groups);
                    Some((1, at, at + 1))
                }
            };
        }
        first += run.blocks;
    }
    close(&mut open, &mut groups);
    groups
}

fn list(runs: &[Run], groups: &[Group]) -> Vec<u8> {
    let mut numbers = vec![runs.len() as u32];
    for run in runs {
        let from = if let Origin::Old(first) = run.origin { first as u32 } else { IN_GROUPS };
        numbers.extend([run.blocks as u32, from]);
    }
    for group in groups {
        numbers.extend([group.blocks, group.prefix.0, group.prefix.1, group.len].map(|number| number as u32));
    }
    numbers.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

fn compress(content: &[u8], prefix: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::EnableLongDistanceMatching(true),
    ] {
        context.set_parameter(parameter).map_err(zstd_error)?;
    }
    context.ref_prefix(prefix).map_err(zstd_error)?;
    let mut frame = Vec::with_capacity(compress_bound(content.len()));
    context.compress2(&mut frame, content).map_err(zstd_error)?;
    Ok(frame)
}

fn decompress(frame: &[u8], prefix: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut context = DCtx::create();
    context.ref_prefix(prefix).ok()?;
    let mut content = Vec::with_capacity(len);
    context.decompress(&mut content, frame).ok()?;
    (content.len() == len).then_some(content)
}

/// What a patch says of itself.
#[derive(Debug)]
pub struct Patch {
    new: Shape,
    runs: Vec<Run>,
    groups: Vec<Group>,
}

impl Patch {
    /// Reads head and list; the groups follow in `file`.
    ///
    /// # Errors
    /// When it is no patch, or not one from the old image to the new one.
    pub fn read(file: &mut dyn Read, old: (Shape, &Sha256), new: (Shape, &Sha256)) -> Result<Self, DeltaError> {
        let mut head = [0; HEAD];
        file.read_exact(&mut head).map_err(DeltaError::Fetch)?;
        if !head.starts_with(MAGIC) {
            return Err(DeltaError::Malformed("it does not begin as a patch does"));
        }
        if number::<4>(&head, 8) != u64::from(FORMAT) {
            return Err(DeltaError::Malformed("it has another format"));
        }
        let shape = |at| Shape::checked(number::<8>(&head, at), number::<8>(&head, at + 8));
        for ((wanted, hash), (at, shape_at)) in [(old, (16, 80)), (new, (48, 96))] {
            if digest_at(&head, at) != *hash || shape(shape_at)? != wanted {
                return Err(DeltaError::OtherSystem);
            }
        }
        let (len, decoded) = (number::<8>(&head, 112), number::<8>(&head, 120));
        // Every run and every group has a block at least.
        if decoded > 4 + 24 * new.0.blocks() || len > decoded + decoded / 8 + 1024 {
            return Err(DeltaError::Malformed("its list is too long"));
        }
        let mut list = vec![0; len as usize];
        file.read_exact(&mut list).map_err(DeltaError::Fetch)?;
        let list = decode(&list, decoded as usize).ok_or(DeltaError::Malformed("its list does not decode"))?;
        let numbers: Vec<u64> = list.as_chunks().0.iter().map(|bytes| u64::from(u32::from_le_bytes(*bytes))).collect();
        Self::of_list(&numbers, old.0, new.0).ok_or(DeltaError::Malformed("its list makes no sense"))
    }

    fn of_list(numbers: &[u64], old: Shape, new: Shape) -> Option<Self> {
        let (count, rest) = numbers.split_first()?;
        let (runs, groups) = rest.split_at_checked(usize::try_from(*count).ok()?.checked_mul(2)?)?;
        let (old_blocks, mut left, mut missing) = (old.blocks(), new.blocks(), 0);
        let mut checked = Vec::new();
        for [blocks, from] in runs.as_chunks().0 {
            left = left.checked_sub(*blocks).filter(|_| *blocks > 0)?;
            let origin = if *from == u64::from(IN_GROUPS) {
                missing += blocks;
                Origin::Fetched
            } else {
                (from + blocks <= old_blocks).then_some(Origin::Old(*from))?
            };
            checked.push(Run { blocks: *blocks, origin });
        }
        let (groups, odd) = groups.as_chunks();
        let mut of_groups = 0;
        let groups: Option<Vec<Group>> = groups
            .iter()
            .map(|[blocks, first, prefix, len]| {
                of_groups += blocks;
                let most = 2 * blocks * BLOCK_LEN as u64 + 1024;
                let sound = (1..=GROUP_MAX).contains(blocks)
                    && *prefix <= PREFIX_MAX
                    && first + prefix <= old_blocks
                    && *len <= most;
                sound.then_some(Group { blocks: *blocks, prefix: (*first, *prefix), len: *len })
            })
            .collect();
        (left == 0 && odd.is_empty() && of_groups == missing).then_some(Self { new, runs: checked, groups: groups? })
    }

    /// Bytes of all its groups.
    pub fn groups_len(&self) -> u64 {
        self.groups.iter().map(|group| group.len).sum()
    }

    pub(super) fn new_shape(&self) -> Shape {
        self.new
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }
}

/// The groups, as they come in.
pub(super) struct Groups<'a> {
    body: Box<dyn Read>,
    groups: std::slice::Iter<'a, Group>,
    content: Vec<u8>,
    given: usize,
}

impl<'a> Groups<'a> {
    pub(super) fn new(body: Box<dyn Read>, patch: &'a Patch) -> Self {
        Self { body, groups: patch.groups.iter(), content: Vec::new(), given: 0 }
    }
}

impl Missing for Groups<'_> {
    fn block(&mut self, block: u64, into: &mut [u8], old: &mut dyn Blocks) -> Result<(), DeltaError> {
        if self.given == self.content.len() {
            // Memory is what a small box lacks: never two groups at once.
            self.content = Vec::new();
            self.given = 0;
            let group = self.groups.next().ok_or(DeltaError::Corrupt(block))?;
            let mut frame = vec![0; group.len as usize];
            self.body.read_exact(&mut frame).map_err(DeltaError::Fetch)?;
            let mut prefix = vec![0; group.prefix.1 as usize * BLOCK_LEN];
            for (n, batch) in prefix.chunks_mut(BATCH * BLOCK_LEN).enumerate() {
                old.read_blocks(group.prefix.0 + (n * BATCH) as u64, batch).map_err(DeltaError::Old)?;
            }
            let len = group.blocks as usize * BLOCK_LEN;
            self.content = decompress(&frame, &prefix, len).ok_or(DeltaError::Corrupt(block))?;
        }
        into.copy_from_slice(&self.content[self.given..self.given + BLOCK_LEN]);
        self.given += BLOCK_LEN;
        Ok(())
    }

    fn instead(&mut self, _: u64, _: &mut [u8]) -> Result<bool, DeltaError> {
        Ok(false)
    }
}
