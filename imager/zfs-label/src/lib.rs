//! Reads ZFS labels off raw devices: whose pool a disk belongs to, and whether all of it is here.
//!
//! Owns the on-disk form of the vdev label (OpenZFS `vdev_impl.h`, `uberblock_impl.h`, `nvpair.c`). Bytes come in
//! through `Read + Seek`, facts go out as plain data; it opens nothing, imports nothing, and never writes. Its input
//! is whatever lies on a disk, so it takes nothing on trust: no panic, no recursion and no allocation that the bytes
//! at hand do not bound. Resume tokens, packed the same way, are read here too.

mod bytes;
mod checksum;
mod damage;
mod guid;
mod label;
mod nvlist;
mod pool;
mod read;
mod resume;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod uberblock;

pub use damage::{Damage, NvlistError};
pub use guid::{ParseGuidError, PoolGuid, VdevGuid};
pub use label::{Label, ParseStateError, PoolState, Vdev};
pub use pool::{
    Auxiliary, Conflict, Disuse, Fault, Health, Member, Pool, PoolMember, Role, Stale, StaleBecause, auxiliaries, pools,
};
pub use read::{Copy, LABEL_BYTES, Labels, read};
pub use resume::{ResumeToken, ResumeTokenError};
pub use uberblock::Uberblock;
