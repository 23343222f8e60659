//! What is known of a snapshot without reading it: what was read of an earlier one of its dataset, less what changed since.
//!
//! Owns: which earlier one that is, and that whatever is in doubt is not known. Never: goes by times of change; takes names
//! or metadata from what is kept.
//!
//! The earlier one is found among the dataset's own snapshots, by guid and transaction group: one that was lost and received
//! again has the guid of the first and another group, and was not read. A bookmark does not do, which may be of what was
//! before somebody rolled back. What changed in between ZFS says, here, of this end's own disks; the other end does not come into it.

use std::fs::Metadata;
use std::io;
use std::ops::Range;

use siris_zfs::{Base, Dataset, Datasets, Guid, Snapshot, SnapshotName, Stream, ZfsError};

use super::kept::{Chunk, Chunks, Incarnation, Kept};
use super::stream::{Changes, StreamError};
use crate::root::Root;

/// Why nothing is known, and all has to be read.
#[derive(Debug, thiserror::Error)]
pub enum NothingKnown {
    /// What is kept is of no use.
    #[error("what was read last cannot be used")]
    Kept(#[source] io::Error),
    /// The dataset does not have what was read last any more.
    #[error("the snapshot that was read last, with guid {0}, is not there, or not an older one")]
    Gone(Guid),
    /// ZFS does not say.
    #[error("ZFS does not say what changed since the last one")]
    Zfs(#[from] ZfsError),
    /// It says something that is not understood.
    #[error("what ZFS says of the changes since the last one is not understood")]
    Stream(#[from] StreamError),
}

/// What is known of a snapshot.
#[derive(Debug)]
pub struct Since {
    kept: Kept,
    /// `None` for the very snapshot that was read last.
    changes: Option<Changes>,
}

impl Since {
    /// What is known of `snapshot`; `None` where nothing was read of its dataset yet.
    ///
    /// # Errors
    /// When all has to be read, with the reason.
    pub fn last(
        zfs: &dyn Datasets,
        root: &Root,
        dataset: &Dataset,
        snapshot: &Snapshot,
    ) -> Result<Option<Self>, NothingKnown> {
        let Some(kept) = Kept::open(root, dataset.name.pool(), dataset.guid).map_err(NothingKnown::Kept)? else {
            return Ok(None);
        };
        let (from, createtxg) = kept.snapshot();
        if (from, createtxg) == (snapshot.guid, snapshot.createtxg) {
            return Ok(Some(Since { kept, changes: None }));
        }
        let stream = Stream::Snapshot {
            snapshot: SnapshotName::new(dataset.name.clone(), snapshot.label.clone()),
            base: base(zfs, dataset, (from, createtxg), snapshot.createtxg)?,
            between: false,
            raw: false,
        };
        let mut sending = zfs.send(&stream)?;
        let read = Changes::read(&mut sending, from, snapshot.guid);
        match (read, sending.finish()) {
            (Ok(changes), Ok(())) => Ok(Some(Since { kept, changes: Some(changes) })),
            // What ZFS says of a stream that broke off is the reason; of one that was not read to its end it is none.
            (Ok(_) | Err(StreamError::Read(_)), Err(error)) => Err(error.into()),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// What is known of a file.
    pub fn file(&mut self, metadata: &Metadata) -> Option<Known<'_>> {
        let file = Incarnation::of(metadata)?;
        let chunks = self.kept.file(&file)?;
        Some(Known { inode: file.inode(), chunks, changes: self.changes.as_ref() })
    }
}

/// The older snapshot of the dataset, to send from: the very one that was read, which is before this group.
fn base(zfs: &dyn Datasets, dataset: &Dataset, read: (Guid, u64), before: u64) -> Result<Base, NothingKnown> {
    let is_it = |old: &Snapshot| (old.guid, old.createtxg) == read && old.createtxg < before;
    let old = zfs.snapshots(&dataset.name)?.into_iter().find(is_it).ok_or(NothingKnown::Gone(read.0))?;
    Ok(Base::Snapshot(SnapshotName::new(dataset.name.clone(), old.label)))
}

/// What is known of a file, chunk by chunk from its beginning on.
#[derive(Debug)]
pub struct Known<'a> {
    inode: u64,
    chunks: Chunks<'a>,
    changes: Option<&'a Changes>,
}

impl Known<'_> {
    /// What the next chunk holds, these bytes of the file; `None` where it may have changed.
    pub fn next(&mut self, bytes: Range<u64>) -> Option<Chunk> {
        let was = self.chunks.next(bytes.end)?;
        let touched = self.changes.is_some_and(|changes| changes.touches(self.inode, &bytes));
        (!touched).then_some(was)
    }
}
