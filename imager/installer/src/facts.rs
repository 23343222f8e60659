//! What was found on the machine: plain data, no decisions.
//!
//! Facts compare, print as TOML and read back, so that a plan can be tested against a captured machine and be made
//! again from what a box sent. Sizes and places are in bytes.

mod content;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siris_ibu::ByteSize;
use siris_zfs_label::{PoolGuid, PoolState};

pub use content::{Content, FileSystem, Md, Os, Siris, Zfs, ZfsRole};

/// The kernel's name of a disk: `sda`, `nvme0n1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskName(String);

/// A text that is not the name of a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the kernel's name of a disk")]
pub struct ParseDiskNameError(String);

impl DiskName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DiskName {
    type Err = ParseDiskNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // sysfs writes `!` for a slash, in names of controllers that no longer exist.
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_!.".contains(c);
        match !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.chars().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(ParseDiskNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for DiskName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DiskName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What started the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// Legacy BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Facts {
    /// What started the machine.
    pub firmware: Firmware,
    /// It runs from an installer's medium, with every disk fenced.
    pub live: bool,
    /// The disk that the payload was read from, where that is a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<DiskName>,
    /// Every disk, by name.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
    /// Every pool of which something was found, by guid.
    #[serde(default, rename = "pool")]
    pub pools: Vec<Pool>,
}

impl Facts {
    /// The disk of that name.
    pub fn disk(&self, name: &DiskName) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.name == *name)
    }

    /// Whether the disk is an installer's medium: the one the payload was read from, or one that carries its label, as
    /// it does when virtual media come back under another name.
    pub fn is_medium(&self, disk: &Disk) -> bool {
        let label = |content: &Content| match content {
            Content::FileSystem(fs) => fs.kind == "iso9660" && fs.label.as_deref() == Some(siris_live::medium::LABEL),
            _ => false,
        };
        let pool = disk.contents().any(|(_, content)| matches!(content, Content::Zfs(_)));
        self.medium.as_ref() == Some(&disk.name) || (disk.content.iter().any(label) && !pool)
    }

    /// The pool of that guid.
    pub fn pool(&self, guid: PoolGuid) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.guid == guid)
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Disk {
    /// The kernel's name for it, good until the next boot.
    pub name: DiskName,
    /// Size.
    pub size: ByteSize,
    /// Bytes of a logical sector.
    pub sector: u64,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World wide name: lower-case hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Names in `/dev/disk/by-id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_id: Vec<String>,
    /// Names in `/dev/disk/by-path`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_path: Vec<String>,
    /// How it is connected: `ata`, `scsi`, `nvme`, `usb`, `virtio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// It spins.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rotational: bool,
    /// It can be taken out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removable: bool,
    /// The kernel refuses writes from programs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Another name of the same disk: this is one more path to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_of: Option<DiskName>,
    /// Number of this disk among all that the kernel has ever seen since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diskseq: Option<u64>,
    /// Sectors of 512 bytes written since boot.
    #[serde(default)]
    pub written: u64,
    /// Sectors of 512 bytes discarded since boot.
    #[serde(default)]
    pub discarded: u64,
    /// Devices of md, device-mapper and the like that stand on it or on a partition of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
    /// Where it or a partition of it is mounted, or `swap`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_as: Vec<String>,
    /// Why it could not be looked at. What it carries is then unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Its partition table.
    pub table: TableKind,
    /// Boot code in its first sector.
    #[serde(default, skip_serializing_if = "is_false")]
    pub boot_code: bool,
    /// What the whole disk carries, beside a partition table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Content>,
    /// Its partitions, by number.
    #[serde(default, rename = "partition", skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Disk {
    /// Everything on it, with the partition it is on; `None` for the whole disk.
    pub fn contents(&self) -> impl Iterator<Item = (Option<&Partition>, &Content)> {
        let whole = self.content.iter().map(|content| (None, content));
        whole.chain(
            self.partitions.iter().flat_map(|part| part.content.iter().map(move |content| (Some(part), content))),
        )
    }

    /// What tells it from all others for people: the serial number, or what else there is.
    pub fn identity(&self) -> &str {
        self.serial.as_deref().or(self.wwn.as_deref()).or(self.by_path.first().map(String::as_str)).unwrap_or("-")
    }

    /// The OS on it, if it is one of ours.
    pub fn siris(&self) -> Option<&Siris> {
        self.contents().find_map(|(_, content)| match content {
            Content::Siris(siris) => Some(siris),
            _ => None,
        })
    }

    /// First byte of the file system that an OS was found on.
    pub fn old_root(&self) -> Option<u64> {
        let of = |content: &[Content], start: u64| {
            let found = content.iter().any(|content| matches!(content, Content::Os(_)));
            let skip = content.iter().find_map(|content| match content {
                Content::Md(md) => Some(md.data_start),
                _ => None,
            });
            found.then(|| start + skip.unwrap_or(0))
        };
        of(&self.content, 0).or_else(|| self.partitions.iter().find_map(|part| of(&part.content, part.start)))
    }

    /// Whether firmware may find something to boot on it, and what.
    pub fn boots(&self) -> Option<String> {
        let os = self.contents().find_map(|(_, content)| match content {
            Content::Os(os) => Some(os.name.clone()),
            Content::Siris(siris) => Some(format!("SIRIS OS {}", siris.version.as_deref().unwrap_or("(unknown)"))),
            _ => None,
        });
        let has = |kinds: &[&str]| {
            self.partitions.iter().any(|part| kinds.iter().any(|kind| part.kind.eq_ignore_ascii_case(kind)))
        };
        // Code in the first sector alone boots nothing: `zpool create` leaves an old system's there, and every FAT has
        // some. It needs something to load: in an MBR's partitions, or where GRUB keeps its core on a GPT.
        let core = self.table == TableKind::Mbr || has(&[BIOS_BOOT]);
        let loader = match (has(&[ESP, "ef"]), self.boot_code && core) {
            (true, _) => Some("an EFI system partition".to_owned()),
            (_, true) => Some("boot code".to_owned()),
            _ => None,
        };
        os.or(loader)
    }
}

/// Type of the partition that GRUB's core lies in where a disk has a GPT and a BIOS boots it.
pub const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
/// Type of an EFI system partition.
pub const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// Which partition table a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// None.
    None,
    /// MBR.
    Mbr,
    /// GPT, both copies sound.
    Gpt,
    /// GPT, one copy sound.
    GptHalf,
    /// Something unusable.
    Damaged,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Partition {
    /// Its number.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Length.
    pub size: ByteSize,
    /// Type: GUID in a GPT, two hexadecimal digits in an MBR.
    pub kind: String,
    /// Its own GUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The bytes of its entry in a GPT, in hexadecimal: attributes, and whatever else is in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// What it carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Content>,
}

impl Partition {
    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.start + self.size.bytes()
    }
}

/// A pool, put together from the labels of all disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pool {
    /// Its guid.
    pub guid: PoolGuid,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: PoolState,
    /// On-disk version.
    pub version: u64,
    /// The host that last used it; none where that host had no id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostid: Option<u32>,
    /// Name of that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `zpool set comment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Top-level vdevs, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layout: Vec<String>,
    /// Devices that make it up and were found: kernel names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// How many devices it has in all.
    pub devices: u64,
    /// Can all of it be read?
    pub health: Health,
    /// What is wrong with it, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// What cannot be decided from labels, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Active features without which it cannot be read, as its labels have them: those needed to find the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What this system's own ZFS found in it; absent where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
}

/// What came of opening a pool, read-only and without importing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Opened {
    /// Its active features.
    Features {
        /// Without these it cannot be read.
        read: Vec<String>,
        /// Without these it can be read, but not written.
        write: Vec<String>,
    },
    /// It has features that this system's ZFS cannot read it without, and does not name.
    Unsupported,
    /// It could not be opened, for this reason.
    Failed(String),
}

/// Whether all of a pool can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Every device is there and up to date.
    Complete,
    /// All data can be read, but something is not as it should be.
    Degraded,
    /// Data is missing.
    Incomplete,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Health::Complete => "complete",
            Health::Degraded => "degraded",
            Health::Incomplete => "incomplete",
        })
    }
}
