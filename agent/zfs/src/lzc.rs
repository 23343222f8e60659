//! libzfs_core, through libzetta: the one place that links it.

use libzetta::zfs::{ZfsEngine, ZfsLzc};

use crate::types::PoolName;

/// Whether the pool's root dataset answers. One ioctl, no process.
pub(crate) fn exists(name: &PoolName) -> bool {
    ZfsLzc::new().and_then(|zfs| zfs.exists(name.as_str())).unwrap_or(false)
}
