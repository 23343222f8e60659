//! What the old image has: each of its blocks by its id.

use std::io;

use super::{BATCH, BLOCK_LEN, BlockId, Blocks, Shape};
use crate::verity::{BlockHasher, DIGEST_LEN, Salt};

/// The blocks of an image, to be found by their ids. It takes 12 bytes of memory for each.
#[derive(Debug)]
pub struct Known {
    ids: Vec<BlockId>,
    /// Block numbers in the order of their ids.
    order: Vec<u32>,
}

impl Known {
    /// Looks at an image. `leaves` are those of its root's verity tree, 32 bytes a block and verified, if that has
    /// the salt; else all of it is read and hashed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn look(image: &mut dyn Blocks, shape: Shape, salt: Salt, leaves: Option<&[u8]>) -> io::Result<Self> {
        let mut ids = Vec::with_capacity(shape.blocks() as usize);
        let end = if leaves.is_some() { shape.boot } else { shape.blocks() };
        each_hash(image, 0, end, salt, |_, digest| ids.push(BlockId::of(digest)))?;
        if let Some(leaves) = leaves {
            let (leaves, _) = leaves.as_chunks::<DIGEST_LEN>();
            ids.extend(leaves.iter().take(shape.root as usize).map(BlockId::of));
        }
        Ok(Self::of(ids))
    }

    pub(crate) fn of(ids: Vec<BlockId>) -> Self {
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        // Of equal blocks the first is found.
        order.sort_unstable_by_key(|block| (ids[*block as usize], *block));
        Self { ids, order }
    }

    #[cfg(test)]
    pub(crate) fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// A block with this id; the one behind `after` if that has it, so that runs are long.
    pub(crate) fn find(&self, id: BlockId, after: Option<u64>) -> Option<u64> {
        if let Some(next) = after.map(|block| block + 1)
            && self.ids.get(next as usize) == Some(&id)
        {
            return Some(next);
        }
        let at = self.order.partition_point(|block| self.ids[*block as usize] < id);
        let block = *self.order.get(at)?;
        (self.ids[block as usize] == id).then_some(u64::from(block))
    }
}

/// Calls `each` with the number and hash of the blocks `from..to` of an image.
pub(crate) fn each_hash(
    image: &mut dyn Blocks,
    from: u64,
    to: u64,
    salt: Salt,
    mut each: impl FnMut(u64, &[u8; DIGEST_LEN]),
) -> io::Result<()> {
    let hasher = BlockHasher::new(salt);
    let mut buffer = vec![0; BATCH * BLOCK_LEN];
    let mut first = from;
    while first < to {
        let blocks = (to - first).min(BATCH as u64) as usize;
        let batch = &mut buffer[..blocks * BLOCK_LEN];
        image.read_blocks(first, batch)?;
        for (n, block) in batch.chunks_exact(BLOCK_LEN).enumerate() {
            each(first + n as u64, &hasher.hash(block));
        }
        first += blocks as u64;
    }
    Ok(())
}
