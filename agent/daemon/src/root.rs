//! Where the agent's files are, below a root that tests inject.
//!
//! Owns: reading files that may be absent, and replacing files so that a power cut leaves the old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The agent's own settings, made by the image build from the profile.
pub const SETTINGS: &str = "/usr/lib/siris/agent.toml";
/// The box's configuration.
pub const CONFIG: &str = "/etc/siris/config.toml";
/// UUID of the box.
pub const DEVICE_ID: &str = "/var/lib/siris/device-id";
/// ZFS host id of the box, eight hex digits.
pub const HOST_ID: &str = "/var/lib/siris/hostid";
/// A crypt(5) hash for root that the installer was given.
pub const PASSWORD_HASH: &str = "/var/lib/siris/root-password-hash";
/// The signed receipt of the install.
pub const RECEIPT: &str = "/var/lib/siris/receipts/install.json";
/// Where receipts are.
pub const RECEIPTS: &str = "/var/lib/siris/receipts";
/// Files of systemd-networkd that the installer or the operator has put there.
pub const NETWORK: &str = "/etc/siris/network";
/// Pools the box is to have.
pub const POOLS: &str = "/var/lib/siris/pools.toml";
/// What `import-pools` did in this boot.
pub const BOOT_IMPORTS: &str = "/run/siris/boot-imports.toml";
/// Why the last try to keep the escrow failed.
pub const ESCROW_FAULT: &str = "/run/siris/escrow-fault";
/// Its existence says that what makes the box itself has changed since it was last kept on the pools.
pub const ESCROW_WANTED: &str = "/run/siris/escrow-wanted";
/// Faults that `provision` found in this boot.
pub const PROVISION_FAULTS: &str = "/run/siris/provision-faults";

/// The root directory everything is found under: `/`, or a test's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The root at `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Root(dir.into())
    }

    /// Whether this is the machine's own root, so that effects beyond files (host name, chown) are wanted.
    pub fn is_machine(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Where the absolute path `path` lies.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// As [`Root::ensure`], for a file that makes the box itself: if it changed, it is to be kept on the pools.
    ///
    /// # Errors
    /// When the file cannot be written; the old one stays.
    pub fn ensure_kept(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        if self.ensure(path, bytes, mode)? {
            self.want_kept();
        }
        Ok(())
    }

    /// Leaves word that what makes the box itself has changed, and is to be kept on the pools.
    pub fn want_kept(&self) {
        if let Err(error) = self.write(ESCROW_WANTED, b"", 0o644) {
            // It is kept at the next boot at the latest.
            eprintln!("cannot ask for the box's identity to be kept on its pools: {error}");
        }
    }

    /// Removes a file that may be absent.
    ///
    /// # Errors
    /// When it is still there.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file's text; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read as text.
    pub fn read(&self, path: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file's content, making directories on the way. Atomic: temporary file, fsync, rename, fsync.
    ///
    /// # Errors
    /// When the directory cannot be written. The old file is then unchanged.
    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let target = self.path(path);
        let dir = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = dir.join(format!(".{name}.new"));
        let result = replace(&temporary, &target, content, mode);
        if result.is_err() {
            // Left behind it would only be in the way of people; the error that matters is the first one.
            let _ = fs::remove_file(&temporary);
        }
        result?;
        File::open(dir)?.sync_all()
    }

    /// Like [`Root::write`], unless the file already has this content and mode; says whether it wrote.
    ///
    /// # Errors
    /// As [`Root::write`].
    pub fn ensure(&self, path: &str, content: &[u8], mode: u32) -> io::Result<bool> {
        let target = self.path(path);
        let same = fs::read(&target).is_ok_and(|old| old == content);
        if same && fs::metadata(&target)?.permissions().mode() & 0o7777 == mode {
            return Ok(false);
        }
        self.write(path, content, mode)?;
        Ok(true)
    }
}

fn replace(temporary: &Path, target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(temporary)?;
    // The mode given to open is cut by the umask, and not given at all to a left-over file.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    let (old, new) = (fs::metadata(target), file.metadata()?);
    // /etc/shadow is of group shadow. Where nothing is to change nothing is asked: the daemon may not chown at all.
    if let Ok(old) = old
        && (old.uid(), old.gid()) != (new.uid(), new.gid())
    {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ensure_writes_once_and_repairs_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(root.ensure("/var/lib/siris/x", b"1", 0o600).unwrap());
        assert!(!root.ensure("/var/lib/siris/x", b"1", 0o600).unwrap());
        assert!(root.ensure("/var/lib/siris/x", b"1", 0o644).unwrap());
        assert_eq!(root.read("/var/lib/siris/x").unwrap().as_deref(), Some("1"));
        assert_eq!(fs::read_dir(root.path("/var/lib/siris")).unwrap().count(), 1, "a temporary file is left");
        assert_eq!(root.read("/absent").unwrap(), None);
    }

    #[test]
    fn a_change_of_what_makes_the_box_itself_leaves_word() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root.ensure_kept("/etc/siris/config.toml", b"1", 0o644).unwrap();
        assert!(root.path(ESCROW_WANTED).exists());
        root.remove(ESCROW_WANTED).unwrap();
        root.remove(ESCROW_WANTED).unwrap();
        root.ensure_kept("/etc/siris/config.toml", b"1", 0o644).unwrap();
        assert!(!root.path(ESCROW_WANTED).exists());
    }
}
