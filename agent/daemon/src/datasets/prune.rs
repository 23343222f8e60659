//! Destroys the recovery points that retention lets go.
//!
//! Owns: that nothing goes which a vector needs or somebody holds (invariant 8). Never: destroys what is no recovery
//! point; forces.

use siris_zfs::{DatasetName, Datasets, Guid, Label, Snapshot, ZfsError};

use super::retention::{Decision, Need, Policy, decide};
use crate::vectors::VectorId;
use crate::vectors::end::{End, EndError, Local};
use crate::vectors::needs::{Side, needs};
use crate::vectors::plan::View;

/// How many snapshots one command destroys, or is asked about: their names are its arguments.
const AT_ONCE: usize = 500;

/// What would become of each recovery point of a dataset, and why; `None` when there is no such dataset.
///
/// # Errors
/// When ZFS cannot be asked.
pub fn decisions(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    vectors: &[(VectorId, Side)],
    policy: &Policy,
    now: u64,
) -> Result<Option<Vec<Decision>>, EndError> {
    let Some(view) = Local(zfs).look(dataset)? else { return Ok(None) };
    let mut needs = needs(&view, vectors);
    let first = decide(&view.snapshots, &needs, policy, now);
    // Only those that would go are asked who holds them.
    let going: Vec<Label> = first.iter().filter(|one| one.goes()).map(|one| one.label.clone()).collect();
    let mut is_held = false;
    for some in going.chunks(AT_ONCE) {
        for hold in zfs.holds(dataset, some)? {
            let Some(guid) = guid(&view, &hold.label) else { continue };
            needs.entry(guid).or_default().insert(Need::Hold { tag: hold.tag.to_string() });
            is_held = true;
        }
    }
    Ok(Some(if is_held { decide(&view.snapshots, &needs, policy, now) } else { first }))
}

fn guid(view: &View, label: &Label) -> Option<Guid> {
    view.snapshots.iter().find(|snapshot: &&Snapshot| snapshot.label == *label).map(|snapshot| snapshot.guid)
}

/// Destroys the recovery points that go, some hundred at a time, and says how many those are.
///
/// # Errors
/// When ZFS refuses: somebody holds one since it was decided. What was destroyed before stays so; to be run again.
pub fn apply(zfs: &dyn Datasets, dataset: &DatasetName, decisions: &[Decision]) -> Result<usize, ZfsError> {
    let going: Vec<Label> = decisions.iter().filter(|one| one.goes()).map(|one| one.label.clone()).collect();
    for some in going.chunks(AT_ONCE) {
        zfs.destroy_snapshots(dataset, some)?;
    }
    Ok(going.len())
}
