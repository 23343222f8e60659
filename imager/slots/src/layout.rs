//! The plan of an OS disk: seven partitions, where they begin and end, and who they are.
//!
//! [`Layout::plan`] does no I/O: a layout is data that prints, that tests compare, and that `gpt` applies. Every
//! partition begins and ends on a MiB, so the same sizes fit disks with sectors of 512 and of 4096 bytes.

mod beside;

use std::fmt;

pub use beside::{KeptEntry, MOVED};

use siris_ibu::manifest::TRAILER;
use siris_ibu::{ByteSize, Class};

use crate::guid::{Guid, GuidSource};
use crate::slot::Slot;

const MIB: u64 = 1 << 20;
/// Bytes of one array of partition entries: 128 entries of 128 bytes.
const ENTRIES: u64 = 128 * 128;

/// Logical sector size of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectorSize {
    /// 512 bytes.
    S512,
    /// 4096 bytes. Boots under UEFI only.
    S4096,
}

impl SectorSize {
    /// The sector size of that many bytes, if it is one that is supported.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            512 => Some(Self::S512),
            4096 => Some(Self::S4096),
            _ => None,
        }
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::S512 => 512,
            Self::S4096 => 4096,
        }
    }
}

/// What a partition is for. The order is that of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// GRUB's core image for legacy BIOS.
    Bios,
    /// The EFI system partition, with the boot environment.
    Esp,
    /// Kernel and initrd of a slot.
    Boot(Slot),
    /// Root image, hash tree and trailer of a slot.
    Root(Slot),
    /// What persists.
    State,
}

impl Part {
    /// All seven, in the order of their numbers.
    pub const ALL: [Part; 7] = [
        Part::Bios,
        Part::Esp,
        Part::Boot(Slot::A),
        Part::Boot(Slot::B),
        Part::Root(Slot::A),
        Part::Root(Slot::B),
        Part::State,
    ];

    /// Its number in the partition table.
    pub fn number(self) -> u32 {
        match self {
            Part::Bios => 1,
            Part::Esp => 2,
            Part::Boot(slot) => 3 + slot as u32,
            Part::Root(slot) => 5 + slot as u32,
            Part::State => 7,
        }
    }

    /// Its name in the partition table.
    pub fn label(self) -> &'static str {
        match self {
            Part::Bios => "siris-bios",
            Part::Esp => "siris-esp",
            Part::Boot(Slot::A) => "siris-boot-a",
            Part::Boot(Slot::B) => "siris-boot-b",
            Part::Root(Slot::A) => "siris-a",
            Part::Root(Slot::B) => "siris-b",
            Part::State => "siris-state",
        }
    }

    /// Its type. The first two are those firmware and tools know. The others are our own on purpose: a type of the
    /// Discoverable Partitions Specification would have systemd-gpt-auto-generator mount what only our initrd may
    /// mount, and would let partitioning tools adopt a slot.
    pub fn type_guid(self) -> Guid {
        match self {
            Part::Bios => Guid::from_u128(0x21686148_6449_6e6f_744e_656564454649),
            Part::Esp => Guid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b),
            Part::Boot(_) => Guid::from_u128(0x5b23fea1_0047_4059_90e4_f8ad17b1802e),
            Part::Root(_) => Guid::from_u128(0x172356d2_c26f_4405_9980_63fe7bc453cf),
            Part::State => Guid::from_u128(0xe8d3b7d8_2580_4002_afdf_eccf0649166f),
        }
    }
}

/// Sizes of the partitions, each a whole number of MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The EFI system partition.
    pub esp: ByteSize,
    /// Each boot partition.
    pub boot: ByteSize,
    /// Each root partition, trailer included.
    pub slot: ByteSize,
    /// The least that must be left for the state partition, which takes the rest.
    pub state_min: ByteSize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            esp: ByteSize::mib(128),
            boot: ByteSize::mib(256),
            slot: ByteSize::mib(4096),
            state_min: ByteSize::mib(256),
        }
    }
}

impl Sizes {
    fn of(&self, part: Part) -> Option<ByteSize> {
        match part {
            Part::Bios => Some(ByteSize::mib(1)),
            Part::Esp => Some(self.esp),
            Part::Boot(_) => Some(self.boot),
            Part::Root(_) => Some(self.slot),
            Part::State => None,
        }
    }

    /// The smallest disk that holds a layout of these sizes.
    pub fn smallest_disk(&self) -> ByteSize {
        let parts = Part::ALL.iter().map(|part| self.of(*part).unwrap_or(self.state_min).bytes());
        // A MiB before the first partition, one after the last for the backup table.
        ByteSize::from_bytes(parts.fold(2 * MIB, u64::saturating_add))
    }
}

/// Why there is no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A size is no whole number of MiB, or there is none.
    #[error("{label} of {size}: a whole number of MiB is wanted")]
    Unaligned {
        /// The partition.
        label: &'static str,
        /// Its size.
        size: ByteSize,
    },
    /// A slot that is nothing but trailer.
    #[error("a slot of {0} has no room for a root image")]
    SlotTooSmall(ByteSize),
    /// The disk is too small.
    #[error("a disk of {disk} is too small: {needed} are needed")]
    DiskTooSmall {
        /// The disk.
        disk: ByteSize,
        /// The least.
        needed: ByteSize,
    },
    /// There is no gap for a partition beside what is kept.
    #[error("beside the partitions that are kept there is no gap of {size} for {label}")]
    NoGap {
        /// The partition.
        label: &'static str,
        /// Its size.
        size: ByteSize,
    },
    /// What is kept lies where it cannot.
    #[error("partition {number} cannot be kept: {why}")]
    Kept {
        /// Its number.
        number: u32,
        /// Why not.
        why: &'static str,
    },
}

impl LayoutError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unaligned { .. } => "layout-unaligned",
            Self::SlotTooSmall(_) => "layout-slot-too-small",
            Self::DiskTooSmall { .. } | Self::NoGap { .. } => "disk-too-small",
            Self::Kept { .. } => "layout-kept",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        Class::Input
    }
}

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub part: Part,
    /// Its first sector.
    pub first_lba: u64,
    /// Its last sector.
    pub last_lba: u64,
    /// Its own GUID (`PARTUUID`).
    pub guid: Guid,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub(crate) disk: ByteSize,
    pub(crate) sector: SectorSize,
    pub(crate) guid: Guid,
    /// In the order of [`Part::ALL`].
    pub(crate) entries: [Entry; 7],
    /// Partitions of others, by number.
    pub(crate) kept: Vec<KeptEntry>,
}

impl Layout {
    /// Plans a disk of `disk` bytes.
    pub fn plan(disk: ByteSize, sector: SectorSize, sizes: &Sizes, guids: &GuidSource) -> Result<Self, LayoutError> {
        Self::plan_beside(disk, sector, sizes, guids, &[])
    }

    /// Plans a disk on which some partitions stay where they are, down to the bytes of their entries. Each of ours
    /// goes into the first gap that takes it, and the state partition gets the largest one that is left. Our numbers
    /// are what the boot loader finds its way by: a kept partition that has one of them gets another, [`MOVED`] further on.
    pub fn plan_beside(
        disk: ByteSize,
        sector: SectorSize,
        sizes: &Sizes,
        guids: &GuidSource,
        kept: &[KeptEntry],
    ) -> Result<Self, LayoutError> {
        for part in Part::ALL {
            let size = sizes.of(part).unwrap_or(sizes.state_min);
            if size.bytes() == 0 || !size.bytes().is_multiple_of(MIB) {
                return Err(LayoutError::Unaligned { label: part.label(), size });
            }
        }
        if sizes.slot <= TRAILER {
            return Err(LayoutError::SlotTooSmall(sizes.slot));
        }
        let needed = sizes.smallest_disk();
        if disk < needed {
            return Err(LayoutError::DiskTooSmall { disk, needed });
        }
        let mut gaps = beside::gaps(disk, sector, kept)?;
        let bytes = sector.bytes();
        let mut entries = Vec::new();
        for part in Part::ALL {
            let size = sizes.of(part);
            let no_gap = || LayoutError::NoGap { label: part.label(), size: size.unwrap_or(sizes.state_min) };
            let (start, end) = match size {
                Some(size) => beside::take(&mut gaps, size.bytes()).ok_or_else(no_gap)?,
                None => beside::largest(&gaps, sizes.state_min.bytes()).ok_or_else(no_gap)?,
            };
            let guid = guids.guid(part.label());
            entries.push(Entry { part, first_lba: start / bytes, last_lba: end / bytes - 1, guid });
        }
        // One entry was pushed for each of the seven parts.
        let entries = entries.try_into().expect("seven entries");
        Ok(Self { disk, sector, guid: guids.guid("disk"), entries, kept: beside::renumber(kept) })
    }

    /// Size of the disk.
    pub fn disk(&self) -> ByteSize {
        self.disk
    }

    /// Its logical sector size.
    pub fn sector(&self) -> SectorSize {
        self.sector
    }

    /// GUID of the disk.
    pub fn guid(&self) -> Guid {
        self.guid
    }

    /// All partitions, in the order of their numbers.
    pub fn entries(&self) -> &[Entry; 7] {
        &self.entries
    }

    /// Partitions of others that stay, with the numbers they have on the planned disk.
    pub fn kept(&self) -> &[KeptEntry] {
        &self.kept
    }

    /// One partition.
    pub fn entry(&self, part: Part) -> &Entry {
        &self.entries[part.number() as usize - 1]
    }

    /// Its first byte on the disk.
    pub fn start(&self, part: Part) -> u64 {
        self.entry(part).first_lba * self.sector.bytes()
    }

    /// Its length in bytes.
    pub fn len(&self, part: Part) -> u64 {
        let Entry { first_lba, last_lba, .. } = self.entry(part);
        (last_lba - first_lba + 1) * self.sector.bytes()
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (disk, sector) = (self.disk, self.sector.bytes());
        writeln!(f, "disk {} of {disk}, sectors of {sector}", self.guid)?;
        writeln!(f, "#  label         first LBA   last LBA       size  GUID")?;
        for Entry { part, first_lba, last_lba, guid } in &self.entries {
            let (number, label) = (part.number(), part.label());
            let size = ByteSize::from_bytes(self.len(*part));
            writeln!(f, "{number}  {label:<12} {first_lba:>10} {last_lba:>10} {size:>10}  {guid}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
