//! Datasets, snapshots, bookmarks and holds, as ZFS shows them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::DatasetName;

/// The guid of a dataset, a snapshot or a bookmark: what stays the same when it is renamed, sent and received.
/// A bookmark has that of its snapshot. Printed in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(u64);

impl Guid {
    /// The guid with this number.
    pub const fn new(guid: u64) -> Self {
        Guid(guid)
    }

    /// Its number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Guid {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Guid)
    }
}

/// A text that is no name of a snapshot, a bookmark or a hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a name of a snapshot: letters, digits, blanks and _ - : . in up to 254 bytes")]
pub struct LabelError(String);

/// What follows the `@` of a snapshot or the `#` of a bookmark, and the tag of a hold. It may begin with a dash, as in
/// ZFS: alone, it is an argument after `--` only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The longest one, in bytes. ZFS has 255 for the name as a whole.
    pub const MAX: usize = 254;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The recovery point's time in seconds since 1970, where the name is one: digits, as this system names them.
    pub fn epoch(&self) -> Option<u64> {
        let canonical = self.0.bytes().all(|b| b.is_ascii_digit()) && !self.0.starts_with('0');
        canonical.then(|| self.0.parse().ok()).flatten()
    }

    /// The name of the recovery point of that second.
    pub fn of_epoch(seconds: u64) -> Self {
        Label(seconds.to_string())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-:. ".contains(c);
        if (1..=Label::MAX).contains(&text.len()) && text.chars().all(fits) {
            Ok(Label(text.to_owned()))
        } else {
            Err(LabelError(text.to_owned()))
        }
    }
}

/// A snapshot by its full name, `POOL/DATASET@LABEL`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// Its dataset.
    pub dataset: DatasetName,
    /// Its own name.
    pub label: Label,
}

impl SnapshotName {
    /// The snapshot of that name.
    pub fn new(dataset: DatasetName, label: Label) -> Self {
        SnapshotName { dataset, label }
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.dataset, self.label)
    }
}

/// A text that is not `POOL/DATASET@LABEL`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a snapshot's name: POOL/DATASET@NAME")]
pub struct SnapshotNameError(String);

impl FromStr for SnapshotName {
    type Err = SnapshotNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('@').and_then(|(d, l)| Some(SnapshotName::new(d.parse().ok()?, l.parse().ok()?)));
        parts.ok_or_else(|| SnapshotNameError(text.to_owned()))
    }
}

/// What a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file system.
    Filesystem,
    /// A block device.
    Volume,
}

/// A dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub name: DatasetName,
    /// Its guid.
    pub guid: Guid,
    /// What it is.
    pub kind: Kind,
    /// Bytes it and all below it take, snapshots included.
    pub used: u64,
    /// Whether it is encrypted: its streams are raw then.
    pub encrypted: bool,
    /// The snapshot it is a clone of.
    pub origin: Option<SnapshotName>,
    /// What a receive that broke off has left.
    pub resume: Option<Resume>,
    /// What [`PRIMARY`] says: whether it is written to here. `None` where nobody has said.
    pub primary: Option<bool>,
    /// Whether other datasets lie in it: they are no part of its streams.
    pub has_children: bool,
    /// What is kept with it of its asset and vectors.
    pub notes: Notes,
}

/// The user property with an asset's number in the fleet.
pub const ASSET_ID: &str = "org.siris:asset-id";
/// The user property with the name that people have given an asset.
pub const ASSET_NAME: &str = "org.siris:asset-name";
/// The user property with the records of the vectors that have to do with a dataset.
pub const VECTORS: &str = "org.siris:vectors";

/// The user property with a dataset's retention policy.
pub const RETENTION: &str = "org.siris:retention";
/// The user property that says which vector fetches into a dataset with rsync.
pub const FETCHED_BY: &str = "org.siris:fetched-by";

/// What is kept with a dataset of its asset and vectors, as the user properties have it. `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    /// What [`ASSET_ID`] says.
    pub asset_id: Option<String>,
    /// What [`ASSET_NAME`] says.
    pub asset_name: Option<String>,
    /// What [`VECTORS`] says.
    pub vectors: Option<String>,
}

impl Notes {
    /// Each property, and its value.
    pub fn properties(&self) -> [(&'static str, Option<&str>); 3] {
        let Notes { asset_id, asset_name, vectors } = self;
        [(ASSET_ID, asset_id.as_deref()), (ASSET_NAME, asset_name.as_deref()), (VECTORS, vectors.as_deref())]
    }
}

/// The user property that says whether a dataset is the one that is written to (`on`), or was that once and is a replica now
/// (`off`).
pub const PRIMARY: &str = "org.siris:primary";

/// What a receive that broke off has left, to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// What the sender is to be given for the rest.
    pub token: String,
    /// What it says; `None` when that cannot be read.
    pub stands: Option<Stands>,
}

/// How far a receive that broke off had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// The snapshot that was being received.
    pub to: Guid,
    /// The snapshot that the stream began from; `None` when it was full.
    pub from: Option<Guid>,
}

/// What a resume token would have sent, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The snapshot, by its guid alone: ZFS looks for it in the whole pool.
    pub to: Guid,
    /// As it lies on the disks.
    pub raw: bool,
}

/// A snapshot of a dataset that is known from the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub label: Label,
    /// Its guid.
    pub guid: Guid,
    /// The transaction group that made it: the order of snapshots on this pool, whatever the clock said.
    pub createtxg: u64,
}

/// What is known of a dataset's snapshots without keeping them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// How many there are; not 0.
    pub count: u64,
    /// The newest one.
    pub snapshot: Snapshot,
}

/// A bookmark of a dataset that is known from the context: a base for an incremental stream that needs no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// Its name.
    pub label: Label,
    /// The guid of the snapshot it stands for.
    pub guid: Guid,
    /// The transaction group that made that snapshot.
    pub createtxg: u64,
}

/// A hold on a snapshot: it cannot be destroyed while there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// The snapshot.
    pub label: Label,
    /// Who needs it.
    pub tag: Label,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_epochs_are_times() {
        let epoch = |text: &str| text.parse::<Label>().unwrap().epoch();
        assert_eq!(epoch("1568402268"), Some(1_568_402_268));
        assert_eq!(Label::of_epoch(1_568_402_268).to_string(), "1568402268");
        for none in ["01568402268", "1568402268x", "daily-1568402268", "99999999999999999999"] {
            assert_eq!(epoch(none), None, "{none}");
        }
    }

    #[test]
    fn a_label_is_no_list_and_no_path() {
        for bad in ["", "a,b", "a%b", "a/b", "a@b", "a\tb", &"x".repeat(255)] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
        let name: SnapshotName = "tank/home/agents/x@1568402268".parse().unwrap();
        assert_eq!((name.dataset.as_str(), name.label.as_str()), ("tank/home/agents/x", "1568402268"));
        assert!("tank/a".parse::<SnapshotName>().is_err());
    }
}
