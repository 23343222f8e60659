//! The uberblock: the root of a pool at one transaction group, kept in a ring of the last ones.
//!
//! A ring is 128 KiB of slots, whose size is that of the smallest write of the device, between 1 and 8 KiB; each slot
//! carries its own checksum. Source: OpenZFS `uberblock_impl.h`, `vdev_impl.h`, `vdev_uberblock_compare`.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::bytes::{Endian, word};
use crate::checksum;

/// Bytes of a ring.
pub(crate) const RING: usize = 128 * 1024;
const SLOTS: [usize; 4] = [1024, 2048, 4096, 8192];
const MAGIC: u64 = 0x00ba_b10c;
const MMP_MAGIC: u64 = 0xa11c_ea11;
const MMP_SEQUENCE_VALID: u64 = 2;

/// An uberblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Uberblock {
    /// On-disk version of the pool: 5000 for pools with feature flags.
    pub version: u64,
    /// Transaction group that it closed.
    pub txg: u64,
    /// Sum, modulo 2^64, of the guids of the pool and of all its vdevs but spares and caches.
    pub guid_sum: u64,
    /// When it was written, in seconds since 1970 (UTC) by the clock of its host.
    pub timestamp: u64,
    /// Sequence number within the second, where multihost protection is on.
    pub mmp_sequence: Option<u16>,
    /// Not 0: the pool was put back to a checkpoint (`zpool checkpoint`) of this transaction group.
    pub checkpoint_txg: u64,
}

impl Uberblock {
    /// Orders by age, as ZFS does: by transaction group, then time, then sequence number.
    pub fn by_age(&self, other: &Self) -> Ordering {
        let key = |u: &Self| (u.txg, u.timestamp, u.mmp_sequence.unwrap_or(0));
        key(self).cmp(&key(other))
    }
}

/// Reads the uberblock at the start of a slot, whose checksum was verified.
fn parse(slot: &[u8]) -> Option<Uberblock> {
    let magic = word(slot, 0)?;
    let endian = [Endian::Little, Endian::Big].into_iter().find(|endian| endian.u64(magic) == MAGIC)?;
    let field = |n: usize| Some(endian.u64(word(slot, n * 8)?));
    let mmp = field(24)?;
    let sequence = (field(22)? == MMP_MAGIC && mmp & MMP_SEQUENCE_VALID != 0).then_some((mmp >> 32) as u16);
    Some(Uberblock {
        version: field(1)?,
        txg: field(2)?,
        guid_sum: field(3)?,
        timestamp: field(4)?,
        mmp_sequence: sequence,
        checkpoint_txg: field(25)?,
    })
}

fn has_magic(slot: &[u8]) -> bool {
    word(slot, 0).is_some_and(|bytes| Endian::Little.u64(bytes) == MAGIC || Endian::Big.u64(bytes) == MAGIC)
}

/// Is there anything in the ring that looks like an uberblock, valid or not?
pub(crate) fn traces(ring: &[u8]) -> bool {
    ring.chunks_exact(SLOTS[0]).any(has_magic)
}

/// The valid uberblocks of the ring that lies at `offset` of its device, in no order. Every slot size is tried: a
/// checksum holds for one of them only, and the label that would tell may be damaged.
pub(crate) fn ring(ring: &[u8], offset: u64) -> Vec<Uberblock> {
    let mut found = Vec::new();
    for size in SLOTS {
        for (n, slot) in ring.chunks_exact(size).enumerate() {
            if has_magic(slot) && checksum::verify(slot, offset + (n * size) as u64).is_ok() {
                found.extend(parse(slot));
            }
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests;
