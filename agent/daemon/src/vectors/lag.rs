//! How far a target is behind, as the source has it: what it has marked as the vector's base, and what came after.

use siris_zfs::{Base, SnapshotName, Stream};

use super::end::End;
use super::plan::Obstacle;
use super::sync::{Pair, SyncError};

/// How far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Recovery points that the target lacks.
    pub points: u64,
    /// Seconds since the oldest of them was taken; 0 where there is none, or its name does not say when it was.
    pub seconds: u64,
    /// Bytes to be sent, by the source's estimate.
    pub bytes: u64,
}

/// Looks at the source only: a target that is not to be reached is behind all the same.
///
/// # Errors
/// When the source is gone, or cannot be asked.
pub fn of(pair: &Pair, source: &dyn End) -> Result<Lag, SyncError> {
    let view = source.look(&pair.source).map_err(SyncError::Source)?;
    let view = view.ok_or_else(|| Obstacle::SourceMissing(pair.source.to_string()))?;
    let base = view.base(&pair.id);
    let after = base.map_or(0, |base| view.snapshots.partition_point(|s| s.createtxg <= base.createtxg));
    let missing = &view.snapshots[after..];
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else { return Ok(Lag::default()) };
    let named = |label| SnapshotName::new(pair.source.clone(), label);
    let from = match base {
        None => Base::Nothing,
        Some(base) => match view.snapshot(base.guid) {
            Some(snapshot) => Base::Snapshot(named(snapshot.label.clone())),
            None => Base::Bookmark(base.label.clone()),
        },
    };
    let between = missing.len() > 1 && matches!(from, Base::Snapshot(_));
    let snapshot = named(last.label.clone());
    let stream = Stream::Snapshot { snapshot, base: from, between, raw: view.dataset.encrypted };
    let bytes = source.size(&pair.source, &stream).map_err(SyncError::Source)?;
    let now = crate::now();
    let taken = first.label.as_str().parse::<u64>().unwrap_or(now);
    Ok(Lag { points: missing.len() as u64, seconds: now.saturating_sub(taken), bytes })
}
