//! The machine's disks, worked on from outside while it is off.
//!
//! Owns: overlays over the image (which is never written), where its partitions lie, and faults put on an overlay.
//! Nothing is mounted, so nothing needs a loop device.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gptman::GPT;
use siris_host::cmd::Tool;

use crate::lab::Lab;

/// Where the partitions of an image lie.
#[derive(Debug)]
pub struct Partitions {
    table: GPT,
}

impl Partitions {
    /// Reads a raw image's GPT.
    ///
    /// # Errors
    /// When it has none.
    pub fn of(image: &Path) -> Result<Self> {
        let mut file = File::open(image).with_context(|| format!("open {}", image.display()))?;
        let table = GPT::find_from(&mut file).with_context(|| format!("read the GPT of {}", image.display()))?;
        Ok(Partitions { table })
    }

    /// The byte range of the partition of that name, as `siris-a`.
    ///
    /// # Errors
    /// When there is none.
    pub fn range(&self, name: &str) -> Result<Range<u64>> {
        let found = self.table.iter().find(|(_, p)| p.is_used() && p.partition_name.as_str() == name);
        let (_, partition) = found.with_context(|| format!("the image has no partition {name}"))?;
        let sector = self.table.sector_size;
        Ok(partition.starting_lba * sector..(partition.ending_lba + 1) * sector)
    }
}

/// Makes `at`, a qcow2 file that reads as `base` (`raw` or `qcow2`) until written.
///
/// # Errors
/// When it cannot be made.
pub fn overlay(lab: &Lab, base: &Path, format: &str, at: &Path, size_gib: Option<u32>) -> Result<()> {
    let cmd = lab.tool(Tool::QemuImg).args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(base).arg(at);
    let cmd = match size_gib {
        Some(size) => cmd.arg(format!("{size}G")),
        None => cmd,
    };
    Ok(cmd.run()?)
}

/// Makes `at`, a blank qcow2 disk.
///
/// # Errors
/// When it cannot be made.
pub fn blank(lab: &Lab, at: &Path, size_mib: u32) -> Result<()> {
    Ok(lab.tool(Tool::QemuImg).args(["create", "-q", "-f", "qcow2"]).arg(at).arg(format!("{size_mib}M")).run()?)
}

/// Makes `at`, a blank set of UEFI variables.
///
/// # Errors
/// When it cannot be made.
pub fn uefi_variables(lab: &Lab, at: &Path) -> Result<()> {
    let from = "/usr/share/OVMF/OVMF_VARS_4M.fd";
    Ok(lab.tool(Tool::QemuImg).args(["convert", "-f", "raw", "-O", "qcow2", from]).arg(at).run()?)
}

/// Reads from a qcow2 disk; any offset and length.
///
/// # Errors
/// When it cannot be read.
pub fn read(lab: &Lab, disk: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let first = offset / 512;
    let last = (offset + length as u64).div_ceil(512);
    let out = disk.with_extension("part");
    let dd = lab.tool(Tool::QemuImg).args(["dd", "-U", "-f", "qcow2", "-O", "raw", "bs=512"]);
    // `count` counts from the start of the input, skipped blocks included.
    dd.arg(format!("skip={first}"))
        .arg(format!("count={last}"))
        .arg(prefixed("if=", disk))
        .arg(prefixed("of=", &out))
        .run()?;
    let bytes = fs::read(&out)?;
    fs::remove_file(&out)?;
    let start = (offset - first * 512) as usize;
    let part = bytes
        .get(start..start + length)
        .with_context(|| format!("{} ends before {offset}+{length}", disk.display()))?;
    Ok(part.to_vec())
}

/// Writes into a qcow2 disk; any offset and length.
///
/// # Errors
/// When it cannot be written.
pub fn write(lab: &Lab, disk: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let from = disk.with_extension("part");
    fs::write(&from, bytes)?;
    let script = format!("write -q -s {} {offset} {}", from.display(), bytes.len());
    lab.tool(Tool::QemuIo).args(["-f", "qcow2", "-c", &script]).arg(disk).run()?;
    fs::remove_file(&from)?;
    ensure!(
        read(lab, disk, offset, bytes.len())? == bytes,
        "{} does not hold what was written at {offset}",
        disk.display()
    );
    Ok(())
}

/// Makes `to`, a raw image of all that a qcow2 disk holds.
///
/// # Errors
/// When it cannot be read or written.
pub fn raw(lab: &Lab, disk: &Path, to: &Path) -> Result<()> {
    Ok(lab.tool(Tool::QemuImg).args(["convert", "-f", "qcow2", "-O", "raw"]).arg(disk).arg(to).run()?)
}

/// The SHA-256 of all that a qcow2 disk holds, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn digest(lab: &Lab, disk: &Path) -> Result<String> {
    digest_range(lab, disk, 0..u64::MAX)
}

/// The SHA-256 of what a qcow2 disk holds within `range`, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn digest_range(lab: &Lab, disk: &Path, range: Range<u64>) -> Result<String> {
    let whole = disk.with_extension("raw");
    raw(lab, disk, &whole)?;
    let mut file = File::open(&whole)?;
    file.seek(SeekFrom::Start(range.start))?;
    let digest = siris_ibu::Sha256::of_reader(file.take(range.end - range.start))?;
    fs::remove_file(&whole)?;
    Ok(digest.to_string())
}

/// Whether a partition has the same bytes in two raw images with the same partitions.
///
/// # Errors
/// When an image cannot be read, or the partition lies elsewhere in the other.
pub fn same(one: &Path, other: &Path, name: &str) -> Result<bool> {
    let range = Partitions::of(one)?.range(name)?;
    ensure!(Partitions::of(other)?.range(name)? == range, "{name} lies elsewhere");
    let open = |path: &Path| -> Result<std::io::Take<File>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(range.start))?;
        Ok(file.take(range.end - range.start))
    };
    let (mut one, mut other) = (open(one)?, open(other)?);
    let mut buffers = [vec![0; 1 << 20], vec![0; 1 << 20]];
    loop {
        let [a, b] = &mut buffers;
        let len = one.limit().min(a.len() as u64) as usize;
        if len == 0 {
            return Ok(true);
        }
        one.read_exact(&mut a[..len])?;
        other.read_exact(&mut b[..len])?;
        if a[..len] != b[..len] {
            return Ok(false);
        }
    }
}

/// Flips every bit of one byte.
///
/// # Errors
/// When the disk cannot be read or written.
pub fn flip(lab: &Lab, disk: &Path, offset: u64) -> Result<()> {
    let byte = read(lab, disk, offset, 1)?[0];
    write(lab, disk, offset, &[!byte])
}

/// Copies a range of a raw image, leaving holes where it holds zeros.
///
/// # Errors
/// When the file cannot be read or written.
pub fn copy_range(image: &File, from: Range<u64>, to: u64) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = from.start;
    while at < from.end {
        let length = (from.end - at).min(buffer.len() as u64) as usize;
        let chunk = &mut buffer[..length];
        image.read_exact_at(chunk, at)?;
        if chunk.iter().any(|&byte| byte != 0) {
            image.write_all_at(chunk, to + (at - from.start))?;
        }
        at += length as u64;
    }
    Ok(())
}

fn prefixed(prefix: &str, path: &Path) -> PathBuf {
    PathBuf::from(format!("{prefix}{}", path.display()))
}
