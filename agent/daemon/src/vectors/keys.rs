//! Keys between machines: the ones this machine dials with, and who may dial it.
//!
//! Owns: the files below `/var/lib/siris/peers`. Each machine is dialled with a key of its own; each key of another one
//! runs `siris-agent peer` and nothing else. Never: shows a private key.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use siris_host::cmd::{Cmd, CmdError, Tool};

use super::record::{Name, Peer};
use crate::root::Root;

const DIR: &str = "/var/lib/siris/peers";
/// What sshd asks, beside root's own keys.
pub(crate) const AUTHORIZED: &str = "/var/lib/siris/peers/authorized_keys";
const HOST_KEY: &str = "/var/lib/ssh/ssh_host_ed25519_key.pub";
const COMMAND: &str = "/usr/libexec/siris/siris-agent peer";
/// Kinds of keys that are taken.
const KINDS: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

/// Why a key cannot be had or is none.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// ssh-keygen failed.
    #[error("cannot make a key")]
    MakeKey(#[from] CmdError),
    /// A file cannot be read or written.
    #[error("cannot use the keys in {DIR}")]
    Files(#[from] io::Error),
    /// A text is no public key.
    #[error("this is no public key of SSH: it begins with {}", KINDS.join(", "))]
    NoKey,
}

/// Where the private key for a machine is.
pub fn private(root: &Root, machine: &Name) -> PathBuf {
    root.path(format!("{DIR}/{machine}.key"))
}

/// The public key that a machine is dialled with; made where there is none.
///
/// # Errors
/// When it cannot be made or read.
pub fn ensure(root: &Root, machine: &Name) -> Result<String, KeyError> {
    let key = private(root, machine);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root.path(DIR))?;
    if !key.exists() {
        let fresh = root.path(format!("{DIR}/.{machine}.new"));
        for left_over in [fresh.clone(), fresh.with_extension("new.pub")] {
            match fs::remove_file(left_over) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Cmd::new(Tool::SshKeygen).args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&fresh).run()?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, &key)?;
        fs::remove_file(fresh.with_extension("new.pub"))?;
        fs::File::open(root.path(DIR))?.sync_all()?;
    }
    let public = Cmd::new(Tool::SshKeygen).args(["-y", "-P", "", "-f"]).arg(&key).text()?;
    parse(&public)
}

/// Destroys the key for a machine. None there is no error.
///
/// # Errors
/// When it is still there.
pub fn remove(root: &Root, machine: &Name) -> io::Result<()> {
    root.remove(&format!("{DIR}/{machine}.key"))
}

/// The box's own host key: what others pin.
///
/// # Errors
/// When there is none.
pub fn host_key(root: &Root) -> Result<String, KeyError> {
    parse(&root.read(HOST_KEY)?.unwrap_or_default())
}

/// A public key or a host key, without options and comment.
///
/// # Errors
/// When it is none.
pub fn parse(text: &str) -> Result<String, KeyError> {
    let mut words = text.split_whitespace();
    let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fits = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let is_one =
        KINDS.contains(&kind) && key.starts_with("AAAA") && key.chars().all(fits) && text.trim().lines().count() == 1;
    if is_one { Ok(format!("{kind} {key}")) } else { Err(KeyError::NoKey) }
}

/// Has sshd take the keys of these machines, and no other.
///
/// # Errors
/// When the file cannot be written; the old one stays.
pub fn authorize(root: &Root, peers: &[Peer]) -> io::Result<()> {
    let lines: String = peers.iter().map(line).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root.path(DIR))?;
    root.ensure(AUTHORIZED, lines.as_bytes(), 0o600).map(drop)
}

fn line(peer: &Peer) -> String {
    // `restrict`: no terminal, no forwarding of anything, whatever later versions of SSH come to know.
    format!("restrict,command=\"{COMMAND} {}\" {} siris-peer:{}\n", peer.name, peer.key, peer.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_of_a_known_kind() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL";
        assert_eq!(parse(&format!("{key} somebody@somewhere\n")).unwrap(), key);
        for bad in [
            "",
            "ssh-ed25519",
            "AAAAC3Nz",
            "command=\"sh\" ssh-ed25519 AAAAC3Nz",
            "ssh-dss AAAAB3Nz",
            "ssh-ed25519 AAAA\"x",
            "ssh-ed25519 AAAAC3Nz\nssh-ed25519 AAAAC3Nz",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_machine_is_dialled_with_one_key_that_nobody_else_reads() {
        if !Tool::SshKeygen.is_present(None) {
            eprintln!("SKIPPED: ssh-keygen is not installed (Debian package openssh-client)");
            return;
        }
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (root, name) = (Root::new(dir.path()), "cloud-1".parse().unwrap());
        let public = ensure(&root, &name).unwrap();
        assert_eq!(ensure(&root, &name).unwrap(), public);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(private(&root, &name)), mode(root.path(DIR))), (0o600, 0o700));
        assert_eq!(fs::read_dir(root.path(DIR)).unwrap().count(), 1);
        remove(&root, &name).unwrap();
        remove(&root, &name).unwrap();
    }
}
