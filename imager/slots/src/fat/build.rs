//! Makes a FAT file system in one pass: directories first, then the files one after the other, the tables last.
//!
//! Our own and not the `fatfs` crate's, whose directories `fsck.vfat` calls broken (long names on `.` and `..`):
//! firmware of many makers reads this. That crate reads what is made here in the tests.

use std::collections::BTreeSet;
use std::io::{self, Seek, SeekFrom, Write};

use super::names::{self, Name};
use super::{FatError, FatFile, FatSpec};
use crate::device::{Zeros, write_runs};

/// A FAT32 file system has more clusters than 65524; some tools err by a few.
const FAT32_CLUSTERS: u64 = 66_000;
const ROOT_ENTRIES: u64 = 512;
const ENTRY: u64 = 32;
const FATS: u64 = 2;
/// 1 January 1980: the first day FAT knows.
const DATE: u16 = 1 << 5 | 1;
const BUFFER: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Where things are, in sectors.
struct Geometry {
    width: Width,
    sector: u64,
    sectors: u64,
    per_cluster: u64,
    reserved: u64,
    fat_sectors: u64,
    root_sectors: u64,
    clusters: u64,
}

impl Geometry {
    /// FAT32 where the size allows it, as the UEFI specification wants of a system partition; FAT16 or FAT12 else,
    /// which firmware reads all the same.
    fn new(spec: &FatSpec) -> Option<Self> {
        let (size, sector) = (spec.size.bytes(), spec.sector.bytes());
        let fits = |cluster: &u64| *cluster >= sector && size / cluster >= FAT32_CLUSTERS;
        let fat32 = [4096, 2048, 1024, 512].into_iter().find(fits);
        let cluster = fat32.unwrap_or(4096);
        let (reserved, root_sectors) = match fat32 {
            Some(_) => (32, 0),
            None => (1, (ROOT_ENTRIES * ENTRY).div_ceil(sector)),
        };
        let (sectors, per_cluster) = (size / sector, cluster / sector);
        // The tables take room from the clusters they are for: more of the one, fewer of the other, until they agree.
        let mut fat_sectors = 1;
        let (clusters, width) = loop {
            let used = reserved + FATS * fat_sectors + root_sectors;
            let clusters = sectors.checked_sub(used)? / per_cluster;
            let width = match (fat32, clusters) {
                (Some(_), _) => Width::Fat32,
                (None, ..4085) => Width::Fat12,
                (None, _) => Width::Fat16,
            };
            let needed = width.table_len(clusters).div_ceil(sector);
            if needed <= fat_sectors {
                break (clusters, width);
            }
            fat_sectors = needed;
        };
        let possible = match width {
            Width::Fat12 | Width::Fat16 => 1..65525,
            Width::Fat32 => 65525..0x0fff_fff5,
        };
        let fits = possible.contains(&clusters) && sectors <= u32::MAX.into();
        fits.then_some(Self { width, sector, sectors, per_cluster, reserved, fat_sectors, root_sectors, clusters })
    }

    fn cluster_len(&self) -> u64 {
        self.per_cluster * self.sector
    }

    fn root_offset(&self) -> u64 {
        (self.reserved + FATS * self.fat_sectors) * self.sector
    }

    fn cluster_offset(&self, cluster: u64) -> u64 {
        self.root_offset() + self.root_sectors * self.sector + (cluster - 2) * self.cluster_len()
    }
}

impl Width {
    fn table_len(self, clusters: u64) -> u64 {
        let entries = clusters + 2;
        match self {
            Width::Fat12 => (entries * 3).div_ceil(2),
            Width::Fat16 => entries * 2,
            Width::Fat32 => entries * 4,
        }
    }
}

/// A directory or file on its way into the image.
struct Node {
    name: Name,
    /// Directory it is in, by index; the root is 0 and in itself.
    parent: usize,
    is_dir: bool,
    first: u64,
    len: u64,
}

/// The image being made.
struct Image<'a, W: ?Sized> {
    out: &'a mut W,
    base: u64,
    geometry: Geometry,
    nodes: Vec<Node>,
    /// The successor of each cluster that is in use, from cluster 2 on.
    table: Vec<u32>,
    zeros: Zeros,
}

const END: u32 = 0x0fff_ffff;

/// Makes a file system of exactly `spec.size` bytes from `files`, and writes it to `out` from where that stands.
/// Only what is in use is written: free clusters keep what they held. Returns how many bytes that are, from the start of
/// the file system to the end of the last cluster in use: nobody misses what is behind them.
pub fn build<W: Write + Seek + ?Sized>(
    out: &mut W,
    spec: &FatSpec,
    files: &mut [FatFile<'_>],
    zeros: Zeros,
) -> Result<u64, FatError> {
    let label = names::label(spec.label)?;
    let geometry = Geometry::new(spec).ok_or(FatError::Size(spec.size))?;
    let base = out.stream_position().map_err(FatError::Write)?;
    let mut image = Image { out, base, geometry, nodes: Vec::new(), table: Vec::new(), zeros };
    let indices = image.plan(files)?;
    for (file, index) in files.iter_mut().zip(indices) {
        let stored = image.store(index, file);
        stored.map_err(|source| FatError::Store { path: file.path.to_owned(), size: spec.size, source })?;
    }
    let used = image.geometry.cluster_offset(image.table.len() as u64 + 2);
    image.finish(&label, spec.volume_id).map_err(FatError::Write)?;
    Ok(used)
}

impl<W: Write + Seek + ?Sized> Image<'_, W> {
    /// Makes the nodes, gives the directories their clusters, and returns the node of each file.
    fn plan(&mut self, files: &[FatFile<'_>]) -> Result<Vec<usize>, FatError> {
        self.nodes.push(Node { name: Name::root(), parent: 0, is_dir: true, first: 0, len: 0 });
        let mut indices = Vec::new();
        for FatFile { path, .. } in files {
            let mut parent = 0;
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                let is_dir = parts.peek().is_some();
                let found = self.nodes.iter().skip(1).position(|n| n.parent == parent && n.name.is(part));
                parent = match found.map(|n| n + 1) {
                    Some(found) if is_dir && self.nodes[found].is_dir => found,
                    Some(_) => return Err(FatError::Name((*path).to_owned())),
                    None => {
                        let siblings: BTreeSet<_> =
                            self.nodes.iter().filter(|n| n.parent == parent).map(|n| n.name.short).collect();
                        let name = Name::new(part, &siblings).ok_or_else(|| FatError::Name((*path).to_owned()))?;
                        self.nodes.push(Node { name, parent, is_dir, first: 0, len: 0 });
                        self.nodes.len() - 1
                    }
                };
            }
            indices.push(parent);
        }
        for index in 0..self.nodes.len() {
            if !self.nodes[index].is_dir {
                continue;
            }
            let children = self.nodes.iter().skip(1).filter(|n| n.parent == index);
            // The root has the label, the others `.` and `..`.
            let head = if index == 0 { 1 } else { 2 };
            let entries: u64 = head + children.map(|n| n.name.entries()).sum::<u64>();
            self.nodes[index].len = entries * ENTRY;
            if index > 0 || self.geometry.width == Width::Fat32 {
                self.nodes[index].first = self.allocate(entries * ENTRY).map_err(FatError::Write)?;
            } else if entries > ROOT_ENTRIES {
                return Err(FatError::Name("/".to_owned()));
            }
        }
        Ok(indices)
    }

    /// Takes the next clusters for `len` bytes, in one piece.
    fn allocate(&mut self, len: u64) -> io::Result<u64> {
        let (first, count) = (self.table.len() as u64 + 2, len.div_ceil(self.geometry.cluster_len()));
        if self.table.len() as u64 + count > self.geometry.clusters {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Clusters are fewer than 2^28.
        self.table.extend((1..count).map(|n| (first + n) as u32));
        self.table.extend((count > 0).then_some(END));
        Ok(if count > 0 { first } else { 0 })
    }

    fn store(&mut self, index: usize, file: &mut FatFile<'_>) -> io::Result<()> {
        let cluster_len = self.geometry.cluster_len();
        let first = self.table.len() as u64 + 2;
        let room = (self.geometry.clusters - self.table.len() as u64) * cluster_len;
        let mut buffer = vec![0; BUFFER];
        let mut len = 0;
        self.seek(self.geometry.cluster_offset(first))?;
        loop {
            let n = crate::writer::fill(file.content, &mut buffer)?;
            if n == 0 {
                break;
            }
            len += n as u64;
            if len > room || len > u32::MAX.into() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            // Slack after the end is zero: what was there before does not leak.
            let padded = (n as u64).next_multiple_of(cluster_len) as usize;
            buffer[n..padded].fill(0);
            write_runs(self.out, &buffer[..padded], self.zeros)?;
        }
        self.nodes[index].first = self.allocate(len)?;
        self.nodes[index].len = len;
        Ok(())
    }

    fn finish(mut self, label: &[u8; 11], volume_id: u32) -> io::Result<()> {
        let g = &self.geometry;
        let (cluster_len, root_len) = (g.cluster_len(), g.root_sectors * g.sector);
        let (sector, reserved, size) = (g.sector as usize, g.reserved, g.sectors * g.sector);
        for index in 0..self.nodes.len() {
            if !self.nodes[index].is_dir {
                continue;
            }
            let mut bytes = self.directory(index, label);
            let (offset, room) = match (self.nodes[index].first, self.nodes[index].len) {
                (0, _) => (self.geometry.root_offset(), root_len),
                (first, len) => (self.geometry.cluster_offset(first), len.next_multiple_of(cluster_len)),
            };
            bytes.resize(room as usize, 0);
            self.write(offset, &bytes)?;
        }
        let table = self.table_bytes();
        for n in 0..FATS {
            let offset = (reserved + n * self.geometry.fat_sectors) * self.geometry.sector;
            self.write(offset, &table)?;
        }
        let mut head = vec![0; reserved as usize * sector];
        let boot = self.boot_sector(label, volume_id);
        head[..512].copy_from_slice(&boot);
        if self.geometry.width == Width::Fat32 {
            let info = self.info_sector();
            for (n, bytes) in [(1, &info), (6, &boot), (7, &info)] {
                head[n * sector..n * sector + 512].copy_from_slice(bytes);
            }
        }
        // The last byte first, so that a file that was shorter has its size; the boot sector last.
        if self.table.len() as u64 * cluster_len < self.geometry.clusters * cluster_len {
            self.write(size - 1, &[0])?;
        }
        self.write(0, &head)?;
        self.out.flush()
    }

    fn directory(&self, index: usize, label: &[u8; 11]) -> Vec<u8> {
        const DIRECTORY: u8 = 0x10;
        const LABEL: u8 = 0x08;
        let mut bytes = Vec::new();
        if index == 0 {
            bytes.extend(entry(label, LABEL, 0, 0));
        } else {
            let node = &self.nodes[index];
            // The root is cluster 0 here, even where it has a cluster.
            let parent = if node.parent == 0 { 0 } else { self.nodes[node.parent].first };
            bytes.extend(entry(b".          ", DIRECTORY, node.first, 0));
            bytes.extend(entry(b"..         ", DIRECTORY, parent, 0));
        }
        for node in self.nodes.iter().skip(1).filter(|node| node.parent == index) {
            bytes.extend(node.name.long_entries());
            let (attributes, len) = if node.is_dir { (DIRECTORY, 0) } else { (0x20, node.len) };
            bytes.extend(entry(&node.name.short, attributes, node.first, len));
        }
        bytes
    }

    fn table_bytes(&self) -> Vec<u8> {
        let g = &self.geometry;
        let mut bytes = vec![0; (g.fat_sectors * g.sector) as usize];
        let entries = [0x0fff_fff8, END].into_iter().chain(self.table.iter().copied());
        for (n, value) in entries.enumerate() {
            match g.width {
                Width::Fat32 => bytes[n * 4..n * 4 + 4].copy_from_slice(&value.to_le_bytes()),
                Width::Fat16 => bytes[n * 2..n * 2 + 2].copy_from_slice(&(value as u16).to_le_bytes()),
                Width::Fat12 => {
                    let (at, value) = (n + n / 2, (value & 0xfff) << (4 * (n % 2)));
                    bytes[at] |= value as u8;
                    bytes[at + 1] |= (value >> 8) as u8;
                }
            }
        }
        bytes
    }

    fn boot_sector(&self, label: &[u8; 11], volume_id: u32) -> [u8; 512] {
        let g = &self.geometry;
        let mut boot = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| boot[at..at + bytes.len()].copy_from_slice(bytes);
        let small = |n: u64| u16::try_from(n).unwrap_or(0).to_le_bytes();
        let fat32 = g.width == Width::Fat32;
        put(0, if fat32 { &[0xeb, 0x58, 0x90] } else { &[0xeb, 0x3c, 0x90] });
        // The name that firmware which looks at it expects.
        put(3, b"MSWIN4.1");
        put(11, &small(g.sector));
        put(13, &[g.per_cluster as u8]);
        put(14, &small(g.reserved));
        put(16, &[FATS as u8]);
        put(17, &small(if fat32 { 0 } else { ROOT_ENTRIES }));
        if !fat32 && g.sectors < 65536 {
            put(19, &small(g.sectors));
        } else {
            put(32, &(g.sectors as u32).to_le_bytes());
        }
        put(21, &[0xf8]);
        put(24, &[63, 0, 255, 0]);
        let extended = if fat32 {
            put(36, &(g.fat_sectors as u32).to_le_bytes());
            put(44, &2u32.to_le_bytes());
            put(48, &[1, 0, 6, 0]);
            64
        } else {
            put(22, &small(g.fat_sectors));
            36
        };
        put(extended, &[0x80, 0, 0x29]);
        put(extended + 3, &volume_id.to_le_bytes());
        put(extended + 7, label);
        put(
            extended + 18,
            match g.width {
                Width::Fat12 => b"FAT12   ",
                Width::Fat16 => b"FAT16   ",
                Width::Fat32 => b"FAT32   ",
            },
        );
        put(510, &[0x55, 0xaa]);
        boot
    }

    fn info_sector(&self) -> [u8; 512] {
        let used = self.table.len() as u64;
        let mut info = [0; 512];
        let mut put = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, 0x4161_5252);
        put(484, 0x6141_7272);
        put(488, (self.geometry.clusters - used) as u32);
        put(492, (used + 2) as u32);
        put(508, 0xaa55_0000);
        info
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.out.seek(SeekFrom::Start(self.base + offset)).map(drop)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(offset)?;
        write_runs(self.out, bytes, self.zeros)
    }
}

fn entry(short: &[u8; 11], attributes: u8, cluster: u64, len: u64) -> [u8; ENTRY as usize] {
    let mut entry = [0; ENTRY as usize];
    entry[..11].copy_from_slice(short);
    entry[11] = attributes;
    // Made, read, written.
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    entry[28..32].copy_from_slice(&(len as u32).to_le_bytes());
    entry
}
