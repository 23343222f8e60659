//! Clones of recovery points that a person asked for: to look into one, or to work with what is in it.
//!
//! Owns: where a clone may be, and the mark that says whose it is: the guid of its snapshot, in [`CLONE_OF`]. It is set by the
//! command that makes the clone. ZFS does both in two transactions: one that a power cut leaves without its mark is for a person
//! to destroy, and keeps its recovery point until then. Never: destroys what it has not made, or what somebody has snapshots
//! of.

use siris_zfs::{Dataset, DatasetName, Datasets, Refusal, SnapshotName, UserProperties, ZfsError};

use super::looks_like_asset;
use super::points::{self, PointsError};

/// The user property of a clone that was made here: the guid of the snapshot. Only the dataset's own counts, not that of what it
/// lies in.
pub const CLONE_OF: &str = "org.siris:clone-of";

/// Why no clone was made or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The snapshot is not to be had.
    #[error(transparent)]
    Point(#[from] PointsError),
    /// It is no name.
    #[error("\"{0}\" is no dataset's name: POOL/NAME")]
    Name(String),
    /// A clone shares the blocks of its snapshot.
    #[error("{target} is on another pool than {dataset}: a clone is on the same one")]
    OtherPool {
        /// The clone's name.
        target: DatasetName,
        /// The snapshot's dataset.
        dataset: DatasetName,
    },
    /// The asset's vectors would fail.
    #[error(
        "{target} lies in the dataset of an asset, whose vectors do not send what lies in it: choose another place"
    )]
    InAsset {
        /// The clone's name.
        target: DatasetName,
    },
    /// It would be taken for the asset's own.
    #[error("{0} is named as the dataset of an asset is (POOL/home/agents/UUID), and would be taken for one")]
    LikeAsset(DatasetName),
    /// There is one.
    #[error("{0} is there already: choose another name")]
    Exists(DatasetName),
    /// There is nothing for it to lie in.
    #[error("there is no {0} for it to lie in: make that first (zfs create)")]
    NoParent(String),
    /// There is none.
    #[error("there is no dataset {0}")]
    Missing(DatasetName),
    /// It is a dataset of another kind.
    #[error(
        "{0} was not made by sirisctl dataset clone, as far as it says itself ({CLONE_OF}): look at it, and where nobody needs \
         it, it goes by zfs destroy"
    )]
    NotMarked(DatasetName),
    /// It was promoted, or is a copy.
    #[error(
        "{0} is no clone of the snapshot any more that it was made of: it may be the only one that has its data now"
    )]
    OtherOrigin(DatasetName),
    /// Somebody made something of it.
    #[error("{dataset} has {what}: where nobody needs these, destroy them first")]
    Used {
        /// The clone.
        dataset: DatasetName,
        /// What it has.
        what: &'static str,
    },
}

impl CloneError {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            CloneError::Zfs(error) => error.code(),
            CloneError::Point(_) => "no-such-point",
            CloneError::Name(_) => "name-invalid",
            CloneError::OtherPool { .. } => "other-pool",
            CloneError::InAsset { .. } => "in-asset-dataset",
            CloneError::LikeAsset(_) => "like-asset-dataset",
            CloneError::Exists(_) => "target-exists",
            CloneError::NoParent(_) => "no-parent",
            CloneError::Missing(_) => "missing",
            CloneError::NotMarked(_) => "not-made-here",
            CloneError::OtherOrigin(_) => "other-origin",
            CloneError::Used { .. } => "in-use",
        }
    }
}

fn name(text: &str) -> Result<DatasetName, CloneError> {
    text.parse().map_err(|_| CloneError::Name(text.to_owned()))
}

/// Makes a clone of a snapshot, not mounted and marked as such, and gives its name.
///
/// # Errors
/// When there is no such snapshot, the target may not be there, or ZFS refuses.
pub fn make(zfs: &dyn Datasets, dataset: &DatasetName, asked: &str, target: &str) -> Result<DatasetName, CloneError> {
    let target = name(target)?;
    if target.pool() != dataset.pool() {
        return Err(CloneError::OtherPool { target, dataset: dataset.clone() });
    }
    if looks_like_asset(&target) {
        return Err(CloneError::LikeAsset(target));
    }
    let mut above: Vec<&str> = target.from_the_top().collect();
    above.pop();
    if above.iter().filter_map(|above| above.parse::<DatasetName>().ok()).any(|above| looks_like_asset(&above)) {
        return Err(CloneError::InAsset { target });
    }
    let found = points::find(zfs, dataset, asked)?;
    if zfs.dataset(&target)?.is_some() {
        return Err(CloneError::Exists(target));
    }
    if let Some(parent) = above.last()
        && zfs.dataset(&name(parent)?)?.is_none()
    {
        return Err(CloneError::NoParent((*parent).to_owned()));
    }
    let mark = UserProperties::from([(CLONE_OF.to_owned(), found.guid.to_string())]);
    match zfs.clone_snapshot(&SnapshotName::new(dataset.clone(), found.label), &target, &mark) {
        Err(ZfsError::Refused { why: Refusal::Exists, .. }) => Err(CloneError::Exists(target)),
        made => Ok(made.map(|()| target)?),
    }
}

/// Destroys a clone that [`make`] has made, or only says what would go: its snapshot, and itself.
///
/// # Errors
/// When it is another dataset, has snapshots, bookmarks or children, somebody has it open, or ZFS refuses.
pub fn destroy(zfs: &dyn Datasets, asked: &str, dry: bool) -> Result<(SnapshotName, Dataset), CloneError> {
    let clone = name(asked)?;
    let found = zfs.dataset(&clone)?.ok_or_else(|| CloneError::Missing(clone.clone()))?;
    let own = zfs.own_properties(&clone)?;
    let Some(mark) = own.get(CLONE_OF) else { return Err(CloneError::NotMarked(clone)) };
    if looks_like_asset(&clone) {
        return Err(CloneError::LikeAsset(clone));
    }
    let Some(origin) = found.origin.clone() else { return Err(CloneError::OtherOrigin(clone)) };
    let of = zfs.snapshots(&origin.dataset)?.into_iter().find(|snapshot| snapshot.label == origin.label);
    if of.is_none_or(|of| of.guid.to_string() != *mark) {
        return Err(CloneError::OtherOrigin(clone));
    }
    let has = [
        (!zfs.snapshots(&clone)?.is_empty(), "snapshots of its own"),
        (!zfs.bookmarks(&clone)?.is_empty(), "bookmarks of its own"),
        (found.has_children, "other datasets in it"),
    ];
    if let Some((_, what)) = has.into_iter().find(|(has, _)| *has) {
        return Err(CloneError::Used { dataset: clone, what });
    }
    if !dry {
        // For the whole machine, and only where nobody has it open.
        zfs.unmount(&clone)?;
        zfs.destroy(&clone)?;
    }
    Ok((origin, found))
}

#[cfg(test)]
mod tests;
