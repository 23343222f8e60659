//! What of a dataset its vectors need: what retention has to leave alone (invariant 8).

use std::collections::{BTreeMap, BTreeSet};

use siris_zfs::Guid;
use uuid::Uuid;

use super::VectorId;
use super::plan::View;
use super::record::{Direction, Peer, Vector};
use super::travel::Records;
use crate::datasets::retention::Need;

/// What a vector has to do with a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It sends it.
    Source,
    /// It receives it.
    Target,
}

/// The vectors that have to do with a dataset: those of this box, and those of other ones that have marked it. What marked
/// it and may fetch from here is taken for one that fetches: it needs more.
pub fn concerned(view: &View, own: Uuid, vectors: &[Vector], peers: &[Peer]) -> Vec<(VectorId, Side)> {
    let mut found = BTreeMap::new();
    let fetches = |id: &VectorId| peers.iter().any(|peer| peer.rights.device == id.device && peer.rights.may_send);
    for id in view.bookmarks.iter().filter_map(|bookmark| VectorId::of_bookmark(&bookmark.label)) {
        found.insert(id, if fetches(&id) { Side::Source } else { Side::Target });
    }
    // One that fetches has marked nothing before its first stream has arrived; it has left its record.
    for record in Records::of(&view.dataset.notes).iter().flat_map(Records::iter) {
        let is_from_here = record.from.device == Some(own) && record.source == view.dataset.name.as_str();
        if let (true, Ok(id)) = (is_from_here, record.id.parse::<VectorId>())
            && fetches(&id)
        {
            found.entry(id).or_insert(Side::Source);
        }
    }
    for vector in vectors {
        let (here, side) = match vector.direction {
            Direction::Push => (&vector.source, Side::Source),
            Direction::Pull => (&vector.target, Side::Target),
            // Nothing of it is here.
            Direction::Relay => continue,
        };
        if *here == view.dataset.name {
            found.insert(vector.id(own), side);
        }
    }
    found.into_iter().collect()
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
