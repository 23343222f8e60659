//! The blocks file (`NAME-VERSION.blocks`): an image in small frames, from which a box fetches what it lacks.
//!
//! It lies beside the bundle on any server that serves ranges. Numbers are little-endian:
//!
//! | bytes   | what                                                                              |
//! |---------|-----------------------------------------------------------------------------------|
//! | 0-7     | `SIRISBLK`                                                                        |
//! | 8-11    | 1, the format                                                                     |
//! | 12-15   | blocks in a frame                                                                 |
//! | 16-23   | blocks of the boot image                                                          |
//! | 24-31   | blocks of the root image                                                          |
//! | 32-63   | root hash of the root image, which says whose file this is                        |
//! | 64-71   | length of the index                                                               |
//! | 72-79   | zero                                                                              |
//! | 80-     | the index: one zstd frame with the id of every block (8 bytes each) and the length of every frame (4 bytes each) |
//! | then    | the frames: every so many blocks of the image one zstd frame, the last may be shorter |
//!
//! Small frames cost a little of the compression, but a box that lacks one block fetches the frame around it.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use super::assembly::Missing;
use super::known::{Known, each_hash};
use super::{
    BATCH, BLOCK_LEN, BlockId, Blocks, DeltaError, Origin, Remote, Run, Shape, add, decode, digest_at, number,
};
use crate::Sha256;
use crate::verity::{Salt, Verity};

const MAGIC: &[u8; 8] = b"SIRISBLK";
const FORMAT: u32 = 1;
const HEAD: u64 = 80;
/// Blocks in a frame of the files made here.
pub const FRAME_BLOCKS: u32 = 8;
/// More than that in one frame is not read.
const FRAME_BLOCKS_MAX: u64 = 4096;
/// Frames that are compressed at once.
const AT_ONCE: usize = 512;

/// Writes the file of `image`. `scratch` is empty, and holds the frames until their lengths are known.
///
/// # Errors
/// When the image cannot be read, or a file cannot be written.
pub fn write<S: Read + Write + Seek>(
    out: &mut dyn Write,
    scratch: &mut S,
    image: &mut dyn Blocks,
    shape: Shape,
    verity: &Verity,
    level: i32,
) -> io::Result<()> {
    let mut index = Vec::with_capacity(shape.blocks() as usize * BlockId::LEN);
    each_hash(image, 0, shape.blocks(), verity.salt, |_, digest| {
        index.extend_from_slice(&BlockId::of(digest).to_bytes());
    })?;
    let (frame, mut first) = (FRAME_BLOCKS as usize * BLOCK_LEN, 0);
    let mut buffer = vec![0; AT_ONCE * frame];
    while first < shape.blocks() {
        let blocks = (shape.blocks() - first).min((AT_ONCE * FRAME_BLOCKS as usize) as u64);
        let bytes = &mut buffer[..blocks as usize * BLOCK_LEN];
        image.read_blocks(first, bytes)?;
        for frame in compressed(bytes, frame, level)? {
            index.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            scratch.write_all(&frame)?;
        }
        first += blocks;
    }
    let index = zstd::bulk::compress(&index, level)?;
    out.write_all(MAGIC)?;
    for word in [FORMAT, FRAME_BLOCKS] {
        out.write_all(&word.to_le_bytes())?;
    }
    for number in [shape.boot, shape.root] {
        out.write_all(&number.to_le_bytes())?;
    }
    out.write_all(verity.root_hash.as_bytes())?;
    for number in [index.len() as u64, 0] {
        out.write_all(&number.to_le_bytes())?;
    }
    out.write_all(&index)?;
    scratch.seek(SeekFrom::Start(0))?;
    io::copy(scratch, out).map(drop)
}

/// The frames of `bytes`, in order, made on all processors.
fn compressed(bytes: &[u8], frame: usize, level: i32) -> io::Result<Vec<Vec<u8>>> {
    let frames: Vec<&[u8]> = bytes.chunks(frame).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = frames.len().div_ceil(threads).max(1);
    let work = |frames: &[&[u8]]| -> io::Result<Vec<Vec<u8>>> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        frames.iter().map(|frame| compressor.compress(frame)).collect()
    };
    std::thread::scope(|scope| {
        let shares: Vec<_> = frames.chunks(share).map(|frames| scope.spawn(move || work(frames))).collect();
        let mut all = Vec::with_capacity(frames.len());
        for share in shares {
            all.extend(share.join().map_err(|_| io::Error::other("a thread that compresses panicked"))??);
        }
        Ok(all)
    })
}

/// What the file says of itself: where every block is.
#[derive(Debug)]
pub struct Index {
    shape: Shape,
    frame_blocks: u64,
    ids: Vec<BlockId>,
    /// Where each frame begins in the file, and where the last one ends.
    starts: Vec<u64>,
}

impl Index {
    /// Reads the index of the file that belongs to this image.
    ///
    /// # Errors
    /// When there is none, or it is another image's.
    pub fn read(file: &dyn Remote, shape: Shape, root_hash: &Sha256) -> Result<Self, DeltaError> {
        let mut head = [0; HEAD as usize];
        read_part(file, 0..HEAD, &mut head)?;
        if !head.starts_with(MAGIC) {
            return Err(DeltaError::Malformed("it does not begin as a blocks file does"));
        }
        if number::<4>(&head, 8) != u64::from(FORMAT) {
            return Err(DeltaError::Malformed("it has another format"));
        }
        let frame_blocks = number::<4>(&head, 12);
        let said = Shape::checked(number::<8>(&head, 16), number::<8>(&head, 24))?;
        if said != shape || digest_at(&head, 32) != *root_hash {
            return Err(DeltaError::OtherSystem);
        }
        if !(1..=FRAME_BLOCKS_MAX).contains(&frame_blocks) {
            return Err(DeltaError::Malformed("its frames have an impossible size"));
        }
        let frames = shape.blocks().div_ceil(frame_blocks);
        let (ids_len, len) = (shape.blocks() * BlockId::LEN as u64, number::<8>(&head, 64));
        let decoded = ids_len + frames * 4;
        // Ids do not compress: a frame of them is at most a little larger than they are.
        if len > decoded + decoded / 8 + 1024 {
            return Err(DeltaError::Malformed("its index is too long"));
        }
        let mut index = vec![0; len as usize];
        read_part(file, HEAD..HEAD + len, &mut index)?;
        let index = decode(&index, decoded as usize).ok_or(DeltaError::Malformed("its index does not decode"))?;
        let (ids, lengths) = index.split_at(ids_len as usize);
        let ids = ids.as_chunks().0.iter().map(|id| BlockId::from_bytes(*id)).collect();
        let mut starts = vec![HEAD + len];
        for length in lengths.as_chunks().0 {
            starts.push(starts[starts.len() - 1] + u64::from(u32::from_le_bytes(*length)));
        }
        Ok(Self { shape, frame_blocks, ids, starts })
    }

    fn frame_of(&self, block: u64) -> u64 {
        block / self.frame_blocks
    }

    fn part(&self, frame: u64) -> Range<u64> {
        self.starts[frame as usize]..self.starts[frame as usize + 1]
    }

    fn blocks_of(&self, frame: u64) -> u64 {
        self.frame_blocks.min(self.shape.blocks() - frame * self.frame_blocks)
    }

    /// The bytes that its own head and index have.
    pub fn len(&self) -> u64 {
        self.starts[0]
    }

    /// Whether the image has no block.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Decides for every block where it comes from: `known` is what the old image has; `there` the place where the
    /// new image goes, of which blocks are kept that an earlier attempt has left.
    ///
    /// # Errors
    /// When `there` cannot be read.
    pub fn plan(self, known: &Known, there: &mut dyn Blocks, salt: Salt) -> io::Result<Plan> {
        let (mut runs, mut last) = (Vec::new(), None);
        let mut buffer = vec![0; BATCH * BLOCK_LEN];
        let mut block = 0;
        while block < self.shape.blocks() {
            last = known.find(self.ids[block as usize], last);
            if let Some(old) = last {
                add(&mut runs, Origin::Old(old));
                block += 1;
                continue;
            }
            // What is missing usually comes in runs, and is looked for in runs.
            let ids = &self.ids[block as usize..];
            let missing = ids.iter().take(BATCH).take_while(|id| known.find(**id, None).is_none()).count().max(1);
            let batch = &mut buffer[..missing * BLOCK_LEN];
            there.read_blocks(block, batch)?;
            let mut content: &[u8] = batch;
            each_hash(&mut content, 0, missing as u64, salt, |n, digest| {
                // The writer clears the head of the boot image before anything else.
                let is_there = block + n > 0 && BlockId::of(digest) == ids[n as usize];
                add(&mut runs, if is_there { Origin::There } else { Origin::Fetched });
            })?;
            block += missing as u64;
        }
        Ok(Plan::of(self, runs))
    }
}

fn read_part(file: &dyn Remote, part: Range<u64>, into: &mut [u8]) -> Result<(), DeltaError> {
    file.parts(&[part]).and_then(|mut body| body.read_exact(into)).map_err(DeltaError::Fetch)
}

/// Where every block of the new image comes from.
#[derive(Debug)]
pub struct Plan {
    index: Index,
    pub(super) runs: Vec<Run>,
    /// The frames that are fetched, in order.
    frames: Vec<u64>,
}

impl Plan {
    fn of(index: Index, runs: Vec<Run>) -> Self {
        let (mut frames, mut first) = (Vec::new(), 0);
        for run in &runs {
            if run.origin == Origin::Fetched {
                let from = index.frame_of(first).max(frames.last().map_or(0, |frame| frame + 1));
                frames.extend(from..=index.frame_of(first + run.blocks - 1));
            }
            first += run.blocks;
        }
        Self { index, runs, frames }
    }

    /// Bytes that have to be fetched beside the index.
    pub fn fetch_len(&self) -> u64 {
        self.frames.iter().map(|frame| self.index.part(*frame)).map(|part| part.end - part.start).sum()
    }

    /// The id of every block, to compare with what is read.
    pub(super) fn ids(&self) -> &[BlockId] {
        &self.index.ids
    }
}

/// The missing blocks, as they come in.
pub(super) struct Frames<'a> {
    file: &'a dyn Remote,
    plan: &'a Plan,
    body: Box<dyn Read>,
    next: usize,
    /// The frame that was read last.
    current: Option<(u64, Vec<u8>)>,
}

impl<'a> Frames<'a> {
    pub(super) fn open(file: &'a dyn Remote, plan: &'a Plan) -> Result<Self, DeltaError> {
        let mut parts: Vec<Range<u64>> = Vec::new();
        for part in plan.frames.iter().map(|frame| plan.index.part(*frame)) {
            match parts.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => parts.push(part),
            }
        }
        let body =
            if parts.is_empty() { Box::new(io::empty()) } else { file.parts(&parts).map_err(DeltaError::Fetch)? };
        Ok(Self { file, plan, body, next: 0, current: None })
    }

    fn decoded(&self, frame: u64, body: &mut dyn Read) -> Result<Vec<u8>, DeltaError> {
        let (index, part) = (&self.plan.index, self.plan.index.part(frame));
        let len = index.blocks_of(frame) as usize * BLOCK_LEN;
        let corrupt = || DeltaError::Corrupt(frame * index.frame_blocks);
        // No frame is worth more than its content.
        if part.end - part.start > 2 * len as u64 + 1024 {
            return Err(corrupt());
        }
        let mut bytes = vec![0; (part.end - part.start) as usize];
        body.read_exact(&mut bytes).map_err(DeltaError::Fetch)?;
        decode(&bytes, len).ok_or_else(corrupt)
    }

    fn give(&self, frame: u64, content: &[u8], block: u64, into: &mut [u8]) {
        let at = (block - frame * self.plan.index.frame_blocks) as usize * BLOCK_LEN;
        into.copy_from_slice(&content[at..at + BLOCK_LEN]);
    }
}

impl Missing for Frames<'_> {
    fn block(&mut self, block: u64, into: &mut [u8], _: &mut dyn Blocks) -> Result<(), DeltaError> {
        let wanted = self.plan.index.frame_of(block);
        if self.current.as_ref().is_none_or(|(frame, _)| *frame != wanted) {
            // Both walk the same runs in the same order.
            if self.plan.frames.get(self.next) != Some(&wanted) {
                return Err(DeltaError::Corrupt(block));
            }
            self.next += 1;
            let mut body = std::mem::replace(&mut self.body, Box::new(io::empty()));
            let content = self.decoded(wanted, &mut body)?;
            (self.body, self.current) = (body, Some((wanted, content)));
        }
        if let Some((frame, content)) = &self.current {
            self.give(*frame, content, block, into);
        }
        Ok(())
    }

    fn instead(&mut self, block: u64, into: &mut [u8]) -> Result<bool, DeltaError> {
        let frame = self.plan.index.frame_of(block);
        let mut body = self.file.parts(&[self.plan.index.part(frame)]).map_err(DeltaError::Fetch)?;
        let content = self.decoded(frame, &mut body)?;
        self.give(frame, &content, block, into);
        Ok(true)
    }
}
