//! FAT file systems: made without a mount, and found one's way in without one.
//!
//! [`build`] makes the same bytes from the same files: no clock, a volume id that is given, files laid out in the
//! order they come in. [`locate`] says which bytes of the device hold a file, so that the boot environment can be
//! overwritten where it lies; [`overwrite`] does that.

mod sparse;
mod walk;

#[cfg(test)]
mod tests;

pub use walk::{Extent, locate, overwrite, read};

use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use siris_ibu::{ByteSize, Class};

use crate::device::Zeros;
use crate::layout::SectorSize;
use sparse::Sparse;

/// Why a FAT file system could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// A label that is empty, too long, or not upper-case ASCII.
    #[error("`{0}` is no FAT label: 1 to 11 upper-case letters, digits, `_` or `-`")]
    Label(String),
    /// Making an empty file system failed.
    #[error("making a FAT file system of {size}")]
    Format {
        /// Its size.
        size: ByteSize,
        /// What went wrong.
        source: io::Error,
    },
    /// A file could not be stored: it does not fit, or its name will not do.
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
            Self::Format { .. } => "fat-format",
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
            Self::Format { .. } | Self::Store { .. } => Class::Input,
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

/// FAT32 needs more clusters than this.
const FAT32_CLUSTERS: u64 = 66_000;
const LARGEST_CLUSTER: u64 = 4096;

/// Makes a file system of exactly `spec.size` bytes from `files`, and writes it to `out` from where that stands.
pub fn build<W: Write + Seek + ?Sized>(
    out: &mut W,
    spec: &FatSpec,
    files: &mut [FatFile<'_>],
    zeros: Zeros,
) -> Result<(), FatError> {
    let size = spec.size;
    let format = |source| FatError::Format { size, source };
    let mut image = Sparse::new(size.bytes());
    fatfs::format_volume(&mut image, options(spec)?).map_err(format)?;
    image.seek(SeekFrom::Start(0)).map_err(format)?;
    let fs = FileSystem::new(&mut image, FsOptions::new().update_accessed_date(false)).map_err(format)?;
    for file in files {
        let path = file.path;
        store(&fs, file).map_err(|source| FatError::Store { path: path.to_owned(), size, source })?;
    }
    fs.unmount().map_err(format)?;
    image.write_to(out, zeros).map_err(FatError::Write)
}

/// FAT32 where the size allows it, as the UEFI specification wants of a system partition; FAT16 or FAT12 else, which
/// firmware reads all the same.
fn options(spec: &FatSpec) -> Result<FormatVolumeOptions, FatError> {
    let (size, sector) = (spec.size.bytes(), spec.sector.bytes());
    let fits = |cluster: &u64| *cluster >= sector && size / cluster >= FAT32_CLUSTERS;
    let cluster = [LARGEST_CLUSTER, 2048, 1024, 512].into_iter().find(fits);
    let mut label = [b' '; 11];
    let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if spec.label.is_empty() || spec.label.len() > label.len() || !spec.label.bytes().all(allowed) {
        return Err(FatError::Label(spec.label.to_owned()));
    }
    label[..spec.label.len()].copy_from_slice(spec.label.as_bytes());
    let options = FormatVolumeOptions::new()
        // Both sizes fit a u16.
        .bytes_per_sector(sector as u16)
        .volume_id(spec.volume_id)
        .volume_label(label);
    Ok(match cluster {
        Some(cluster) => options.fat_type(FatType::Fat32).bytes_per_cluster(cluster as u32),
        None => options.bytes_per_cluster(LARGEST_CLUSTER as u32),
    })
}

fn store(fs: &FileSystem<&mut Sparse>, file: &mut FatFile<'_>) -> io::Result<()> {
    let mut dir = fs.root_dir();
    let mut parts = file.path.split('/').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_some() {
            dir = dir.create_dir(part)?;
            continue;
        }
        if dir.open_file(part).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut stored = dir.create_file(part)?;
        io::copy(file.content, &mut stored)?;
        stored.flush()?;
    }
    Ok(())
}
