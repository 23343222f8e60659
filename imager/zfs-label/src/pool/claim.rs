//! What one device claims to be in one pool.

use std::collections::BTreeMap;

use siris_ibu::Sha256;

use super::Member;
use crate::guid::{PoolGuid, VdevGuid};
use crate::label::Label;
use crate::read::Moment;
use crate::uberblock::Uberblock;

/// A device's claim to be a certain vdev of a certain pool, backed by one to four label copies.
#[derive(Debug, Clone)]
pub(super) struct Claim<'a> {
    /// The device.
    pub(super) device: &'a str,
    /// Who it says it is.
    pub(super) vdev: VdevGuid,
    /// The labels that say so, in the order of their copies.
    pub(super) labels: Vec<&'a Label>,
    /// All uberblocks that lie with them.
    pub(super) history: Vec<Moment>,
    /// Digest of all labels of the device.
    pub(super) fingerprint: Sha256,
    /// Other vdevs that the device says it is.
    pub(super) others: Vec<VdevGuid>,
}

impl<'a> Claim<'a> {
    /// The newest uberblock.
    pub(super) fn uberblock(&self) -> Option<&'a Uberblock> {
        self.labels.iter().filter_map(|label| label.uberblock.as_ref()).max_by(|a, b| a.by_age(b))
    }

    /// The label that holds, where `closed` is the last transaction group that the pool completed. A newer label was
    /// written in a transaction group that came to nothing.
    pub(super) fn label(&self, closed: Option<u64>) -> Option<&'a Label> {
        let holds = |label: &&&Label| closed.is_none_or(|closed| label.txg.is_none_or(|txg| txg <= closed));
        let newest = |best: &'a Label, label: &'a Label| if label.txg > best.txg { label } else { best };
        let held = self.labels.iter().filter(holds).copied().reduce(newest);
        held.or_else(|| self.labels.iter().copied().reduce(newest))
    }

    /// Transaction group of the newest uberblock; 0 if there is none.
    pub(super) fn closed(&self) -> u64 {
        self.history.last().map_or(0, |moment| moment.0)
    }

    /// Transaction group of the newest uberblock that has an older one than [`Self::closed`]; 0 if there is none.
    pub(super) fn closed_before(&self) -> u64 {
        self.history.iter().rev().map(|moment| moment.0).find(|txg| *txg < self.closed()).unwrap_or(0)
    }
}

/// All claims to be part of a pool, by pool. Spares and caches make none.
pub(super) fn by_pool(members: &[Member]) -> BTreeMap<PoolGuid, Vec<Claim<'_>>> {
    let mut pools: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for member in members {
        let mut claims: BTreeMap<_, Claim> = BTreeMap::new();
        for (n, label) in member.labels.found() {
            let Some(pool) = label.pool.filter(|_| !label.state.is_auxiliary()) else { continue };
            let claim = claims.entry((pool, label.vdev)).or_insert_with(|| Claim {
                device: &member.device,
                vdev: label.vdev,
                labels: Vec::new(),
                history: Vec::new(),
                fingerprint: member.labels.fingerprint(),
                others: Vec::new(),
            });
            claim.labels.push(label);
            claim.history.extend(member.labels.history(n));
        }
        let all: Vec<_> = claims.keys().map(|(_, vdev)| *vdev).collect();
        for ((pool, vdev), mut claim) in claims {
            claim.history.sort_unstable();
            claim.history.dedup();
            claim.others = all.iter().filter(|other| **other != vdev).copied().collect();
            pools.entry(pool).or_default().push(claim);
        }
    }
    pools
}
