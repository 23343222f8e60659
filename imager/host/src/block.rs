//! Block devices, as sysfs and udev's links show them.
//!
//! Owns: which disk a partition is on, which partitions a disk has, their sizes. Never: opens, reads or writes a
//! device. In: the root directory below which `/sys` and `/dev` are, so that tests bring their own. Out: paths and
//! numbers, each fetched anew: nothing is remembered of hardware that comes and goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a device is not known.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// There is no such partition, or udev has not seen it yet.
    #[error("no partition has the UUID {partuuid}")]
    FindPartition {
        /// Its PARTUUID.
        partuuid: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The disk has no partition of that number.
    #[error("{} has no partition {number}", .disk.display())]
    NoPartition {
        /// The disk.
        disk: PathBuf,
        /// The number.
        number: u32,
    },
    /// Something in sysfs is absent.
    #[error("cannot read {}", .path.display())]
    ReadAttribute {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Something in sysfs is not as the kernel documents it.
    #[error("{} holds `{text}`, which is no number", .path.display())]
    ParseAttribute {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
    },
    /// The partition is on no disk.
    #[error("{} is no partition", .0.display())]
    NotAPartition(PathBuf),
}

impl BlockError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            BlockError::FindPartition { .. } | BlockError::NoPartition { .. } => "no-such-partition",
            BlockError::ReadAttribute { .. } | BlockError::ParseAttribute { .. } => "sysfs-unreadable",
            BlockError::NotAPartition(_) => "not-a-partition",
        }
    }
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    sysfs: PathBuf,
    dev: PathBuf,
}

impl Disk {
    /// The disk that has the partition with this PARTUUID.
    ///
    /// # Errors
    /// When there is no such partition below `root`, or sysfs does not know it.
    pub fn of_partition(root: &Path, partuuid: &str) -> Result<Disk, BlockError> {
        let missing = |source| BlockError::FindPartition { partuuid: partuuid.to_owned(), source };
        // udev writes its links in lower case, whatever the case of who asks.
        let link = root.join("dev/disk/by-partuuid").join(partuuid.to_ascii_lowercase());
        let target = fs::read_link(link).map_err(missing)?;
        let name = target.file_name().ok_or_else(|| missing(io::ErrorKind::InvalidData.into()))?;
        // Resolved, a partition's directory lies in that of its disk.
        let class = root.join("sys/class/block").join(name);
        let partition = fs::canonicalize(&class).map_err(read(&class))?;
        match partition.parent() {
            Some(disk) if partition.join("partition").exists() => Ok(Self::at(root, disk)),
            _ => Err(BlockError::NotAPartition(partition)),
        }
    }

    fn at(root: &Path, sysfs: &Path) -> Disk {
        let dev = root.join("dev").join(sysfs.file_name().unwrap_or_default());
        Disk { sysfs: sysfs.to_owned(), dev }
    }

    /// Its device node.
    pub fn dev(&self) -> &Path {
        &self.dev
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// When sysfs does not say.
    pub fn bytes(&self) -> Result<u64, BlockError> {
        // In units of 512 bytes whatever the sector size (Documentation/ABI/stable/sysfs-block).
        Ok(number(&self.sysfs.join("size"))?.saturating_mul(512))
    }

    /// Its logical sector size in bytes.
    ///
    /// # Errors
    /// When sysfs does not say.
    pub fn sector_bytes(&self) -> Result<u64, BlockError> {
        number(&self.sysfs.join("queue/logical_block_size"))
    }

    /// The device node of its partition `number`.
    ///
    /// # Errors
    /// When there is none.
    pub fn partition(&self, number: u32) -> Result<PathBuf, BlockError> {
        for entry in fs::read_dir(&self.sysfs).map_err(read(&self.sysfs))? {
            let path = entry.map_err(read(&self.sysfs))?.path();
            let attribute = path.join("partition");
            if attribute.exists() && self::number(&attribute)? == u64::from(number) {
                return Ok(self.dev.with_file_name(path.file_name().unwrap_or_default()));
            }
        }
        Err(BlockError::NoPartition { disk: self.dev.clone(), number })
    }
}

fn read(path: &Path) -> impl Fn(io::Error) -> BlockError {
    move |source| BlockError::ReadAttribute { path: path.to_owned(), source }
}

fn number(path: &Path) -> Result<u64, BlockError> {
    let text = fs::read_to_string(path).map_err(read(path))?;
    let text = text.trim_end();
    text.parse().map_err(|_| BlockError::ParseAttribute { path: path.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `nvme0n1` with partitions 2 and 7, and udev's link to the second one.
    fn tree(root: &Path) {
        let disk = root.join("sys/devices/pci0000:00/nvme/nvme0/nvme0n1");
        for (dir, file, text) in [
            ("queue", "logical_block_size", "4096\n"),
            ("", "size", "2097152\n"),
            ("nvme0n1p2", "partition", "2\n"),
            ("nvme0n1p7", "partition", "7\n"),
            ("holders", "none", ""),
        ] {
            fs::create_dir_all(disk.join(dir)).unwrap();
            fs::write(disk.join(dir).join(file), text).unwrap();
        }
        fs::create_dir_all(root.join("sys/class/block")).unwrap();
        fs::create_dir_all(root.join("dev/disk/by-partuuid")).unwrap();
        for (name, dir) in [("nvme0n1", ""), ("nvme0n1p7", "nvme0n1p7")] {
            symlink(disk.join(dir), root.join("sys/class/block").join(name)).unwrap();
        }
        symlink("../../nvme0n1p7", root.join("dev/disk/by-partuuid/0a0b")).unwrap();
        symlink("../../nvme0n1", root.join("dev/disk/by-partuuid/0a0c")).unwrap();
        symlink("../../sda1", root.join("dev/disk/by-partuuid/0a0d")).unwrap();
    }

    #[test]
    fn a_partition_leads_to_its_disk_and_siblings() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        tree(&root);
        let disk = Disk::of_partition(&root, "0A0B").unwrap();
        assert_eq!(disk.dev(), root.join("dev/nvme0n1"));
        assert_eq!((disk.bytes().unwrap(), disk.sector_bytes().unwrap()), (1 << 30, 4096));
        assert_eq!(disk.partition(2).unwrap(), root.join("dev/nvme0n1p2"));
        assert_eq!(disk.partition(3).unwrap_err().code(), "no-such-partition");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let code = |partuuid| Disk::of_partition(dir.path(), partuuid).unwrap_err().code();
        assert_eq!(
            (code("none"), code("0a0c"), code("0a0d")),
            ("no-such-partition", "not-a-partition", "sysfs-unreadable")
        );
    }
}
