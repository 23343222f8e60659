//! The slots of a machine's disk, seen and set from outside.
//!
//! Owns: GRUB's environment block on a disk that is off, a disk with both slots written, and where the pieces of a
//! slot lie that a test may want to damage.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use siris_host::cmd::{Cmd, Tool};
use siris_ibu::Manifest;
use siris_slots::device::Window;
use siris_slots::{BootEnv, fat};

use crate::deadline;
use crate::disk::{self, Partitions};
use crate::lab::Lab;
use crate::vm::{Machine, Vm};

/// GRUB's environment block is one sector pair that begins with this.
const ENV_MAGIC: &str = "# GRUB Environment Block\n";
const ENV_LENGTH: usize = 1024;

/// The variables of GRUB's environment on a disk.
pub type Environment = BTreeMap<String, String>;

/// Reads GRUB's environment.
///
/// # Errors
/// When the disk has none, or the boot state in it is not sound.
pub fn environment(machine: &Machine<'_>) -> Result<Environment> {
    let lab = machine.lab();
    let block = disk::read(lab, &machine.disk("os"), environment_offset(lab)?, ENV_LENGTH)?;
    BootEnv::parse(&block).context("read the boot state")?;
    let text = String::from_utf8(block).context("GRUB's environment is not text")?;
    ensure!(text.starts_with(ENV_MAGIC), "GRUB's environment begins otherwise: {text}");
    let pairs = text[ENV_MAGIC.len()..].lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Sets variables of GRUB's environment.
///
/// # Errors
/// When the disk has none.
pub fn set_environment(machine: &Machine<'_>, changes: &[(&str, &str)]) -> Result<()> {
    let mut variables = environment(machine)?;
    variables.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut text = ENV_MAGIC.to_owned();
    for (name, value) in &variables {
        text.push_str(&format!("{name}={value}\n"));
    }
    ensure!(text.len() <= ENV_LENGTH, "GRUB's environment is full");
    text.push_str(&"#".repeat(ENV_LENGTH - text.len()));
    disk::write(machine.lab(), &machine.disk("os"), environment_offset(machine.lab())?, text.as_bytes())
}

/// Where the environment lies: it is overwritten in place, so it lies where the image has it.
fn environment_offset(lab: &Lab) -> Result<u64> {
    file_offset(lab, "siris-esp", "siris/grubenv", 0)
}

/// Where byte `at` of a file on one of the image's FAT partitions lies on the disk.
///
/// # Errors
/// When there is no such file, or it is shorter.
pub fn file_offset(lab: &Lab, partition: &str, file: &str, at: u64) -> Result<u64> {
    let range = Partitions::of(lab.image().path())?.range(partition)?;
    let mut image = File::open(lab.image().path())?;
    let extents = fat::locate(&mut Window::new(&mut image, range.start, range.end - range.start), file)?;
    let mut before = 0;
    for extent in extents {
        if at < before + extent.len {
            return Ok(range.start + extent.offset + (at - before));
        }
        before += extent.len;
    }
    bail!("{file} on {partition} has {before} bytes, and byte {at} is wanted")
}

/// Waits until the running system has given back the try its boot has spent, which is when it is healthy; then
/// switches it off and checks on the disk.
///
/// # Errors
/// When it does not.
pub fn power_off_blessed<'a>(vm: Vm<'a>, slot: &str) -> Result<Machine<'a>> {
    // Not every console says so; the disk has the last word.
    let _ = deadline::until(Duration::from_secs(180), "the end of the boot on the console", || {
        Ok(vm.serial.text().contains("boot-complete.target").then_some(()))
    });
    std::thread::sleep(Duration::from_secs(10));
    let machine = vm.power_off()?;
    let variables = environment(&machine)?;
    let is = |name: &str, value: &str| variables.get(&format!("{slot}_{name}")).is_some_and(|v| v == value);
    ensure!(is("state", "good") && is("tries", "3"), "slot {slot} was not given its tries back: {variables:?}");
    Ok(machine)
}

/// The manifest of the image under test.
///
/// # Errors
/// When there is none.
pub fn manifest(lab: &Lab) -> Result<Manifest> {
    let bytes = lab.image().manifest().context("no manifest.toml lies beside the image")?;
    Ok(Manifest::parse(bytes)?)
}

/// The image under test with slot B written like slot A and committed, as after an upgrade to the same release.
///
/// # Errors
/// When it cannot be made.
pub fn two_slots(lab: &Lab) -> Result<PathBuf> {
    let _one_at_a_time = lab.snapshots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = lab.cache().join(format!("two-slots-{}.raw", lab.image().identity()));
    if path.exists() {
        return Ok(path);
    }
    let half = path.with_extension("half");
    Cmd::new(Tool::Cp).args(["--sparse=always", "--reflink=auto"]).arg(lab.image().path()).arg(&half).run()?;
    let file = File::options().read(true).write(true).open(&half)?;
    let partitions = Partitions::of(lab.image().path())?;
    for (from, to) in [("siris-boot-a", "siris-boot-b"), ("siris-a", "siris-b")] {
        let (from, to) = (partitions.range(from)?, partitions.range(to)?);
        ensure!(from.end - from.start == to.end - to.start, "the slots differ in size");
        disk::copy_range(&file, from, to.start)?;
    }
    drop(file);
    fs::rename(&half, &path)?;
    Ok(path)
}

/// Something of slot A that a flipped bit can ruin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The superblock before the hash tree.
    VeritySuperblock,
    /// The file system's superblock.
    ErofsSuperblock,
    /// The first hash of a level of the tree, counted from the top.
    TreeLevel(usize),
    /// The first block of the program that is process 1.
    Init,
    /// A block of a file that nothing reads while booting.
    Cold,
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
}

/// The file that nothing reads while booting.
pub const COLD_FILE: &str = "/usr/share/misc/pci.ids";
const INIT_FILE: &str = "/usr/lib/systemd/systemd";
const BLOCK: u64 = 4096;

/// Where a byte of that piece lies on the disk.
///
/// # Errors
/// When the image has no such piece.
pub fn locate(lab: &Lab, piece: Piece) -> Result<u64> {
    let root = Partitions::of(lab.image().path())?.range("siris-a")?.start;
    let tree = root + manifest(lab)?.verity.data_len();
    match piece {
        Piece::VeritySuperblock => Ok(tree),
        Piece::ErofsSuperblock => Ok(root + 1024 + 4),
        Piece::TreeLevel(level) => {
            let levels = tree_levels(manifest(lab)?.verity.data_blocks);
            ensure!(level < levels.len(), "the tree has {} levels", levels.len());
            let above: u64 = levels.iter().take(level).sum();
            Ok(tree + (1 + above) * BLOCK)
        }
        Piece::Init => Ok(root + extent(lab, root, INIT_FILE)?.0 + 24),
        Piece::Cold => {
            let (start, length) = extent(lab, root, COLD_FILE)?;
            Ok(root + start + length / 2)
        }
        Piece::Kernel => file_offset(lab, "siris-boot-a", "vmlinuz", 3_000_000),
        Piece::Initrd => file_offset(lab, "siris-boot-a", "initrd", 3_000_000),
    }
}

/// Blocks of each level of a hash tree over that many blocks, from the top: 128 digests to a block.
pub fn tree_levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = vec![data_blocks.div_ceil(128)];
    while levels[0] > 1 {
        levels.insert(0, levels[0].div_ceil(128));
    }
    levels
}

/// Where a file of the root lies within it: start and length of its first extent.
fn extent(lab: &Lab, root: u64, file: &str) -> Result<(u64, u64)> {
    let dump = lab.tool(Tool::DumpErofs).arg(format!("--offset={root}")).arg(format!("--path={file}")).arg("-e");
    let text = dump.arg(lab.image().path()).text()?;
    first_extent(&text).with_context(|| format!("no extent of {file} in: {text}"))
}

/// Reads the first row of dump.erofs's table: number, logical range, length, physical range, length.
fn first_extent(text: &str) -> Option<(u64, u64)> {
    let row = text.lines().find(|line| line.trim_start().starts_with("0:"))?;
    let physical = row.split('|').nth(1)?.split_once(':')?.1;
    let (start, end) = physical.split_once("..")?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::{first_extent, tree_levels};

    #[test]
    fn levels_are_counted_from_the_top() {
        assert_eq!(tree_levels(128), [1]);
        assert_eq!(tree_levels(129), [1, 2]);
        assert_eq!(tree_levels(300_000), [1, 19, 2344]);
    }

    #[test]
    fn an_extent_is_read_from_the_table() {
        let text = "\n Ext:   logical offset   |  length :     physical offset    |  length \n   \
                    0:        0..   98304 |   98304 :    4096000.. 4194304 |   98304 \n/usr/x: 1 extents found\n";
        assert_eq!(first_extent(text), Some((4_096_000, 98_304)));
        assert_eq!(first_extent("nothing"), None);
    }
}
