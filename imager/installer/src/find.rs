//! Where answers come from: the medium, a second one labelled SIRISCFG, or a system credential.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use siris_live::LIVE;
use siris_slots::fat;

use crate::host::{Host, HostError};

/// Volume label of a medium that carries answers alone.
pub const LABEL: &str = "SIRISCFG";
const FILE: &str = "install.toml";
const CREDENTIAL: &str = "/run/credentials/@system/siris.install";

/// The answers, and where they were found; none when nobody gave any.
///
/// # Errors
/// When there are some that cannot be read: what was not meant must not be installed instead.
pub fn answers(host: &Host) -> Result<Option<(String, Vec<u8>)>, HostError> {
    if let Some(found) = read(&host.path(LIVE).join(FILE), "the installer's medium")? {
        return Ok(Some(found));
    }
    let device = host.path("/dev/disk/by-label").join(LABEL);
    if device.exists() {
        return from_device(&device).map(Some);
    }
    read(&host.path(CREDENTIAL), "the credential siris.install")
}

fn read(path: &Path, from: &str) -> Result<Option<(String, Vec<u8>)>, HostError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some((from.to_owned(), bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HostError::Read { path: path.to_owned(), source }),
    }
}

/// The file of a labelled medium: read off a FAT as it lies, or from an ISO 9660 file system mounted read-only, which has
/// no journal that would be replayed.
fn from_device(device: &Path) -> Result<(String, Vec<u8>), HostError> {
    let fault = |source: io::Error| HostError::Read { path: device.to_owned(), source };
    let from = format!("the medium labelled {LABEL}");
    let mut dev = File::open(device).map_err(fault)?;
    if let Ok(bytes) = fat::read(&mut dev, FILE) {
        return Ok((from, bytes));
    }
    let at = tempfile::tempdir_in("/run").map_err(fault)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(device, at.path(), "iso9660", flags, None).map_err(|error| fault(error.into()))?;
    let bytes = fs::read(at.path().join(FILE));
    unmount(at.path(), UnmountFlags::empty()).map_err(|error| fault(error.into()))?;
    Ok((from, bytes.map_err(fault)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use siris_ibu::ByteSize;
    use siris_slots::SectorSize;
    use siris_slots::device::Zeros;
    use siris_slots::fat::{FatFile, FatSpec};

    use super::*;
    use crate::testbox::TestBox;

    #[test]
    fn the_medium_goes_first_then_a_labelled_one_then_the_credential() {
        let machine = TestBox::new();
        let found = || answers(&machine.host).unwrap().map(|(_, bytes)| bytes);
        assert_eq!(found(), None);
        machine.put(CREDENTIAL, b"credential");
        assert_eq!(found().unwrap(), b"credential");

        let path = machine.disk("sdz", 8);
        let spec = FatSpec { size: ByteSize::mib(8), sector: SectorSize::S512, label: LABEL, volume_id: 1 };
        let mut content = &b"labelled"[..];
        let mut files = [FatFile { path: FILE, content: &mut content }];
        let mut dev = File::options().read(true).write(true).open(&path).unwrap();
        fat::build(&mut dev, &spec, &mut files, Zeros::Skip).unwrap();
        fs::create_dir_all(machine.path("/dev/disk/by-label")).unwrap();
        symlink(&path, machine.path("/dev/disk/by-label").join(LABEL)).unwrap();
        assert_eq!(found().unwrap(), b"labelled");

        machine.put(&format!("{LIVE}/{FILE}"), b"medium");
        assert_eq!(found().unwrap(), b"medium");
    }

    #[test]
    fn a_labelled_medium_without_answers_is_no_reason_to_take_others() {
        let machine = TestBox::new();
        machine.put(CREDENTIAL, b"credential");
        machine.put(&format!("/dev/disk/by-label/{LABEL}"), &[0; 4096]);
        assert_eq!(answers(&machine.host).unwrap_err().code(), "file-unreadable");
    }
}
