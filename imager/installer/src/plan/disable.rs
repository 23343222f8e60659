//! Other disks that carry an OS: kept or made unbootable, never left undecided. Booted by chance, it takes the pool.

use serde::Serialize;
use siris_ibu::ByteSize;
use siris_zfs_label::PoolState;

use super::{Wipe, who};
use crate::answers::{Answers, OtherOs};
use crate::facts::{BIOS_BOOT, Content, Disk, DiskName, ESP, Facts};
use crate::refusal::Refusals;

/// Boot sector and its copy, and what FAT32 keeps beside them: 32 reserved sectors.
const RESERVED: u64 = 32 * 512;
const BOOT_CODE: u64 = 440;

/// A disk that is made unbootable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disabled {
    /// The disk.
    pub disk: DiskName,
    /// Its serial number, or what else it is known by.
    pub identity: String,
    /// Its number among all that the kernel has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diskseq: Option<u64>,
    /// Size.
    pub size: ByteSize,
    /// The OS.
    pub os: String,
    /// Ranges that are cleared: boot code, and what firmware finds an EFI system partition by.
    pub clears: Vec<Wipe>,
}

/// Decides about every disk that something can boot from.
pub(super) fn decide(facts: &Facts, answers: &Answers, chosen: &[&DiskName], refusals: &mut Refusals) -> Vec<Disabled> {
    let mut disabled = Vec::new();
    for disk in &facts.disks {
        let Some(os) = disk.boots() else { continue };
        if chosen.contains(&&disk.name) || facts.is_medium(disk) {
            continue;
        }
        let named = answers.other_os.iter().find(|(spec, _)| spec.matches(disk)).map(|(_, what)| *what);
        let spec = crate::answers::DiskSpec::of(disk, &facts.disks).map(|spec| spec.to_string()).unwrap_or_default();
        match named.or(answers.other_os_default) {
            Some(OtherOs::Keep) => {}
            Some(OtherOs::Disable) if in_use(disk) => refusals.add(
                "other-os-disable",
                format!("{} can boot {os}, and is part of a pool too: it is not opened for writing", who(disk)),
                format!("decide \"keep\" for it in [other-os.disks]: \"{spec}\""),
            ),
            Some(OtherOs::Disable) => disabled.push(plan(disk, os)),
            None => refusals.add(
                "other-os-undecided",
                format!("{} can boot {os}", who(disk)),
                format!("decide in [other-os]: default = \"keep\" or \"disable\", or disks.\"{spec}\""),
            ),
        }
    }
    disabled
}

fn in_use(disk: &Disk) -> bool {
    let pool = disk.contents().any(|(_, content)| match content {
        Content::Zfs(zfs) => zfs.state != Some(PoolState::Destroyed),
        _ => false,
    });
    pool || !disk.holders.is_empty() || !disk.used_as.is_empty()
}

fn plan(disk: &Disk, os: String) -> Disabled {
    let mut clears = vec![Wipe { start: 0, len: BOOT_CODE }];
    for part in &disk.partitions {
        let kind = part.kind.to_ascii_lowercase();
        if kind == BIOS_BOOT || kind == ESP || kind == "ef" {
            clears.push(Wipe { start: part.start, len: part.size.bytes().min(RESERVED) });
        }
    }
    let (identity, name) = (disk.identity().to_owned(), disk.name.clone());
    Disabled { disk: name, identity, diskseq: disk.diskseq, size: disk.size, os, clears }
}
