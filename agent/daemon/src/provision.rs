//! `siris-agent provision`: puts configuration and credentials into the still writable `/etc` and `/root`.
//!
//! Runs early in every boot; what it writes lies in memory, so each boot starts from the image's own files.
//! Never: stops at a fault. What can be applied is applied; what cannot is recorded for the agent's health, and said
//! in the journal.

mod shadow;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::config::{BoxConfig, Key};
use crate::identity::{self, ensure_device_id, ensure_host_id};
use crate::root::{NETWORK, PASSWORD_HASH, PROVISION_FAULTS, Root};

pub use shadow::{ShadowError, set_root_hash};

/// Credential with lines of authorized_keys for root.
const KEYS_CREDENTIAL: &str = "ssh.authorized_keys.root";
/// Credential with a crypt(5) hash for root.
const HASH_CREDENTIAL: &str = "passwd.hashed-password.root";

const AUTHORIZED_KEYS: &str = "/root/.ssh/authorized_keys";
const SHADOW: &str = "/etc/shadow";
const HOST_ID_FILE: &str = "/etc/hostid";
const NETWORKD: &str = "/etc/systemd/network";
const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/50-siris.conf";
const RESOLVED: &str = "/etc/systemd/resolved.conf.d/50-siris.conf";

/// The directory of credentials the service manager passed on.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Option<PathBuf>);

impl Credentials {
    /// Those of `$CREDENTIALS_DIRECTORY`; none, if it is not set.
    pub fn from_environment() -> Self {
        Credentials(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
    }

    /// Those in a directory.
    pub fn in_directory(dir: impl Into<PathBuf>) -> Self {
        Credentials(Some(dir.into()))
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let Some(dir) = &self.0 else { return Ok(None) };
        match fs::read_to_string(dir.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Applies everything; returns what could not be, a line each.
pub fn provision(root: &Root, credentials: &Credentials) -> Vec<String> {
    let mut faults = Vec::new();
    // The agent finds the faults inside the file itself; here they only keep their keys from being applied.
    let config = BoxConfig::load(root).map(|(config, _)| config).unwrap_or_default();
    let mut apply = |what: &str, result: Result<(), String>| {
        if let Err(why) = result {
            faults.push(format!("cannot apply {what}: {why}"));
        }
    };
    // Here, before anybody asks for it: two who make one at once would make two.
    apply("the device id", ensure_device_id(root).map(drop).map_err(|e| said(&e)));
    apply("the host id", host_id(root));
    apply("the host name", hostname(root, &config));
    apply("the time zone", timezone(root, &config));
    apply("the SSH keys", authorized_keys(root, &config, credentials));
    apply("the root password", root_hash(root, credentials));
    apply("the network", network(root));
    apply("the time servers", servers(root, TIMESYNCD, "[Time]\nNTP=", config.list(Key::NtpServers)));
    apply("the name servers", servers(root, RESOLVED, "[Resolve]\nDNS=", config.list(Key::DnsServers)));
    let lines: String = faults.iter().map(|f| format!("{f}\n")).collect();
    if let Err(error) = root.write(PROVISION_FAULTS, lines.as_bytes(), 0o644) {
        faults.push(format!("cannot write {PROVISION_FAULTS}: {error}"));
    }
    faults
}

fn said(error: &dyn std::error::Error) -> String {
    crate::chain(error)
}

/// The four bytes ZFS and hostid(1) read, in the machine's order: the architectures we build for are little-endian.
fn host_id(root: &Root) -> Result<(), String> {
    match ensure_host_id(root).map_err(|e| said(&e))? {
        Some(id) => root.ensure(HOST_ID_FILE, &id.to_le_bytes(), 0o644).map(drop).map_err(|e| said(&e)),
        None => match fs::remove_file(root.path(HOST_ID_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(said(&error)),
            _ => Ok(()),
        },
    }
}

/// The configured name, or one made of product and device id: boxes on one network are then told apart.
fn hostname(root: &Root, config: &BoxConfig) -> Result<(), String> {
    let name = match config.text(Key::Hostname) {
        Some(name) => name.to_owned(),
        None => {
            let id = ensure_device_id(root).map_err(|e| said(&e))?.to_string();
            format!("{}-{}", identity::os_release(root).product, &id[..8])
        }
    };
    root.ensure("/etc/hostname", format!("{name}\n").as_bytes(), 0o644).map_err(|e| said(&e))?;
    if root.is_machine() {
        // The service manager has read the image's /etc/hostname before this one was written.
        rustix::system::sethostname(name.as_bytes()).map_err(|e| said(&e))?;
    }
    Ok(())
}

fn timezone(root: &Root, config: &BoxConfig) -> Result<(), String> {
    let Some(zone) = config.text(Key::Timezone) else { return Ok(()) };
    let link = root.path("/etc/localtime");
    let target = Path::new("../usr/share/zoneinfo").join(zone);
    if fs::read_link(&link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let temporary = root.path("/etc/.localtime.new");
    let replace = || -> io::Result<()> {
        if let Some(dir) = link.parent() {
            fs::create_dir_all(dir)?;
        }
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(&target, &temporary)?;
        fs::rename(&temporary, &link)
    };
    replace().map_err(|e| said(&e))
}

/// The keys of the credential and of the configuration, each once. None: no file, nobody gets in.
fn authorized_keys(root: &Root, config: &BoxConfig, credentials: &Credentials) -> Result<(), String> {
    let given = credentials.read(KEYS_CREDENTIAL).map_err(|e| said(&e))?.unwrap_or_default();
    let mut keys: Vec<&str> = Vec::new();
    let configured = config.list(Key::SshAuthorizedKeys).iter().map(String::as_str);
    for key in given.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).chain(configured) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let path = root.path(AUTHORIZED_KEYS);
    if keys.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(said(&error)),
            _ => Ok(()),
        };
    }
    let text: String = keys.iter().map(|k| format!("{k}\n")).collect();
    root.ensure(AUTHORIZED_KEYS, text.as_bytes(), 0o600).map_err(|e| said(&e))?;
    // sshd refuses a directory that others may write.
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|e| said(&e))
}

/// The hash of the credential, or else the one given at install.
fn root_hash(root: &Root, credentials: &Credentials) -> Result<(), String> {
    let given = credentials.read(HASH_CREDENTIAL).map_err(|e| said(&e))?;
    let installed = || root.read(PASSWORD_HASH).map_err(|e| said(&e));
    let Some(hash) = given.map_or_else(installed, |hash| Ok(Some(hash)))? else { return Ok(()) };
    let shadow = root.read(SHADOW).map_err(|e| said(&e))?.ok_or("the image has no /etc/shadow")?;
    let shadow = set_root_hash(&shadow, hash.trim()).map_err(|e| said(&e))?;
    let mode = fs::metadata(root.path(SHADOW)).map_err(|e| said(&e))?.permissions().mode() & 0o7777;
    root.ensure(SHADOW, shadow.as_bytes(), mode).map(drop).map_err(|e| said(&e))
}

/// The box's own network files, for systemd-networkd, which starts after this.
fn network(root: &Root) -> Result<(), String> {
    let entries = match fs::read_dir(root.path(NETWORK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| said(&e))?,
    };
    for entry in entries {
        let entry = entry.map_err(|e| said(&e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if [".network", ".netdev", ".link"].iter().any(|end| name.ends_with(end)) {
            let bytes = fs::read(entry.path()).map_err(|e| format!("{name}: {e}"))?;
            root.ensure(&format!("{NETWORKD}/{name}"), &bytes, 0o644).map_err(|e| said(&e))?;
        }
    }
    Ok(())
}

fn servers(root: &Root, path: &str, head: &str, servers: &[String]) -> Result<(), String> {
    if servers.is_empty() {
        return Ok(());
    }
    root.ensure(path, format!("{head}{}\n", servers.join(" ")).as_bytes(), 0o644).map(drop).map_err(|e| said(&e))
}

#[cfg(test)]
mod tests;
