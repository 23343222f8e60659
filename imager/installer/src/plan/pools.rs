//! What is decided about pools: whether they are whole, whether the image can read them, whose host id they carry.

use std::collections::BTreeSet;

use serde::Serialize;
use siris_zfs_label::{PoolGuid, PoolState};

use super::{Image, Purpose, newpool};
use crate::answers::{Answers, ExpectedPool, HostIdChoice};
use crate::facts::{Content, Facts, Health, Opened, Pool, ZfsRole};
use crate::refusal::Refusals;

/// A pool, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PoolPlan {
    /// Its name.
    pub name: String,
    /// Its guid.
    pub guid: PoolGuid,
    /// Can all of it be read?
    pub health: Health,
    /// Devices found, and devices in all.
    pub devices: (u64, u64),
    /// What becomes of it.
    pub fate: Fate,
}

impl PoolPlan {
    /// Whether the new OS imports it.
    pub fn is_imported(&self) -> bool {
        self.fate == Fate::Import
    }
}

/// What becomes of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is left alone, and imported by the new OS.
    Import,
    /// It is left alone.
    Leave,
    /// It was destroyed before.
    Destroyed,
    /// The answers give it up.
    Destroy,
}

/// The host id of the new OS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "hostid", content = "value")]
pub enum HostId {
    /// A new one is made at first boot.
    New,
    /// None at all, as the pool has none.
    None,
    /// This one.
    Id(u32),
}

/// Decides about every pool, and refuses what is not as it has to be.
pub(super) fn decide(
    facts: &Facts,
    answers: &Answers,
    purpose: &Purpose<'_>,
    refusals: &mut Refusals,
) -> Vec<PoolPlan> {
    let image = purpose.image;
    for expected in answers.pools.iter().flatten() {
        let found: Vec<&Pool> = facts.pools.iter().filter(|pool| is_meant(expected, pool)).collect();
        match found[..] {
            [pool] => check(pool, Some(expected), image, refusals),
            [] => refusals.add(
                "pool-unknown",
                format!("pool \"{}\"{} is on no disk of this machine", expected.name, guid_text(expected)),
                format!("check cables and the answers; pools found: {}", names(&facts.pools)),
            ),
            _ => refusals.add(
                "pool-unknown",
                format!("more than one pool is called \"{}\"", expected.name),
                format!("name its guid too; pools found: {}", names(&facts.pools)),
            ),
        }
    }
    for destroy in &answers.destroy {
        if !facts.pools.iter().any(|pool| pool.guid == destroy.guid && pool.name == destroy.name) {
            refusals.add(
                "destroy-unknown",
                format!("no pool \"{}\" with guid {} is there to be destroyed", destroy.name, destroy.guid),
                format!("name *and* guid have to fit; pools found: {}", names(&facts.pools)),
            );
        }
    }
    let mut plans = Vec::new();
    for pool in &facts.pools {
        let given_up = answers.destroy.iter().any(|d| d.guid == pool.guid && d.name == pool.name);
        let fate = match &answers.pools {
            _ if given_up || newpool::is_own(pool, purpose) => Fate::Destroy,
            _ if pool.state == PoolState::Destroyed => Fate::Destroyed,
            Some(expected) if !expected.iter().any(|expected| is_meant(expected, pool)) => Fate::Leave,
            Some(_) => Fate::Import,
            None => {
                check(pool, None, image, refusals);
                Fate::Import
            }
        };
        let (name, guid, health) = (pool.name.clone(), pool.guid, pool.health);
        plans.push(PoolPlan { name, guid, health, devices: (pool.members.len() as u64, pool.devices), fate });
    }
    plans
}

fn is_meant(expected: &ExpectedPool, pool: &Pool) -> bool {
    let live = pool.state != PoolState::Destroyed;
    live && expected.name == pool.name && expected.guid.is_none_or(|guid| guid == pool.guid)
}

fn guid_text(expected: &ExpectedPool) -> String {
    expected.guid.map(|guid| format!(" (guid {guid})")).unwrap_or_default()
}

fn names(pools: &[Pool]) -> String {
    let names: Vec<String> = pools.iter().map(|pool| format!("\"{}\" (guid {})", pool.name, pool.guid)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn check(pool: &Pool, expected: Option<&ExpectedPool>, image: &Image, refusals: &mut Refusals) {
    let name = format!("pool \"{}\" (guid {})", pool.name, pool.guid);
    let faults = if pool.faults.is_empty() { String::new() } else { format!(": {}", pool.faults.join("; ")) };
    match pool.health {
        Health::Complete => {}
        Health::Degraded if expected.is_some_and(|expected| expected.allow_degraded) => {}
        Health::Degraded => refusals.add(
            "pool-degraded",
            format!("{name} is degraded{faults}"),
            "repair it first, or allow it: [[pools]] with allow-degraded = true",
        ),
        Health::Incomplete => refusals.add(
            "pool-incomplete",
            format!("{name} is incomplete, {} of {} devices were found{faults}", pool.members.len(), pool.devices),
            "attach the missing disks; or list the pools to keep in [[pools]] without it, if it is no longer wanted",
        ),
    }
    if let Some(wanted) = expected.and_then(|expected| expected.members)
        && wanted != pool.members.len() as u64
        && pool.health != Health::Incomplete
        && !expected.is_some_and(|expected| expected.allow_degraded && pool.devices == wanted)
    {
        refusals.add(
            "pool-members",
            format!(
                "{name} has {} devices here (spares and caches do not count), {wanted} are expected",
                pool.members.len()
            ),
            "check cables and the answers",
        );
    }
    if !pool.conflicts.is_empty() {
        refusals.add(
            "pool-conflict",
            format!("{name}: {}", pool.conflicts.join("; ")),
            "take out the copy, or the second path, and start again",
        );
    }
    features(pool, &name, image, refusals);
}

fn features(pool: &Pool, name: &str, image: &Image, refusals: &mut Refusals) {
    let zfs = &image.manifest.zfs;
    let none: &[String] = &[];
    let (read, write) = match &pool.opened {
        Some(Opened::Features { read, write }) => (&read[..], &write[..]),
        Some(Opened::Failed(why)) => {
            refusals.add(
                "pool-unreadable",
                format!("{name}: ZFS {} of this image cannot open it: {why}", zfs.version),
                "find out why; or list the pools to keep in [[pools]] without it, if it is no longer wanted",
            );
            (none, none)
        }
        Some(Opened::Unsupported) | None => (none, none),
    };
    let version_ok = pool.version == 5000 || pool.version <= 28;
    if !version_ok {
        let what =
            format!("{name} has version {}, which ZFS {} of this image does not know", pool.version, zfs.version);
        refusals.add("pool-features", what, "use an image with a newer ZFS");
    }
    if pool.opened == Some(Opened::Unsupported) && zfs.cannot_read(&pool.features).is_empty() {
        refusals.add(
            "pool-features",
            format!("{name} has features without which ZFS {} of this image cannot read it", zfs.version),
            "use an image with a newer ZFS",
        );
    }
    let unknown = [("read", zfs.cannot_read(pool.features.iter().chain(read))), ("write", zfs.cannot_write(write))];
    for (verb, unknown) in unknown.into_iter().filter(|(_, unknown)| !unknown.is_empty()) {
        let unknown = unknown.into_iter().collect::<Vec<_>>().join(", ");
        refusals.add(
            "pool-features",
            format!("{name} has features {unknown}, which ZFS {} of this image cannot {verb}", zfs.version),
            "use an image with a newer ZFS",
        );
    }
}

/// The host id that lets the new OS import the pools as their old host did.
pub(super) fn hostid(facts: &Facts, answers: &Answers, plans: &[PoolPlan], refusals: &mut Refusals) -> HostId {
    match answers.identity.hostid {
        HostIdChoice::None => return HostId::None,
        HostIdChoice::Id(id) => return HostId::Id(id),
        HostIdChoice::Carry => {}
    }
    let imported = plans.iter().filter(|plan| plan.fate == Fate::Import).filter_map(|plan| facts.pool(plan.guid));
    let (active, others): (Vec<&Pool>, Vec<&Pool>) = imported.partition(|pool| pool.state == PoolState::Active);
    let ids: BTreeSet<Option<u32>> = active.iter().map(|pool| pool.hostid).collect();
    match ids.len() {
        // An exported pool is anybody's; its old host's id is kept all the same where there is but one.
        0 => match others
            .iter()
            .filter_map(|pool| pool.hostid)
            .collect::<BTreeSet<u32>>()
            .into_iter()
            .collect::<Vec<_>>()[..]
        {
            [id] => HostId::Id(id),
            _ => HostId::New,
        },
        1 => ids.into_iter().flatten().next().map_or(HostId::None, HostId::Id),
        _ => {
            let list = active.iter().map(|pool| match pool.hostid {
                Some(id) => format!("\"{}\" {id:08x}", pool.name),
                None => format!("\"{}\" none", pool.name),
            });
            refusals.add(
                "hostid-conflict",
                format!("the pools were last used under different host ids: {}", list.collect::<Vec<_>>().join(", ")),
                "decide identity.hostid: eight hexadecimal digits, or \"none\"; the other pools need `zpool import -f`",
            );
            HostId::New
        }
    }
}

/// Why a label on a target that is to be overwritten stands against it.
pub(super) fn in_the_way(zfs: &crate::facts::Zfs, facts: &Facts, answers: &Answers) -> Option<String> {
    let pool = zfs.pool.and_then(|guid| facts.pool(guid));
    let destroyed =
        zfs.state == Some(PoolState::Destroyed) || pool.is_some_and(|pool| pool.state == PoolState::Destroyed);
    let given_up = pool.is_some_and(|pool| answers.destroy.iter().any(|d| d.guid == pool.guid && d.name == pool.name));
    if destroyed || given_up {
        return None;
    }
    let named = match (pool, zfs.pool) {
        (Some(pool), _) => format!("pool \"{}\" (guid {})", pool.name, pool.guid),
        (None, Some(guid)) => format!("a pool with guid {guid}"),
        (None, None) => "a pool that its label does not name".to_owned(),
    };
    match zfs.role {
        ZfsRole::Stale if answers.wipe_stale => None,
        ZfsRole::Stale => Some(format!("carries a stale label of {named}")),
        ZfsRole::Data => Some(format!("is part of {named}")),
        ZfsRole::Log => Some(format!("is an intent log of {named}")),
        ZfsRole::Spare => Some(format!("is a spare of {named}")),
        ZfsRole::Cache => Some(format!("is a cache of {named}")),
        ZfsRole::Unknown if zfs.vdev.is_some() => Some(format!("carries a label of {named}")),
        ZfsRole::Unknown => Some("carries damaged ZFS labels".to_owned()),
    }
}

/// Labels of pools on a target that are wiped with it, in words.
pub(super) fn wiped(content: &Content, facts: &Facts) -> Option<String> {
    let Content::Zfs(zfs) = content else { return None };
    let name = zfs.pool.and_then(|guid| facts.pool(guid)).map_or("?", |pool| pool.name.as_str());
    let guid = zfs.pool.map(|guid| guid.to_string()).unwrap_or_default();
    Some(format!("labels of pool \"{name}\" {guid}").trim_end().to_owned())
}
