//! `install.toml`: what an operator wants.
//!
//! Owns: the file's shape ([`file`]), and what it means once every value was checked ([`Answers`]). All faults are
//! reported at once, each with its TOML path. Knows nothing of the machine: whether a disk is there is for the plan.

mod file;
mod network;
mod parse;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siris_ibu::ByteSize;
use siris_zfs_label::PoolGuid;

use crate::facts::Disk;

pub use network::{Addressing, Base, Bond, Cidr, Interface, Mac, Network, Static, Vlan};
pub use parse::{AnswersError, Fault, is_authorized_key, is_hostname};

/// How a disk is named so that it is the same one on the next boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskSpec {
    /// By its serial number.
    Serial(String),
    /// By its world wide name, digits alone.
    Wwn(String),
    /// By a name in `/dev/disk/by-id`.
    ById(String),
    /// By where it is plugged in: a name in `/dev/disk/by-path`.
    Path(String),
}

/// A text that names no disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no disk: `serial:NUMBER`, `wwn:DIGITS`, `by-id:NAME` or `path:NAME` is wanted")]
pub struct ParseDiskSpecError(String);

impl DiskSpec {
    /// Whether `disk` is the one.
    pub fn matches(&self, disk: &Disk) -> bool {
        match self {
            Self::Serial(serial) => disk.serial.as_ref() == Some(serial),
            Self::Wwn(wwn) => disk.wwn.as_ref() == Some(wwn),
            Self::ById(name) => disk.by_id.contains(name),
            Self::Path(name) => disk.by_path.contains(name),
        }
    }

    /// The best name for a disk that is at hand: one that no other disk of `all` has too.
    pub fn of(disk: &Disk, all: &[Disk]) -> Option<Self> {
        let serial = disk.serial.clone().map(Self::Serial);
        let wwn = disk.wwn.clone().map(Self::Wwn);
        let by_id = disk.by_id.first().cloned().map(Self::ById);
        let path = disk.by_path.first().cloned().map(Self::Path);
        let unique = |spec: &Self| all.iter().filter(|other| spec.matches(other)).count() == 1;
        [serial, wwn, by_id, path].into_iter().flatten().find(unique)
    }
}

impl fmt::Display for DiskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Serial(name) => ("serial", name),
            Self::Wwn(name) => ("wwn", name),
            Self::ById(name) => ("by-id", name),
            Self::Path(name) => ("path", name),
        };
        f.pad(&format!("{kind}:{name}"))
    }
}

impl FromStr for DiskSpec {
    type Err = ParseDiskSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || ParseDiskSpecError(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(fault)?;
        let name = name.trim();
        let last = || name.rsplit('/').next().unwrap_or_default().to_owned();
        if name.is_empty() || name.contains(char::is_control) {
            return Err(fault());
        }
        match kind {
            "serial" => Ok(Self::Serial(name.to_owned())),
            "wwn" => crate::observe::wwn_digits(name).map(Self::Wwn).ok_or_else(fault),
            "by-id" => Ok(Self::ById(last())),
            "path" => Ok(Self::Path(last())),
            _ => Err(fault()),
        }
    }
}

impl Serialize for DiskSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DiskSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which disk gets the OS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The only one that can be it.
    Auto,
    /// This one.
    Disk(DiskSpec),
}

/// An install. Letters, digits and dashes: it goes into a boot environment of 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallId(String);

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id of an install: 1 to 40 letters, digits and dashes are wanted")]
pub struct ParseInstallIdError(String);

impl InstallId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstallId {
    type Err = ParseInstallIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match (1..=40).contains(&text.len()) && text.chars().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(ParseInstallIdError(text.to_owned())),
        }
    }
}

impl fmt::Display for InstallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The OS; pools are left alone.
    OsOnly,
    /// The OS and a pool.
    Full,
}

/// What happens when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Reboot.
    Reboot,
    /// Switch off.
    Poweroff,
    /// Eject the medium, then reboot.
    Eject,
    /// Nothing: a person goes on.
    Stay,
}

/// What to do with an OS on another disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherOs {
    /// It stays as it is, bootable.
    Keep,
    /// It is made unbootable.
    Disable,
}

/// What a box is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// In a customer's closet.
    Local,
    /// In a data centre.
    Cloud,
}

impl Role {
    /// The word in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Local => "local",
            Role::Cloud => "cloud",
        }
    }
}

/// A partition of the target that stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// By its number.
    Number(u32),
    /// By its label.
    Label(String),
    /// By its own GUID.
    Guid(String),
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Label(label) => write!(f, "label:{label}"),
            Self::Guid(guid) => write!(f, "guid:{guid}"),
        }
    }
}

/// A pool that has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPool {
    /// Its name.
    pub name: String,
    /// Its guid, if that is known.
    pub guid: Option<PoolGuid>,
    /// How many devices it has, if that is known. Spares and caches do not count: their labels name no pool.
    pub members: Option<u64>,
    /// Whether it may have lost devices.
    pub allow_degraded: bool,
}

/// A pool that may be destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destroy {
    /// Its name.
    pub name: String,
    /// Its guid.
    pub guid: PoolGuid,
}

/// The host id that ZFS goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostIdChoice {
    /// That of the pools.
    Carry,
    /// None at all.
    None,
    /// This one.
    Id(u32),
}

/// Who the box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceId {
    /// Who it was, if the pools that it imports know it; else a new one, made at first boot.
    Restore,
    /// A new one, made at first boot.
    New,
    /// This one.
    Given(uuid::Uuid),
}

/// How the disks of a new pool are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolLayout {
    /// No redundancy.
    Stripe,
    /// All disks hold the same.
    Mirror,
    /// One disk may be lost.
    Raidz1,
    /// Two disks may be lost.
    Raidz2,
    /// Three disks may be lost.
    Raidz3,
}

impl PoolLayout {
    /// The word that zpool takes, and the least number of disks.
    pub fn vdev(self) -> (&'static str, usize) {
        match self {
            PoolLayout::Stripe => ("", 1),
            PoolLayout::Mirror => ("mirror", 2),
            PoolLayout::Raidz1 => ("raidz1", 2),
            PoolLayout::Raidz2 => ("raidz2", 3),
            PoolLayout::Raidz3 => ("raidz3", 4),
        }
    }
}

/// A pool to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPool {
    /// Its name.
    pub name: String,
    /// How its disks are arranged.
    pub layout: PoolLayout,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
    /// Hot spares.
    pub spares: Vec<DiskSpec>,
    /// Disks of the intent log; two are a mirror.
    pub log: Vec<DiskSpec>,
}

/// Who the box is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What it is for.
    pub role: Role,
    /// Its name; none: made of its device id.
    pub hostname: Option<String>,
    /// Its device id.
    pub device_id: DeviceId,
    /// Its time zone.
    pub timezone: Option<String>,
    /// Its host id.
    pub hostid: HostIdChoice,
}

/// Who gets in.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Lines of authorized_keys for root.
    pub ssh_keys: Vec<String>,
    /// A crypt(5) hash for root.
    pub password_hash: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.password_hash.as_ref().map(|_| "(set)");
        f.debug_struct("Access").field("ssh_keys", &self.ssh_keys).field("password_hash", &hash).finish()
    }
}

/// Everything an operator wants, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The install; none: made from the answers and the image, or at random.
    pub id: Option<InstallId>,
    /// What is made.
    pub mode: Mode,
    /// What happens when it is done.
    pub end: End,
    /// Which disk gets the OS.
    pub target: Target,
    /// Which disk gets a second copy of it.
    pub mirror: Option<DiskSpec>,
    /// Size of a slot.
    pub slot_size: Option<ByteSize>,
    /// Partitions of the target that stay.
    pub keep: Vec<Keep>,
    /// Labels on the target of pools that no longer know it may be wiped.
    pub wipe_stale: bool,
    /// Pools that have to be there; none named: every pool that is found has to be complete.
    pub pools: Option<Vec<ExpectedPool>>,
    /// Pools that may be destroyed.
    pub destroy: Vec<Destroy>,
    /// What to do with an OS on a disk that is not named in `other_os`; none: refuse.
    pub other_os_default: Option<OtherOs>,
    /// What to do with an OS on these disks.
    pub other_os: Vec<(DiskSpec, OtherOs)>,
    /// Who the box is.
    pub identity: Identity,
    /// Who gets in.
    pub access: Access,
    /// How it is reached.
    pub network: Network,
    /// The pool to make.
    pub new_pool: Option<NewPool>,
}

impl Answers {
    /// Reads `install.toml`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, AnswersError> {
        parse::parse(bytes)
    }
}

#[cfg(test)]
mod tests;
