//! Applies a layout to a disk as a GPT, and reads one back.

use std::io::{self, SeekFrom};

use gptman::{GPT, GPTPartitionEntry};
use siris_ibu::{ByteSize, Class};

use crate::device::Device;
use crate::guid::Guid;
use crate::layout::{Entry, Layout, Part, SectorSize};

/// Why a partition table could not be written, or is not ours.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The device has another size than the plan is for.
    #[error("the disk has {actual} bytes, the layout is for {planned}")]
    OtherDisk {
        /// Its size.
        actual: u64,
        /// The plan's.
        planned: u64,
    },
    /// Reading failed, or there is no sound table.
    #[error("reading the partition table")]
    Read(#[source] gptman::Error),
    /// Writing failed.
    #[error("writing the partition table")]
    Write(#[source] gptman::Error),
    /// Reading or writing failed.
    #[error("writing around the partition table")]
    Io(#[source] io::Error),
    /// A partition is not where and what it has to be.
    #[error("partition {number} is not {wanted}: this is no SIRIS OS disk")]
    Foreign {
        /// Its number.
        number: u32,
        /// The label it should have.
        wanted: &'static str,
    },
}

impl GptError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherDisk { .. } => "gpt-other-disk",
            Self::Read(_) => "gpt-read",
            Self::Write(_) | Self::Io(_) => "gpt-write",
            Self::Foreign { .. } => "gpt-foreign",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::OtherDisk { .. } => Class::Bug,
            Self::Read(_) | Self::Write(_) | Self::Io(_) => Class::Environment,
            Self::Foreign { .. } => Class::Input,
        }
    }
}

/// Writes the table of `layout`: protective MBR, primary and backup. What else is in the first sector (boot code) is
/// left as it is.
pub fn apply(dev: &mut dyn Device, layout: &Layout) -> Result<(), GptError> {
    let actual = dev.seek(SeekFrom::End(0)).map_err(GptError::Io)?;
    let planned = layout.disk.bytes();
    if actual != planned {
        return Err(GptError::OtherDisk { actual, planned });
    }
    let sector = layout.sector.bytes();
    // gptman writes the 92 bytes of a header; the rest of its sector has to be zero.
    for header in [sector, (planned / sector - 1) * sector] {
        dev.seek(SeekFrom::Start(header)).map_err(GptError::Io)?;
        dev.write_all(&vec![0; sector as usize]).map_err(GptError::Io)?;
    }
    let mut dev = dev;
    let mut gpt = GPT::new_from(&mut dev, sector, layout.guid.to_disk()).map_err(GptError::Write)?;
    for entry in &layout.entries {
        gpt[entry.part.number()] = GPTPartitionEntry {
            partition_type_guid: entry.part.type_guid().to_disk(),
            unique_partition_guid: entry.guid.to_disk(),
            starting_lba: entry.first_lba,
            ending_lba: entry.last_lba,
            attribute_bits: 0,
            partition_name: entry.part.label().into(),
        };
    }
    GPT::write_protective_mbr_into(&mut dev, sector).map_err(GptError::Write)?;
    gpt.write_into(&mut dev).map_err(GptError::Write)?;
    Ok(())
}

/// Reads the layout of an OS disk. Every one of the seven partitions must be there with its number, label and type.
pub fn read(dev: &mut dyn Device, sector: SectorSize) -> Result<Layout, GptError> {
    let disk = dev.seek(SeekFrom::End(0)).map_err(GptError::Io)?;
    let gpt = GPT::read_from(&mut *dev, sector.bytes()).map_err(GptError::Read)?;
    let mut entries = Vec::new();
    for part in Part::ALL {
        let (number, wanted) = (part.number(), part.label());
        let foreign = GptError::Foreign { number, wanted };
        let Some((_, found)) = gpt.iter().find(|(n, _)| *n == number) else { return Err(foreign) };
        let own_type = Guid::from_disk(found.partition_type_guid) == part.type_guid();
        if !own_type || found.partition_name.as_str() != wanted || found.ending_lba < found.starting_lba {
            return Err(foreign);
        }
        let guid = Guid::from_disk(found.unique_partition_guid);
        entries.push(Entry { part, first_lba: found.starting_lba, last_lba: found.ending_lba, guid });
    }
    let guid = Guid::from_disk(gpt.header.disk_guid);
    // One entry was pushed for each of the seven parts.
    let entries = entries.try_into().expect("seven entries");
    Ok(Layout { disk: ByteSize::from_bytes(disk), sector, guid, entries })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use siris_ibu::Sha256;

    use super::*;
    use crate::guid::GuidSource;
    use crate::layout::Sizes;

    fn sizes() -> Sizes {
        let mib = ByteSize::mib;
        Sizes { esp: mib(2), boot: mib(1), slot: mib(2), state_min: mib(1) }
    }

    #[test]
    fn a_layout_survives_the_disk() {
        for sector in [SectorSize::S512, SectorSize::S4096] {
            let disk = ByteSize::from_bytes(sizes().smallest_disk().bytes() + 3 * 4096);
            let layout = Layout::plan(disk, sector, &sizes(), &GuidSource::Seed(Sha256::of(b"x"))).unwrap();
            let mut dev = Cursor::new(vec![0xaa; disk.bytes() as usize]);
            apply(&mut dev, &layout).unwrap();
            assert_eq!(read(&mut dev, sector).unwrap(), layout);
            assert!(dev.get_ref()[..440].iter().all(|b| *b == 0xaa), "boot code is not ours to touch here");
            assert_eq!(dev.get_ref()[450], 0xee);

            // The backup alone is enough.
            dev.get_mut()[sector.bytes() as usize] ^= 1;
            assert_eq!(read(&mut dev, sector).unwrap(), layout);
        }
    }

    #[test]
    fn other_disks_are_refused() {
        let layout = Layout::plan(sizes().smallest_disk(), SectorSize::S512, &sizes(), &GuidSource::Random).unwrap();
        let mut small = Cursor::new(vec![0; 1 << 20]);
        assert_eq!(apply(&mut small, &layout).unwrap_err().code(), "gpt-other-disk");
        let mut dev = Cursor::new(vec![0; layout.disk().bytes() as usize]);
        assert_eq!(read(&mut dev, SectorSize::S512).unwrap_err().code(), "gpt-read");
        apply(&mut dev, &layout).unwrap();
        let mut gpt = GPT::read_from(&mut dev, 512).unwrap();
        gpt[5].partition_name = "other".into();
        gpt.write_into(&mut dev).unwrap();
        assert_eq!(read(&mut dev, SectorSize::S512).unwrap_err().code(), "gpt-foreign");
    }
}
