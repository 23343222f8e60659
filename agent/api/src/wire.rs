//! Types as they travel.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zbus::{OwnedVariant, Type, Variant};

/// Options of a method call (`a{sv}`). An option the agent does not know is refused, never ignored.
pub type Options<'a> = HashMap<&'a str, Variant<'a>>;

/// Configuration keys and their values (`a{sv}`): a string, or an array of strings.
pub type ConfigMap = BTreeMap<String, OwnedVariant>;

/// What is known of each of several things, by name (`a{sa{sv}}`).
pub type Details = BTreeMap<String, ConfigMap>;

/// How the box is, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Something that belongs to the boot is still under way.
    Starting,
    /// Everything that is asked for is there.
    Healthy,
    /// Someone should look, but the OS does its work: does not hold back `boot-complete.target`.
    Degraded,
    /// The OS does not do its work: `boot-complete.target` is not reached, and a new slot is not kept.
    Failed,
}

impl Health {
    /// All of them.
    pub const ALL: [Health; 4] = [Health::Starting, Health::Healthy, Health::Degraded, Health::Failed];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Failed => "failed",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A health word that this release does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownHealth(pub String);

impl fmt::Display for UnknownHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the agent's health is \"{}\", which this sirisctl does not know", self.0)
    }
}

impl std::error::Error for UnknownHealth {}

impl FromStr for Health {
    type Err = UnknownHealth;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Health::ALL.into_iter().find(|h| h.as_str() == text).ok_or_else(|| UnknownHealth(text.to_owned()))
    }
}

/// One reason of the health: `(ss)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type, Variant, OwnedVariant)]
pub struct HealthReason {
    /// Stable kebab-case code.
    pub code: String,
    /// What is wrong with what, and what to do.
    pub text: String,
}

/// A pool the box is to have: `(ts)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type, Variant, OwnedVariant)]
pub struct ExpectedPool {
    /// Pool guid.
    pub guid: u64,
    /// Name it was last seen under.
    pub name: String,
}

/// One leaf of a pool's vdev tree: `(ssssttt)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type, Variant, OwnedVariant)]
pub struct PoolMember {
    /// Device path, or the name ZFS gives a device it cannot find.
    pub name: String,
    /// The group it belongs to (`mirror-0`, `raidz2-1`), or empty when it stands alone.
    pub group: String,
    /// What it is for: `normal`, `log`, `cache`, `spare`, `special`, `dedup`.
    pub class: String,
    /// `ONLINE`, `DEGRADED`, `FAULTED`, `OFFLINE`, `UNAVAIL`, `REMOVED`, `AVAIL`, ...
    pub state: String,
    /// Read errors since import or clear.
    pub read_errors: u64,
    /// Write errors.
    pub write_errors: u64,
    /// Checksum errors.
    pub checksum_errors: u64,
}

/// One snapshot: `(stt)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct SnapshotRow {
    /// What follows the `@`; a recovery point's is its time, in seconds since 1970.
    pub name: String,
    /// Its guid.
    pub guid: u64,
    /// The transaction group that made it: the order of the snapshots.
    pub createtxg: u64,
}

/// The snapshots of an asset's dataset: `(sta(stt))`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct SnapshotRows {
    /// The dataset's name.
    pub dataset: String,
    /// Its guid.
    pub guid: u64,
    /// Oldest first.
    pub snapshots: Vec<SnapshotRow>,
}

/// A hold on a snapshot: `(sss)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct HoldRow {
    /// The snapshot's name, what follows the `@`.
    pub point: String,
    /// The tag.
    pub tag: String,
    /// The id of the vector whose hold it is; empty where it is another's.
    pub vector: String,
}

/// What becomes of a recovery point: `(sbas)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct PruneRow {
    /// Its name.
    pub name: String,
    /// It goes.
    pub goes: bool,
    /// Why it stays, in words.
    pub why: Vec<String>,
}

/// One slot: its name and what is known of it, `(sa{sv})`. Keys: `state`, `tries`, `booted`, `version`, `error`.
#[derive(Debug, Serialize, Deserialize, Type)]
pub struct SlotStatus {
    /// `a` or `b`.
    pub name: String,
    /// What is known of it.
    pub details: HashMap<String, OwnedVariant>,
}
