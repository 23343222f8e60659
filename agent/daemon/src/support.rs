//! The support bundle: one tar.gz with what support needs to know, and no secret.
//!
//! Never: includes a file as it is that may hold a key, a hash or a password. Configuration goes in with its keys
//! shortened to type and comment; each text is passed through a filter of last resort.

use std::io;

use flate2::Compression;
use flate2::write::GzEncoder;
use siris_host::cmd::{Cmd, Tool};

use crate::agent::Agent;
use crate::config::{BoxConfig, Key};
use crate::health::Verdict;

/// Lines of the journal of this boot; more would not fit a message of the bus.
const JOURNAL_LINES: &str = "20000";
/// A bundle larger than this is refused by the bus (its limit is 32 MiB).
const LIMIT: usize = 24 << 20;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum SupportError {
    /// The archive could not be put together.
    #[error("cannot write the archive")]
    WriteArchive(#[source] io::Error),
    /// It would not fit a message of the bus.
    #[error("the bundle has {0} bytes, more than fit a message: run `journalctl --vacuum-size=50M` and try again")]
    TooLarge(usize),
}

/// Makes the bundle. A part that cannot be had is replaced by the reason why.
///
/// # Errors
/// When the archive itself cannot be made.
pub fn bundle(agent: &Agent) -> Result<Vec<u8>, SupportError> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in parts(agent) {
        let mut header = tar::Header::new_ustar();
        let bytes = redact(&text).into_bytes();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        archive
            .append_data(&mut header, format!("siris-support/{name}"), bytes.as_slice())
            .map_err(SupportError::WriteArchive)?;
    }
    let bytes = archive.into_inner().and_then(GzEncoder::finish).map_err(SupportError::WriteArchive)?;
    if bytes.len() > LIMIT { Err(SupportError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

fn parts(agent: &Agent) -> Vec<(&'static str, String)> {
    let file = |path: &str| match agent.root.read(path) {
        Ok(Some(text)) => text,
        Ok(None) => format!("no {path}\n"),
        Err(error) => format!("cannot read {path}: {error}\n"),
    };
    let mut parts = vec![
        ("status.txt", status(agent)),
        ("slots.txt", crate::slots::describe(&agent.root, agent.slot.slot)),
        ("config.txt", config(agent)),
        ("os-release", file("/usr/lib/os-release")),
        ("pools.toml", file(crate::root::POOLS)),
        ("boot-imports.toml", file(crate::root::BOOT_IMPORTS)),
        ("cmdline", file("/proc/cmdline")),
        ("meminfo", file("/proc/meminfo")),
        ("mountinfo", file("/proc/self/mountinfo")),
        ("partitions", file("/proc/partitions")),
        ("failed-trial.json", file(crate::trial::REPORT)),
        ("zfs-version", file("/sys/module/zfs/version")),
    ];
    let commands: [(&'static str, Tool, &[&str]); 7] = [
        (
            "journal.txt",
            Tool::Journalctl,
            &["-b", "--no-pager", "--no-hostname", "-o", "short-iso", "-n", JOURNAL_LINES],
        ),
        (
            "journal-errors.txt",
            Tool::Journalctl,
            &["--no-pager", "--no-hostname", "-o", "short-iso", "-p", "err", "-n", "2000"],
        ),
        ("units.txt", Tool::Systemctl, &["list-units", "--all", "--no-pager", "--plain"]),
        ("failed-units.txt", Tool::Systemctl, &["list-units", "--failed", "--no-pager", "--plain"]),
        ("zpool-status.txt", Tool::Zpool, &["status", "-v", "-P"]),
        ("zpool-list.txt", Tool::Zpool, &["list", "-v", "-P"]),
        ("zpool-events.txt", Tool::Zpool, &["events"]),
    ];
    if agent.root.is_machine() {
        let run =
            |tool: Tool, arguments: &[&str]| Cmd::new(tool).args(arguments).text().unwrap_or_else(|e| format!("{e}\n"));
        parts.extend(commands.into_iter().map(|(name, tool, arguments)| (name, run(tool, arguments))));
    }
    parts
}

fn status(agent: &Agent) -> String {
    let shown = agent.shown();
    let Verdict { health, reasons } = &shown.verdict;
    let mut text = format!(
        "product {}\nversion {}\nagent {}\ndevice {}\nrole {}\nslot {}\nhealth {health}\n",
        agent.os.product,
        agent.os.version,
        env!("CARGO_PKG_VERSION"),
        agent.device_id,
        shown.role,
        agent.slot.word()
    );
    for reason in reasons {
        text += &format!("reason {}: {}\n", reason.code, reason.text);
    }
    for pool in shown.pools.values() {
        text += &format!(
            "pool {} guid {} {} size {} free {} errors {}\n",
            pool.name, pool.guid, pool.state, pool.size, pool.free, pool.errors
        );
    }
    text
}

/// The configuration, key by key from what was understood of it: a part that was not is named, not shown.
fn config(agent: &Agent) -> String {
    let (config, faults) = match BoxConfig::load(&agent.root) {
        Ok(loaded) => loaded,
        Err(error) => return format!("{}\n", error.code()),
    };
    let mut text = String::new();
    for key in Key::ALL {
        match (key, config.value(key)) {
            (_, None) => {}
            (Key::SshAuthorizedKeys, Some(_)) => {
                text += &format!("{}: {} keys\n", key.as_str(), config.list(key).len())
            }
            (_, Some(value)) => text += &format!("{}: {value:?}\n", key.as_str()),
        }
    }
    for fault in faults {
        text += &format!("fault at {}\n", fault.path);
    }
    text
}

/// Strikes out what looks like a secret, wherever it stands: private keys, password hashes, key material, and
/// whatever follows a word that announces a secret.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            in_key = true;
            out += "[private key left out]\n";
        }
        if !in_key {
            redact_line(line, &mut out);
        }
        if line.contains("-----END") {
            in_key = false;
        }
    }
    out
}

fn redact_line(line: &str, out: &mut String) {
    const ANNOUNCE: [&str; 6] = ["password", "passwd", "passphrase", "secret", "token", "hashed-password"];
    let mut strike_next = false;
    for word in line.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let blank = &word[bare.len()..];
        let lower = bare.to_ascii_lowercase();
        let announced = ANNOUNCE.iter().find_map(|a| lower.find(a).map(|at| at + a.len()));
        let assigned = announced.and_then(|end| bare[end..].find(['=', ':']).map(|at| end + at + 1));
        if bare.is_empty() {
            out.push_str(word);
        } else if strike_next || is_secret(bare) {
            *out += "[left out]";
            *out += blank;
            strike_next = false;
        } else if let Some(at) = assigned {
            *out += &bare[..at];
            if at < bare.len() {
                *out += "[left out]";
            } else {
                strike_next = true;
            }
            *out += blank;
        } else {
            out.push_str(word);
        }
    }
}

/// A crypt(5) hash, or the base64 of an SSH key.
fn is_secret(word: &str) -> bool {
    const HASHES: [&str; 7] = ["$1$", "$5$", "$6$", "$y$", "$gy$", "$7$", "$2b$"];
    HASHES.iter().any(|h| word.contains(h))
        || word.contains("AAAAC3Nza")
        || word.contains("AAAAB3Nza")
        || word.contains("AAAAE2Vjz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_struck_out_and_the_rest_stays() {
        let text = "root:$y$j9T$abc$def:19000::\nkey ssh-ed25519 AAAAC3NzaC1lZDI1 who\npassword: hunter2 then\nTOKEN=abc x\n\
                    -----BEGIN OPENSSH PRIVATE KEY-----\nsecretbase64\n-----END OPENSSH PRIVATE KEY-----\nsshd: Accepted password for root\nplain\n";
        let out = redact(text);
        for secret in ["$y$", "AAAAC3", "hunter2", "abc", "secretbase64"] {
            assert!(!out.contains(secret), "{secret} in {out}");
        }
        for kept in ["who", "then", "x\n", "plain\n", "Accepted password for root", "ssh-ed25519"] {
            assert!(out.contains(kept), "{kept} not in {out}");
        }
    }
}
