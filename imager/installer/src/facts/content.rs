//! What was recognised on a disk or partition.

use serde::{Deserialize, Serialize};
use siris_zfs_label::{PoolGuid, PoolState, VdevGuid};

use super::is_false;

/// Something on a disk or partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Content {
    /// ZFS labels.
    Zfs(Zfs),
    /// A member of an md array.
    Md(Md),
    /// An LVM physical volume.
    Lvm,
    /// LUKS.
    Luks,
    /// Swap space.
    Swap,
    /// A file system.
    FileSystem(FileSystem),
    /// An operating system.
    Os(Os),
    /// Our own operating system.
    Siris(Siris),
}

/// ZFS labels on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Zfs {
    /// The pool; none on spares and caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolGuid>,
    /// The device's own guid; none when every copy is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vdev: Option<VdevGuid>,
    /// What the newest label says; none when every copy is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PoolState>,
    /// How the device belongs to the pool.
    pub role: ZfsRole,
    /// How many of the four copies are sound.
    pub sound: u8,
}

/// How a device belongs to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZfsRole {
    /// Holds data.
    Data,
    /// Holds the intent log.
    Log,
    /// A hot spare, free or in use.
    Spare,
    /// A cache.
    Cache,
    /// Carries labels of a pool that no longer knows it.
    Stale,
    /// Carries something of labels that nobody can make sense of.
    Unknown,
}

/// An md superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Md {
    /// UUID of the array: hexadecimal digits.
    pub array: String,
    /// `1.2`, `0.90`, ...
    pub metadata: String,
    /// RAID level, as the kernel counts.
    pub level: i32,
    /// How many devices make it up.
    pub devices: u32,
    /// First byte of data on the device.
    pub data_start: u64,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileSystem {
    /// `ext4`, `xfs`, `vfat`, ...
    pub kind: String,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its journal holds changes that were not made yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dirty: bool,
}

/// An operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Os {
    /// What it calls itself.
    pub name: String,
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// Our own operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Siris {
    /// Version in the first slot that holds one, as it claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The install that put it there; none when it came as a disk image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<String>,
    /// That install came to its end: its receipt is there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub receipt: bool,
}
