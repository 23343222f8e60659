//! The machine that is installed: where its files and devices are, and the effects on it.
//!
//! Everything is found below a root directory that tests inject. Below another root than `/` devices are what a test
//! has put there, regular files too, and the fence is not there to be opened.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, major, minor};
use siris_host::cmd::{Cmd, CmdError, Tool};
use siris_ibu::Class;

use crate::facts::DiskName;

/// Why a device cannot be got at.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It cannot be opened.
    #[error("cannot open {}{}", .path.display(), busy(.source))]
    Open {
        /// The device.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is another device than the one that was observed.
    #[error("{disk} is no longer the disk that was looked at: it was taken out and put back, or another came")]
    OtherDisk {
        /// Its name.
        disk: DiskName,
    },
    /// Its fence could not be opened or closed.
    #[error("cannot make {disk} {}", if *.open { "writable" } else { "read-only again" })]
    Fence {
        /// Its name.
        disk: DiskName,
        /// What was wanted.
        open: bool,
        /// What went wrong.
        source: CmdError,
    },
    /// Something below `/sys` or `/proc` cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn busy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ResourceBusy => ": something uses it",
        _ => "",
    }
}

impl HostError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "device-open",
            Self::OtherDisk { .. } => "disk-changed",
            Self::Fence { .. } => "fence",
            Self::Read { .. } => "file-unreadable",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        Class::Host
    }
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The machine whose files are below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether this is the machine itself, not a test's.
    pub fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where the absolute path `path` lies.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, trimmed; `None` when it is not there or not readable, as sysfs attributes may be.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        let text = String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// The text of a file that has to be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&self, path: impl AsRef<Path>) -> Result<String, HostError> {
        let path = self.path(path);
        let bytes = fs::read(&path).map_err(|source| HostError::Read { path, source })?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The names in a directory, sorted; none when it is not there.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A word `key=value` of the kernel command line, or the bare word.
    pub fn boot_word(&self, key: &str) -> Option<String> {
        let line = self.text("/proc/cmdline")?;
        line.split_ascii_whitespace().find_map(|word| match word.split_once('=') {
            Some((name, value)) if name == key => Some(value.to_owned()),
            None if word == key => Some(String::new()),
            _ => None,
        })
    }

    /// The device node of a disk or partition.
    pub fn dev(&self, name: &str) -> PathBuf {
        self.path("/dev").join(name)
    }

    /// Opens a device to be read.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, name: &str) -> Result<File, HostError> {
        let path = self.dev(name);
        File::open(&path).map_err(|source| HostError::Open { path, source })
    }

    /// Opens a disk to be written, and proves that it is the one with this sequence number. A disk that anything has
    /// mounted, holds or swaps on is refused by the kernel.
    ///
    /// # Errors
    /// When it cannot be opened, is in use, or is another one.
    pub fn open_target(&self, disk: &DiskName, diskseq: Option<u64>) -> Result<File, HostError> {
        let path = self.dev(disk.as_str());
        let fault = |source| HostError::Open { path: path.clone(), source };
        let meta = fs::metadata(&path).map_err(fault)?;
        let block = meta.file_type().is_block_device();
        // Without O_CREAT, O_EXCL on a block device asks for exclusive use (open(2)).
        let flags = if block { OFlags::EXCL.bits() as i32 } else { 0 };
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).map_err(fault)?;
        if block {
            let device = file.metadata().map_err(fault)?.rdev();
            let seq = self.text(format!("/sys/dev/block/{}:{}/diskseq", major(device), minor(device)));
            if seq.and_then(|seq| seq.parse().ok()) != diskseq {
                return Err(HostError::OtherDisk { disk: disk.clone() });
            }
        }
        Ok(file)
    }

    /// Opens (or closes) the fence around one disk.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_writable(&self, disk: &DiskName, open: bool) -> Result<(), HostError> {
        let path = self.dev(disk.as_str());
        if !fs::metadata(&path).is_ok_and(|meta| meta.file_type().is_block_device()) {
            return Ok(());
        }
        let option = if open { "--setrw" } else { "--setro" };
        let run = Cmd::new(Tool::Blockdev).arg(option).arg(&path).run();
        run.map_err(|source| HostError::Fence { disk: disk.clone(), open, source })
    }
}
