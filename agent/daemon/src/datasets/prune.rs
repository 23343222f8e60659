//! Destroys the recovery points that retention lets go.
//!
//! Owns: that nothing goes which a vector needs, somebody holds or a clone is made of (invariant 8). Never: destroys what
//! is no recovery point; forces.

use std::collections::{BTreeMap, BTreeSet};

use siris_zfs::{DatasetName, Datasets, Guid, Label, RETENTION, Refusal, Snapshot, ZfsError};

use super::retention::{Decision, Need, Policy, PolicyError, Why, decide};
use crate::vectors::VectorId;
use crate::vectors::end::{End, EndError, Local};
use crate::vectors::needs::{Side, needs};
use crate::vectors::plan::View;

/// How many snapshots one command destroys, or is asked about: their names are its arguments.
pub(super) const AT_ONCE: usize = 500;

/// The vectors that have to do with a dataset.
pub type Concerned<'a> = dyn Fn(&View) -> Vec<(VectorId, Side)> + 'a;

/// What would become of each recovery point of a dataset, and why; `None` when there is no such dataset. A point is of all that
/// lies in it, and stays where any of that needs it.
///
/// # Errors
/// When ZFS cannot be asked.
pub fn decisions(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    concerned: &Concerned<'_>,
    policy: &Policy,
    now: u64,
) -> Result<Option<Vec<Decision>>, EndError> {
    let Some(view) = Local::new(zfs).look(dataset)? else { return Ok(None) };
    let mut needs = needs(&view, &concerned(&view));
    let first = decide(&view.snapshots, &needs, policy, now);
    // Only those that would go are asked who else needs them.
    let going: Vec<Label> = first.iter().filter(|one| one.goes()).map(|one| one.label.clone()).collect();
    if going.is_empty() {
        return Ok(Some(first));
    }
    add_holds_and_clones(zfs, &view, &going, &mut needs)?;
    for inner in lying_in(zfs, dataset)? {
        let Some(within) = Local::new(zfs).look(&inner)? else { continue };
        for (label, stays) in needed(zfs, &within, &concerned(&within), &going)? {
            let point = format!("{inner}@{label}");
            let why = |why: Why| Need::Inner { point: point.clone(), why: why.to_string() };
            if let Some(guid) = guid(&view, &label) {
                needs.entry(guid).or_default().extend(stays.into_iter().map(why));
            }
        }
    }
    Ok(Some(decide(&view.snapshots, &needs, policy, now)))
}

/// The datasets that lie in one.
pub(super) fn lying_in(zfs: &dyn Datasets, dataset: &DatasetName) -> Result<Vec<DatasetName>, ZfsError> {
    let below = format!("{dataset}/");
    let all = zfs.datasets(&[dataset.pool_name()])?.into_iter().map(|found| found.name);
    Ok(all.filter(|name| name.as_str().starts_with(&below)).collect())
}

/// Why each of these recovery points has to stay whatever any policy says, and whatever the clock; those that the dataset has not
/// are left out.
///
/// # Errors
/// When ZFS cannot be asked.
pub fn needed(
    zfs: &dyn Datasets,
    view: &View,
    vectors: &[(VectorId, Side)],
    labels: &[Label],
) -> Result<BTreeMap<Label, Vec<Why>>, ZfsError> {
    let there: BTreeSet<&Label> = view.snapshots.iter().map(|snapshot| &snapshot.label).collect();
    let labels: BTreeSet<&Label> = labels.iter().filter(|label| there.contains(label)).collect();
    let asked: Vec<Label> = labels.iter().copied().cloned().collect();
    let mut needs = needs(view, vectors);
    add_holds_and_clones(zfs, view, &asked, &mut needs)?;
    // A policy that keeps nothing, at a time that is behind every point's.
    let decided = decide(&view.snapshots, &needs, &Policy::default(), u64::MAX);
    Ok(decided.into_iter().filter(|one| labels.contains(&one.label)).map(|one| (one.label, one.stays)).collect())
}

/// Adds what ZFS itself would keep these snapshots for.
fn add_holds_and_clones(
    zfs: &dyn Datasets,
    view: &View,
    labels: &[Label],
    needs: &mut BTreeMap<Guid, BTreeSet<Need>>,
) -> Result<(), ZfsError> {
    let dataset = &view.dataset.name;
    let mut add = |label: &Label, need: Need| {
        if let Some(guid) = guid(view, label) {
            needs.entry(guid).or_default().insert(need);
        }
    };
    for some in labels.chunks(AT_ONCE) {
        for hold in zfs.holds(dataset, some)? {
            add(&hold.label, Need::Hold { tag: hold.tag.to_string() });
        }
    }
    for found in zfs.datasets(&[dataset.pool_name()])? {
        if let Some(origin) = found.origin.filter(|origin| origin.dataset == *dataset && labels.contains(&origin.label))
        {
            add(&origin.label, Need::Clone { clone: found.name.to_string() });
        }
    }
    Ok(())
}

fn guid(view: &View, label: &Label) -> Option<Guid> {
    view.snapshots.iter().find(|snapshot: &&Snapshot| snapshot.label == *label).map(|snapshot| snapshot.guid)
}

/// The policy of a dataset: its own, or that of what it lies in; `None` where there is none, and everything stays.
///
/// # Errors
/// When ZFS cannot be asked, or what stands there is no policy.
pub fn policy(zfs: &dyn Datasets, dataset: &DatasetName) -> Result<Option<Policy>, PruneError> {
    let Some(text) = zfs.property(dataset, RETENTION)? else { return Ok(None) };
    Ok(Some(text.parse()?))
}

/// Prunes a dataset by its policy, or says what would become of each point: `None` where there is no policy.
///
/// # Errors
/// When ZFS refuses, or the records cannot be read: without them nobody knows what is needed.
pub fn run(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    concerned: &Concerned<'_>,
    now: u64,
    dry: bool,
) -> Result<Option<Vec<Decision>>, PruneError> {
    let Some(policy) = policy(zfs, dataset)? else { return Ok(None) };
    let decisions = decisions(zfs, dataset, concerned, &policy, now)?.unwrap_or_default();
    if !dry {
        apply(zfs, dataset, &decisions)?;
    }
    Ok(Some(decisions))
}

/// Why nothing was pruned, or not all that was to be.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The dataset cannot be looked at.
    #[error(transparent)]
    End(#[from] EndError),
    /// The property holds something else.
    #[error("the property {RETENTION} cannot be read")]
    Policy(#[from] PolicyError),
}

/// Destroys the recovery points that go, some hundred at a time, of the dataset and of all that lies in it, and says how
/// many those are. One that ZFS keeps (somebody holds it since it was decided, a clone needs it) stays, and is told of in the
/// journal.
///
/// # Errors
/// When ZFS refuses for another reason. What was destroyed before stays so; to be run again.
pub fn apply(zfs: &dyn Datasets, dataset: &DatasetName, decisions: &[Decision]) -> Result<usize, ZfsError> {
    let going: BTreeSet<&Label> = decisions.iter().filter(|one| one.goes()).map(|one| &one.label).collect();
    if going.is_empty() {
        return Ok(0);
    }
    let mut stay: BTreeSet<Label> = BTreeSet::new();
    // What lies in it first: as long as the point is there, it shows that there is something left to do.
    for name in lying_in(zfs, dataset)?.into_iter().chain([dataset.clone()]) {
        let labels = zfs.snapshots(&name)?.into_iter().map(|snapshot| snapshot.label);
        let labels: Vec<Label> = labels.filter(|label| going.contains(label) && !stay.contains(label)).collect();
        for some in labels.chunks(AT_ONCE) {
            match zfs.destroy_snapshots(&name, some) {
                Err(error) if is_busy(&error) => {}
                done => {
                    done?;
                    continue;
                }
            }
            // One that a clone needs, or that was held since, keeps none of the others.
            for label in some {
                match zfs.destroy_snapshots(&name, std::slice::from_ref(label)) {
                    Err(error) if is_busy(&error) => {
                        eprintln!("retention: {name}@{label} stays: {}", crate::chain(&error));
                        stay.insert(label.clone());
                    }
                    done => done?,
                }
            }
        }
    }
    Ok(going.len() - stay.len())
}

fn is_busy(error: &ZfsError) -> bool {
    matches!(error, ZfsError::Refused { why: Refusal::Busy, .. })
}
