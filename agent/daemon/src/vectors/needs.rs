//! What of a dataset its vectors need: what retention has to leave alone (invariant 8).

use std::collections::{BTreeMap, BTreeSet};

use siris_zfs::Guid;

use super::VectorId;
use super::plan::View;
use crate::datasets::retention::Need;

/// What a vector has to do with a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It sends it.
    Source,
    /// It receives it.
    Target,
}

/// What these vectors need of a dataset. A vector that sends needs its base and all that came after it: everything where
/// it has sent nothing yet. One that receives needs its base.
pub fn needs(view: &View, vectors: &[(VectorId, Side)]) -> BTreeMap<Guid, BTreeSet<Need>> {
    let mut needs: BTreeMap<Guid, BTreeSet<Need>> = BTreeMap::new();
    for (id, side) in vectors {
        let vector = id.to_string();
        // Each of the vector's marks: while a base is being changed for a newer one there are two.
        let own = view.bookmarks.iter().filter(|bookmark| id.owns(&bookmark.label));
        for base in own {
            needs.entry(base.guid).or_default().insert(Need::Base { vector: vector.clone() });
        }
        if *side == Side::Target {
            continue;
        }
        let sent = view.base(id).map_or(0, |base| base.createtxg);
        for snapshot in view.snapshots.iter().filter(|snapshot| snapshot.createtxg > sent) {
            needs.entry(snapshot.guid).or_default().insert(Need::Queued { vector: vector.clone() });
        }
    }
    needs
}
