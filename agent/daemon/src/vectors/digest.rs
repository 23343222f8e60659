//! The digest of what is in a recovery point: names, metadata and content of every file.
//!
//! Two machines compute it, each from its own disks, and compare. Owns: what counts, and in which order. Never: trusts what
//! was sent; follows a link out of the tree.
//!
//! Each end may keep what it has read ([`kept`]), and read the next time only what ZFS says was written since ([`stream`],
//! [`since`]). The digests are the same either way, so that one end may have read all and the other one little. Names and
//! metadata are always read, and where holes are: a chunk that was data and is a hole now, or the other way round, is found
//! even where ZFS does not say so. What was not written since is not read, and what rots there is not found.
//!
//! What counts, of each path, in the order of the paths' bytes, directories before what is in them: kind, mode, owner,
//! group, time of the last change to the content, extended attributes (access lists are some), and the content: the
//! target of a link, the number of a device, the bytes of a file. A file's bytes are taken by chunks, those of zeros alone
//! are taken as such: whether a hole is a hole makes no difference, and none is read.

pub mod kept;
pub mod since;
pub mod stream;

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use siris_ibu::digest::{Hasher, Sha256};

use kept::{Chunk, Incarnation, Keeping};
use since::Since;

/// Bytes of a chunk.
pub(super) const CHUNK: u64 = 1 << 20;
/// Longest list of names of extended attributes, and longest value (xattr(7)).
const XATTRS: usize = 64 << 10;

/// The digest of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path below the tree's root; empty for the root.
    pub path: PathBuf,
    /// SHA-256 of what counts of it, in hexadecimal digits.
    pub digest: String,
}

/// How much of a snapshot is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Whole,
    /// What was written since it was read last; all where that is not known.
    Changed,
}

/// Bytes of files' content, by whole chunks; holes are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// That were read.
    pub read: u64,
    /// That there are.
    pub data: u64,
}

/// What an end has in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Of each path.
    pub entries: Vec<Entry>,
    /// How much was read for it; `None` where the end does not say.
    pub amount: Option<Amount>,
}

/// A tree on its way to be digested.
#[derive(Default)]
pub struct Reading {
    /// What is known of it without reading it.
    since: Option<Since>,
    keeping: Option<Keeping>,
    entries: Vec<Entry>,
    amount: Amount,
}

impl Reading {
    /// Of a tree of which this is known without reading it; what is read is kept as well.
    pub fn new(since: Option<Since>, keeping: Option<Keeping>) -> Self {
        Reading { since, keeping, ..Reading::default() }
    }

    /// Reads the tree below `root`, path by path.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub fn tree(&mut self, root: &Path) -> io::Result<()> {
        self.below(root, Path::new(""))
    }

    /// What was read, to be kept for the next time.
    pub fn done(self) -> (Digests, Option<Keeping>) {
        (Digests { entries: self.entries, amount: Some(self.amount) }, self.keeping)
    }

    fn below(&mut self, root: &Path, path: &Path) -> io::Result<()> {
        let full = root.join(path);
        let metadata = fs::symlink_metadata(&full)?;
        let digest = self.one(&full, &metadata)?;
        self.entries.push(Entry { path: path.to_owned(), digest });
        if metadata.is_dir() {
            let mut names: Vec<OsString> =
                fs::read_dir(&full)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
            names.sort();
            for name in names {
                self.below(root, &path.join(name))?;
            }
        }
        Ok(())
    }

    fn one(&mut self, path: &Path, metadata: &Metadata) -> io::Result<String> {
        let mut hasher = Hasher::default();
        // Kind and permissions.
        hasher.update(&metadata.mode().to_le_bytes());
        hasher.update(&metadata.uid().to_le_bytes());
        hasher.update(&metadata.gid().to_le_bytes());
        hasher.update(&metadata.mtime().to_le_bytes());
        hasher.update(&metadata.mtime_nsec().to_le_bytes());
        let attributes = attributes(path)?;
        hasher.update(&(attributes.len() as u64).to_le_bytes());
        for (name, value) in attributes {
            field(&mut hasher, &name);
            field(&mut hasher, &value);
        }
        let kind = metadata.file_type();
        if kind.is_symlink() {
            field(&mut hasher, fs::read_link(path)?.as_os_str().as_bytes());
        } else if kind.is_file() {
            self.content(&mut hasher, &File::open(path)?, metadata)?;
        } else if kind.is_block_device() || kind.is_char_device() {
            hasher.update(&metadata.rdev().to_le_bytes());
        }
        Ok(hasher.finish().0.to_string())
    }

    /// Length, then each chunk: its digest, or a mark for one of zeros.
    fn content(&mut self, hasher: &mut Hasher, file: &File, metadata: &Metadata) -> io::Result<()> {
        let length = metadata.len();
        hasher.update(&length.to_le_bytes());
        let mut known = self.since.as_mut().and_then(|since| since.file(metadata));
        let incarnation = Incarnation::of(metadata);
        let mut keeping = self.keeping.as_mut().zip(incarnation);
        if let Some((keeping, incarnation)) = &mut keeping {
            keeping.file(incarnation, length);
        }
        let mut buffer = Vec::new();
        // Where data begins again; nothing of what lies before is read.
        let mut data = 0;
        let mut start = 0;
        while start < length {
            let end = (start + CHUNK).min(length);
            if data <= start {
                data = next_data(file, start, length)?;
            }
            let before = known.as_mut().and_then(|known| known.next(start..end));
            let chunk = match before {
                _ if data >= end => Chunk::Hole,
                Some(before @ (Chunk::Zeros | Chunk::Data(_))) => before,
                Some(Chunk::Hole) | None => {
                    buffer.resize(CHUNK as usize, 0);
                    self.amount.read += end - start;
                    read_chunk(file, start, &mut buffer[..(end - start) as usize])?
                }
            };
            if chunk != Chunk::Hole {
                self.amount.data += end - start;
            }
            match &chunk {
                Chunk::Hole | Chunk::Zeros => hasher.update(&[0]),
                Chunk::Data(digest) => {
                    hasher.update(&[1]);
                    hasher.update(digest.as_bytes());
                }
            }
            if let Some((keeping, _)) = &mut keeping {
                keeping.chunk(&chunk);
            }
            start = end;
        }
        Ok(())
    }
}

/// The digest of a whole tree.
pub fn whole(entries: &[Entry]) -> String {
    let mut hasher = Hasher::default();
    for entry in entries {
        field(&mut hasher, entry.path.as_os_str().as_bytes());
        field(&mut hasher, entry.digest.as_bytes());
    }
    hasher.finish().0.to_string()
}

/// Paths that differ between two trees, in order: changed, or in one of them only.
pub fn differences<'a>(ours: &'a [Entry], theirs: &'a [Entry]) -> Vec<&'a Path> {
    let (mut ours, mut theirs) = (ours.iter().peekable(), theirs.iter().peekable());
    let mut found = Vec::new();
    loop {
        let first = match (ours.peek(), theirs.peek()) {
            (None, None) => return found,
            (Some(our), Some(their)) if our.path == their.path => {
                if our.digest != their.digest {
                    found.push(our.path.as_path());
                }
                ours.next();
                theirs.next();
                continue;
            }
            (Some(our), Some(their)) if order(&our.path, &their.path) => ours.next(),
            (Some(_), None) => ours.next(),
            (_, Some(_)) => theirs.next(),
        };
        found.extend(first.map(|entry| entry.path.as_path()));
    }
}

/// Whether the first path comes before the second: component by component, as a tree is walked.
fn order(a: &Path, b: &Path) -> bool {
    a.components().map(|part| part.as_os_str().as_bytes()).lt(b.components().map(|part| part.as_os_str().as_bytes()))
}

/// What is put before each value is its length: no two sequences of values are the same bytes.
fn field(hasher: &mut Hasher, value: &[u8]) {
    hasher.update(&(value.len() as u64).to_le_bytes());
    hasher.update(value);
}

/// Names and values, by name.
fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; XATTRS];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        // A file system without any.
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut names: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        let mut value = vec![0; XATTRS];
        let length = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(length);
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

fn read_chunk(file: &File, start: u64, chunk: &mut [u8]) -> io::Result<Chunk> {
    file.read_exact_at(chunk, start)?;
    let is_zeros = chunk.iter().all(|byte| *byte == 0);
    Ok(if is_zeros { Chunk::Zeros } else { Chunk::Data(Sha256::of(chunk)) })
}

fn next_data(file: &File, at: u64, length: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data),
        // None up to the end.
        Err(Errno::NXIO) => Ok(length),
        // A file system that does not tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(at),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
