//! Pools, put together from what all devices say.
//!
//! A label knows one device, its top-level vdev, and how many top-level vdevs there are. Which of several labels holds
//! is decided as ZFS does (`zpool import`): per top-level vdev, the configuration of the highest transaction group that
//! an uberblock closed. What only the pool's own metadata could tell (moved data, a device that silently missed
//! writes) is not known here; where that could matter, a pool is reported worse, never better, than it is.

mod assemble;
mod claim;
mod health;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::guid::{PoolGuid, VdevGuid};
use crate::label::{PoolState, Vdev};
use crate::read::Labels;
use crate::uberblock::Uberblock;

pub use assemble::{auxiliaries, pools};
pub use health::{Disuse, Fault, Health};

/// A device and its labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Member {
    /// What the caller calls it. Different devices have different names.
    pub device: String,
    /// What [`crate::read`] said.
    pub labels: Labels,
}

/// A pool of which at least one label was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pool {
    /// Its guid.
    pub guid: PoolGuid,
    /// Its name, by the newest label.
    pub name: String,
    /// Its state, by the newest label.
    pub state: PoolState,
    /// The host that last used it, by the newest label.
    pub hostid: Option<u32>,
    /// Name of that host.
    pub hostname: Option<String>,
    /// Transaction group of the newest label.
    pub txg: u64,
    /// Its newest uberblock.
    pub uberblock: Option<Uberblock>,
    /// On-disk version: 5000 for pools with feature flags.
    pub version: u64,
    /// How many top-level vdevs it has, holes included.
    pub children: Option<u64>,
    /// Active features without which it cannot even be read.
    pub features_for_read: BTreeSet<String>,
    /// Its top-level vdevs by their numbers, as far as a device of them was seen.
    pub tops: Vec<Vdev>,
    /// The devices that make it up. A vdev that was seen twice is here twice, and a conflict.
    pub members: Vec<PoolMember>,
    /// Devices that belong to it and were not seen.
    pub missing: Vec<Vdev>,
    /// Devices that carry its labels, but no longer (or not yet) belong to it.
    pub stale: Vec<Stale>,
    /// Can all of its data be read?
    pub health: Health,
    /// What a person has to decide.
    pub conflicts: Vec<Conflict>,
}

/// A device of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PoolMember {
    /// Its guid.
    pub vdev: VdevGuid,
    /// [`Member::device`].
    pub device: String,
    /// What it does in the pool.
    pub role: Role,
    /// The top-level vdev that it is part of.
    pub top: VdevGuid,
}

/// What a device does in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds data.
    Data,
    /// Holds the intent log.
    Log,
    /// Is a hot spare that stands in for a data device.
    Spare,
}

/// A device that carries labels of a pool without being part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stale {
    /// [`Member::device`].
    pub device: String,
    /// The guid it had in the pool.
    pub vdev: VdevGuid,
    /// How that can be told.
    pub why: StaleBecause,
}

/// How a stale device can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaleBecause {
    /// Its label says so itself: transaction group 0, as `zpool detach` and `zpool remove` leave it.
    Detached,
    /// Newer labels of its top-level vdev do not know it: it was replaced or detached while it was away.
    Replaced,
    /// By newer labels of the pool, its top-level vdev is no more.
    TopRemoved,
}

/// What labels say and what cannot be, or what a person has to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "conflict")]
pub enum Conflict {
    /// Several devices say that they are one and the same.
    #[error("vdev {vdev} was seen on {}: two paths of one disk, or a copy of it", devices.join(" and "))]
    SameVdev {
        /// The guid they share.
        vdev: VdevGuid,
        /// The devices.
        devices: Vec<String>,
        /// Their labels are the same to the byte: rather two paths than a copy that went its own way.
        identical: bool,
    },
    /// The copies on one device speak of different vdevs, as after a partition was moved or resized.
    #[error("{device} carries labels of more than one vdev: {}", vdevs.iter().map(VdevGuid::to_string).collect::<Vec<_>>().join(", "))]
    TwoVdevs {
        /// The device.
        device: String,
        /// The guids, of this pool and of others.
        vdevs: Vec<VdevGuid>,
    },
    /// The device was written to as part of this pool while the others were not there, and the others without it: a
    /// resilver would throw away one of the two histories.
    #[error("{device} has a history that the other devices of its group do not know")]
    TwoHistories {
        /// The device that fell behind.
        device: String,
        /// Its guid.
        vdev: VdevGuid,
    },
    /// Another pool, not destroyed, has the same name.
    #[error("pool {other} has the same name")]
    SameName {
        /// The other pool.
        other: PoolGuid,
    },
}

impl Conflict {
    /// Stable name of the conflict.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SameVdev { .. } => "pool-same-vdev",
            Self::TwoVdevs { .. } => "pool-two-vdevs",
            Self::TwoHistories { .. } => "pool-two-histories",
            Self::SameName { .. } => "pool-same-name",
        }
    }
}

/// A spare or cache. Its label names no pool, since several may share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Auxiliary {
    /// [`Member::device`].
    pub device: String,
    /// Its guid.
    pub vdev: VdevGuid,
    /// [`PoolState::Spare`] or [`PoolState::L2Cache`].
    pub state: PoolState,
    /// Where its host last saw it.
    pub path: Option<String>,
    /// Pools that wrote to it, as far as its uberblocks tell. It may have been removed from them since, and pools of
    /// older versions of ZFS leave no such trace.
    pub pools: Vec<PoolGuid>,
}

impl Pool {
    /// Do only devices that no longer belong to the pool speak of it? Then it may live on elsewhere, or nowhere.
    pub fn is_hearsay(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests;
