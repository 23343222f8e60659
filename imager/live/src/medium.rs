//! Media: which block device is the installer's.
//!
//! Recognised by the volume name in the primary volume descriptor (ECMA-119, 8.4) of the whole device, so that CDs
//! and sticks look the same, and by the digest of the manifest that the boot loader was started with.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Volume name of an installer's medium.
pub const LABEL: &str = "SIRIS_INSTALL";
/// Where on it the bundle is.
pub const BUNDLE: &str = "siris/system.ibu";
/// Where on it answers may be.
pub const ANSWERS: &str = "install.toml";

const DESCRIPTOR: u64 = 16 * 2048;

/// The volume name of an ISO 9660 file system; `None` when it is none.
///
/// # Errors
/// When the device cannot be read: no disc in the drive, say.
pub fn volume_name(device: &mut (impl Read + Seek)) -> io::Result<Option<String>> {
    let mut descriptor = [0; 72];
    device.seek(SeekFrom::Start(DESCRIPTOR))?;
    match device.read_exact(&mut descriptor) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    // Type 1, "CD001", version 1.
    if descriptor[..7] != *b"\x01CD001\x01" {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&descriptor[40..72]).trim_end_matches([' ', '\0']).to_owned()))
}

/// Every whole device below `root` that carries the label, by kernel name.
///
/// # Errors
/// When sysfs cannot be read; a device that cannot be is passed over.
pub fn candidates(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("sys/class/block"))? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if entry.path().join("partition").exists() || ["loop", "ram", "zram", "dm-"].iter().any(|p| text.starts_with(p))
        {
            continue;
        }
        let device = root.join("dev").join(&name);
        let label = File::open(&device).and_then(|mut file| volume_name(&mut file));
        if matches!(label, Ok(Some(label)) if label == LABEL) {
            found.push(device);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(label: &str) -> Vec<u8> {
        let mut bytes = vec![0; DESCRIPTOR as usize + 2048];
        let at = DESCRIPTOR as usize;
        bytes[at..at + 7].copy_from_slice(b"\x01CD001\x01");
        bytes[at + 40..at + 72].fill(b' ');
        bytes[at + 40..at + 40 + label.len()].copy_from_slice(label.as_bytes());
        bytes
    }

    #[test]
    fn only_whole_devices_with_the_label_are_media() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("dev")).unwrap();
        for (name, bytes) in [
            ("sr0", image("SIRIS_INSTALL")),
            ("sda", image("SIRIS_INSTALL")),
            ("sda1", image("SIRIS_INSTALL")),
            ("sdb", image("DEBIAN")),
            ("sdc", vec![1; 70_000]),
            ("sdd", vec![]),
        ] {
            fs::create_dir_all(root.join("sys/class/block").join(name)).unwrap();
            fs::write(root.join("dev").join(name), bytes).unwrap();
        }
        // A drive without a disc: there is nothing to open.
        fs::create_dir_all(root.join("sys/class/block/sr1")).unwrap();
        fs::write(root.join("sys/class/block/sda1/partition"), "1\n").unwrap();
        assert_eq!(candidates(root).unwrap(), [root.join("dev/sda"), root.join("dev/sr0")]);
    }
}
