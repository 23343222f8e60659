//! The proof that a replica is what its source is: both ends read the newest snapshot that they share, each from its own
//! disks, and what they read is compared.
//!
//! A whole proof says that all is the same now. One of what changed says that what was written since either end read it last is
//! the same, and that all else was when it was read: what rots unwritten is not found by it.

use std::path::PathBuf;

use siris_zfs::Snapshot;

use super::digest::{Amount, Scope, differences, whole};
use super::end::End;
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
    let theirs = target.look(&pair.target).map_err(SyncError::Target)?;
    let shared = theirs
        .and_then(|theirs| theirs.snapshots.into_iter().rev().find(|snapshot| ours.snapshot(snapshot.guid).is_some()));
    let base = shared.ok_or_else(|| Obstacle::NothingInCommon(pair.target.to_string()))?;
    // Both at once: each reads disks of its own.
    let (ours, theirs) = std::thread::scope(|threads| {
        let far = threads.spawn(|| target.digest(&pair.target, base.guid, scope));
        let near = source.digest(&pair.source, base.guid, scope);
        (near, far.join())
    });
    let ours = ours.map_err(SyncError::Source)?;
    // A panic there is one here.
    let theirs = theirs.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(SyncError::Target)?;
    let differing = differences(&ours.entries, &theirs.entries).into_iter().map(PathBuf::from).collect();
    let (paths, digest) = (ours.entries.len(), whole(&ours.entries));
    Ok(Proof { base, paths, digest, differing, source: ours.amount, target: theirs.amount })
}
