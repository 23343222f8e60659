//! Where answers come from: the medium, a second one labelled SIRISCFG, or a system credential.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use siris_live::LIVE;

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

/// The file of a labelled medium. Mounted read-only: FAT and ISO 9660 have no journal that would be replayed.
fn from_device(device: &Path) -> Result<(String, Vec<u8>), HostError> {
    let fault = |source: io::Error| HostError::Read { path: device.to_owned(), source };
    let at = tempfile::tempdir_in("/run").map_err(fault)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let mut tried = Err(rustix::io::Errno::NODEV);
    for kind in ["vfat", "iso9660"] {
        if tried.is_err() {
            tried = mount(device, at.path(), kind, flags, None);
        }
    }
    tried.map_err(|error| fault(error.into()))?;
    let bytes = fs::read(at.path().join(FILE));
    unmount(at.path(), UnmountFlags::empty()).map_err(|error| fault(error.into()))?;
    Ok((format!("the medium labelled {LABEL}"), bytes.map_err(fault)?))
}
