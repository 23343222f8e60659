//! Applies a layout to a disk as a GPT, and reads one back.

use std::io::{self, SeekFrom};

use gptman::GPT;
use siris_ibu::{ByteSize, Class};

use crate::device::Device;
use crate::guid::Guid;
use crate::layout::{Entry, KeptEntry, Layout, Part, SectorSize};
use crate::table::{self, ENTRY, Table};

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

/// Writes the table of `layout`: protective MBR, backup and primary. What else is in the first sector (boot code) is
/// left as it is. At every instant one of the two copies is sound, the old one or the new one.
pub fn apply(dev: &mut dyn Device, layout: &Layout) -> Result<(), GptError> {
    let mut entries = kept_entries(&layout.kept);
    for entry in &layout.entries {
        let bytes = &mut entries[(entry.part.number() as usize - 1) * ENTRY..][..ENTRY];
        bytes[..16].copy_from_slice(&entry.part.type_guid().to_disk());
        bytes[16..32].copy_from_slice(&entry.guid.to_disk());
        bytes[32..40].copy_from_slice(&entry.first_lba.to_le_bytes());
        bytes[40..48].copy_from_slice(&entry.last_lba.to_le_bytes());
        for (n, unit) in entry.part.label().encode_utf16().enumerate() {
            bytes[56 + 2 * n..58 + 2 * n].copy_from_slice(&unit.to_le_bytes());
        }
    }
    write(dev, layout, &entries)
}

/// Writes a table that holds nothing but `kept`, with the numbers they have there: the disk boots nothing then, and
/// whoever comes next finds what was to be kept as it was.
pub fn apply_kept(dev: &mut dyn Device, layout: &Layout, kept: &[KeptEntry]) -> Result<(), GptError> {
    write(dev, layout, &kept_entries(kept))
}

/// Entries of the size everybody uses, as many as everybody has.
const COUNT: usize = 128;

fn kept_entries(kept: &[KeptEntry]) -> Vec<u8> {
    let mut entries = vec![0; COUNT * ENTRY];
    for kept in kept {
        if let Some(bytes) = entries.get_mut((kept.number() as usize - 1) * ENTRY..).and_then(|e| e.get_mut(..ENTRY)) {
            bytes.copy_from_slice(kept.raw());
        }
    }
    entries
}

fn write(dev: &mut dyn Device, layout: &Layout, entries: &[u8]) -> Result<(), GptError> {
    let actual = dev.seek(SeekFrom::End(0)).map_err(GptError::Io)?;
    let planned = layout.disk.bytes();
    if actual != planned {
        return Err(GptError::OtherDisk { actual, planned });
    }
    let sector = layout.sector.bytes();
    let (last, array) = (planned / sector - 1, entries.len() as u64 / sector);
    let put = |dev: &mut dyn Device, lba: u64, bytes: &[u8]| {
        dev.seek(SeekFrom::Start(lba * sector)).and_then(|_| dev.write_all(bytes)).map_err(GptError::Io)
    };
    put(dev, last - array, entries)?;
    put(dev, last, &header(layout, last, 1, last - array, entries))?;
    dev.sync().map_err(GptError::Io)?;
    put(dev, 2, entries)?;
    put(dev, 1, &header(layout, 1, last, 2, entries))?;
    let mut dev = dev;
    GPT::write_protective_mbr_into(&mut dev, sector).map_err(GptError::Write)?;
    dev.sync().map_err(GptError::Io)
}

/// A header and the zeros behind it, one sector (UEFI specification, "GPT Header").
fn header(layout: &Layout, here: u64, other: u64, entries_at: u64, entries: &[u8]) -> Vec<u8> {
    let sector = layout.sector.bytes();
    let (last, array) = (layout.disk.bytes() / sector - 1, entries.len() as u64 / sector);
    let mut bytes = vec![0; sector as usize];
    bytes[..8].copy_from_slice(b"EFI PART");
    bytes[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&92u32.to_le_bytes());
    for (at, lba) in [(24, here), (32, other), (40, 2 + array), (48, last - array - 1), (72, entries_at)] {
        bytes[at..at + 8].copy_from_slice(&lba.to_le_bytes());
    }
    bytes[56..72].copy_from_slice(&layout.guid.to_disk());
    bytes[80..84].copy_from_slice(&(COUNT as u32).to_le_bytes());
    bytes[84..88].copy_from_slice(&(ENTRY as u32).to_le_bytes());
    bytes[88..92].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let sum = crc32fast::hash(&bytes[..92]);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    bytes
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
    let others = gpt.iter().filter(|(number, entry)| *number > Part::ALL.len() as u32 && entry.is_used());
    let others: Vec<u32> = others.map(|(number, _)| number).collect();
    let kept = match others[..] {
        [] => Vec::new(),
        // The bytes as they are, which the parsed entries are not.
        _ => match table::read(dev, disk, sector.bytes()).map_err(GptError::Io)? {
            Table::Gpt(table) => {
                table.parts.iter().filter(|p| others.contains(&p.number)).map(KeptEntry::from).collect()
            }
            _ => Vec::new(),
        },
    };
    Ok(Layout { disk: ByteSize::from_bytes(disk), sector, guid, entries, kept })
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
    fn what_is_kept_stays_to_the_byte() {
        let sector = SectorSize::S512;
        let disk = ByteSize::from_bytes(sizes().smallest_disk().bytes() + (9 << 20));
        let mut raw = [0xa5; ENTRY];
        // From 2 MiB and a sector on, 3 MiB less a sector: no gap begins or ends with it.
        raw[32..40].copy_from_slice(&4097u64.to_le_bytes());
        raw[40..48].copy_from_slice(&10_238u64.to_le_bytes());
        let mut far = raw;
        let end = disk.bytes() / 512 - 34;
        far[32..40].copy_from_slice(&end.to_le_bytes());
        far[40..48].copy_from_slice(&end.to_le_bytes());
        let kept = [KeptEntry::new(4, raw), KeptEntry::new(9, far)];
        let guids = GuidSource::Seed(Sha256::of(b"kept"));
        let layout = Layout::plan_beside(disk, sector, &sizes(), &guids, &kept).unwrap();
        assert_eq!(layout.kept().iter().map(KeptEntry::number).collect::<Vec<_>>(), [9, 104]);

        let mut dev = Cursor::new(vec![0xaa; disk.bytes() as usize]);
        apply_kept(&mut dev, &layout, &kept).unwrap();
        let Table::Gpt(found) = table::read(&mut dev, disk.bytes(), 512).unwrap() else { panic!() };
        assert_eq!(found.parts.iter().map(|p| (p.number, p.raw)).collect::<Vec<_>>(), [(4, raw), (9, far)]);
        apply(&mut dev, &layout).unwrap();
        assert_eq!(read(&mut dev, sector).unwrap(), layout);
        let inside = |lba: u64| (4097..=10_238).contains(&lba);
        let untouched = |lba: &u64| dev.get_ref()[(lba * 512) as usize..][..512].iter().all(|byte| *byte == 0xaa);
        assert!((4097..=10_238).chain([end]).all(|lba| untouched(&lba)));
        for entry in layout.entries() {
            assert!(!inside(entry.first_lba) && !inside(entry.last_lba) && entry.last_lba < end);
        }
    }

    #[test]
    fn half_a_table_is_never_all_there_is() {
        // A disk that has a table is given another; whatever is written so far, one of the two is sound.
        struct Cut(Cursor<Vec<u8>>, usize);
        impl io::Read for Cut {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.read(buf)
            }
        }
        impl io::Seek for Cut {
            fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
                self.0.seek(to)
            }
        }
        impl io::Write for Cut {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                let n = buf.len().min(self.1);
                self.1 -= n;
                if n == 0 { Err(io::ErrorKind::Other.into()) } else { self.0.write(&buf[..n]) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Device for Cut {
            fn sync(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let disk = sizes().smallest_disk();
        let plan =
            |seed: &[u8]| Layout::plan(disk, SectorSize::S512, &sizes(), &GuidSource::Seed(Sha256::of(seed))).unwrap();
        let mut before = Cursor::new(vec![0; disk.bytes() as usize]);
        apply(&mut before, &plan(b"old")).unwrap();
        let mut seen = [0, 0];
        for budget in (0..2 * 16_896 + 600).step_by(211) {
            let mut dev = Cut(before.clone(), budget);
            let _ = apply(&mut dev, &plan(b"new"));
            let found = read(&mut dev.0, SectorSize::S512).unwrap();
            assert!(found == plan(b"old") || found == plan(b"new"), "after {budget} bytes");
            seen[usize::from(found == plan(b"new"))] += 1;
        }
        assert!(seen[0] > 0 && seen[1] > 0);
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
