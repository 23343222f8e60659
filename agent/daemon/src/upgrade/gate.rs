//! Whether a bundle is for this box: everything that its manifest says, asked before the first write.

use siris_ibu::keys::Epoch;
use siris_ibu::manifest::TRAILER;
use siris_ibu::{ByteSize, Manifest, Version};
use siris_slots::{Layout, Part, Slot};

use super::{Allowed, Running};
use crate::settings::FreeMin;

/// Why it is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// For another product.
    #[error("{product} {version} is for {compatible}, this box is a {running}")]
    Product {
        /// What it is.
        product: String,
        /// Its version.
        version: Version,
        /// What it may replace.
        compatible: String,
        /// What the box is.
        running: String,
    },
    /// Not newer.
    #[error("version {version} is not newer than the running {running}: allow a downgrade to install it all the same")]
    Downgrade {
        /// Its version.
        version: Version,
        /// The running one.
        running: Version,
    },
    /// The running version is too old to be replaced by it.
    #[error("version {version} replaces {lowest} and later, this box runs {running}: upgrade to one in between first")]
    TooOld {
        /// Its version.
        version: Version,
        /// The lowest version that it replaces.
        lowest: Version,
        /// The running one.
        running: Version,
    },
    /// It would trust keys again that are not trusted any more.
    #[error(
        "version {version} trusts keys of epoch {epoch} again, this box is at epoch {running}, which never goes back"
    )]
    KeyEpoch {
        /// Its version.
        version: Version,
        /// Its epoch of keys.
        epoch: Epoch,
        /// The running one.
        running: Epoch,
    },
    /// It could not read or write a pool.
    #[error("pool {pool} has features that version {version} {lacks}")]
    PoolFeatures {
        /// The pool.
        pool: String,
        /// Its version.
        version: Version,
        /// What its ZFS cannot do with which features.
        lacks: String,
    },
    /// It needs a larger slot than this disk has.
    #[error("the {what} needs {needed}, the slot of this box has {room}: it has to be installed anew")]
    SlotTooSmall {
        /// What does not fit.
        what: &'static str,
        /// Its size.
        needed: ByteSize,
        /// The room for it.
        room: ByteSize,
    },
    /// The new system would find no room to work in, and give itself up.
    #[error(
        "/state has {free} free, less than {least}: the new version would be left again. See `du -xh /state`; \
         `journalctl --vacuum-size=200M` makes room"
    )]
    StateLow {
        /// What is free.
        free: ByteSize,
        /// What has to be.
        least: ByteSize,
    },
}

impl GateError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            GateError::Product { .. } => "wrong-product",
            GateError::Downgrade { .. } => "downgrade",
            GateError::TooOld { .. } => "running-too-old",
            GateError::KeyEpoch { .. } => "key-epoch-back",
            GateError::PoolFeatures { .. } => "pool-features",
            GateError::SlotTooSmall { .. } => "slot-too-small",
            GateError::StateLow { .. } => "state-low",
        }
    }
}

/// Whether `manifest` may replace what runs.
///
/// # Errors
/// The first reason why not.
pub fn check(manifest: &Manifest, running: &Running, allowed: Allowed) -> Result<(), GateError> {
    let (version, now) = (manifest.version.clone(), &running.manifest);
    if !manifest.compatible.contains(&now.product) {
        let compatible = manifest.compatible.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (product, running) = (manifest.product.to_string(), now.product.to_string());
        return Err(GateError::Product { product, version, compatible, running });
    }
    if now.version < manifest.lowest_replaces {
        let (lowest, running) = (manifest.lowest_replaces.clone(), now.version.clone());
        return Err(GateError::TooOld { version, lowest, running });
    }
    if version <= now.version && !allowed.downgrade {
        return Err(GateError::Downgrade { version, running: now.version.clone() });
    }
    if manifest.key_epoch < now.key_epoch {
        return Err(GateError::KeyEpoch { version, epoch: manifest.key_epoch, running: now.key_epoch });
    }
    for (pool, features) in &running.features {
        for (verb, unknown) in
            [("read", manifest.zfs.cannot_read(features)), ("write", manifest.zfs.cannot_write(features))]
        {
            if !unknown.is_empty() {
                let features = unknown.into_iter().collect::<Vec<_>>().join(", ");
                let lacks = format!("with ZFS {} cannot {verb}: {features}", manifest.zfs.version);
                return Err(GateError::PoolFeatures { pool: pool.to_string(), version, lacks });
            }
        }
    }
    Ok(())
}

/// Whether the state partition, of so many bytes and so many free, has the room that a version on trial has to find there.
///
/// # Errors
/// [`GateError::StateLow`].
pub fn room(state: Option<(u64, u64)>, least: FreeMin) -> Result<(), GateError> {
    match state {
        Some((size, free)) if free < least.bytes_of(size) => {
            let [free, least] = [free, least.bytes_of(size)].map(ByteSize::from_bytes);
            Err(GateError::StateLow { free, least })
        }
        // What else is wrong with it is for the box's health to say.
        _ => Ok(()),
    }
}

/// Whether both slots of the disk take it: the next upgrade goes into the other one.
///
/// # Errors
/// [`GateError::SlotTooSmall`].
pub fn fits(manifest: &Manifest, layout: &Layout) -> Result<(), GateError> {
    let root = manifest.root.size.bytes() + manifest.tree.size.bytes() + TRAILER.bytes();
    let root = ByteSize::from_bytes(root).max(manifest.slot_size_min);
    for slot in Slot::ALL {
        for (what, needed, part) in
            [("root image", root, Part::Root(slot)), ("boot image", manifest.boot.size, Part::Boot(slot))]
        {
            let room = ByteSize::from_bytes(layout.len(part));
            if needed > room {
                return Err(GateError::SlotTooSmall { what, needed, room });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_partition_without_room_is_a_reason() {
        let state = |free| Some((1000, free));
        assert_eq!(room(state(49), FreeMin::Percent(5)).unwrap_err().code(), "state-low");
        assert_eq!(room(state(50), FreeMin::Percent(5)), Ok(()));
        assert_eq!(room(None, FreeMin::Percent(5)), Ok(()));
    }
}
