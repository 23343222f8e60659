//! Recognises what is on a device by the marks that everybody leaves at fixed places.
//!
//! Only the marks that decide something here: what may be lost, what another program would assemble, and where an OS
//! may be. Offsets are from each format's own description; a truncated device simply has no mark there.

use std::io::{self, Read, Seek, SeekFrom};

use crate::facts::{Content, FileSystem, Md};

/// Enough for the mark that lies furthest from the start: that of btrfs.
const HEAD: u64 = 0x10200;
const MD_MAGIC: u32 = 0xa92b_4efc;

/// Whether the first sector has code in the place of a boot loader's.
pub fn has_boot_code(dev: &mut (impl Read + Seek)) -> io::Result<bool> {
    let sector = read(dev, 0, 512)?;
    Ok(sector.len() == 512 && sector[510..] == [0x55, 0xaa] && sector[..440].iter().any(|byte| *byte != 0))
}

/// Everything that is recognised on a device of `bytes` bytes, but ZFS.
pub fn recognise(dev: &mut (impl Read + Seek), bytes: u64) -> io::Result<Vec<Content>> {
    let head = Bytes(read(dev, 0, HEAD.min(bytes))?);
    let mut found = Vec::new();
    found.extend(md(dev, bytes, &head)?.map(Content::Md));
    if (0..4).any(|n| head.is(n * 512, b"LABELONE") && head.is(n * 512 + 24, b"LVM2 001")) {
        found.push(Content::Lvm);
    }
    if head.is(0, b"LUKS\xba\xbe") {
        found.push(Content::Luks);
    }
    let swap = [4096usize, 8192, 16384, 65536].iter().any(|page| {
        [&b"SWAPSPACE2"[..], b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0", b"LINHIB0001"]
            .iter()
            .any(|mark| head.is(page - 10, mark))
    });
    if swap {
        found.push(Content::Swap);
    }
    found.extend(file_system(&head).map(Content::FileSystem));
    Ok(found)
}

fn read(dev: &mut (impl Read + Seek), at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    dev.seek(SeekFrom::Start(at))?;
    dev.by_ref().take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Bytes that may end early.
struct Bytes(Vec<u8>);

impl Bytes {
    fn is(&self, at: usize, mark: &[u8]) -> bool {
        self.0.get(at..at + mark.len()) == Some(mark)
    }

    fn u32(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    fn hex(&self, at: usize, len: usize) -> String {
        hex::encode(self.0.get(at..at + len).unwrap_or_default())
    }

    fn label(&self, at: usize, len: usize) -> Option<String> {
        let bytes = self.0.get(at..at + len)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(len);
        let text = String::from_utf8_lossy(&bytes[..end]).trim().to_owned();
        Some(text).filter(|text| !text.is_empty() && text != "NO NAME" && !text.contains(char::is_control))
    }
}

fn file_system(head: &Bytes) -> Option<FileSystem> {
    let plain = |kind: &str, label: Option<String>| FileSystem { kind: kind.to_owned(), label, dirty: false };
    if head.is(1024 + 56, &[0x53, 0xef]) {
        let (compatible, incompatible) = (head.u32(1024 + 92), head.u32(1024 + 96));
        let kind = match (incompatible & 0x3c0 != 0, compatible & 4 != 0) {
            (true, _) => "ext4",
            (false, true) => "ext3",
            (false, false) => "ext2",
        };
        return Some(FileSystem { dirty: incompatible & 4 != 0, ..plain(kind, head.label(1024 + 120, 16)) });
    }
    if head.is(0, b"XFSB") {
        return Some(plain("xfs", head.label(108, 12)));
    }
    if head.is(0x10040, b"_BHRfS_M") {
        return Some(plain("btrfs", head.label(0x1012b, 128)));
    }
    if head.is(3, b"NTFS    ") {
        return Some(plain("ntfs", None));
    }
    if head.is(3, b"EXFAT   ") {
        return Some(plain("exfat", None));
    }
    if head.is(510, &[0x55, 0xaa]) && head.is(82, b"FAT32") {
        return Some(plain("vfat", head.label(71, 11)));
    }
    if head.is(510, &[0x55, 0xaa]) && head.is(54, b"FAT1") {
        return Some(plain("vfat", head.label(43, 11)));
    }
    if head.is(32769, b"CD001") {
        return Some(plain("iso9660", head.label(32808, 32)));
    }
    if head.is(1024, &[0xe2, 0xe1, 0xf5, 0xe0]) {
        return Some(plain("erofs", None));
    }
    (head.is(0, b"hsqs")).then(|| plain("squashfs", None))
}

/// An md superblock: 1.1 at the start, 1.2 4 KiB behind it, 1.0 and 0.90 near the end (md(4)).
fn md(dev: &mut (impl Read + Seek), bytes: u64, head: &Bytes) -> io::Result<Option<Md>> {
    for (at, metadata) in [(0, "1.1"), (4096, "1.2")] {
        if let Some(md) = md_version_1(head, at, at as u64, metadata) {
            return Ok(Some(md));
        }
    }
    if bytes < 128 * 1024 {
        return Ok(None);
    }
    let at = (bytes - 8192) / 4096 * 4096;
    if let Some(md) = md_version_1(&Bytes(read(dev, at, 4096)?), 0, at, "1.0") {
        return Ok(Some(md));
    }
    let old = Bytes(read(dev, bytes / 65536 * 65536 - 65536, 4096)?);
    if old.u32(0) != MD_MAGIC || old.u32(4) != 0 || old.u32(8) != 90 {
        return Ok(None);
    }
    let array = old.hex(20, 4) + &old.hex(52, 12);
    let (level, devices) = (old.u32(28).cast_signed(), old.u32(40));
    Ok(Some(Md { array, metadata: "0.90".to_owned(), level, devices, data_start: 0 }))
}

fn md_version_1(bytes: &Bytes, at: usize, place: u64, metadata: &str) -> Option<Md> {
    let here = bytes.u64(at + 144).checked_mul(512) == Some(place);
    if bytes.u32(at) != MD_MAGIC || bytes.u32(at + 4) != 1 || !here {
        return None;
    }
    Some(Md {
        array: bytes.hex(at + 16, 16),
        metadata: metadata.to_owned(),
        level: bytes.u32(at + 72).cast_signed(),
        devices: bytes.u32(at + 92),
        data_start: bytes.u64(at + 128).saturating_mul(512),
    })
}
