//! Looks at every disk of the machine, and changes nothing.
//!
//! Disks are opened read-only; nothing is mounted, assembled, activated or imported. In: sysfs, udev's database, and
//! the devices themselves. Out: [`Facts`]. A disk that cannot be read is a fact too.

mod features;
mod labels;
mod magic;
mod os;
mod sysfs;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use siris_ibu::ByteSize;
use siris_live::LIVE;
use siris_slots::device::Window;
use siris_slots::layout::Part;
use siris_slots::table::{self, Table};
use siris_slots::{Slot, trailer};

use crate::facts::{Content, Disk, DiskName, Facts, Firmware, Partition, Siris, TableKind};
use crate::host::{Host, HostError};

pub use features::open_pools;
pub use os::{cat, list};
pub use sysfs::{counters, partition_name, wwn_digits};

/// Looks at the whole machine.
///
/// # Errors
/// When the kernel's list of disks cannot be read. What is wrong with one disk is said in its facts.
pub fn observe(host: &Host) -> Result<Facts, HostError> {
    let mut disks = sysfs::disks(host)?;
    let mut members = Vec::new();
    for disk in &mut disks {
        match look(host, disk) {
            Ok(seen) => members.extend(seen),
            Err(error) => disk.unreadable = Some(error.to_string()),
        }
    }
    let pools = labels::attach(&members, &mut disks);
    let firmware = if host.path("/sys/firmware/efi").exists() { Firmware::Uefi } else { Firmware::Bios };
    let live = host.boot_word("siris.live").is_some();
    let medium = host.text(format!("{LIVE}/medium")).and_then(|name| name.parse::<DiskName>().ok());
    let medium = medium.filter(|name| disks.iter().any(|disk| disk.name == *name));
    Ok(Facts { firmware, live, medium, disks, pools })
}

/// Fills in what is on the disk; returns the ZFS labels on it and its partitions.
fn look(host: &Host, disk: &mut Disk) -> io::Result<Vec<labels::Seen>> {
    let mut dev = host.open(disk.name.as_str()).map_err(io::Error::other)?;
    let bytes = disk.size.bytes();
    let table = table::read(&mut dev, bytes, disk.sector)?;
    disk.boot_code = magic::has_boot_code(&mut dev)?;
    (disk.table, disk.partitions) = partitions(disk, &table);
    disk.content = magic::recognise(&mut dev, bytes)?;
    if !matches!(table, Table::None) {
        // The first sector of a partitioned disk can look like that of a file system (isohybrid, old FAT).
        disk.content.retain(|content| !matches!(content, Content::FileSystem(fs) if fs.kind == "vfat"));
    }
    let mut seen = vec![labels::look(&mut dev, disk.name.as_str(), bytes)?];
    let path = host.dev(disk.name.as_str());
    disk.content.extend(os::find(&path, 0, &disk.content));
    for part in &mut disk.partitions {
        let (start, len) = (part.start, part.size.bytes());
        let mut window = Window::new(&mut dev, start, len);
        part.content = magic::recognise(&mut window, len)?;
        window.seek(SeekFrom::Start(0))?;
        seen.push(labels::look(&mut window, &partition_name(&disk.name, part.number), len)?);
        part.content.extend(os::find(&path, start, &part.content));
    }
    if let Some(siris) = own_os(&mut dev, disk, &path)
        && let Some(state) = disk.partitions.iter_mut().find(|part| part.kind == Part::State.type_guid().to_string())
    {
        state.content.push(Content::Siris(siris));
    }
    seen.retain(|seen| !seen.is_empty());
    Ok(seen)
}

fn partitions(disk: &Disk, table: &Table) -> (TableKind, Vec<Partition>) {
    let sector = disk.sector;
    match table {
        Table::None => (TableKind::None, Vec::new()),
        Table::Damaged(_) => (TableKind::Damaged, Vec::new()),
        Table::Mbr(parts) => {
            // An extended partition is but a container of others.
            let real = parts.iter().filter(|part| !matches!(part.kind, 0x05 | 0x0f | 0x85));
            let parts = real.map(|part| Partition {
                number: part.number,
                start: part.first_lba * sector,
                size: ByteSize::from_bytes((part.sectors * sector).min(disk.size.bytes() - part.first_lba * sector)),
                kind: format!("{:02x}", part.kind),
                guid: None,
                label: None,
                entry: None,
                content: Vec::new(),
            });
            (TableKind::Mbr, parts.collect())
        }
        Table::Gpt(gpt) => {
            let parts = gpt.parts.iter().map(|part| Partition {
                number: part.number,
                start: part.first_lba * sector,
                size: ByteSize::from_bytes((part.last_lba - part.first_lba + 1) * sector),
                kind: part.type_guid.to_string(),
                guid: Some(part.guid.to_string()),
                label: Some(part.name.clone()).filter(|name| !name.is_empty()),
                entry: Some(hex::encode(part.raw)).filter(|_| gpt.entry_bytes as usize == table::ENTRY),
                content: Vec::new(),
            });
            let kind = if gpt.primary && gpt.backup { TableKind::Gpt } else { TableKind::GptHalf };
            (kind, parts.collect())
        }
    }
}

/// What our own layout on the disk says of itself.
fn own_os(dev: &mut File, disk: &Disk, path: &std::path::Path) -> Option<Siris> {
    let state = disk.partitions.iter().find(|part| part.kind == Part::State.type_guid().to_string())?;
    let (install, receipt) = os::install(path, state.start);
    let sector = siris_slots::SectorSize::from_bytes(disk.sector)?;
    let layout = siris_slots::gpt::read(dev, sector).ok();
    let version = layout.and_then(|layout| {
        Slot::ALL.into_iter().find_map(|slot| match trailer::read_slot(dev, &layout, slot).ok()? {
            trailer::SlotInfo::Written(trailer) => Some(trailer.unverified()?.version.to_string()),
            _ => None,
        })
    });
    Some(Siris { version, install, receipt })
}

#[cfg(test)]
mod tests;
