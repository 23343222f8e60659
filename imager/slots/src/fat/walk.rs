//! A read-only walk through FAT12, FAT16 and FAT32 (Microsoft, "FAT: General Overview of On-Disk Format").
//!
//! It trusts nothing it reads: offsets are checked against the device, and chains against the number of clusters, so
//! that a damaged file system is an error and never a loop.

use std::io::{Read, Seek, SeekFrom, Write};

use super::FatError;

/// Some bytes of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub len: u64,
}

/// Which bytes of `dev` hold the file `path`, in the order of the file and not beyond its end. Names are compared
/// without regard to case.
pub fn locate<D: Read + Seek + ?Sized>(dev: &mut D, path: &str) -> Result<Vec<Extent>, FatError> {
    let mut volume = Volume::open(dev)?;
    let mut dir = volume.root();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let entry = volume.find(&dir, part)?.ok_or_else(|| FatError::NotFound(path.to_owned()))?;
        match (parts.peek(), entry.is_dir) {
            (None, false) => return volume.extents(entry.cluster, entry.len),
            (Some(_), true) => dir = Dir::Chain(entry.cluster),
            (None, true) => return Err(FatError::NotAFile(path.to_owned())),
            (Some(_), false) => break,
        }
    }
    Err(FatError::NotFound(path.to_owned()))
}

/// The content of the file `path`.
pub fn read<D: Read + Seek + ?Sized>(dev: &mut D, path: &str) -> Result<Vec<u8>, FatError> {
    let mut content = Vec::new();
    for Extent { offset, len } in locate(dev, path)? {
        dev.seek(SeekFrom::Start(offset)).map_err(FatError::Read)?;
        let n = dev.take(len).read_to_end(&mut content).map_err(FatError::Read)?;
        if n as u64 != len {
            return Err(FatError::Unsound("a file reaches beyond the device"));
        }
    }
    Ok(content)
}

/// Puts `content` in the place of what the file `path` holds, which must be just as long. Nothing else changes: no
/// date, no length, no cluster. The caller syncs.
pub fn overwrite<D: Read + Write + Seek + ?Sized>(dev: &mut D, path: &str, content: &[u8]) -> Result<(), FatError> {
    let extents = locate(dev, path)?;
    let (actual, wanted) = (extents.iter().map(|extent| extent.len).sum(), content.len() as u64);
    if actual != wanted {
        return Err(FatError::Length { path: path.to_owned(), actual, wanted });
    }
    let mut rest = content;
    for Extent { offset, len } in extents {
        // The lengths add up to that of `content`.
        let (now, later) = rest.split_at(len as usize);
        dev.seek(SeekFrom::Start(offset)).and_then(|_| dev.write_all(now)).map_err(FatError::Write)?;
        rest = later;
    }
    dev.flush().map_err(FatError::Write)
}

#[derive(Clone, Copy, PartialEq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

enum Dir {
    /// The root directory of FAT12 and FAT16: a region of its own.
    Region(Extent),
    /// Any other: a chain of clusters.
    Chain(u32),
}

struct DirEntry {
    is_dir: bool,
    cluster: u32,
    len: u64,
}

struct Volume<'a, D: ?Sized> {
    dev: &'a mut D,
    width: Width,
    fat: u64,
    data: u64,
    cluster_len: u64,
    clusters: u32,
    root: Extent,
    root_cluster: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

impl<'a, D: Read + Seek + ?Sized> Volume<'a, D> {
    fn open(dev: &'a mut D) -> Result<Self, FatError> {
        let device_len = dev.seek(SeekFrom::End(0)).map_err(FatError::Read)?;
        let mut boot = [0; 512];
        dev.seek(SeekFrom::Start(0)).and_then(|_| dev.read_exact(&mut boot)).map_err(FatError::Read)?;
        let either = |small: u64, large: u64| if small != 0 { small } else { large };
        let (sector, per_cluster) = (u16_at(&boot, 11), u64::from(boot[13]));
        let (reserved, fats, root_entries) = (u16_at(&boot, 14), u64::from(boot[16]), u16_at(&boot, 17));
        let sectors = either(u16_at(&boot, 19), u32_at(&boot, 32));
        let fat_sectors = either(u16_at(&boot, 22), u32_at(&boot, 36));
        if boot[510..] != [0x55, 0xaa] || ![512, 1024, 2048, 4096].contains(&sector) {
            return Err(FatError::Unsound("no boot sector"));
        }
        let root_sectors = (root_entries * 32).div_ceil(sector);
        // All factors are at most 32 bits, so nothing here overflows 64.
        let data_sector = reserved + fats * fat_sectors + root_sectors;
        if !per_cluster.is_power_of_two() || reserved == 0 || fats == 0 || data_sector >= sectors {
            return Err(FatError::Unsound("the boot sector contradicts itself"));
        }
        if sectors * sector > device_len {
            return Err(FatError::Unsound("the file system is larger than the device"));
        }
        let clusters = (sectors - data_sector) / per_cluster;
        let width = match clusters {
            0..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => Width::Fat32,
        };
        // Sectors fit 32 bits, so clusters do.
        let clusters = clusters as u32;
        let root = Extent { offset: (reserved + fats * fat_sectors) * sector, len: root_entries * 32 };
        let root_cluster = u32_at(&boot, 44) as u32;
        let (fat, data, cluster_len) = (reserved * sector, data_sector * sector, per_cluster * sector);
        Ok(Self { dev, width, fat, data, cluster_len, clusters, root, root_cluster })
    }

    fn root(&self) -> Dir {
        match self.width {
            Width::Fat32 => Dir::Chain(self.root_cluster),
            _ => Dir::Region(self.root),
        }
    }

    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), FatError> {
        self.dev.seek(SeekFrom::Start(offset)).and_then(|_| self.dev.read_exact(bytes)).map_err(FatError::Read)
    }

    fn cluster(&self, cluster: u32) -> Result<Extent, FatError> {
        match cluster.checked_sub(2) {
            Some(n) if n < self.clusters => {
                Ok(Extent { offset: self.data + u64::from(n) * self.cluster_len, len: self.cluster_len })
            }
            _ => Err(FatError::Unsound("a chain leaves the data area")),
        }
    }

    /// The cluster after `cluster`, or `None` at the end of the chain.
    fn next(&mut self, cluster: u32) -> Result<Option<u32>, FatError> {
        let n = u64::from(cluster);
        let mut entry = [0; 4];
        let (next, end) = match self.width {
            Width::Fat12 => {
                self.read_at(self.fat + n + n / 2, &mut entry[..2])?;
                (u32_at(&entry, 0) >> (4 * (n % 2)) & 0xfff, 0xff8)
            }
            Width::Fat16 => {
                self.read_at(self.fat + n * 2, &mut entry[..2])?;
                (u32_at(&entry, 0), 0xfff8)
            }
            Width::Fat32 => {
                self.read_at(self.fat + n * 4, &mut entry)?;
                (u32_at(&entry, 0) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok(Some(next as u32).filter(|_| next < end))
    }

    /// The clusters of a chain, at most `most` of them.
    fn chain(&mut self, first: u32, most: u64) -> Result<Vec<Extent>, FatError> {
        let mut extents = Vec::new();
        let mut cluster = Some(first);
        while let Some(at) = cluster.filter(|_| (extents.len() as u64) < most) {
            if extents.len() as u32 >= self.clusters {
                return Err(FatError::Unsound("a chain never ends"));
            }
            extents.push(self.cluster(at)?);
            cluster = self.next(at)?;
        }
        Ok(extents)
    }

    /// The bytes of a file, neighbours joined.
    fn extents(&mut self, first: u32, len: u64) -> Result<Vec<Extent>, FatError> {
        let mut left = len;
        let mut extents: Vec<Extent> = Vec::new();
        if len == 0 {
            return Ok(extents);
        }
        for mut extent in self.chain(first, len.div_ceil(self.cluster_len))? {
            extent.len = extent.len.min(left);
            left -= extent.len;
            match extents.last_mut() {
                Some(last) if last.offset + last.len == extent.offset => last.len += extent.len,
                _ => extents.push(extent),
            }
        }
        match left {
            0 => Ok(extents),
            _ => Err(FatError::Unsound("a chain ends before its file")),
        }
    }

    fn find(&mut self, dir: &Dir, name: &str) -> Result<Option<DirEntry>, FatError> {
        // A directory holds at most 65536 entries of 32 bytes.
        let extents = match dir {
            Dir::Region(extent) => vec![*extent],
            Dir::Chain(first) => self.chain(*first, (65536u64 * 32).div_ceil(self.cluster_len))?,
        };
        let mut long = LongName::default();
        for Extent { offset, len } in extents {
            let mut bytes = vec![0; len as usize];
            self.read_at(offset, &mut bytes)?;
            for raw in bytes.as_chunks::<32>().0 {
                match (raw[0], raw[11]) {
                    (0, _) => return Ok(None),
                    (0xe5, _) => long = LongName::default(),
                    (_, attributes) if attributes & 0x3f == 0x0f => long.push(raw),
                    // The volume's label.
                    (_, attributes) if attributes & 0x08 != 0 => long = LongName::default(),
                    (_, attributes) => {
                        let long = std::mem::take(&mut long).finish(raw);
                        let same = |other: &str| other.to_lowercase() == name.to_lowercase();
                        if same(&short_name(raw)) || long.is_some_and(|long| same(&long)) {
                            let high = if self.width == Width::Fat32 { u16_at(raw, 20) } else { 0 };
                            let cluster = (high << 16 | u16_at(raw, 26)) as u32;
                            let is_dir = attributes & 0x10 != 0;
                            return Ok(Some(DirEntry { is_dir, cluster, len: u32_at(raw, 28) }));
                        }
                    }
                }
            }
        }
        Ok(None)
    }
}

fn short_name(raw: &[u8; 32]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches(' ').to_owned();
    match (text(&raw[..8]), text(&raw[8..11])) {
        (base, extension) if extension.is_empty() => base,
        (base, extension) => format!("{base}.{extension}"),
    }
}

/// A long name, gathered from the entries before the one it belongs to, last part first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    checksum: u8,
}

impl LongName {
    fn push(&mut self, raw: &[u8; 32]) {
        if raw[0] & 0x40 != 0 {
            self.units.clear();
        }
        self.checksum = raw[13];
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        let mut units: Vec<u16> = places.map(|at| u16_at(raw, at) as u16).collect();
        units.append(&mut self.units);
        self.units = units;
    }

    /// The name, if there is one that belongs to the entry `raw`.
    fn finish(self, raw: &[u8; 32]) -> Option<String> {
        let sum = raw[..11].iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let end = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        let name = String::from_utf16(&self.units[..end]).ok()?;
        Some(name).filter(|name| !name.is_empty() && sum == self.checksum)
    }
}
