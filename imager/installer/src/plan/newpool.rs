//! The pool that a full install makes.

use serde::Serialize;
use siris_ibu::ByteSize;

use super::keep::wipes;
use super::{Purpose, Wipe, pools, who};
use crate::answers::{Answers, DiskSpec, PoolLayout};
use crate::facts::{Content, Disk, DiskName, Facts};
use crate::refusal::Refusals;

/// A pool to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NewPoolPlan {
    /// Its name.
    pub name: String,
    /// How its disks are arranged.
    pub layout: PoolLayout,
    /// Its disks.
    pub disks: Vec<DataDisk>,
    /// Hot spares.
    pub spares: Vec<DataDisk>,
    /// Disks of the intent log.
    pub log: Vec<DataDisk>,
    /// What it says of itself, by which a rerun knows it again.
    pub comment: String,
}

/// A disk of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DataDisk {
    /// The disk.
    pub disk: DiskName,
    /// Its serial number, or what else it is known by.
    pub identity: String,
    /// Its number among all that the kernel has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diskseq: Option<u64>,
    /// Size.
    pub size: ByteSize,
    /// What ZFS is told: a name that outlives the next boot where there is one.
    pub device: String,
    /// What is lost, in words.
    pub lost: Vec<String>,
    /// Ranges that are cleared.
    pub wipes: Vec<Wipe>,
}

impl NewPoolPlan {
    /// Every disk of it.
    pub fn all(&self) -> impl Iterator<Item = &DataDisk> {
        self.disks.iter().chain(&self.spares).chain(&self.log)
    }
}

/// What a pool says of itself that this install has made.
pub(super) fn comment(purpose: &Purpose<'_>) -> String {
    format!("siris-install {}", purpose.id)
}

/// Whether a pool was left by an earlier try of this install.
pub(super) fn is_own(pool: &crate::facts::Pool, purpose: &Purpose<'_>) -> bool {
    pool.comment.as_deref() == Some(&comment(purpose))
}

pub(super) fn decide(
    facts: &Facts,
    answers: &Answers,
    purpose: &Purpose<'_>,
    targets: &[&DiskName],
    refusals: &mut Refusals,
) -> Option<NewPoolPlan> {
    let wanted = answers.new_pool.as_ref()?;
    let mut taken: Vec<DiskName> = targets.iter().map(|name| (*name).clone()).collect();
    let mut resolve = |path: &str, specs: &[DiskSpec], refusals: &mut Refusals| {
        let mut disks = Vec::new();
        for spec in specs {
            let Some(disk) = super::target::named(path, facts, spec, refusals) else { continue };
            if taken.contains(&disk.name) {
                let what = format!("{path}: {} is used twice", who(disk));
                refusals.add("pool-disk-twice", what, "name each disk once");
                continue;
            }
            taken.push(disk.name.clone());
            check(disk, facts, answers, purpose, refusals);
            disks.push(data_disk(disk, facts));
        }
        disks
    };
    let disks = resolve("pool.disks", &wanted.disks, refusals);
    let spares = resolve("pool.spares", &wanted.spares, refusals);
    let log = resolve("pool.log", &wanted.log, refusals);
    let stays = |pool: &&crate::facts::Pool| {
        let given_up = answers.destroy.iter().any(|d| d.guid == pool.guid);
        pool.name == wanted.name
            && pool.state != siris_zfs_label::PoolState::Destroyed
            && !given_up
            && !is_own(pool, purpose)
    };
    if let Some(other) = facts.pools.iter().find(stays) {
        refusals.add(
            "pool-name-taken",
            format!("a pool \"{}\" is there already (guid {})", other.name, other.guid),
            "give the new one another name, or this one up: [[destroy]] with its name and guid",
        );
    }
    let (name, layout, comment) = (wanted.name.clone(), wanted.layout, comment(purpose));
    Some(NewPoolPlan { name, layout, disks, spares, log, comment })
}

fn check(disk: &Disk, facts: &Facts, answers: &Answers, purpose: &Purpose<'_>, refusals: &mut Refusals) {
    let name = who(disk);
    if facts.is_medium(disk) {
        refusals.add("target-is-medium", format!("{name} is what the installer came on"), "name another disk");
    }
    if disk.path_of.is_some() || facts.disks.iter().any(|other| other.path_of.as_ref() == Some(&disk.name)) {
        refusals.add("target-multipath", format!("{name} is reached by more than one path"), "unplug one of them");
    }
    if let Some(why) = &disk.unreadable {
        refusals.add("target-unreadable", format!("{name} cannot be read: {why}"), "name another disk");
    }
    if !disk.used_as.is_empty() || !disk.holders.is_empty() {
        let by = disk.used_as.iter().chain(&disk.holders).cloned().collect::<Vec<_>>().join(", ");
        refusals.add("target-mounted", format!("{name} is in use ({by})"), "free it, or name another disk");
    }
    for (_, content) in disk.contents() {
        let Content::Zfs(zfs) = content else { continue };
        if zfs.pool.and_then(|guid| facts.pool(guid)).is_some_and(|pool| is_own(pool, purpose)) {
            continue;
        }
        if let Some(why) = pools::in_the_way(zfs, facts, answers) {
            refusals.add(
                "target-in-pool",
                format!("{name} {why}"),
                "name another disk, or give that pool up: [[destroy]] with its name and guid",
            );
        }
    }
}

fn data_disk(disk: &Disk, facts: &Facts) -> DataDisk {
    let device = match disk.by_id.first() {
        Some(name) => format!("/dev/disk/by-id/{name}"),
        None => format!("/dev/{}", disk.name),
    };
    DataDisk {
        disk: disk.name.clone(),
        identity: disk.identity().to_owned(),
        diskseq: disk.diskseq,
        size: disk.size,
        device,
        lost: super::target::lost(disk, &[], facts),
        wipes: wipes(disk, &[]),
    }
}
