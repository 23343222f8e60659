//! Sets aside what a target has beside its source's: the remedy where the two ends of a vector do not fit.
//!
//! Owns: the order in which the dataset goes back to a snapshot that both ends have, and what came after it stays under
//! another name. Never: destroys or rolls back anything; both share the space of what they have in common.
//!
//! ZFS has no call for it: a clone of the common snapshot is promoted, which gives it that snapshot and all older ones, holds and
//! guids as they are; then the two swap names. Wherever that ends, beginning again finishes it.

use siris_zfs::{DatasetName, Datasets, FETCHED_BY, Label, SnapshotName, UserProperties, ZfsError};

use super::VectorId;
use super::end::release;

/// What the clone is named until it takes the dataset's name.
const CLONE: &str = "back";
const CANMOUNT: &str = "canmount";
/// Properties that the clone does not take from the dataset: promoting moves the first one, and what is reserved would be twice.
const NOT_TAKEN: [&str; 4] = ["keylocation", "reservation", "refreservation", CANMOUNT];

/// Why nothing was set aside.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// It is the one that is written to.
    #[error("{0} is the primary: what it has is not to be set aside for what a source sends")]
    Primary(DatasetName),
    /// There is no such dataset, or no such snapshot.
    #[error("there is no {0}")]
    Missing(String),
    /// Something lies in it, which would be left behind.
    #[error("{0} lies in it: move it elsewhere first")]
    NotAlone(DatasetName),
    /// rsync may be writing to it.
    #[error("vector {1} fetches into {0}: remove that one first")]
    Fetched(DatasetName, String),
    /// The other name does not fit.
    #[error("{0} is no name that ZFS takes")]
    Name(String),
    /// Another one of the name of the clone.
    #[error("{0} is there already, and was made for something else: rename it")]
    Leftover(DatasetName),
}

impl AsideError {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            AsideError::Zfs(error) => error.code(),
            AsideError::Primary(_) => "dataset-is-primary",
            AsideError::Missing(_) => "missing",
            AsideError::NotAlone(_) => "not-alone",
            AsideError::Fetched(..) => "fetched-into",
            AsideError::Name(_) => "name-too-long",
            AsideError::Leftover(_) => "name-taken",
        }
    }
}

/// Has a target's dataset end at its snapshot `back_to`, and what it has beside (newer snapshots, what was changed since)
/// under a name of its own, which is given. Without `back_to` the whole dataset is set aside. `now`: seconds since 1970.
///
/// # Errors
/// When it is written to, something lies in it, somebody has it open, or ZFS refuses. Run again, it goes on.
pub fn set_aside(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    back_to: Option<&Label>,
    now: u64,
) -> Result<DatasetName, AsideError> {
    let (clone, aside) = (beside(dataset, CLONE)?, beside(dataset, &format!("aside-{now}"))?);
    let all = zfs.datasets(&[dataset.pool_name()])?;
    let Some(found) = all.iter().find(|one| one.name == *dataset) else {
        // It ended between the two names' change.
        let half = all.iter().any(|one| one.name == clone);
        half.then_some(()).ok_or_else(|| AsideError::Missing(dataset.to_string()))?;
        let earlier = format!("{dataset}.aside-");
        let earlier = all.into_iter().map(|one| one.name).rfind(|name| name.as_str().starts_with(&earlier));
        rename(zfs, &clone, dataset)?;
        return Ok(earlier.unwrap_or(aside));
    };
    if found.primary == Some(true) {
        return Err(AsideError::Primary(dataset.clone()));
    }
    let inside = format!("{dataset}/");
    if let Some(inner) = all.iter().find(|one| one.name.as_str().starts_with(&inside)) {
        return Err(AsideError::NotAlone(inner.name.clone()));
    }
    if let Some(vector) = zfs.property(dataset, FETCHED_BY)? {
        return Err(AsideError::Fetched(dataset.clone(), vector));
    }
    let is_promoted = found.origin.as_ref().is_some_and(|origin| origin.dataset == clone);
    // A stream that is being received keeps all from happening; the rest of one that broke off cannot be continued from here.
    zfs.abort_receive(dataset)?;
    // Nobody has it open, before anything else changes.
    zfs.unmount(dataset)?;
    let back_to = match (back_to, is_promoted) {
        (Some(back_to), _) => back_to.clone(),
        // It was said with a snapshot before, and is finished as that.
        (None, true) => zfs.snapshots(&clone)?.pop().ok_or_else(|| AsideError::Leftover(clone.clone()))?.label,
        (None, false) => {
            forget(zfs, dataset)?;
            zfs.rename(dataset, &aside)?;
            return Ok(aside);
        }
    };
    let there = all.iter().find(|one| one.name == clone).map(|one| one.origin.as_ref());
    let split = || split(zfs, dataset, &back_to, &clone, if is_promoted { Split::Promoted } else { Split::Not(there) });
    if let Err(error) = split().and_then(|()| Ok(zfs.rename(dataset, &aside)?)) {
        // It is as it was, or goes on from here the next time; what that ends in is told by the first error.
        let _ = zfs.mount(dataset);
        return Err(error);
    }
    if let Err(error) = rename(zfs, &clone, dataset) {
        // No vector is to find nothing there.
        let _ = zfs.rename(&aside, dataset);
        return Err(error);
    }
    Ok(aside)
}

/// How far an earlier one has come.
enum Split<'a> {
    /// Not; the origin of a clone that may be there.
    Not(Option<Option<&'a SnapshotName>>),
    /// The clone has the history already.
    Promoted,
}

/// Has the clone have the history up to the snapshot, and the dataset what came after it, without a mark of a vector.
fn split(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    back_to: &Label,
    clone: &DatasetName,
    before: Split<'_>,
) -> Result<(), AsideError> {
    match before {
        Split::Promoted => {
            let newest = zfs.snapshots(clone)?.pop();
            newest.filter(|newest| newest.label == *back_to).ok_or_else(|| AsideError::Leftover(clone.clone()))?;
        }
        Split::Not(there) => {
            make(zfs, dataset, back_to, clone, there)?;
            zfs.promote(clone)?;
        }
    }
    forget(zfs, dataset)
}

/// What the clone of a dataset is named while it is being set aside; `None` where there is no room for such a name.
pub(super) fn clone_of(dataset: &DatasetName) -> Option<DatasetName> {
    beside(dataset, CLONE).ok()
}

fn beside(dataset: &DatasetName, suffix: &str) -> Result<DatasetName, AsideError> {
    let name = format!("{dataset}.{suffix}");
    name.parse().map_err(|_| AsideError::Name(name))
}

/// Makes the clone, with the properties that were set on the dataset itself.
fn make(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    back_to: &Label,
    clone: &DatasetName,
    there: Option<Option<&SnapshotName>>,
) -> Result<(), AsideError> {
    let snapshot = SnapshotName::new(dataset.clone(), back_to.clone());
    if !zfs.snapshots(dataset)?.iter().any(|one| one.label == *back_to) {
        return Err(AsideError::Missing(snapshot.to_string()));
    }
    match there {
        Some(Some(origin)) if *origin == snapshot => {}
        Some(_) => return Err(AsideError::Leftover(clone.clone())),
        None => zfs.clone_snapshot(&snapshot, clone, &UserProperties::new())?,
    }
    let own = zfs.own_properties(dataset)?;
    for (name, value) in own.iter().filter(|(name, _)| !NOT_TAKEN.contains(&name.as_str())) {
        zfs.set_property(clone, name, Some(value))?;
    }
    // Last, when its mount point is what it is to be. A clone is made so that it is not mounted by itself, and this is no property
    // that is inherited.
    let canmount = own.get(CANMOUNT).map_or("on", String::as_str);
    zfs.set_property(clone, CANMOUNT, Some(canmount))?;
    Ok(())
}

/// Takes back what vectors have marked of what is set aside: it is no base of theirs any more, and nobody else would.
fn forget(zfs: &dyn Datasets, dataset: &DatasetName) -> Result<(), AsideError> {
    let labels: Vec<Label> = zfs.snapshots(dataset)?.into_iter().map(|one| one.label).collect();
    release(zfs, dataset, &labels, |tag| VectorId::of_tag(tag).is_some())?;
    for bookmark in zfs.bookmarks(dataset)?.into_iter().filter(|one| VectorId::of_bookmark(&one.label).is_some()) {
        zfs.destroy_bookmark(dataset, &bookmark.label)?;
    }
    Ok(())
}

/// Gives the clone its name, and mounts it as the dataset was.
fn rename(zfs: &dyn Datasets, clone: &DatasetName, dataset: &DatasetName) -> Result<(), AsideError> {
    zfs.rename(clone, dataset)?;
    Ok(zfs.mount(dataset)?)
}
