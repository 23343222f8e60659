//! FAT file systems: made without a mount, and found one's way in without one.
//!
//! [`build`] makes the same bytes from the same files: no clock, a volume id that is given, files laid out in the
//! order they come in. [`locate`] says which bytes of the device hold a file, so that the boot environment can be
//! overwritten where it lies; [`overwrite`] does that.

mod build;
mod names;
mod walk;

#[cfg(test)]
mod tests;

pub use build::build;
pub use walk::{Extent, locate, overwrite, read};

use std::io::{self, Read};

use siris_ibu::{ByteSize, Class};

use crate::layout::SectorSize;

/// Why a FAT file system could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// A label that is empty, too long, or not upper-case ASCII.
    #[error("`{0}` is no FAT label: 1 to 11 upper-case letters, digits, `_` or `-`")]
    Label(String),
    /// No FAT has that size.
    #[error("no FAT file system has a size of {0}")]
    Size(ByteSize),
    /// A name that FAT cannot hold, or that is there already.
    #[error("`{0}` cannot be stored in a FAT file system: a name that is taken, or not made of plain ASCII")]
    Name(String),
    /// A file could not be read, or does not fit.
    #[error("storing {path} in a FAT file system of {size}")]
    Store {
        /// The file.
        path: String,
        /// Size of the file system.
        size: ByteSize,
        /// What went wrong.
        source: io::Error,
    },
    /// Writing the finished file system out failed.
    #[error("writing a FAT file system")]
    Write(#[source] io::Error),
    /// The device could not be read.
    #[error("reading a FAT file system")]
    Read(#[source] io::Error),
    /// What was read is no FAT file system, or a broken one.
    #[error("not a sound FAT file system: {0}")]
    Unsound(&'static str),
    /// There is no such file.
    #[error("no file {0} in the FAT file system")]
    NotFound(String),
    /// It is a directory.
    #[error("{0} is not a file")]
    NotAFile(String),
    /// New content must be as long as the old.
    #[error("{path} has {actual} bytes and would get {wanted}: only an equal number can be overwritten in place")]
    Length {
        /// The file.
        path: String,
        /// Its length.
        actual: u64,
        /// The length of the new content.
        wanted: u64,
    },
}

impl FatError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Label(_) => "fat-label",
            Self::Size(_) => "fat-size",
            Self::Name(_) => "fat-name",
            Self::Store { .. } => "fat-store",
            Self::Write(_) => "fat-write",
            Self::Read(_) => "fat-read",
            Self::Unsound(_) => "fat-unsound",
            Self::NotFound(_) | Self::NotAFile(_) => "fat-not-found",
            Self::Length { .. } => "fat-length",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Label(_) | Self::Length { .. } => Class::Bug,
            Self::Size(_) | Self::Name(_) | Self::Store { .. } => Class::Input,
            Self::Write(_) | Self::Read(_) => Class::Environment,
            Self::Unsound(_) | Self::NotFound(_) | Self::NotAFile(_) => Class::Host,
        }
    }
}

/// A file system to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatSpec {
    /// Its exact size.
    pub size: ByteSize,
    /// Sector size. Linux mounts no FAT whose sectors are smaller than those of the device, so what has to be good
    /// for every disk takes 4096.
    pub sector: SectorSize,
    /// Volume label.
    pub label: &'static str,
    /// Serial number.
    pub volume_id: u32,
}

/// A file to store. Directories on its path are made.
pub struct FatFile<'a> {
    /// Path from the root, with slashes.
    pub path: &'a str,
    /// What is in it.
    pub content: &'a mut dyn Read,
}
