//! The new image, put together from front to back.

use std::io::{self, Read};

use super::blocks::{Frames, Plan};
use super::patch::{Groups, Patch};
use super::{BATCH, BLOCK_LEN, BlockId, Blocks, DeltaError, Origin, Remote, Run, Shape};
use crate::verity::{self, BlockHasher, Verity, VerityError};

/// Blocks that the old image has not.
pub(super) trait Missing {
    /// The next of them.
    fn block(&mut self, block: u64, into: &mut [u8], old: &mut dyn Blocks) -> Result<(), DeltaError>;

    /// A block that the old image should have had, and has otherwise; `false` where it cannot be had.
    fn instead(&mut self, block: u64, into: &mut [u8]) -> Result<bool, DeltaError>;
}

/// What an image was made of, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Copied from the system that runs.
    pub copied: u64,
    /// Left by an earlier attempt.
    pub kept: u64,
    /// Fetched, as they are in the image.
    pub fetched: u64,
}

/// The new image as a reader: first the boot image, then the root image.
///
/// Its errors are [`io::Error`]s around a [`DeltaError`].
pub struct Assembly<'a> {
    shape: Shape,
    verity: &'a Verity,
    hasher: BlockHasher,
    old: &'a mut dyn Blocks,
    there: &'a mut dyn Blocks,
    missing: Box<dyn Missing + 'a>,
    runs: &'a [Run],
    /// Blocks of the first of `runs` that were read.
    of_run: u64,
    ids: Option<&'a [BlockId]>,
    /// The block that comes next.
    next: u64,
    buffer: Vec<u8>,
    given: usize,
    leaves: Vec<u8>,
    counts: Counts,
}

impl<'a> Assembly<'a> {
    /// By ranges of a blocks file. `there` is where the image goes.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn of_blocks(
        file: &'a dyn Remote,
        plan: &'a Plan,
        shape: Shape,
        verity: &'a Verity,
        old: &'a mut dyn Blocks,
        there: &'a mut dyn Blocks,
    ) -> Result<Self, DeltaError> {
        let missing = Box::new(Frames::open(file, plan)?);
        Ok(Self::new(shape, verity, old, there, missing, &plan.runs, Some(plan.ids())))
    }

    /// By a patch, whose groups come from `body`.
    pub fn of_patch(
        body: Box<dyn Read>,
        patch: &'a Patch,
        verity: &'a Verity,
        old: &'a mut dyn Blocks,
        there: &'a mut dyn Blocks,
    ) -> Self {
        let missing = Box::new(Groups::new(body, patch));
        Self::new(patch.new_shape(), verity, old, there, missing, patch.runs(), None)
    }

    fn new(
        shape: Shape,
        verity: &'a Verity,
        old: &'a mut dyn Blocks,
        there: &'a mut dyn Blocks,
        missing: Box<dyn Missing + 'a>,
        runs: &'a [Run],
        ids: Option<&'a [BlockId]>,
    ) -> Self {
        Self {
            shape,
            verity,
            hasher: BlockHasher::new(verity.salt),
            old,
            there,
            missing,
            runs,
            of_run: 0,
            ids,
            next: 0,
            buffer: Vec::with_capacity(BATCH * BLOCK_LEN),
            given: 0,
            leaves: Vec::with_capacity(verity.data_blocks as usize * verity::DIGEST_LEN),
            counts: Counts::default(),
        }
    }

    /// What was used so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The verity tree of the root image, once all of it was read.
    ///
    /// # Errors
    /// When it was not.
    pub fn tree(&mut self) -> Result<Vec<u8>, VerityError> {
        let mut tree = Vec::with_capacity(self.verity.tree_len() as usize);
        verity::of_leaves(std::mem::take(&mut self.leaves), self.verity.salt, self.verity.uuid, &mut tree)?;
        Ok(tree)
    }

    /// Reads the next blocks, as many as have one origin and fit.
    fn advance(&mut self) -> Result<(), DeltaError> {
        let Some(run) = self.runs.first().copied() else { return Ok(()) };
        let blocks = (run.blocks - self.of_run).min(BATCH as u64);
        let len = blocks as usize * BLOCK_LEN;
        self.buffer.resize(len, 0);
        self.given = 0;
        match run.origin {
            Origin::Old(first) => {
                self.old.read_blocks(first + self.of_run, &mut self.buffer).map_err(DeltaError::Old)?;
                self.counts.copied += len as u64;
            }
            Origin::There => {
                self.there.read_blocks(self.next, &mut self.buffer).map_err(DeltaError::Old)?;
                self.counts.kept += len as u64;
            }
            Origin::Fetched => {
                for (n, into) in self.buffer.chunks_exact_mut(BLOCK_LEN).enumerate() {
                    self.missing.block(self.next + n as u64, into, self.old)?;
                }
                self.counts.fetched += len as u64;
            }
        }
        for (n, bytes) in self.buffer.chunks_exact_mut(BLOCK_LEN).enumerate() {
            let block = self.next + n as u64;
            let mut digest = self.hasher.hash(bytes);
            if let Some(id) = self.ids.and_then(|ids| ids.get(block as usize))
                && BlockId::of(&digest) != *id
            {
                // A block that went bad on the disk is no reason to fetch everything.
                if run.origin == Origin::Fetched || !self.missing.instead(block, bytes)? {
                    return Err(DeltaError::Corrupt(block));
                }
                digest = self.hasher.hash(bytes);
                if BlockId::of(&digest) != *id {
                    return Err(DeltaError::Corrupt(block));
                }
            }
            if block >= self.shape.boot {
                self.leaves.extend_from_slice(&digest);
            }
        }
        self.next += blocks;
        self.of_run += blocks;
        if self.of_run == run.blocks {
            (self.runs, self.of_run) = (&self.runs[1..], 0);
        }
        Ok(())
    }
}

impl Read for Assembly<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.buffer.len() {
            self.buffer.clear();
            self.given = 0;
            self.advance().map_err(io::Error::other)?;
        }
        let left = &self.buffer[self.given..];
        let n = left.len().min(into.len());
        into[..n].copy_from_slice(&left[..n]);
        self.given += n;
        Ok(n)
    }
}
