//! Whether all data of a pool can be read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::guid::VdevGuid;
use crate::label::Vdev;

/// Whether all data of a pool can be read from the devices that were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "health")]
pub enum Health {
    /// Every device is there and up to date.
    Complete,
    /// All data can be read, but something is not as it should be.
    Degraded {
        /// All that is wrong.
        why: Vec<Fault>,
    },
    /// Data is missing, or may be.
    Incomplete {
        /// All that is wrong.
        why: Vec<Fault>,
    },
}

/// One thing that is wrong with a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum Fault {
    /// Only devices that no longer belong to the pool were seen.
    #[error("no device was seen that still belongs to the pool")]
    NoMember,
    /// Top-level vdevs of which no device was seen.
    #[error("{count} of the pool's top-level vdevs not seen{}", if *maybe_removed { " (may have been removed with `zpool remove`: labels alone cannot tell)" } else { "" })]
    TopsUnseen {
        /// How many.
        count: u64,
        /// The feature `device_removal` is active: they may be vdevs that `zpool remove` has emptied, of which
        /// nothing is left to be seen.
        maybe_removed: bool,
    },
    /// More devices of a group cannot be used than it can do without.
    #[error("{kind}-{id} lacks {lost} of its devices and can do without {spare}")]
    TooFew {
        /// Kind of the group.
        kind: String,
        /// Its place among its siblings.
        id: u64,
        /// How many of its devices cannot be used.
        lost: u64,
        /// How many it can do without.
        spare: u64,
    },
    /// All devices of a top-level vdev stopped at an earlier point in time than the pool: a copy of other times?
    #[error("{kind}-{id} stopped at transaction group {txg}, the pool at {pool_txg}")]
    TopBehind {
        /// Kind of the top-level vdev.
        kind: String,
        /// Its number in the pool.
        id: u64,
        /// Where it stopped.
        txg: u64,
        /// Where the pool is.
        pool_txg: u64,
    },
    /// The vdevs that were seen are not those that the newest uberblock was written for: their guids have another sum.
    #[error("the vdevs that were seen are not those of the newest uberblock")]
    OtherVdevs,
    /// A device was not seen.
    #[error("device {vdev}{} not seen", last_at(path))]
    Missing {
        /// Its guid.
        vdev: VdevGuid,
        /// Where its host last saw it.
        path: Option<String>,
    },
    /// A device was seen, but did not take part in the last writes.
    #[error("device {vdev} on {device} missed writes")]
    Behind {
        /// Its guid.
        vdev: VdevGuid,
        /// Where it was seen.
        device: String,
    },
    /// ZFS, or an administrator, put a device out of use.
    #[error("device {vdev}{} is {state}", last_at(path))]
    OutOfUse {
        /// Its guid.
        vdev: VdevGuid,
        /// Where its host last saw it.
        path: Option<String>,
        /// In which way.
        state: Disuse,
    },
    /// A device does not hold all of its data yet.
    #[error("device {vdev}{} is being resilvered", last_at(path))]
    Resilvering {
        /// Its guid.
        vdev: VdevGuid,
        /// Where its host last saw it.
        path: Option<String>,
    },
    /// ZFS goes on using a device with too many errors.
    #[error("device {vdev}{} had too many errors", last_at(path))]
    ManyErrors {
        /// Its guid.
        vdev: VdevGuid,
        /// Where its host last saw it.
        path: Option<String>,
    },
    /// A device is being replaced, or a hot spare stands in for it.
    #[error("{kind}-{id} is not finished: a device is being replaced, or a spare stands in for it")]
    Replacing {
        /// `replacing` or `spare`.
        kind: String,
        /// Its place among its siblings.
        id: u64,
    },
    /// Fewer than four label copies of a device are sound.
    #[error("{sound} of 4 label copies on {device} are sound")]
    Copies {
        /// The device.
        device: String,
        /// How many are.
        sound: u64,
    },
}

/// Why a device is not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disuse {
    /// Taken offline by an administrator.
    Offline,
    /// Gone while the pool was in use.
    Removed,
    /// Given up after too many errors.
    Faulted,
    /// Not there when the pool was last imported.
    NotPresent,
}

impl std::fmt::Display for Disuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Offline => "offline",
            Self::Removed => "removed",
            Self::Faulted => "faulted",
            Self::NotPresent => "absent since the last import",
        })
    }
}

fn last_at(path: &Option<String>) -> String {
    path.as_ref().map(|path| format!(" (last at {path})")).unwrap_or_default()
}

impl Fault {
    /// Stable name of the fault.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMember => "pool-no-member",
            Self::TopsUnseen { .. } => "pool-tops-unseen",
            Self::TooFew { .. } => "pool-too-few",
            Self::TopBehind { .. } => "pool-top-behind",
            Self::OtherVdevs => "pool-other-vdevs",
            Self::Missing { .. } => "pool-device-missing",
            Self::Behind { .. } => "pool-device-behind",
            Self::OutOfUse { .. } => "pool-device-out-of-use",
            Self::Resilvering { .. } => "pool-device-resilvering",
            Self::ManyErrors { .. } => "pool-device-errors",
            Self::Replacing { .. } => "pool-replacing",
            Self::Copies { .. } => "pool-label-copies",
        }
    }

    /// May data be missing because of it?
    pub fn loses_data(&self) -> bool {
        matches!(
            self,
            Self::NoMember | Self::TopsUnseen { .. } | Self::TooFew { .. } | Self::TopBehind { .. } | Self::OtherVdevs
        )
    }
}

impl Health {
    /// What these faults amount to.
    pub(super) fn of(why: Vec<Fault>) -> Self {
        if why.is_empty() {
            Self::Complete
        } else if why.iter().any(Fault::loses_data) {
            Self::Incomplete { why }
        } else {
            Self::Degraded { why }
        }
    }

    /// All that is wrong.
    pub fn why(&self) -> &[Fault] {
        match self {
            Self::Complete => &[],
            Self::Degraded { why } | Self::Incomplete { why } => why,
        }
    }
}

/// Where a device was seen, and whether it took part in the last writes.
#[derive(Debug, Clone)]
pub(super) struct Presence<'a> {
    /// The device.
    pub(super) device: &'a str,
    /// It missed writes.
    pub(super) behind: bool,
}

/// Says what is wrong with a top-level vdev and all below it.
pub(super) fn examine(top: &Vdev, seen: &BTreeMap<VdevGuid, Presence>, why: &mut Vec<Fault>) {
    if let Err(Shortage { lost, spare }) = serves(top, seen, why) {
        why.push(Fault::TooFew { kind: top.kind.clone(), id: top.id, lost, spare });
    }
}

/// More is lost than can be spared.
struct Shortage {
    lost: u64,
    spare: u64,
}

/// Can this vdev serve its data? What is wrong below it is added to `why`. That it cannot itself is not: the group it
/// is in may do without it.
fn serves(vdev: &Vdev, seen: &BTreeMap<VdevGuid, Presence>, why: &mut Vec<Fault>) -> Result<(), Shortage> {
    if vdev.is_leaf() {
        return if leaf_serves(vdev, seen, why) { Ok(()) } else { Err(Shortage { lost: 1, spare: 0 }) };
    }
    let total = vdev.children.len() as u64;
    let lost = vdev.children.iter().filter(|child| serves(child, seen, why).is_err()).count() as u64;
    let spare = match vdev.kind.as_str() {
        "mirror" => total - 1,
        "replacing" | "spare" => {
            why.push(Fault::Replacing { kind: vdev.kind.clone(), id: vdev.id });
            total - 1
        }
        // At most three, and never all of them: a forged number must not make up for devices.
        "raidz" | "draid" => vdev.nparity.unwrap_or(0).min(3).min(total - 1),
        // A kind of later times: nothing is known of what it can do without.
        _ => 0,
    };
    if lost > spare { Err(Shortage { lost, spare }) } else { Ok(()) }
}

fn leaf_serves(vdev: &Vdev, seen: &BTreeMap<VdevGuid, Presence>, why: &mut Vec<Fault>) -> bool {
    // They have no device: a draid's own spare lies on its other devices.
    if matches!(vdev.kind.as_str(), "hole" | "indirect") || vdev.kind == "dspare" && !vdev.resilvering {
        return true;
    }
    let path = vdev.path.clone();
    let disuse = [
        (vdev.offline, Disuse::Offline),
        (vdev.faulted, Disuse::Faulted),
        (vdev.removed, Disuse::Removed),
        (vdev.not_present, Disuse::NotPresent),
    ];
    let fault = match (seen.get(&vdev.guid), disuse.into_iter().find(|(is, _)| *is)) {
        (None, _) if vdev.kind != "dspare" => Some(Fault::Missing { vdev: vdev.guid, path }),
        (_, Some((_, state))) => Some(Fault::OutOfUse { vdev: vdev.guid, path, state }),
        (Some(presence), _) if presence.behind => {
            Some(Fault::Behind { vdev: vdev.guid, device: presence.device.to_owned() })
        }
        _ if vdev.resilvering => Some(Fault::Resilvering { vdev: vdev.guid, path }),
        _ => None,
    };
    let usable = fault.is_none();
    why.extend(fault);
    if usable && vdev.degraded {
        why.push(Fault::ManyErrors { vdev: vdev.guid, path: vdev.path.clone() });
    }
    usable
}
