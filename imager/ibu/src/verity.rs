//! The dm-verity hash tree, format 1 with SHA-256 and 4096-byte blocks.
//!
//! The bytes are those that `veritysetup format` lays down: a superblock, padded to one block, then the levels of
//! hash blocks from the top (one block) to the leaves. See the kernel's `Documentation/admin-guide/device-mapper/
//! verity.rst` and cryptsetup's on-disk format page. A leaf is `SHA-256(salt || data block)`; an inner entry is the
//! same over a hash block; the root hash is the same over the topmost block. Memory used is the size of the tree,
//! 1/128 of the data.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::Digest;
use uuid::Uuid;

use crate::{Class, Sha256, text_serde};

/// Size of a data block and of a hash block.
pub const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = BLOCK as usize;
/// Bytes of a hash.
pub(crate) const DIGEST_LEN: usize = 32;
const PER_BLOCK: u64 = BLOCK / DIGEST_LEN as u64;
const MAGIC: &[u8; 8] = b"verity\0\0";
/// Blocks read at once: fewer, larger reads.
const BATCH: usize = 64;
/// Threads that hash at most. Disks are not faster than that.
const WORKERS: usize = 4;

/// The salt that goes before every block: 32 bytes, text form 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// The salt of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Salt {
    type Err = <Sha256 as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|digest: Sha256| Self(*digest.as_bytes()))
    }
}

text_serde!(Salt);

/// What must be known to open the root image: the part of a manifest that dm-verity is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Verity {
    /// Hash over the topmost block.
    pub root_hash: Sha256,
    /// Salt of every hash.
    pub salt: Salt,
    /// UUID in the superblock. It means nothing to the kernel, but is part of the bytes.
    pub uuid: Uuid,
    /// Number of 4096-byte blocks of data.
    pub data_blocks: u64,
}

impl Verity {
    /// Bytes of data covered.
    pub fn data_len(&self) -> u64 {
        self.data_blocks * BLOCK
    }

    /// Bytes of the tree, its superblock included.
    pub fn tree_len(&self) -> u64 {
        tree_len(self.data_blocks)
    }
}

/// A failure to build a tree, or what is wrong with the data or the tree.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The data is not a whole number of blocks, or there is none.
    #[error("{0} bytes of data: a whole, positive number of {BLOCK}-byte blocks is wanted")]
    DataLength(u64),
    /// Data could not be read, or ended early.
    #[error("reading block {block} of the data")]
    ReadData {
        /// First block of the batch that failed.
        block: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The tree could not be read, or ended early.
    #[error("reading the hash tree")]
    ReadTree(#[source] io::Error),
    /// The tree could not be written.
    #[error("writing the hash tree")]
    WriteTree(#[source] io::Error),
    /// The superblock is not the one that belongs to the parameters.
    #[error("the superblock of the hash tree is not as signed")]
    BadSuperblock,
    /// A block of the tree does not have the hash its parent names.
    #[error("hash block {block} of level {level} is corrupt (level 0 holds the leaves)")]
    BadHashBlock {
        /// Level, counted from the leaves.
        level: usize,
        /// Block within its level.
        block: u64,
    },
    /// A block of data does not have the hash its leaf names.
    #[error("data block {block} is corrupt")]
    BadDataBlock {
        /// Block within the data.
        block: u64,
    },
}

impl VerityError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DataLength(_) => "verity-data-length",
            Self::ReadData { .. } => "verity-read-data",
            Self::ReadTree(_) => "verity-read-tree",
            Self::WriteTree(_) => "verity-write-tree",
            Self::BadSuperblock => "verity-bad-superblock",
            Self::BadHashBlock { .. } => "verity-bad-hash-block",
            Self::BadDataBlock { .. } => "verity-bad-data-block",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::DataLength(_) => Class::Bug,
            Self::ReadData { .. } | Self::ReadTree(_) | Self::WriteTree(_) => Class::Environment,
            Self::BadSuperblock | Self::BadHashBlock { .. } | Self::BadDataBlock { .. } => Class::Input,
        }
    }
}

/// Hash blocks of each level, leaves first. Empty for one block of data, whose hash is the root hash.
fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut blocks = data_blocks;
    while blocks > 1 {
        blocks = blocks.div_ceil(PER_BLOCK);
        levels.push(blocks);
    }
    levels
}

/// Bytes of the tree over `data_blocks` blocks, its superblock included.
pub fn tree_len(data_blocks: u64) -> u64 {
    (1 + levels(data_blocks).iter().sum::<u64>()) * BLOCK
}

/// Hashes `data_len` bytes of `data` and writes superblock and levels to `tree_out`.
pub fn build(
    data: impl Read,
    data_len: u64,
    salt: Salt,
    uuid: Uuid,
    tree_out: &mut impl Write,
) -> Result<Verity, VerityError> {
    if data_len == 0 || !data_len.is_multiple_of(BLOCK) {
        return Err(VerityError::DataLength(data_len));
    }
    let data_blocks = data_len / BLOCK;
    let hasher = BlockHasher::new(salt);
    let leaves = Mutex::new(vec![0; data_blocks as usize * DIGEST_LEN]);
    hash_data(data, data_blocks, &hasher, &|block, digests| {
        let at = block as usize * DIGEST_LEN;
        lock(&leaves)[at..at + digests.len()].copy_from_slice(digests);
        Ok(())
    })?;
    of_leaves(leaves.into_inner().unwrap_or_else(PoisonError::into_inner), salt, uuid, tree_out)
}

/// As [`build`], from the hash of every block of data, 32 bytes each and in order.
pub fn of_leaves(leaves: Vec<u8>, salt: Salt, uuid: Uuid, tree_out: &mut impl Write) -> Result<Verity, VerityError> {
    let data_blocks = (leaves.len() / DIGEST_LEN) as u64;
    if leaves.is_empty() || !leaves.len().is_multiple_of(DIGEST_LEN) {
        return Err(VerityError::DataLength(data_blocks * BLOCK));
    }
    let hasher = BlockHasher::new(salt);
    let mut tree = Vec::new();
    let mut level = leaves;
    while level.len() > DIGEST_LEN {
        level.resize(level.len().next_multiple_of(BLOCK_LEN), 0);
        let above = level.chunks_exact(BLOCK_LEN).flat_map(|block| hasher.hash(block)).collect();
        tree.push(level);
        level = above;
    }
    let mut root_hash = [0; DIGEST_LEN];
    root_hash.copy_from_slice(&level);
    let verity = Verity { root_hash: Sha256::from_bytes(root_hash), salt, uuid, data_blocks };

    let write = |bytes: &[u8], out: &mut dyn Write| out.write_all(bytes).map_err(VerityError::WriteTree);
    write(&superblock(&verity), tree_out)?;
    for level in tree.iter().rev() {
        write(level, tree_out)?;
    }
    Ok(verity)
}

/// Proves that `tree` is the tree of `verity`, block by block from the root hash down, and that `data` is what it
/// was built over. The first bad block is the error.
pub fn check(verity: &Verity, data: impl Read, tree: impl Read) -> Result<(), VerityError> {
    check_data(verity, data, &check_tree(verity, tree)?)
}

/// Proves that `data` is what `leaves`, as [`check_tree`] returns them, were made from.
pub fn check_data(verity: &Verity, data: impl Read, leaves: &[u8]) -> Result<(), VerityError> {
    let hasher = BlockHasher::new(verity.salt);
    hash_data(data, verity.data_blocks, &hasher, &|first, digests| {
        let wanted = leaves.get(first as usize * DIGEST_LEN..).unwrap_or_default().chunks_exact(DIGEST_LEN);
        let (found, mut wanted) = (digests.chunks_exact(DIGEST_LEN), wanted);
        match (first..).zip(found).find(|(_, digest)| wanted.next() != Some(digest)) {
            None => Ok(()),
            Some((block, _)) => Err(VerityError::BadDataBlock { block }),
        }
    })
}

/// Proves that `tree` is the tree of `verity`, and returns its leaves: one 32-byte hash per data block, then padding.
pub fn check_tree(verity: &Verity, mut tree: impl Read) -> Result<Vec<u8>, VerityError> {
    let hasher = BlockHasher::new(verity.salt);
    let mut block = vec![0; BLOCK_LEN];
    tree.read_exact(&mut block).map_err(VerityError::ReadTree)?;
    if block != superblock(verity) {
        return Err(VerityError::BadSuperblock);
    }
    let mut wanted = verity.root_hash.as_bytes().to_vec();
    for (level, blocks) in levels(verity.data_blocks).into_iter().enumerate().rev() {
        let mut hashes = vec![0; (blocks * BLOCK) as usize];
        tree.read_exact(&mut hashes).map_err(VerityError::ReadTree)?;
        for (n, (block, want)) in hashes.chunks_exact(BLOCK_LEN).zip(wanted.chunks_exact(DIGEST_LEN)).enumerate() {
            if hasher.hash(block) != want {
                return Err(VerityError::BadHashBlock { level, block: n as u64 });
            }
        }
        wanted = hashes;
    }
    Ok(wanted)
}

/// Takes the number of a block, and the hashes of it and of those behind it.
type Each<'a> = dyn Fn(u64, &[u8]) -> Result<(), VerityError> + Sync + 'a;

/// Calls `each` with the number of a block, and the hashes of it and of those behind it: of each batch, in any order. Hashing
/// takes as many processors as there are, up to some; reading goes on meanwhile. Of several errors the one of the first
/// batch is returned.
fn hash_data(mut data: impl Read, data_blocks: u64, hasher: &BlockHasher, each: &Each<'_>) -> Result<(), VerityError> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS);
    let failed: Mutex<Option<(u64, VerityError)>> = Mutex::new(None);
    let (to, from) = sync_channel::<(u64, Vec<u8>)>(workers);
    // Buffers that have been hashed, to be filled again.
    let (back, spare) = channel();
    let from = Mutex::new(from);
    let work = |back: Sender<Vec<u8>>| {
        loop {
            // Held while waiting: the others wait for it, and not for the hashing.
            let Ok((first, batch)) = lock(&from).recv() else { return };
            let digests: Vec<u8> = batch.chunks_exact(BLOCK_LEN).flat_map(|block| hasher.hash(block)).collect();
            if let Err(error) = each(first, &digests) {
                let mut failed = lock(&failed);
                if failed.as_ref().is_none_or(|(before, _)| first < *before) {
                    *failed = Some((first, error));
                }
            }
            // Nobody may want it any more.
            let _ = back.send(batch);
        }
    };
    let read = thread::scope(|scope| {
        for _ in 0..workers {
            let back = back.clone();
            scope.spawn(|| work(back));
        }
        let to = to;
        let mut block = 0;
        while block < data_blocks && lock(&failed).is_none() {
            let blocks = (data_blocks - block).min(BATCH as u64);
            let mut batch = spare.try_recv().unwrap_or_default();
            batch.resize((blocks * BLOCK) as usize, 0);
            data.read_exact(&mut batch).map_err(|source| VerityError::ReadData { block, source })?;
            if to.send((block, batch)).is_err() {
                break;
            }
            block += blocks;
        }
        Ok(())
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        // What comes first on the disk is what is told, whichever was found first.
        Some((_, error)) => Err(error),
        None => read,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hashes blocks after a salt that is absorbed once.
pub(crate) struct BlockHasher(sha2::Sha256);

impl BlockHasher {
    pub(crate) fn new(salt: Salt) -> Self {
        Self(sha2::Sha256::new_with_prefix(salt.0))
    }

    pub(crate) fn hash(&self, block: &[u8]) -> [u8; DIGEST_LEN] {
        self.0.clone().chain_update(block).finalize().into()
    }
}

/// The superblock, padded to one block.
fn superblock(verity: &Verity) -> Vec<u8> {
    let mut sb = vec![0; BLOCK_LEN];
    sb[0..8].copy_from_slice(MAGIC);
    sb[8..12].copy_from_slice(&1u32.to_le_bytes()); // version of the superblock
    sb[12..16].copy_from_slice(&1u32.to_le_bytes()); // hash type: salt first
    sb[16..32].copy_from_slice(verity.uuid.as_bytes());
    sb[32..38].copy_from_slice(b"sha256");
    sb[64..68].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    sb[68..72].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    sb[72..80].copy_from_slice(&verity.data_blocks.to_le_bytes());
    sb[80..82].copy_from_slice(&(verity.salt.0.len() as u16).to_le_bytes());
    sb[88..88 + 32].copy_from_slice(&verity.salt.0);
    sb
}

#[cfg(test)]
mod tests;
