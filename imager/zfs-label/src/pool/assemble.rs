//! From claims to pools.

use std::collections::{BTreeMap, BTreeSet};

use super::claim::{Claim, by_pool};
use super::health::{Fault, Health, Presence, examine};
use super::{Auxiliary, Conflict, Member, Pool, PoolMember, Role, Stale, StaleBecause};
use crate::guid::{PoolGuid, VdevGuid};
use crate::label::{Label, PoolState, Vdev};
use crate::uberblock::Uberblock;

/// ZFS writes each uberblock to at least this many top-level vdevs, or to all if there are fewer; logs aside.
const UBERBLOCK_TOPS: u64 = 3;
const DEVICE_REMOVAL: &str = "com.delphix:device_removal";

/// Puts pools together. One entry per pool guid, in the order of the guids. Spares and caches, whose labels name no
/// pool, are not among them: see [`auxiliaries`].
pub fn pools(members: &[Member]) -> Vec<Pool> {
    let mut pools: Vec<_> = by_pool(members).into_iter().filter_map(|(guid, claims)| pool(guid, &claims)).collect();
    let mut names: BTreeMap<String, Vec<PoolGuid>> = BTreeMap::new();
    for pool in pools.iter().filter(|pool| pool.state != PoolState::Destroyed && !pool.is_hearsay()) {
        names.entry(pool.name.clone()).or_default().push(pool.guid);
    }
    for pool in &mut pools {
        let same = names.get(&pool.name).map_or(&[][..], Vec::as_slice);
        if same.contains(&pool.guid) {
            let others = same.iter().filter(|other| **other != pool.guid);
            pool.conflicts.extend(others.map(|other| Conflict::SameName { other: *other }));
        }
    }
    pools
}

/// The spares and caches among the devices, in their order.
pub fn auxiliaries(members: &[Member]) -> Vec<Auxiliary> {
    let claims = by_pool(members);
    let wrote = |uberblock: &Uberblock| {
        let same = |claim: &Claim| {
            let newest = claim.uberblock();
            newest.is_some_and(|newest| newest.guid_sum == uberblock.guid_sum)
        };
        claims.iter().filter(|(_, claims)| claims.iter().any(same)).map(|(guid, _)| *guid).collect()
    };
    let auxiliary = |member: &Member| {
        let label = member.labels.best().filter(|label| label.state.is_auxiliary())?;
        Some(Auxiliary {
            device: member.device.clone(),
            vdev: label.vdev,
            state: label.state,
            path: label.path.clone(),
            pools: label.uberblock.as_ref().map(wrote).unwrap_or_default(),
        })
    };
    members.iter().filter_map(auxiliary).collect()
}

/// A device that is, or was, part of the pool, with the label of it that holds.
#[derive(Clone, Copy)]
struct Seen<'a> {
    claim: &'a Claim<'a>,
    label: &'a Label,
    top: VdevGuid,
    txg: u64,
}

/// A top-level vdev, with its devices.
struct Top<'a> {
    vdev: &'a Vdev,
    /// Transaction group of its configuration.
    txg: u64,
    devices: Vec<Seen<'a>>,
}

fn pool(guid: PoolGuid, claims: &[Claim]) -> Option<Pool> {
    let closed = claims.iter().map(Claim::closed).max().filter(|txg| *txg != 0);
    let seen = |claim| {
        let label = Claim::label(claim, closed)?;
        Some(Seen { claim, label, top: label.top?, txg: label.txg? })
    };
    let mut stale = Vec::new();
    let (live, detached): (Vec<_>, Vec<_>) = claims.iter().filter_map(seen).partition(|seen| seen.txg != 0);
    put_aside(&mut stale, &detached, StaleBecause::Detached);
    // Of several, the first: the order of the devices is the caller's.
    let head = live.iter().copied().reduce(|best, seen| if seen.txg > best.txg { seen } else { best });
    let label = head.or(detached.first().copied())?.label;
    let mut tops = tops(label, &live, &mut stale);
    for top in emptied(&detached) {
        if let Err(at) = tops.binary_search_by_key(&top.vdev.id, |top| top.vdev.id) {
            tops.insert(at, top);
        }
    }
    stale.sort_by(|a: &Stale, b| a.device.cmp(&b.device));

    let uberblock = tops.iter().flat_map(|top| &top.devices).filter_map(|seen| seen.claim.uberblock());
    let uberblock = uberblock.max_by(|a, b| a.by_age(b));
    let mut conflicts = conflicts(claims, &tops);
    let behind = behind(&tops, &mut conflicts);
    let why = faults(guid, label, uberblock, &tops, &behind);
    Some(Pool {
        guid,
        name: label.name.clone().unwrap_or_default(),
        state: label.state,
        hostid: label.hostid,
        hostname: label.hostname.clone(),
        txg: label.txg.unwrap_or(0),
        uberblock: uberblock.cloned(),
        version: label.version,
        children: label.children,
        features_for_read: label.features_for_read.clone(),
        members: tops.iter().flat_map(roles).collect(),
        missing: tops.iter().flat_map(missing).collect(),
        tops: tops.iter().map(|top| top.vdev.clone()).collect(),
        stale,
        health: Health::of(why),
        conflicts,
    })
}

fn put_aside(stale: &mut Vec<Stale>, seen: &[Seen], why: StaleBecause) {
    stale.extend(seen.iter().map(|seen| Stale { device: seen.claim.device.to_owned(), vdev: seen.claim.vdev, why }));
}

/// The top-level vdevs by their numbers, as the newest label of the pool has it; what is none of them goes to `stale`.
fn tops<'a>(head: &Label, live: &[Seen<'a>], stale: &mut Vec<Stale>) -> Vec<Top<'a>> {
    let mut groups: BTreeMap<VdevGuid, Vec<Seen>> = BTreeMap::new();
    for seen in live {
        groups.entry(seen.top).or_default().push(*seen);
    }
    let mut by_number: BTreeMap<u64, Top> = BTreeMap::new();
    for devices in groups.into_values() {
        let newest = devices.iter().copied().reduce(|best, seen| if seen.txg > best.txg { seen } else { best });
        let Some((newest, vdev)) = newest.and_then(|seen| Some((seen, seen.label.tree.as_ref()?))) else { continue };
        let gone = head.holes.contains(&vdev.id) || head.children.is_some_and(|children| vdev.id >= children);
        let known: BTreeSet<_> = vdev.leaves().iter().map(|leaf| leaf.guid).collect();
        let (devices, unknown): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|seen| known.contains(&seen.claim.vdev));
        put_aside(stale, &unknown, StaleBecause::Replaced);
        let top = Top { vdev, txg: newest.txg, devices };
        // A number is given anew after its vdev was removed: the older one is gone.
        let gone = if gone {
            Some(top)
        } else {
            match by_number.remove(&vdev.id) {
                Some(other) if other.txg >= top.txg => {
                    by_number.insert(vdev.id, other);
                    Some(top)
                }
                other => {
                    by_number.insert(vdev.id, top);
                    other
                }
            }
        };
        put_aside(stale, &gone.map(|top| top.devices).unwrap_or_default(), StaleBecause::TopRemoved);
    }
    by_number.into_values().collect()
}

/// Top-level vdevs that `zpool remove` has emptied. They live on without devices; only labels of devices that were
/// theirs still describe them. (That they are those of the pool shows in the sum of guids.)
fn emptied<'a>(detached: &[Seen<'a>]) -> Vec<Top<'a>> {
    let trees = detached.iter().filter_map(|seen| seen.label.tree.as_ref()).filter(|tree| tree.kind == "indirect");
    trees.map(|vdev| Top { vdev, txg: 0, devices: Vec::new() }).collect()
}

/// The devices of a top-level vdev that were seen, in its order.
fn roles(top: &Top) -> Vec<PoolMember> {
    let mut roles = Vec::new();
    for leaf in top.vdev.leaves() {
        let role = match (top.vdev.is_log, leaf.is_spare) {
            (true, _) => Role::Log,
            (false, true) => Role::Spare,
            (false, false) => Role::Data,
        };
        for seen in top.devices.iter().filter(|seen| seen.claim.vdev == leaf.guid) {
            let device = seen.claim.device.to_owned();
            roles.push(PoolMember { vdev: leaf.guid, device, role, top: top.vdev.guid });
        }
    }
    roles
}

fn missing(top: &Top) -> Vec<Vdev> {
    let seen: BTreeSet<_> = top.devices.iter().map(|seen| seen.claim.vdev).collect();
    let has_device = |leaf: &&&Vdev| !matches!(leaf.kind.as_str(), "dspare" | "hole" | "indirect");
    let leaves = top.vdev.leaves();
    leaves.iter().filter(has_device).filter(|leaf| !seen.contains(&leaf.guid)).map(|leaf| (*leaf).clone()).collect()
}

/// The device of `seen` that knows most: newest uberblock, then newest label.
fn leader<'a, 'b>(seen: &'b [Seen<'a>]) -> Option<&'b Seen<'a>> {
    seen.iter().max_by_key(|seen| (seen.claim.closed(), seen.txg))
}

/// Vdevs whose devices all missed writes to their top-level vdev. Each of its devices gets every configuration and
/// every uberblock; a power cut can cost one of them the last uberblock, not two.
fn behind(tops: &[Top], conflicts: &mut Vec<Conflict>) -> BTreeSet<VdevGuid> {
    let mut behind = BTreeSet::new();
    let mut current = BTreeSet::new();
    for top in tops {
        let Some(leader) = leader(&top.devices) else { continue };
        for seen in &top.devices {
            if seen.txg >= top.txg && seen.claim.closed() >= leader.claim.closed_before() {
                current.insert(seen.claim.vdev);
                continue;
            }
            behind.insert(seen.claim.vdev);
            if parted(seen.claim, leader.claim) {
                let (device, vdev) = (seen.claim.device.to_owned(), seen.claim.vdev);
                conflicts.push(Conflict::TwoHistories { device, vdev });
            }
        }
    }
    behind.retain(|vdev| !current.contains(vdev));
    behind
}

/// Did `old` close a transaction group that `new` should remember, and does not? Multihost protection writes more
/// uberblocks for a transaction group, each to one device only: one in common is enough.
fn parted(old: &Claim, new: &Claim) -> bool {
    let last = old.closed();
    let remembers = new.history.first().is_some_and(|first| first.0 <= last);
    let common = old.history.iter().filter(|moment| moment.0 == last).any(|moment| new.history.contains(moment));
    last != 0 && remembers && !common
}

fn conflicts(claims: &[Claim], tops: &[Top]) -> Vec<Conflict> {
    let mut by_vdev: BTreeMap<VdevGuid, Vec<&Claim>> = BTreeMap::new();
    for seen in tops.iter().flat_map(|top| &top.devices) {
        by_vdev.entry(seen.claim.vdev).or_default().push(seen.claim);
    }
    let mut conflicts = Vec::new();
    for (vdev, claims) in by_vdev {
        if let [first, _, ..] = claims[..] {
            let devices = claims.iter().map(|claim| claim.device.to_owned()).collect();
            let identical = claims.iter().all(|claim| claim.fingerprint == first.fingerprint);
            conflicts.push(Conflict::SameVdev { vdev, devices, identical });
        }
    }
    for claim in claims.iter().filter(|claim| !claim.others.is_empty()) {
        let vdevs = [&[claim.vdev], &claim.others[..]].concat();
        conflicts.push(Conflict::TwoVdevs { device: claim.device.to_owned(), vdevs });
    }
    conflicts
}

fn faults(
    guid: PoolGuid,
    head: &Label,
    uberblock: Option<&Uberblock>,
    tops: &[Top],
    behind: &BTreeSet<VdevGuid>,
) -> Vec<Fault> {
    let mut why = Vec::new();
    if tops.iter().all(|top| top.devices.is_empty()) {
        why.push(Fault::NoMember);
    }
    let unseen = head.children.unwrap_or(0).saturating_sub((tops.len() + head.holes.len()) as u64);
    if unseen > 0 {
        let maybe_removed = head.features_for_read.contains(DEVICE_REMOVAL);
        why.push(Fault::TopsUnseen { count: unseen, maybe_removed });
    } else if uberblock.is_some_and(|uberblock| uberblock.guid_sum != guid_sum(guid, tops)) {
        why.push(Fault::OtherVdevs);
    }
    why.extend(tops_behind(head, tops, unseen));
    for top in tops {
        let seen = top.devices.iter().map(|Seen { claim, .. }| {
            (claim.vdev, Presence { device: claim.device, behind: behind.contains(&claim.vdev) })
        });
        let seen = seen.collect();
        examine(top.vdev, &seen, &mut why);
        let torn = top.devices.iter().filter(|seen| seen.claim.labels.len() < 4);
        why.extend(
            torn.map(|seen| Fault::Copies {
                device: seen.claim.device.to_owned(),
                sound: seen.claim.labels.len() as u64,
            }),
        );
    }
    why
}

/// Top-level vdevs of another time than the pool. Exporting and destroying writes all of them; otherwise only a pool of
/// few of them writes each uberblock to all.
fn tops_behind(head: &Label, tops: &[Top], unseen: u64) -> Vec<Fault> {
    let pool_txg = head.txg.unwrap_or(0);
    let at_rest = matches!(head.state, PoolState::Exported | PoolState::Destroyed);
    let data = tops.iter().filter(|top| !top.vdev.is_log);
    let few = data.clone().count() as u64 + unseen <= UBERBLOCK_TOPS;
    let leader = data.filter_map(|top| leader(&top.devices)).max_by_key(|seen| seen.claim.closed());
    let (closed, closed_before) = leader.map_or((0, 0), |seen| (seen.claim.closed(), seen.claim.closed_before()));
    let mut why = Vec::new();
    for Top { vdev, txg, devices } in tops {
        let top_closed = devices.iter().map(|seen| seen.claim.closed()).max().unwrap_or(0);
        let fault = |txg, pool_txg| Fault::TopBehind { kind: vdev.kind.clone(), id: vdev.id, txg, pool_txg };
        if devices.is_empty() {
            continue;
        }
        if at_rest && *txg < pool_txg {
            why.push(fault(*txg, pool_txg));
        } else if few && !vdev.is_log && top_closed < closed_before {
            why.push(fault(top_closed, closed));
        }
    }
    why
}

/// The sum that the uberblock of a pool of these vdevs has.
fn guid_sum(pool: PoolGuid, tops: &[Top]) -> u64 {
    fn of(vdev: &Vdev) -> u64 {
        vdev.children.iter().map(of).fold(vdev.guid.number(), u64::wrapping_add)
    }
    tops.iter().map(|top| of(top.vdev)).fold(pool.number(), u64::wrapping_add)
}
