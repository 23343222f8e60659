//! ZFS labels of all devices, and the pools they make up. The one place that calls `siris-zfs-label`.

use std::io::{self, Read, Seek};

use siris_zfs_label::{self as zfs, Labels, Member, PoolState, Vdev};

use super::partition_name;
use crate::facts::{Content, Disk, Health, Pool, Zfs, ZfsRole};

/// A device and its labels.
pub struct Seen(Member);

impl Seen {
    /// Whether ZFS left nothing there.
    pub fn is_empty(&self) -> bool {
        self.0.labels.is_empty()
    }
}

/// Reads the labels of a device of `bytes` bytes.
pub fn look(dev: &mut (impl Read + Seek), device: &str, bytes: u64) -> io::Result<Seen> {
    Ok(Seen(Member { device: device.to_owned(), labels: zfs::read(dev, bytes)? }))
}

/// Puts pools together, and says on each disk and partition what it is in which pool.
pub fn attach(seen: &[Seen], disks: &mut [Disk]) -> Vec<Pool> {
    let all: Vec<Member> = seen.iter().map(|seen| seen.0.clone()).collect();
    let first_paths: Vec<&Member> = all.iter().map(|member| first_path(member, &all, disks)).collect();
    let members: Vec<Member> = all
        .iter()
        .zip(&first_paths)
        .filter(|(one, first)| one.device == first.device)
        .map(|(one, _)| one.clone())
        .collect();
    let pools = zfs::pools(&members);
    for (member, first) in all.iter().zip(first_paths) {
        let content = Content::Zfs(content(first, &pools));
        for disk in disks.iter_mut() {
            if disk.name.as_str() == member.device && !is_echo(member, disk) {
                disk.content.push(content.clone());
            }
            for part in &mut disk.partitions {
                if partition_name(&disk.name, part.number) == member.device {
                    part.content.push(content.clone());
                }
            }
        }
    }
    pools.iter().map(|pool| facts(pool, &members)).collect()
}

/// The same device seen through the first path to its disk; itself where there is but one path, or where the paths do
/// not show the same labels and are told apart for that.
fn first_path<'a>(member: &'a Member, all: &'a [Member], disks: &[Disk]) -> &'a Member {
    let names = |disk: &Disk| {
        let parts = disk.partitions.iter().map(|part| partition_name(&disk.name, part.number));
        std::iter::once(disk.name.to_string()).chain(parts).collect::<Vec<_>>()
    };
    let place = |disk: &Disk| names(disk).iter().position(|name| *name == member.device);
    let Some((disk, place)) = disks.iter().find_map(|disk| Some((disk, place(disk)?))) else { return member };
    let first = disk.path_of.as_ref().and_then(|first| disks.iter().find(|other| other.name == *first));
    let Some(name) = first.and_then(|first| names(first).get(place).cloned()) else { return member };
    let same = |other: &&Member| other.device == name && other.labels.fingerprint() == member.labels.fingerprint();
    all.iter().find(same).unwrap_or(member)
}

/// The labels at the end of the last partition can lie where those of the whole disk would: seen from the disk they
/// then fail their checksums, which count the place in.
fn is_echo(member: &Member, disk: &Disk) -> bool {
    let [first, second, ..] = &member.labels.copies;
    let nothing_in_front = [first, second].iter().all(|copy| matches!(copy, zfs::Copy::Absent));
    let end = disk.size.bytes().saturating_sub(3 * zfs::LABEL_BYTES);
    member.labels.best().is_none() && nothing_in_front && disk.partitions.iter().any(|part| part.end() > end)
}

fn content(member: &Member, pools: &[zfs::Pool]) -> Zfs {
    let Labels { copies, .. } = &member.labels;
    let sound = copies.iter().filter(|copy| matches!(copy, zfs::Copy::Found(_))).count() as u8;
    let Some(label) = member.labels.best() else {
        return Zfs { pool: None, vdev: None, state: None, role: ZfsRole::Unknown, sound };
    };
    let is_member = pools.iter().flat_map(|pool| &pool.members).find(|found| found.device == member.device);
    let is_stale = pools.iter().flat_map(|pool| &pool.stale).any(|found| found.device == member.device);
    let role = match (is_member.map(|found| found.role), label.state) {
        (Some(zfs::Role::Data), _) => ZfsRole::Data,
        (Some(zfs::Role::Log), _) => ZfsRole::Log,
        (Some(zfs::Role::Spare), _) => ZfsRole::Spare,
        _ if is_stale => ZfsRole::Stale,
        (None, PoolState::Spare) => ZfsRole::Spare,
        (None, PoolState::L2Cache) => ZfsRole::Cache,
        (None, _) => ZfsRole::Unknown,
    };
    Zfs { pool: label.pool, vdev: Some(label.vdev), state: Some(label.state), role, sound }
}

fn facts(pool: &zfs::Pool, members: &[Member]) -> Pool {
    let (health, faults) = match &pool.health {
        zfs::Health::Complete => (Health::Complete, &[][..]),
        zfs::Health::Degraded { why } => (Health::Degraded, &why[..]),
        zfs::Health::Incomplete { why } => (Health::Incomplete, &why[..]),
    };
    let best = |device: &str| members.iter().find(|member| member.device == device)?.labels.best();
    let comment = pool.members.iter().find_map(|member| best(&member.device)?.comment.clone());
    Pool {
        guid: pool.guid,
        name: pool.name.clone(),
        state: pool.state,
        version: pool.version,
        hostid: pool.hostid.filter(|id| *id != 0),
        hostname: pool.hostname.clone(),
        comment,
        layout: pool.tops.iter().map(in_words).collect(),
        members: pool.members.iter().map(|member| member.device.clone()).collect(),
        devices: (pool.members.len() + pool.missing.len()) as u64,
        health,
        faults: faults.iter().map(ToString::to_string).collect(),
        conflicts: pool.conflicts.iter().map(ToString::to_string).collect(),
        features: pool.features_for_read.iter().cloned().collect(),
        opened: None,
    }
}

/// `raidz2 of 6`, `log mirror of 2`, `disk`.
fn in_words(top: &Vdev) -> String {
    let log = if top.is_log { "log " } else { "" };
    let parity = top.nparity.map(|n| n.to_string()).unwrap_or_default();
    match top.children.len() {
        0 => format!("{log}{}", top.kind),
        n => format!("{log}{}{parity} of {n}", top.kind),
    }
}
