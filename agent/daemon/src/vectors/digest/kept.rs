//! What this end has read of a dataset last, kept so that only what changed has to be read again.
//!
//! Owns: the files below [`DIGESTS`], one for each dataset, named by its pool and its guid (two pools that were one once have
//! the same guids), and how much room they take in all. A file is
//! written as it is read, and replaces the one before in one step. It is a saving and nothing else: whatever is odd about it
//! makes it one of which nothing is known. Never: says something of a dataset or a snapshot other than its own.
//!
//! Form, numbers in little-endian order: the text `SIRISDIG`; version (u32); bytes of a chunk; guids of dataset and snapshot;
//! the snapshot's transaction group (u64 each): one that is received anew has the same guid, and another group. Of each file a 1 (u8), its inode, the seconds (u64) and nanoseconds (u32) of its birth, bytes of a
//! block, length (u64 each), and of each chunk: 0 for a hole, 1 and the SHA-256 of it, or 2 for zeros that are no hole. Then
//! a 0, and the SHA-256 of all before.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use siris_ibu::digest::{Hasher, Sha256};
use siris_zfs::{Guid, Snapshot};
use tempfile::NamedTempFile;

use super::CHUNK;
use crate::root::Root;

/// Where they are.
pub const DIGESTS: &str = "/var/lib/siris/digests";
/// Bytes that all of them take at most: of two terabytes of data. The oldest go first.
const ROOM: u64 = 64 << 20;
const MAGIC: &[u8; 8] = b"SIRISDIG";
const VERSION: u32 = 1;
const FILE: u8 = 1;
const LAST: u8 = 0;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing is stored for it: zeros.
    Hole,
    /// Zeros, stored.
    Zeros,
    /// Anything else, with this digest.
    Data(Sha256),
}

/// Which file an inode stands for, and how it is stored. Another file that gets the inode later was born later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    inode: u64,
    born: (u64, u32),
    block: u64,
}

impl Incarnation {
    /// Of a file; `None` where its file system does not say when it was born.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let born = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let (inode, block) = (metadata.ino(), metadata.blksize());
        Some(Incarnation { inode, born: (born.as_secs(), born.subsec_nanos()), block })
    }

    /// Its inode: the number of its object.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

/// Makes the directory that they are in, unless it is there.
///
/// # Errors
/// When it cannot be made.
pub fn make_dir(root: &Root) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(root.path(DIGESTS))
}

/// Where the file of a dataset is.
fn place(root: &Root, pool: &str, dataset: Guid) -> PathBuf {
    root.path(DIGESTS).join(format!("{pool}-{dataset}"))
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Numbers from a reader.
trait Numbers: Read {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map(|()| bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn file(&mut self) -> io::Result<(Incarnation, u64)> {
        let (inode, born) = (self.u64()?, (self.u64()?, self.u32()?));
        Ok((Incarnation { inode, born, block: self.u64()? }, self.u64()?))
    }

    fn chunk(&mut self) -> io::Result<Chunk> {
        match self.array()? {
            [0] => Ok(Chunk::Hole),
            [1] => self.array().map(|digest| Chunk::Data(Sha256::from_bytes(digest))),
            [2] => Ok(Chunk::Zeros),
            _ => Err(odd("a chunk of no known kind")),
        }
    }
}

impl<R: Read> Numbers for R {}

/// Hashes and counts what is read.
struct Counting<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// What was read of a snapshot.
#[derive(Debug)]
pub struct Kept {
    snapshot: Guid,
    createtxg: u64,
    file: BufReader<File>,
    /// Where each inode's part begins, in bytes.
    places: HashMap<u64, u64>,
}

impl Kept {
    /// What is kept of a dataset; `None` when nothing is.
    ///
    /// # Errors
    /// When it cannot be read, or there is something odd about it.
    pub fn open(root: &Root, pool: &str, dataset: Guid) -> io::Result<Option<Self>> {
        let file = match File::open(place(root, pool, dataset)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut all = Counting { inner: BufReader::new(&file), hasher: Hasher::default(), count: 0 };
        if (&all.array()?, all.u32()?, all.u64()?) != (MAGIC, VERSION, CHUNK) {
            return Err(odd("of another version"));
        }
        if all.u64()? != dataset.as_u64() {
            return Err(odd("of another dataset"));
        }
        let (snapshot, createtxg, mut places) = (Guid::new(all.u64()?), all.u64()?, HashMap::new());
        loop {
            let at = all.count;
            match all.array()? {
                [LAST] => break,
                [FILE] => {
                    let (file, length) = all.file()?;
                    places.insert(file.inode, at);
                    for _ in 0..length.div_ceil(CHUNK) {
                        all.chunk()?;
                    }
                }
                _ => return Err(odd("a part of no known kind")),
            }
        }
        let computed = std::mem::take(&mut all.hasher).finish().0;
        if computed.as_bytes() != &all.array()? || all.read(&mut [0])? != 0 {
            return Err(odd("it is not what was written"));
        }
        Ok(Some(Kept { snapshot, createtxg, file: BufReader::new(file), places }))
    }

    /// The snapshot of which it is: its guid, and its transaction group.
    pub fn snapshot(&self) -> (Guid, u64) {
        (self.snapshot, self.createtxg)
    }

    /// What was read of a file; `None` where nothing was, or of another one that had its inode.
    pub fn file(&mut self, file: &Incarnation) -> Option<Chunks<'_>> {
        let at = *self.places.get(&file.inode)?;
        // What cannot be read any more is read from the snapshot.
        self.file.seek(SeekFrom::Start(at + 1)).ok()?;
        let (was, length) = self.file.file().ok()?;
        (was == *file).then_some(Chunks { file: &mut self.file, at: 0, length })
    }
}

/// The chunks of a file, from its beginning on.
#[derive(Debug)]
pub struct Chunks<'a> {
    file: &'a mut BufReader<File>,
    at: u64,
    length: u64,
}

impl Chunks<'_> {
    /// The next chunk, which is to end there; `None` where the file ended elsewhere, or nothing is known.
    pub fn next(&mut self, end: u64) -> Option<Chunk> {
        if self.at >= self.length {
            return None;
        }
        let Ok(chunk) = self.file.chunk() else {
            self.length = 0;
            return None;
        };
        self.at = (self.at + CHUNK).min(self.length);
        (self.at == end).then_some(chunk)
    }
}

/// What is being read, on its way to be kept.
pub struct Keeping {
    place: PathBuf,
    out: BufWriter<NamedTempFile>,
    hasher: Hasher,
    count: u64,
    /// Why nothing is kept in the end.
    failed: Option<io::Error>,
}

impl Keeping {
    /// Begins to keep what is read of a snapshot.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn begin(root: &Root, pool: &str, dataset: Guid, snapshot: &Snapshot) -> io::Result<Self> {
        let place = place(root, pool, dataset);
        make_dir(root)?;
        let out = BufWriter::new(tempfile::Builder::new().prefix(".new-").tempfile_in(root.path(DIGESTS))?);
        let mut keeping = Keeping { place, out, hasher: Hasher::default(), count: 0, failed: None };
        keeping.put(MAGIC);
        keeping.put(&VERSION.to_le_bytes());
        keeping.numbers(&[CHUNK, dataset.as_u64(), snapshot.guid.as_u64(), snapshot.createtxg]);
        Ok(keeping)
    }

    /// A file follows, with its chunks.
    pub fn file(&mut self, file: &Incarnation, length: u64) {
        self.put(&[FILE]);
        self.numbers(&[file.inode, file.born.0]);
        self.put(&file.born.1.to_le_bytes());
        self.numbers(&[file.block, length]);
    }

    /// Its next chunk.
    pub fn chunk(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Hole => self.put(&[0]),
            Chunk::Zeros => self.put(&[2]),
            Chunk::Data(digest) => {
                self.put(&[1]);
                self.put(digest.as_bytes());
            }
        }
    }

    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.put(&number.to_le_bytes()));
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.count += bytes.len() as u64;
        self.hasher.update(bytes);
        let written = match self.count > ROOM {
            true => Err(io::Error::other(format!("there is more than fits in {ROOM} bytes"))),
            false => self.out.write_all(bytes),
        };
        self.failed = written.err();
    }

    /// Keeps it from now on, instead of what was kept before.
    ///
    /// # Errors
    /// When it cannot be written, or is too much. What was kept before stays.
    pub fn finish(mut self) -> io::Result<()> {
        self.put(&[LAST]);
        let digest = std::mem::take(&mut self.hasher).finish().0;
        self.put(digest.as_bytes());
        if let Some(error) = self.failed {
            return Err(error);
        }
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        let dir = self.place.parent().unwrap_or(Path::new("/"));
        make_room(dir, &[&self.place, file.path()], ROOM.saturating_sub(self.count))?;
        file.persist(&self.place)?;
        File::open(dir)?.sync_all()
    }
}

/// Removes the oldest files until those that are left take no more than `room` bytes, beside those that are `spared`. What a
/// process that was killed has left is among them.
fn make_room(dir: &Path, spared: &[&Path], room: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Another one may just have been replaced.
        let Ok(metadata) = entry.metadata() else { continue };
        if !spared.contains(&&*entry.path()) {
            files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut taken: u64 = files.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in files {
        if taken <= room {
            break;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => taken -= length,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
