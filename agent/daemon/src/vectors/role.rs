//! Which end of a vector is the primary, the one that is written to; and how the two change places.
//!
//! Owns: the property that says so, [`siris_zfs::PRIMARY`], and the order in which it changes: the old primary stops being
//! written to, what it has is sent, and only then is the new one written to. Never: leaves two that are written to, unless a
//! person takes over from a machine that is gone.

use siris_zfs::{DatasetName, Datasets, FETCHED_BY, Guid, PRIMARY};

use super::VectorId;
use super::end::{End, EndError, NOT_NEWEST};
use super::plan::Obstacle;
use super::sync::{Pair, SyncError, Watch, sync};
use crate::datasets::take_point;

const READ_ONLY: &str = "readonly";

/// Has a dataset written to no more, and takes the last point of it.
///
/// # Errors
/// When somebody has it open, it is what another machine's vector sends into, or ZFS refuses. It is then as it was.
pub fn step_down(zfs: &dyn Datasets, dataset: &DatasetName, id: &VectorId, now: u64) -> Result<(), EndError> {
    let was = zfs.dataset(dataset)?.and_then(|found| found.primary);
    if was.is_none()
        && let Some(other) = zfs.bookmarks(dataset)?.iter().find_map(|bookmark| foreign(&bookmark.label, id))
    {
        return Err(EndError::MayBeReplica { dataset: dataset.clone(), other });
    }
    // Unmounted, nobody has it open for writing, and everything that was written is there.
    zfs.unmount(dataset)?;
    let stepped = || -> Result<(), EndError> {
        zfs.set_property(dataset, READ_ONLY, Some("on"))?;
        take_point(zfs, dataset, now)?;
        Ok(zfs.set_property(dataset, PRIMARY, Some("off"))?)
    };
    let done = stepped();
    if done.is_err() && was != Some(false) {
        // On the way of another error, which is the one to tell.
        let _ = zfs.set_property(dataset, READ_ONLY, None);
    }
    let mounted = zfs.mount(dataset);
    done?;
    Ok(mounted?)
}

/// The vector of another machine than `id`'s that has made a bookmark.
fn foreign(bookmark: &siris_zfs::Label, id: &VectorId) -> Option<VectorId> {
    VectorId::of_bookmark(bookmark).filter(|other| other.device != id.device)
}

/// Has a dataset written to from now on: no vector changes it any more. With `newest`, only where that is its newest
/// snapshot.
///
/// # Errors
/// When it has no snapshot, or another newest one; when a stream is being received, somebody has it open, or ZFS refuses. Run
/// again, it goes on.
pub fn take_over(zfs: &dyn Datasets, dataset: &DatasetName, newest: Option<Guid>) -> Result<(), EndError> {
    // One that has none is a first stream under way, of which nothing would be left.
    let Some(found) = zfs.snapshots(dataset)?.pop() else { return Err(EndError::NoPoints(dataset.clone())) };
    if let Some(guid) = newest.filter(|newest| *newest != found.guid) {
        return Err(EndError::NotNewest { dataset: dataset.clone(), guid });
    }
    if let Some(vector) = zfs.property(dataset, FETCHED_BY)? {
        return Err(EndError::FetchedInto { dataset: dataset.clone(), vector });
    }
    // What a stream left that will not be continued; one that is being received keeps all from happening.
    zfs.abort_receive(dataset)?;
    zfs.unmount(dataset)?;
    zfs.set_property(dataset, PRIMARY, Some("on"))?;
    zfs.set_property(dataset, READ_ONLY, None)?;
    Ok(zfs.mount(dataset)?)
}

/// Makes a vector's target the primary, and its source the replica. What follows goes the other way round; that is for the
/// vector's record to say. All but the last of what the source has is to be there before: meanwhile nobody writes to either.
///
/// # Errors
/// As [`sync`]. [`SyncError::HalfTurned`] where the source has stepped down; run again, it goes on.
pub fn turn(pair: &Pair, source: &dyn End, target: &dyn End, watch: &mut dyn Watch) -> Result<(), SyncError> {
    let theirs = target.look(&pair.target).map_err(SyncError::Target)?;
    let theirs = theirs.ok_or_else(|| Obstacle::TargetMissing(pair.target.to_string()))?;
    if theirs.dataset.primary == Some(true) {
        // Done before, or taken over by a person; then the source has to have stepped down all the same.
        let ours = source.look(&pair.source).map_err(SyncError::Source)?;
        let has_stepped = ours.is_some_and(|ours| ours.dataset.primary == Some(false));
        let step = || source.step_down(&pair.source, &pair.id).map_err(SyncError::Source);
        return if has_stepped { Ok(()) } else { step() };
    }
    // Whether it may be done at all is asked first, with a guid that no snapshot has.
    match target.take_over(&pair.target, &pair.id, Guid::new(0)) {
        Err(error) if error.code() == NOT_NEWEST => {}
        Err(error) => return Err(SyncError::Target(error)),
        Ok(()) => return Err(SyncError::Stuck),
    }
    source.step_down(&pair.source, &pair.id).map_err(SyncError::Source)?;
    let last = sync(pair, source, target, watch);
    let taken = last.and_then(|base| target.take_over(&pair.target, &pair.id, base.guid).map_err(SyncError::Target));
    taken.map_err(|error| SyncError::HalfTurned(Box::new(error)))
}
