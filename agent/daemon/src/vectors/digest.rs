//! The digest of what is in a recovery point: names, metadata and content of every file.
//!
//! Two machines compute it, each from its own disks, and compare. Owns: what counts, and in which order. Never: trusts what
//! was sent; follows a link out of the tree.
//!
//! What counts, of each path, in the order of the paths' bytes, directories before what is in them: kind, mode, owner,
//! group, time of the last change to the content, extended attributes (access lists are some), and the content: the
//! target of a link, the number of a device, the bytes of a file. A file's bytes are taken by chunks, those of zeros alone
//! are taken as such: whether a hole is a hole makes no difference, and none is read.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use siris_ibu::digest::Hasher;

/// Bytes of a chunk.
const CHUNK: u64 = 1 << 20;
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

/// Reads the tree below `root`, path by path.
///
/// # Errors
/// When something in it cannot be read.
pub fn tree(root: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    below(root, Path::new(""), &mut entries)?;
    Ok(entries)
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

fn below(root: &Path, path: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    let full = root.join(path);
    let metadata = fs::symlink_metadata(&full)?;
    entries.push(Entry { path: path.to_owned(), digest: one(&full, &metadata)? });
    if metadata.is_dir() {
        let mut names: Vec<OsString> =
            fs::read_dir(&full)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            below(root, &path.join(name), entries)?;
        }
    }
    Ok(())
}

/// What is put before each value is its length: no two sequences of values are the same bytes.
fn field(hasher: &mut Hasher, value: &[u8]) {
    hasher.update(&(value.len() as u64).to_le_bytes());
    hasher.update(value);
}

fn one(path: &Path, metadata: &Metadata) -> io::Result<String> {
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
        content(&mut hasher, &File::open(path)?, metadata.len())?;
    } else if kind.is_block_device() || kind.is_char_device() {
        hasher.update(&metadata.rdev().to_le_bytes());
    }
    Ok(hasher.finish().0.to_string())
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

/// Length, then each chunk: its digest, or a mark for one of zeros.
fn content(hasher: &mut Hasher, file: &File, length: u64) -> io::Result<()> {
    hasher.update(&length.to_le_bytes());
    let mut buffer = vec![0; CHUNK as usize];
    // Where data begins again; nothing of what lies before is read.
    let mut data = 0;
    let mut start = 0;
    while start < length {
        let end = (start + CHUNK).min(length);
        if data <= start {
            data = next_data(file, start, length)?;
        }
        if data >= end {
            hasher.update(&[0]);
        } else {
            let chunk = &mut buffer[..(end - start) as usize];
            file.read_exact_at(chunk, start)?;
            if chunk.iter().all(|byte| *byte == 0) {
                hasher.update(&[0]);
            } else {
                hasher.update(&[1]);
                let mut inner = Hasher::default();
                inner.update(chunk);
                hasher.update(inner.finish().0.as_bytes());
            }
        }
        start = end;
    }
    Ok(())
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
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/image"), vec![7; 3 * CHUNK as usize + 5]).unwrap();
        fs::write(dir.path().join("a.txt"), "text").unwrap();
        symlink("a.txt", dir.path().join("link")).unwrap();
        for path in ["a/image", "a.txt", "a", ""] {
            File::open(dir.path().join(path)).unwrap().set_modified(UNIX_EPOCH).unwrap();
        }
        dir
    }

    /// Without the link, whose own time cannot be set here.
    fn entries(dir: &tempfile::TempDir) -> Vec<Entry> {
        tree(dir.path()).unwrap().into_iter().filter(|entry| entry.path != Path::new("link")).collect()
    }

    fn times(dir: &tempfile::TempDir) {
        for path in ["a/image", "a.txt", "a", ""] {
            File::open(dir.path().join(path)).unwrap().set_modified(UNIX_EPOCH).unwrap();
        }
    }

    #[test]
    fn equal_trees_are_equal_and_each_change_is_found_by_its_path() {
        let (one, two) = (sample(), sample());
        assert_eq!(whole(&entries(&one)), whole(&entries(&two)));
        let paths: Vec<PathBuf> = tree(one.path()).unwrap().into_iter().map(|entry| entry.path).collect();
        assert_eq!(paths, ["", "a", "a/image", "a.txt", "link"].map(PathBuf::from));

        type Change = fn(&Path);
        let changes: [(&str, Change); 5] = [
            ("a/image", |dir| {
                let file = fs::OpenOptions::new().write(true).open(dir.join("a/image")).unwrap();
                file.write_all_at(b"x", 2 * CHUNK + 17).unwrap();
            }),
            ("a/image", |dir| {
                fs::OpenOptions::new().write(true).open(dir.join("a/image")).unwrap().set_len(7).unwrap()
            }),
            ("a.txt", |dir| fs::set_permissions(dir.join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap()),
            ("b", |dir| fs::write(dir.join("b"), "").unwrap()),
            ("a.txt", |dir| fs::remove_file(dir.join("a.txt")).unwrap()),
        ];
        for (path, change) in changes {
            let two = sample();
            change(two.path());
            let _ = fs::File::open(two.path().join("a.txt")).map(|file| file.set_modified(UNIX_EPOCH));
            for path in ["a/image", "a", ""] {
                File::open(two.path().join(path)).unwrap().set_modified(UNIX_EPOCH).unwrap();
            }
            let (ours, theirs) = (entries(&one), entries(&two));
            assert_ne!(whole(&ours), whole(&theirs), "{path}");
            assert_eq!(differences(&ours, &theirs), [Path::new(path)]);
            assert_eq!(differences(&theirs, &ours), [Path::new(path)]);
        }
        let two = sample();
        File::open(two.path().join("a.txt")).unwrap().set_modified(UNIX_EPOCH + Duration::from_nanos(1)).unwrap();
        assert_eq!(differences(&entries(&one), &entries(&two)), [Path::new("a.txt")]);
    }

    #[test]
    fn a_hole_is_zeros() {
        let (one, two) = (sample(), sample());
        let length = 5 * CHUNK + 9;
        for (dir, holes) in [(&one, true), (&two, false)] {
            let file = fs::File::create(dir.path().join("a/image")).unwrap();
            if holes {
                file.set_len(length).unwrap();
            } else {
                file.write_all_at(&vec![0; length as usize], 0).unwrap();
            }
            file.write_all_at(b"data", 3 * CHUNK + 100).unwrap();
            times(dir);
        }
        assert_eq!(whole(&entries(&one)), whole(&entries(&two)));
    }
}
