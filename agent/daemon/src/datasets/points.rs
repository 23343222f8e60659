//! One snapshot at a time, as a person names it: who holds it, and its end.
//!
//! Owns: which holds a person may set and take back, and that a recovery point goes by name only where nothing needs it
//! (invariant 8, judged as [`prune`] does). Never: forces; touches a hold of the agent's own; destroys what is no recovery
//! point.

use std::collections::BTreeSet;
use std::slice;

use siris_zfs::{DatasetName, Datasets, Hold, Label, Refusal, Snapshot, SnapshotName, ZfsError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::prune::{self, AT_ONCE, Concerned};
use crate::vectors::end::{End, EndError, Local};

/// What the tags of the agent's own holds begin with: those of vectors, and of whatever else will hold.
const RESERVED: &str = "siris:";

/// Why nothing was done with a point.
#[derive(Debug, thiserror::Error)]
pub enum PointsError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The dataset cannot be looked at.
    #[error(transparent)]
    End(#[from] EndError),
    /// There is none.
    #[error("{dataset} has no snapshot {asked}: sirisctl dataset points {dataset} lists them")]
    Missing {
        /// The dataset.
        dataset: DatasetName,
        /// As it was asked for.
        asked: String,
    },
    /// It is a snapshot of another kind.
    #[error(
        "{0} is no recovery point, which is named by its second (1568402268): only these are destroyed here, zfs destroy is \
         for others"
    )]
    NoPoint(SnapshotName),
    /// The tag is the agent's own, or none.
    #[error(
        "\"{0}\" is no tag for a hold of yours: letters, digits, blanks and _ - : . in up to 254 bytes, not beginning with a \
         dot, nor with {RESERVED}, as the holds of vectors do (a vector takes its own back: sirisctl vector remove)"
    )]
    Tag(String),
    /// Nobody holds it by that tag.
    #[error("{point} is not held by {tag}; {}", holders(.by))]
    NotHeld {
        /// The snapshot.
        point: SnapshotName,
        /// The tag.
        tag: Label,
        /// The tags that it is held by.
        by: Vec<Label>,
    },
    /// Something needs it.
    #[error("{point} stays: {}", .why.join("; "))]
    Needed {
        /// The recovery point.
        point: SnapshotName,
        /// What needs it, in words.
        why: Vec<String>,
    },
}

fn holders(by: &[Label]) -> String {
    if by.is_empty() {
        return "nobody holds it".to_owned();
    }
    format!("it is by {}", by.iter().map(Label::as_str).collect::<Vec<_>>().join(", "))
}

/// The name of the recovery point of a second, as RFC 3339 has it.
fn of_date(text: &str) -> Option<Label> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|at| at.nanosecond() == 0)?;
    u64::try_from(at.unix_timestamp()).ok().map(Label::of_epoch)
}

/// The snapshot of that name; or else the recovery point of that time, with an offset or `Z`.
///
/// # Errors
/// [`PointsError::Missing`] when there is none; when ZFS cannot be asked.
pub fn find(zfs: &dyn Datasets, dataset: &DatasetName, asked: &str) -> Result<Snapshot, PointsError> {
    let all = zfs.snapshots(dataset)?;
    let named = |name: &str| all.iter().find(|snapshot| snapshot.label.as_str() == name).cloned();
    // A name may look like a date, and is what was meant then.
    let found = named(asked).or_else(|| named(of_date(asked)?.as_str()));
    found.ok_or_else(|| PointsError::Missing { dataset: dataset.clone(), asked: asked.to_owned() })
}

fn own_tag(text: &str) -> Result<Label, PointsError> {
    // The zfs tool has tags with a dot in front for itself.
    let tag = text.parse().ok().filter(|_| !text.starts_with(RESERVED) && !text.starts_with('.'));
    tag.ok_or_else(|| PointsError::Tag(text.to_owned()))
}

/// Holds a snapshot of the dataset (not those of what lies in it) under a tag, and gives its name. One that is held by it
/// already is no error.
///
/// # Errors
/// When there is no such snapshot, the tag is not a person's, or ZFS refuses.
pub fn hold(zfs: &dyn Datasets, dataset: &DatasetName, asked: &str, tag: &str) -> Result<Label, PointsError> {
    let tag = own_tag(tag)?;
    let label = find(zfs, dataset, asked)?.label;
    match zfs.hold(&SnapshotName::new(dataset.clone(), label.clone()), &tag) {
        Err(ZfsError::Refused { why: Refusal::Missing, .. }) => {
            Err(PointsError::Missing { dataset: dataset.clone(), asked: asked.to_owned() })
        }
        held => Ok(held.map(|()| label)?),
    }
}

/// Takes a hold back, and gives the snapshot's name.
///
/// # Errors
/// As [`hold`], and [`PointsError::NotHeld`].
pub fn release(zfs: &dyn Datasets, dataset: &DatasetName, asked: &str, tag: &str) -> Result<Label, PointsError> {
    let tag = own_tag(tag)?;
    let label = find(zfs, dataset, asked)?.label;
    let by: Vec<Label> = zfs.holds(dataset, slice::from_ref(&label))?.into_iter().map(|hold| hold.tag).collect();
    let point = SnapshotName::new(dataset.clone(), label.clone());
    if !by.contains(&tag) {
        return Err(PointsError::NotHeld { point, tag, by });
    }
    zfs.release(&point, &tag)?;
    Ok(label)
}

/// The holds on those of these snapshots that are there: one that went meanwhile has none.
///
/// # Errors
/// [`PointsError::Missing`] for what no snapshot can be named; when ZFS cannot be asked.
pub fn holds(zfs: &dyn Datasets, dataset: &DatasetName, asked: &[String]) -> Result<Vec<Hold>, PointsError> {
    let label = |text: &String| {
        let none = |_| PointsError::Missing { dataset: dataset.clone(), asked: text.clone() };
        text.parse::<Label>().map_err(none)
    };
    let labels: BTreeSet<Label> = asked.iter().map(label).collect::<Result<_, _>>()?;
    let labels: Vec<Label> = labels.into_iter().collect();
    let ask = |labels: &[Label]| -> Result<Vec<Hold>, ZfsError> {
        let pages = labels.chunks(AT_ONCE).map(|some| zfs.holds(dataset, some));
        Ok(pages.collect::<Result<Vec<_>, _>>()?.concat())
    };
    match ask(&labels) {
        Err(ZfsError::Refused { why: Refusal::Missing, .. }) => {
            let there: BTreeSet<Label> = zfs.snapshots(dataset)?.into_iter().map(|snapshot| snapshot.label).collect();
            Ok(ask(&labels.into_iter().filter(|label| there.contains(label)).collect::<Vec<_>>())?)
        }
        held => Ok(held?),
    }
}

/// Destroys one recovery point, of the dataset and of all that lies in it, or only says which snapshots would go. No retention
/// policy keeps it: it was named. `concerned`: the vectors that have to do with a dataset.
///
/// # Errors
/// [`PointsError::Needed`] with every reason when something needs it, or it is the newest; when it is no recovery point, or ZFS
/// refuses. What was destroyed before that stays so; to be run again.
pub fn destroy(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    asked: &str,
    concerned: &Concerned<'_>,
    dry: bool,
) -> Result<Vec<SnapshotName>, PointsError> {
    let label = find(zfs, dataset, asked)?.label;
    let (mut going, mut why) = (Vec::new(), Vec::new());
    // What lies in it first: as long as the point is there, it shows that there is something left to do.
    for name in prune::lying_in(zfs, dataset)?.into_iter().chain([dataset.clone()]) {
        let point = SnapshotName::new(name.clone(), label.clone());
        let Some(view) = Local::new(zfs).look(&name)? else { continue };
        if !view.snapshots.iter().any(|snapshot| snapshot.label == label) {
            continue;
        }
        let needed = prune::needed(zfs, &view, &concerned(&view), slice::from_ref(&label))?.remove(&label);
        for reason in needed.ok_or_else(|| PointsError::NoPoint(point.clone()))? {
            why.push(if name == *dataset { reason.to_string() } else { format!("{point}: {reason}") });
        }
        going.push(point);
    }
    if !why.is_empty() {
        return Err(PointsError::Needed { point: SnapshotName::new(dataset.clone(), label), why });
    }
    if !dry {
        going.iter().try_for_each(|point| zfs.destroy_snapshots(&point.dataset, slice::from_ref(&point.label)))?;
    }
    Ok(going)
}

#[cfg(test)]
mod tests;
