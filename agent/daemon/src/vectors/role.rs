//! Which end of a vector is the primary, the one that is written to; and how the two change places.
//!
//! Owns: the property that says so, [`siris_zfs::PRIMARY`], and the order in which it changes: the old primary stops being
//! written to, what it has is sent, and only then is the new one written to. Never: leaves two that are written to, unless a
//! person takes over from a machine that is gone.

use siris_zfs::{DatasetName, Datasets, Guid, PRIMARY};

use super::end::{End, EndError, NOT_NEWEST};
use super::plan::Obstacle;
use super::sync::{Pair, SyncError, Watch, sync};
use crate::datasets::take_point;

const READ_ONLY: &str = "readonly";

/// Has a dataset written to no more, and takes the last point of it.
///
/// # Errors
/// When something has it open for writing, or ZFS refuses. It is written to then as before.
pub fn step_down(zfs: &dyn Datasets, dataset: &DatasetName, now: u64) -> Result<(), EndError> {
    let stepped = || -> Result<(), EndError> {
        zfs.set_property(dataset, READ_ONLY, Some("on"))?;
        take_point(zfs, dataset, now)?;
        Ok(zfs.set_property(dataset, PRIMARY, Some("off"))?)
    };
    stepped().inspect_err(|_| {
        // On the way of another error, which is the one to tell.
        let _ = zfs.set_property(dataset, READ_ONLY, None);
    })
}

/// Has a dataset written to from now on: no vector changes it any more. With `newest`, only where that is its newest
/// snapshot.
///
/// # Errors
/// When it is not there, has another newest snapshot, a stream is being received, or ZFS refuses. Run again, it goes on.
pub fn take_over(zfs: &dyn Datasets, dataset: &DatasetName, newest: Option<Guid>) -> Result<(), EndError> {
    let found = zfs.snapshots(dataset)?.last().map(|snapshot| snapshot.guid);
    if let Some(guid) = newest.filter(|newest| Some(*newest) != found) {
        return Err(EndError::NotNewest { dataset: dataset.clone(), guid });
    }
    // What a stream left that will not be continued; one that is being received keeps all from happening.
    zfs.abort_receive(dataset)?;
    zfs.set_property(dataset, PRIMARY, Some("on"))?;
    zfs.set_property(dataset, READ_ONLY, None)?;
    Ok(zfs.mount(dataset)?)
}

/// Makes a vector's target the primary, and its source the replica. What follows goes the other way round; that is for the
/// vector's record to say.
///
/// # Errors
/// As [`sync`]. Where it comes no further than the source's stepping down, nobody writes to either; run again, it goes on.
pub fn turn(pair: &Pair, source: &dyn End, target: &dyn End, watch: &mut dyn Watch) -> Result<(), SyncError> {
    let theirs = target.look(&pair.target).map_err(SyncError::Target)?;
    let theirs = theirs.ok_or_else(|| Obstacle::TargetMissing(pair.target.to_string()))?;
    if theirs.dataset.primary == Some(true) {
        // Done before, or taken over by a person; then the source has to have stepped down all the same.
        let ours = source.look(&pair.source).map_err(SyncError::Source)?;
        let has_stepped = ours.is_some_and(|ours| ours.dataset.primary == Some(false));
        return if has_stepped { Ok(()) } else { source.step_down(&pair.source).map_err(SyncError::Source) };
    }
    // Whether it may be done at all is asked first, with a guid that no snapshot has: from here on nobody writes to either.
    match target.take_over(&pair.target, Guid::new(0)) {
        Err(error) if error.code() == NOT_NEWEST => {}
        Err(error) => return Err(SyncError::Target(error)),
        Ok(()) => return Err(SyncError::Stuck),
    }
    source.step_down(&pair.source).map_err(SyncError::Source)?;
    let base = sync(pair, source, target, watch)?;
    target.take_over(&pair.target, base.guid).map_err(SyncError::Target)
}
