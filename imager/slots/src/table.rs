//! Reads whatever partition table a disk carries: GPT, MBR, or none.
//!
//! For looking at foreign disks: it takes nothing on trust, allocates by no length that the disk names, and never
//! writes. [`crate::gpt`] is for our own layout. Sources: UEFI specification, "GUID Partition Table (GPT) Disk Layout";
//! for MBR and its chain of extended partitions, what Linux's `block/partitions/msdos.c` takes for one.

use std::io::{self, Read, Seek, SeekFrom};

use crate::guid::Guid;

/// Bytes of one GPT entry of the size everybody uses.
pub const ENTRY: usize = 128;
/// More entries than this are not looked at: nobody makes more than 128, Linux reads 256 minors.
const MAX_ENTRIES: u32 = 1024;
/// More logical partitions than this are taken for a loop.
const MAX_LOGICAL: u32 = 128;

/// What partition table there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// None.
    None,
    /// An MBR alone.
    Mbr(Vec<MbrPart>),
    /// A GPT.
    Gpt(GptTable),
    /// Something that should be one, and cannot be used.
    Damaged(&'static str),
}

/// A partition of an MBR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MbrPart {
    /// Its number, as Linux counts: logical ones from 5.
    pub number: u32,
    /// First sector.
    pub first_lba: u64,
    /// Number of sectors.
    pub sectors: u64,
    /// Type byte.
    pub kind: u8,
    /// Marked as the one to boot.
    pub active: bool,
}

/// A GPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptTable {
    /// GUID of the disk.
    pub guid: Guid,
    /// The copy at the start of the disk is sound.
    pub primary: bool,
    /// The copy at its end is.
    pub backup: bool,
    /// How many entries the array has room for.
    pub slots: u32,
    /// Bytes of an entry.
    pub entry_bytes: u32,
    /// The entries in use.
    pub parts: Vec<GptPart>,
}

/// A partition of a GPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptPart {
    /// Its number, from 1.
    pub number: u32,
    /// First sector.
    pub first_lba: u64,
    /// Last sector.
    pub last_lba: u64,
    /// What it is for.
    pub type_guid: Guid,
    /// Which one it is.
    pub guid: Guid,
    /// Its label.
    pub name: String,
    /// The first 128 bytes of its entry, as they are.
    pub raw: [u8; ENTRY],
}

/// Reads the table of a device of `bytes` bytes with sectors of `sector` bytes.
///
/// # Errors
/// When the start of the device cannot be read.
pub fn read(dev: &mut (impl Read + Seek + ?Sized), bytes: u64, sector: u64) -> io::Result<Table> {
    if bytes < 3 * sector || sector < 512 {
        return Ok(Table::None);
    }
    let mbr = at(dev, 0, 512)?;
    let primary = header(dev, 1, bytes, sector)?;
    // A backup that cannot be read is as good as none.
    let backup = header(dev, bytes / sector - 1, bytes, sector).unwrap_or(None);
    let marked = mbr[510..] == [0x55, 0xaa];
    let protective = marked && mbr_entries(&mbr).any(|entry| entry[4] == 0xee);
    let sound = (primary.is_some(), backup.is_some());
    match primary.or(backup) {
        // A disk that was made anew with an MBR keeps its old GPT's remains: the MBR is what is used then.
        Some(table) if protective || !marked => Ok(Table::Gpt(GptTable { primary: sound.0, backup: sound.1, ..table })),
        _ if protective => Ok(Table::Damaged("a protective MBR, but no sound GPT")),
        _ if !marked || is_boot_sector(&mbr) => Ok(Table::None),
        _ => mbr_parts(dev, &mbr, bytes, sector),
    }
}

fn at(dev: &mut (impl Read + Seek + ?Sized), offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    dev.seek(SeekFrom::Start(offset))?;
    dev.read_exact(&mut buffer)?;
    Ok(buffer)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Guid::from_disk(guid)
}

/// The table whose header is at `lba`; none where it is not sound.
fn header(dev: &mut (impl Read + Seek + ?Sized), lba: u64, bytes: u64, sector: u64) -> io::Result<Option<GptTable>> {
    let mut header = at(dev, lba * sector, 512)?;
    let size = u32_at(&header, 12) as usize;
    if &header[..8] != b"EFI PART" || !(92..=512).contains(&size) || u64_at(&header, 24) != lba {
        return Ok(None);
    }
    let sum = u32_at(&header, 16);
    header[16..20].fill(0);
    if crc32fast::hash(&header[..size]) != sum {
        return Ok(None);
    }
    let (first, slots, entry_bytes) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84));
    let array = u64::from(slots) * u64::from(entry_bytes);
    let fits = first.checked_mul(sector).and_then(|start| start.checked_add(array)).is_some_and(|end| end <= bytes);
    let entry_ok = entry_bytes >= ENTRY as u32 && entry_bytes.is_power_of_two() && entry_bytes <= 4096;
    if slots > MAX_ENTRIES || !entry_ok || !fits {
        return Ok(None);
    }
    let array = at(dev, first * sector, array as usize)?;
    if crc32fast::hash(&array) != u32_at(&header, 88) {
        return Ok(None);
    }
    let entries = array.chunks_exact(entry_bytes as usize).zip(1..);
    let parts = entries.filter_map(|(entry, number)| gpt_part(entry, number, bytes / sector)).collect();
    Ok(Some(GptTable { guid: guid_at(&header, 56), primary: false, backup: false, slots, entry_bytes, parts }))
}

fn gpt_part(entry: &[u8], number: u32, sectors: u64) -> Option<GptPart> {
    let (first_lba, last_lba) = (u64_at(entry, 32), u64_at(entry, 40));
    if entry[..16] == [0; 16] || first_lba > last_lba || last_lba >= sectors {
        return None;
    }
    let (units, _) = entry[56..ENTRY].as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    let name = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let mut raw = [0; ENTRY];
    raw.copy_from_slice(&entry[..ENTRY]);
    Some(GptPart { number, first_lba, last_lba, type_guid: guid_at(entry, 0), guid: guid_at(entry, 16), name, raw })
}

fn mbr_entries(mbr: &[u8]) -> impl Iterator<Item = &[u8]> {
    mbr[446..510].chunks_exact(16)
}

/// A FAT or NTFS boot sector carries the same mark at its end: it is one where no entry makes sense.
fn is_boot_sector(mbr: &[u8]) -> bool {
    mbr_entries(mbr).any(|entry| entry[0] & 0x7f != 0) || mbr_entries(mbr).all(|entry| entry[4] == 0)
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

fn mbr_parts(dev: &mut (impl Read + Seek + ?Sized), mbr: &[u8], bytes: u64, sector: u64) -> io::Result<Table> {
    let mut parts = Vec::new();
    let end = bytes / sector;
    for (entry, number) in mbr_entries(mbr).zip(1..) {
        let part = mbr_part(entry, number, 0);
        if part.kind == 0 || part.sectors == 0 {
            continue;
        }
        if part.first_lba >= end {
            return Ok(Table::Damaged("a partition of the MBR lies beyond the end of the disk"));
        }
        if is_extended(part.kind) {
            logical(dev, part.first_lba, end, sector, &mut parts)?;
        }
        parts.push(part);
    }
    parts.sort_by_key(|part| part.number);
    Ok(Table::Mbr(parts))
}

fn mbr_part(entry: &[u8], number: u32, base: u64) -> MbrPart {
    let (first_lba, sectors) = (base + u64::from(u32_at(entry, 8)), u64::from(u32_at(entry, 12)));
    MbrPart { number, first_lba, sectors, kind: entry[4], active: entry[0] == 0x80 }
}

/// Follows the chain of an extended partition.
fn logical(
    dev: &mut (impl Read + Seek + ?Sized),
    extended: u64,
    end: u64,
    sector: u64,
    parts: &mut Vec<MbrPart>,
) -> io::Result<()> {
    let mut here = extended;
    for number in 5..5 + MAX_LOGICAL {
        let block = at(dev, here * sector, 512)?;
        if block[510..] != [0x55, 0xaa] {
            return Ok(());
        }
        let mut next = None;
        for entry in mbr_entries(&block).take(2) {
            let part = mbr_part(entry, number, here);
            if is_extended(part.kind) {
                next = Some(extended + u64::from(u32_at(entry, 8)));
            } else if part.kind != 0 && part.sectors != 0 && part.first_lba < end {
                parts.push(part);
            }
        }
        match next {
            Some(lba) if lba < end => here = lba,
            _ => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
