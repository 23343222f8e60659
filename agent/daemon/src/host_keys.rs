//! `siris-agent ssh-host-keys`: the box's SSH host key, made once.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use siris_host::cmd::{Cmd, CmdError, Tool};

use crate::root::Root;

const DIR: &str = "/var/lib/ssh";
const NAME: &str = "ssh_host_ed25519_key";

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// ssh-keygen failed.
    #[error("cannot make the host key")]
    MakeKey(#[from] CmdError),
    /// The state cannot be written.
    #[error("cannot write to {DIR}")]
    WriteKey(#[source] io::Error),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// A key was made.
    Created,
    /// There was a usable one.
    Unchanged,
}

/// Makes the host key unless there is a usable one.
///
/// # Errors
/// When it cannot be made or written.
pub fn ensure_host_key(root: &Root) -> Result<Ensured, HostKeyError> {
    let dir = root.path(DIR);
    let key = dir.join(NAME);
    let public = dir.join(format!("{NAME}.pub"));
    // Reading the public half out of the private one proves that the file is whole.
    if key.exists()
        && public.exists()
        && Cmd::new(Tool::SshKeygen).args(["-y", "-P", "", "-f"]).arg(&key).output().is_ok()
    {
        return Ok(Ensured::Unchanged);
    }
    fs::create_dir_all(&dir).map_err(HostKeyError::WriteKey)?;
    let fresh = dir.join(format!(".{NAME}.new"));
    let fresh_public = dir.join(format!(".{NAME}.new.pub"));
    for left_over in [&fresh, &fresh_public] {
        match fs::remove_file(left_over) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(HostKeyError::WriteKey(error)),
            _ => {}
        }
    }
    Cmd::new(Tool::SshKeygen).args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&fresh).run()?;
    move_synced(&fresh_public, &public).and_then(|()| move_synced(&fresh, &key)).map_err(HostKeyError::WriteKey)?;
    File::open(&dir).and_then(|d| d.sync_all()).map_err(HostKeyError::WriteKey)?;
    Ok(Ensured::Created)
}

fn move_synced(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_a_torn_one_anew() {
        if !Tool::SshKeygen.is_present(None) {
            eprintln!("SKIPPED: ssh-keygen is not installed (Debian package openssh-client)");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(ensure_host_key(&root).unwrap(), Ensured::Created);
        let path = root.path("/var/lib/ssh/ssh_host_ed25519_key");
        let made = fs::read(&path).unwrap();
        assert_eq!(ensure_host_key(&root).unwrap(), Ensured::Unchanged);
        assert_eq!(fs::read(&path).unwrap(), made);
        fs::write(&path, &made[..made.len() / 2]).unwrap();
        assert_eq!(ensure_host_key(&root).unwrap(), Ensured::Created);
        assert_eq!(fs::read_dir(root.path(DIR)).unwrap().count(), 2);
    }
}
