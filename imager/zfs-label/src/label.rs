//! What one label copy says: the pool, the vdev it lies on, and the top-level vdev that this is part of.

mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::guid::{PoolGuid, VdevGuid};
use crate::uberblock::Uberblock;

/// What became of a pool, as its labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolState {
    /// In use, or was when its host stopped.
    Active,
    /// Exported: no host claims it.
    Exported,
    /// Destroyed by `zpool destroy`. Its data is still there.
    Destroyed,
    /// Not the state of a pool: the device is a hot spare, of whichever pools list it.
    Spare,
    /// Not the state of a pool: the device is a cache.
    L2Cache,
    /// Never written by ZFS, which keeps the number for itself.
    Uninitialized,
    /// Never written by ZFS, which keeps the number for itself.
    PotentiallyActive,
    /// A number without a meaning.
    Other(u64),
}

impl PoolState {
    /// The state that ZFS writes as this number.
    pub fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Active,
            1 => Self::Exported,
            2 => Self::Destroyed,
            3 => Self::Spare,
            4 => Self::L2Cache,
            5 => Self::Uninitialized,
            7 => Self::PotentiallyActive,
            other => Self::Other(other),
        }
    }

    /// Is it a device that several pools may share, and whose label names no pool?
    pub fn is_auxiliary(self) -> bool {
        matches!(self, Self::Spare | Self::L2Cache)
    }
}

/// A text that is not a pool state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pool state: `active`, `exported`, `destroyed`, `spare` or `l2cache` is wanted")]
pub struct ParseStateError(String);

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.pad("active"),
            Self::Exported => f.pad("exported"),
            Self::Destroyed => f.pad("destroyed"),
            Self::Spare => f.pad("spare"),
            Self::L2Cache => f.pad("l2cache"),
            Self::Uninitialized => f.pad("uninitialized"),
            Self::PotentiallyActive => f.pad("potentially-active"),
            Self::Other(number) => f.pad(&format!("state-{number}")),
        }
    }
}

impl FromStr for PoolState {
    type Err = ParseStateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "active" => Self::Active,
            "exported" => Self::Exported,
            "destroyed" => Self::Destroyed,
            "spare" => Self::Spare,
            "l2cache" => Self::L2Cache,
            "uninitialized" => Self::Uninitialized,
            "potentially-active" => Self::PotentiallyActive,
            _ => match text.strip_prefix("state-").map(str::parse) {
                Some(Ok(number)) if Self::from_number(number) == Self::Other(number) => Self::Other(number),
                _ => return Err(ParseStateError(text.to_owned())),
            },
        })
    }
}

impl Serialize for PoolState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PoolState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A vdev, as a label describes it: a device, or a group of vdevs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vdev {
    /// `disk`, `file`, `mirror`, `raidz`, `draid`, `dspare`, `replacing`, `spare`, `hole`, `indirect`, `missing`, ...
    pub kind: String,
    /// Its guid.
    pub guid: VdevGuid,
    /// Its place among its siblings, from 0. For a top-level vdev: its number in the pool.
    pub id: u64,
    /// Where its host last saw the device.
    pub path: Option<String>,
    /// What its host called the device (`ata-...-part1`): says more than the path after disks were moved.
    pub devid: Option<String>,
    /// Where the device was plugged in.
    pub phys_path: Option<String>,
    /// Devices that may be lost, of a raidz or draid.
    pub nparity: Option<u64>,
    /// log2 of the smallest write. Top-level vdevs only.
    pub ashift: Option<u64>,
    /// Bytes that can be allocated. Top-level vdevs only.
    pub asize: Option<u64>,
    /// ZFS partitioned the disk itself.
    pub whole_disk: Option<bool>,
    /// An intent log.
    pub is_log: bool,
    /// A hot spare that took over.
    pub is_spare: bool,
    /// Taken offline by an administrator.
    pub offline: bool,
    /// Gone while the pool was in use.
    pub removed: bool,
    /// Given up by ZFS after too many errors.
    pub faulted: bool,
    /// Kept by ZFS in spite of too many errors.
    pub degraded: bool,
    /// Was not there when the pool was last imported.
    pub not_present: bool,
    /// Is being filled by a resilver or rebuild: does not hold all of its data yet.
    pub resilvering: bool,
    /// Its data is being moved to other vdevs by `zpool remove`.
    pub removing: bool,
    /// Is being widened by `zpool attach`.
    pub expanding: bool,
    /// The vdevs that it is made of; none for a device.
    pub children: Vec<Vdev>,
}

impl Vdev {
    /// Is it a device, not a group of vdevs?
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// The devices it is made of, in order; itself if it is one.
    pub fn leaves(&self) -> Vec<&Vdev> {
        let mut leaves = Vec::new();
        let mut rest = vec![self];
        while let Some(vdev) = rest.pop() {
            if vdev.is_leaf() {
                leaves.push(vdev);
            }
            rest.extend(vdev.children.iter().rev());
        }
        leaves
    }
}

/// What one label copy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Label {
    /// On-disk version of the pool: 5000 for pools with feature flags.
    pub version: u64,
    /// Name of the pool; none on spares and caches.
    pub name: Option<String>,
    /// Guid of the pool; none on spares and caches.
    pub pool: Option<PoolGuid>,
    /// State of the pool, or that the device is a spare or cache.
    pub state: PoolState,
    /// Transaction group at which this was true; none on spares and caches. 0: the device was detached from its pool,
    /// or was never wholly added to it.
    pub txg: Option<u64>,
    /// Transaction group at which the device was added; on labels whose `txg` is 0 only.
    pub create_txg: Option<u64>,
    /// Host that last used the pool; none where it had no id.
    pub hostid: Option<u32>,
    /// Name of that host.
    pub hostname: Option<String>,
    /// The device this label lies on.
    pub vdev: VdevGuid,
    /// The top-level vdev that the device is part of.
    pub top: Option<VdevGuid>,
    /// That top-level vdev.
    pub tree: Option<Vdev>,
    /// How many top-level vdevs the pool has, holes included.
    pub children: Option<u64>,
    /// Numbers of top-level vdevs that were removed and left a hole.
    pub holes: BTreeSet<u64>,
    /// The device is an intent log, or part of one.
    pub is_log: bool,
    /// Path of a spare or cache, whose label has no tree.
    pub path: Option<String>,
    /// Device name of a spare or cache.
    pub devid: Option<String>,
    /// The pool that this one was split from, until it is first written to.
    pub split_from: Option<PoolGuid>,
    /// `zpool set comment`.
    pub comment: Option<String>,
    /// `zpool set compatibility`.
    pub compatibility: Option<String>,
    /// Active features without which the pool cannot even be read.
    pub features_for_read: BTreeSet<String>,
    /// The newest valid uberblock in this copy.
    pub uberblock: Option<Uberblock>,
}
