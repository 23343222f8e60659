//! The proof that a replica is what its source is: both ends read the newest snapshot that they share, each from its own
//! disks, and what they read is compared.
//!
//! A whole proof says that all is the same now. One of what changed says that what was written since either end read it last is
//! the same, and that all else was when it was read: what rots unwritten is not found by it.

use std::path::PathBuf;

use siris_zfs::Snapshot;

use super::digest::{Amount, Scope, differences, whole};
use super::end::{End, EndError, KEY_NOT_LOADED};
use super::plan::Obstacle;
use super::sync::{Pair, SyncError};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The snapshot, as the target has it.
    pub base: Snapshot,
    /// How many paths were compared.
    pub paths: usize,
    /// The digest of all that the source has in it.
    pub digest: String,
    /// Paths that are not the same; none where the replica is what it should be.
    pub differing: Vec<PathBuf>,
    /// How much the source has read.
    pub source: Option<Amount>,
    /// How much the target has read.
    pub target: Option<Amount>,
}

/// Compares the newest snapshot that both ends have.
///
/// # Errors
/// When there is none, or an end fails.
pub fn prove(pair: &Pair, source: &dyn End, target: &dyn End, scope: Scope) -> Result<Proof, SyncError> {
    let ours = source.look(&pair.source).map_err(SyncError::Source)?;
    let ours = ours.ok_or_else(|| Obstacle::SourceMissing(pair.source.to_string()))?;
    if ours.dataset.has_children {
        return Err(Obstacle::ChildrenNotSent(pair.source.to_string()).into());
    }
    let theirs = target.look(&pair.target).map_err(SyncError::Target)?;
    let is_encrypted = theirs.as_ref().is_some_and(|theirs| theirs.dataset.encrypted);
    let shared = theirs
        .and_then(|theirs| theirs.snapshots.into_iter().rev().find(|snapshot| ours.snapshot(snapshot.guid).is_some()));
    let base = shared.ok_or_else(|| Obstacle::NothingInCommon(pair.target.to_string()))?;
    let near = || source.digest(&pair.source, base.guid, scope).map_err(SyncError::Source);
    let far = || {
        target.digest(&pair.target, base.guid, scope).map_err(|error| match error.code() {
            KEY_NOT_LOADED => SyncError::Sealed(pair.target.to_string(), error),
            _ => SyncError::Target(error),
        })
    };
    let (ours, theirs) = if is_encrypted {
        // Most likely it has no key, and says so at once: the source is not read for nothing.
        let theirs = far()?;
        (near()?, theirs)
    } else {
        // Both at once: each reads disks of its own.
        std::thread::scope(|threads| {
            let far = threads.spawn(far);
            let near = near();
            // A panic there is one here.
            let far = far.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, SyncError>((near?, far?))
        })?
    };
    for (end, told, dataset) in
        [(&ours, SyncError::Source as fn(_) -> _, &pair.source), (&theirs, SyncError::Target, &pair.target)]
    {
        // Two that say nothing are not the same.
        if end.entries.first().is_none_or(|first| !first.path.as_os_str().is_empty()) {
            return Err(told(EndError::NothingTold { dataset: dataset.clone(), guid: base.guid }));
        }
    }
    let differing = differences(&ours.entries, &theirs.entries).into_iter().map(PathBuf::from).collect();
    let (paths, digest) = (ours.entries.len(), whole(&ours.entries));
    Ok(Proof { base, paths, digest, differing, source: ours.amount, target: theirs.amount })
}
