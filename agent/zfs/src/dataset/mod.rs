//! Datasets, their snapshots, and the streams between them.
//!
//! Owns: the [`Datasets`] trait, its errors, the real one's parsers. In: names as newtypes. Out: what ZFS says now.
//! Never: forces. Nothing here rolls back to receive, destroys what depends on something, or unmounts what is in use.

#[cfg(any(feature = "libzetta", test))]
pub(crate) mod incoming;
mod lines;
mod model;
mod real;
pub mod record;
mod refusal;
mod types;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

pub use lines::LineError;
pub use model::{Content, ModelDatasets};
pub use real::RunsZfs;
pub use refusal::Refusal;
pub use types::{
    ASSET_ID, ASSET_NAME, Bookmark, Dataset, FETCHED_BY, Guid, Hold, Kind, Label, LabelError, Newest, Notes, PRIMARY,
    RETENTION, Rest, Resume, Snapshot, SnapshotName, SnapshotNameError, Stands, VECTORS,
};

use crate::types::{DatasetName, PoolName};
use crate::{UserProperties, ZfsError};

/// What an incremental stream begins from. It is found by guid before; ZFS wants it by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing: the stream is full.
    Nothing,
    /// A snapshot of the same dataset, or the origin of a clone.
    Snapshot(SnapshotName),
    /// A bookmark of the same dataset.
    Bookmark(Label),
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// A snapshot; as it lies on disk where its dataset is encrypted.
    Snapshot {
        /// The snapshot.
        snapshot: SnapshotName,
        /// What the receiver has.
        base: Base,
        /// Also every snapshot between the two, each a stream of its own behind the one before: from a
        /// snapshot only.
        between: bool,
        /// Blocks as they lie on disk, still encrypted.
        raw: bool,
    },
    /// The rest of a stream that broke off.
    Rest {
        /// What the receiver's dataset has as its resume token.
        token: String,
    },
}

/// A stream on its way. Dropped before its end, it is cut off.
pub trait Sending: Read + Send + std::fmt::Debug {
    /// To be called when it has been read to its end.
    ///
    /// # Errors
    /// When ZFS did not send all of it.
    fn finish(self: Box<Self>) -> Result<(), ZfsError>;
}

/// Datasets and snapshots of this machine. Every call blocks; none is to be made on the bus's thread.
pub trait Datasets: Send + Sync + std::fmt::Debug {
    /// Every dataset of these pools but their roots, by name.
    ///
    /// # Errors
    /// When ZFS cannot be asked, or says something unknown. An error never means "none".
    fn datasets(&self, pools: &[PoolName]) -> Result<Vec<Dataset>, ZfsError>;

    /// Of each dataset of these pools that has snapshots: how many, and the newest one (by `createtxg`).
    ///
    /// # Errors
    /// As [`Datasets::datasets`].
    fn newest(&self, pools: &[PoolName]) -> Result<BTreeMap<DatasetName, Newest>, ZfsError>;

    /// One dataset; `None` when there is none of that name.
    ///
    /// # Errors
    /// As [`Datasets::datasets`].
    fn dataset(&self, name: &DatasetName) -> Result<Option<Dataset>, ZfsError>;

    /// The dataset's own snapshots, oldest first (by `createtxg`).
    ///
    /// # Errors
    /// As [`Datasets::datasets`], and when there is no such dataset.
    fn snapshots(&self, dataset: &DatasetName) -> Result<Vec<Snapshot>, ZfsError>;

    /// The guid of the snapshot of that name; `None` where there is none. One look, however many there are.
    ///
    /// # Errors
    /// As [`Datasets::datasets`].
    fn guid_of(&self, snapshot: &SnapshotName) -> Result<Option<Guid>, ZfsError> {
        let found = self.snapshots(&snapshot.dataset)?.into_iter().find(|found| found.label == snapshot.label);
        Ok(found.map(|found| found.guid))
    }

    /// What [`Datasets::snapshots`] gives of each of these datasets, those that have none left out; in one look where that is to
    /// be had.
    ///
    /// # Errors
    /// As [`Datasets::snapshots`], of any of them.
    fn all_snapshots(&self, datasets: &[DatasetName]) -> Result<BTreeMap<DatasetName, Vec<Snapshot>>, ZfsError> {
        let each = datasets.iter().map(|dataset| Ok((dataset.clone(), self.snapshots(dataset)?)));
        each.filter(|of_one| of_one.as_ref().map_or(true, |(_, all)| !all.is_empty())).collect()
    }

    /// The dataset's bookmarks, oldest first.
    ///
    /// # Errors
    /// As [`Datasets::snapshots`].
    fn bookmarks(&self, dataset: &DatasetName) -> Result<Vec<Bookmark>, ZfsError>;

    /// What [`Datasets::snapshots`] and [`Datasets::bookmarks`] give, in one look where that is to be had.
    ///
    /// # Errors
    /// As [`Datasets::snapshots`].
    fn marks(&self, dataset: &DatasetName) -> Result<(Vec<Snapshot>, Vec<Bookmark>), ZfsError> {
        Ok((self.snapshots(dataset)?, self.bookmarks(dataset)?))
    }

    /// The holds on these snapshots of the dataset, sorted.
    ///
    /// # Errors
    /// As [`Datasets::snapshots`], and when there is no such snapshot.
    fn holds(&self, dataset: &DatasetName, labels: &[Label]) -> Result<Vec<Hold>, ZfsError>;

    /// Makes a file system, mounted where its parent's mount point says, and what it lies in.
    ///
    /// # Errors
    /// When there is one, or ZFS refuses.
    fn create(&self, dataset: &DatasetName) -> Result<(), ZfsError>;

    /// A user property of a dataset, its own or that of what it lies in; `None` where none has it.
    ///
    /// # Errors
    /// As [`Datasets::snapshots`].
    fn property(&self, dataset: &DatasetName, name: &str) -> Result<Option<String>, ZfsError>;

    /// The properties that were set on the dataset itself, ZFS's own and users'.
    ///
    /// # Errors
    /// When there is no such dataset, or ZFS cannot be asked.
    fn own_properties(&self, dataset: &DatasetName) -> Result<UserProperties, ZfsError>;

    /// Sets a property of a dataset, ZFS's own or a user's; `None` takes it away, and it has again what it lies in has.
    ///
    /// # Errors
    /// When there is no such dataset, or ZFS refuses.
    fn set_property(&self, dataset: &DatasetName, name: &str, value: Option<&str>) -> Result<(), ZfsError>;

    /// Mounts a file system where its mount point says, for the whole machine; not where a stream says. One that is mounted, or
    /// has no mount point, is no error.
    ///
    /// # Errors
    /// When ZFS refuses.
    fn mount(&self, dataset: &DatasetName) -> Result<(), ZfsError>;

    /// Unmounts a file system. One that is not mounted is no error.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when somebody has it open; when ZFS refuses otherwise.
    fn unmount(&self, dataset: &DatasetName) -> Result<(), ZfsError>;

    /// Takes a snapshot of each of these datasets of one pool, all of one instant or none.
    ///
    /// # Errors
    /// When one of them has a snapshot of that label, or ZFS refuses.
    fn snapshot(&self, datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> Result<(), ZfsError>;

    /// Makes a bookmark of a snapshot, with the same guid.
    ///
    /// # Errors
    /// When there is one of that label, or ZFS refuses.
    fn bookmark(&self, snapshot: &SnapshotName, label: &Label) -> Result<(), ZfsError>;

    /// Destroys a bookmark. One that is gone already is no error.
    ///
    /// # Errors
    /// When ZFS refuses.
    fn destroy_bookmark(&self, dataset: &DatasetName, label: &Label) -> Result<(), ZfsError>;

    /// Holds a snapshot under a tag. One that is held by it already is no error.
    ///
    /// # Errors
    /// When there is no such snapshot, or ZFS refuses.
    fn hold(&self, snapshot: &SnapshotName, tag: &Label) -> Result<(), ZfsError>;

    /// Takes a hold back. One that is not there is no error.
    ///
    /// # Errors
    /// When ZFS refuses.
    fn release(&self, snapshot: &SnapshotName, tag: &Label) -> Result<(), ZfsError>;

    /// Destroys snapshots of a dataset, all of them or none.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when one is held or has clones; when ZFS refuses otherwise.
    fn destroy_snapshots(&self, dataset: &DatasetName, labels: &[Label]) -> Result<(), ZfsError>;

    /// Makes a clone of a snapshot, on the same pool, not mounted, with these properties of its own: it is there with all of
    /// them or not at all, unless the machine goes down in between.
    ///
    /// # Errors
    /// When there is no such snapshot, the target exists, or ZFS refuses.
    fn clone_snapshot(
        &self,
        snapshot: &SnapshotName,
        target: &DatasetName,
        properties: &UserProperties,
    ) -> Result<(), ZfsError>;

    /// Makes a clone the owner of the history it came from.
    ///
    /// # Errors
    /// When it is no clone, or labels clash.
    fn promote(&self, clone: &DatasetName) -> Result<(), ZfsError>;

    /// Renames a dataset, within its pool.
    ///
    /// # Errors
    /// When it is not there or in use, or the name is taken.
    fn rename(&self, dataset: &DatasetName, name: &DatasetName) -> Result<(), ZfsError>;

    /// Renames a snapshot.
    ///
    /// # Errors
    /// When it is not there, or the new label is taken.
    fn rename_snapshot(&self, snapshot: &SnapshotName, label: &Label) -> Result<(), ZfsError>;

    /// Destroys a dataset that has neither snapshots nor children.
    ///
    /// # Errors
    /// When it has, or ZFS refuses.
    fn destroy(&self, dataset: &DatasetName) -> Result<(), ZfsError>;

    /// The bytes that a stream will have, about.
    ///
    /// # Errors
    /// When it cannot be sent.
    fn send_size(&self, stream: &Stream) -> Result<u64, ZfsError>;

    /// What a resume token would have sent; `None` when the token cannot be read, or leads to no snapshot.
    fn leads_to(&self, token: &str) -> Option<Rest>;

    /// Begins to send.
    ///
    /// # Errors
    /// When the tool cannot be started; whether ZFS refuses is told by [`Sending::finish`].
    fn send(&self, stream: &Stream) -> Result<Box<dyn Sending>, ZfsError>;

    /// Receives a stream into a dataset, which is not mounted; one that breaks off can be continued with the dataset's
    /// resume token. Never rolls back: a dataset that was changed since the base is refused.
    ///
    /// # Errors
    /// When the stream does not fit what is there, or breaks off; or ZFS refuses.
    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), ZfsError>;

    /// Shows what is in a file system's snapshot, as a directory that is there, read-only, for as long as `look` runs.
    ///
    /// # Errors
    /// When it cannot be mounted (its key is not loaded, it is a volume), or `look` fails.
    fn show(
        &self,
        snapshot: &SnapshotName,
        look: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError>;

    /// Shows what is in a file system, as a directory that is there and can be written to for as long as `work` runs. What
    /// is mounted in it elsewhere is not, and who reads there leaves no trace.
    ///
    /// # Errors
    /// As [`Datasets::show`], and when the dataset is read-only.
    fn open(
        &self,
        dataset: &DatasetName,
        work: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError>;

    /// Whether a file system is other than its newest snapshot, also by what is still on its way to the disks; `true` where
    /// there is no snapshot.
    ///
    /// # Errors
    /// As [`Datasets::snapshots`].
    fn is_changed(&self, dataset: &DatasetName) -> Result<bool, ZfsError>;

    /// Gives up what a receive that broke off has left. Nothing left is no error.
    ///
    /// # Errors
    /// When ZFS refuses.
    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), ZfsError>;
}
