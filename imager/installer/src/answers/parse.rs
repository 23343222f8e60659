//! From the file's texts to values, with all faults at once.

mod network;

use std::fmt;

use serde::Deserialize;
use siris_ibu::Class;

use super::file::{AnswersFile, KeepFile, NewPoolFile, TargetFile};
use super::{
    Access, Answers, Destroy, DeviceId, DiskSpec, End, ExpectedPool, HostIdChoice, Identity, Keep, Mode, NewPool, Role,
    Target,
};

const SCHEMA: i64 = 1;
/// Larger files are not answers.
const MAX_BYTES: usize = 1 << 20;

/// One thing wrong with the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// TOML path of the value.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// Why answers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswersError {
    /// No text, or too long a one.
    #[error("install.toml is not a text of at most {MAX_BYTES} bytes")]
    NotText,
    /// Not TOML, or a key is unknown or of another type.
    #[error("install.toml cannot be read: {}", .0.to_string().trim_end())]
    Shape(Box<toml::de::Error>),
    /// Another schema.
    #[error("install.toml has schema {0}, this program reads schema {SCHEMA}")]
    Schema(i64),
    /// Values that do not fit.
    #[error("install.toml has {} faults:{}", .0.len(), list(.0))]
    Faults(Vec<Fault>),
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

impl AnswersError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Schema(_) => "unknown-schema",
            _ => "answers-faulty",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        Class::Input
    }
}

/// What has been found wrong so far.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, what: impl Into<String>) {
        self.0.push(Fault { path: path.into(), what: what.into() });
    }

    /// The value, or a fault and none.
    fn take<T, E: fmt::Display>(&mut self, path: impl Into<String>, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(path, error.to_string())).ok()
    }

    /// A list of values, each faulty one a fault.
    fn all<T>(&mut self, path: &str, texts: &[String], read: impl Fn(&str) -> Option<T>, wanted: &str) -> Vec<T> {
        let mut values = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            match read(text) {
                Some(value) => values.push(value),
                None => self.add(format!("{path}[{n}]"), format!("`{text}` is not {wanted}")),
            }
        }
        values
    }

    fn disks(&mut self, path: &str, texts: &[String]) -> Vec<DiskSpec> {
        let mut disks = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            disks.extend(self.take(format!("{path}[{n}]"), text.parse()));
        }
        disks
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Answers, AnswersError> {
    #[derive(Deserialize)]
    struct Head {
        schema: i64,
    }
    if bytes.len() > MAX_BYTES {
        return Err(AnswersError::NotText);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| AnswersError::NotText)?;
    // The schema comes first: a newer one may well have keys this program does not know.
    let head: Head = toml::from_str(text).map_err(|error| AnswersError::Shape(Box::new(error)))?;
    if head.schema != SCHEMA {
        return Err(AnswersError::Schema(head.schema));
    }
    let file: AnswersFile = toml::from_str(text).map_err(|error| AnswersError::Shape(Box::new(error)))?;
    let mut faults = Faults::default();
    let answers = resolve(file, &mut faults);
    if faults.0.is_empty() { Ok(answers) } else { Err(AnswersError::Faults(faults.0)) }
}

fn resolve(file: AnswersFile, faults: &mut Faults) -> Answers {
    let mode = file.mode.unwrap_or(Mode::OsOnly);
    match (mode, &file.pool) {
        (Mode::Full, None) => faults.add("pool", "mode = \"full\" makes a pool: say which"),
        (Mode::OsOnly, Some(_)) => faults.add("pool", "mode = \"os-only\" makes no pool: take it out, or set mode"),
        _ => {}
    }
    if file.target.is_none() {
        faults.add("target.disk", "is missing: \"auto\", or a disk such as \"serial:WD-123\"");
    }
    let absent = TargetFile {
        disk: "auto".to_owned(),
        mirror: None,
        slot_size: None,
        keep_partitions: Vec::new(),
        wipe_stale: false,
    };
    let target = file.target.unwrap_or(absent);
    let keep = keep(&target.keep_partitions, faults);
    if target.mirror.is_some() && !keep.is_empty() {
        faults.add("target.mirror", "partitions are kept on one disk only: no mirror with keep-partitions");
    }
    let other_os = file
        .other_os
        .disks
        .iter()
        .filter_map(|(disk, what)| Some((faults.take(format!("other-os.disks.\"{disk}\""), disk.parse())?, *what)));
    let other_os = other_os.collect();
    let new_pool = file.pool.map(|pool| new_pool(pool, faults));
    Answers {
        id: file.id.and_then(|id| faults.take("id", id.parse())),
        mode,
        end: file.end.unwrap_or(End::Reboot),
        target: match target.disk.as_str() {
            "auto" => Target::Auto,
            disk => faults.take("target.disk", disk.parse()).map_or(Target::Auto, Target::Disk),
        },
        mirror: target.mirror.and_then(|disk| faults.take("target.mirror", disk.parse())),
        slot_size: target.slot_size.and_then(|size| faults.take("target.slot-size", size.parse())),
        keep,
        wipe_stale: target.wipe_stale,
        pools: file.pools.map(|pools| expected(&pools, faults)),
        destroy: destroy(&file.destroy, faults),
        other_os_default: file.other_os.default,
        other_os,
        identity: identity(&file.identity, faults),
        access: access(file.access, faults),
        network: network::network(&file.network, faults),
        new_pool,
    }
}

fn keep(texts: &[KeepFile], faults: &mut Faults) -> Vec<Keep> {
    let mut keep = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        let found = match text {
            KeepFile::Number(number) if *number > 0 => Some(Keep::Number(*number)),
            KeepFile::Number(_) => None,
            KeepFile::Text(text) => match text.split_once(':') {
                Some(("label", label)) if !label.is_empty() => Some(Keep::Label(label.to_owned())),
                Some(("guid", guid)) => uuid::Uuid::parse_str(guid).ok().map(|guid| Keep::Guid(guid.to_string())),
                _ => None,
            },
        };
        match found {
            Some(found) => keep.push(found),
            None => faults
                .add(format!("target.keep-partitions[{n}]"), "takes a number from 1, \"label:NAME\" or \"guid:GUID\""),
        }
    }
    keep
}

fn expected(pools: &[super::file::PoolFile], faults: &mut Faults) -> Vec<ExpectedPool> {
    let mut expected: Vec<ExpectedPool> = Vec::new();
    for (n, pool) in pools.iter().enumerate() {
        let guid = pool.guid.as_ref().and_then(|guid| faults.take(format!("pools[{n}].guid"), guid.parse()));
        if pool.name.is_empty() {
            faults.add(format!("pools[{n}].name"), "is empty");
        }
        if expected.iter().any(|other| other.name == pool.name && other.guid == guid) {
            faults.add(format!("pools[{n}]"), "is there twice");
        }
        let (name, allow_degraded) = (pool.name.clone(), pool.allow_degraded);
        expected.push(ExpectedPool { name, guid, members: pool.members, allow_degraded });
    }
    expected
}

fn destroy(pools: &[super::file::DestroyFile], faults: &mut Faults) -> Vec<Destroy> {
    let mut destroy = Vec::new();
    for (n, pool) in pools.iter().enumerate() {
        let guid = faults.take(format!("destroy[{n}].guid"), pool.guid.parse());
        destroy.extend(guid.map(|guid| Destroy { name: pool.name.clone(), guid }));
    }
    destroy
}

fn identity(file: &super::file::IdentityFile, faults: &mut Faults) -> Identity {
    if let Some(name) = &file.hostname
        && (!is_hostname(name) || name.len() > 64)
    {
        faults.add("identity.hostname", "takes letters, digits and hyphens, dots between labels, at most 64 in all");
    }
    if let Some(zone) = &file.timezone
        && (zone.is_empty() || !zone.chars().all(|c| c.is_ascii_alphanumeric() || "/_+-".contains(c)))
    {
        faults.add("identity.timezone", "takes a name of the time zone database, such as \"Europe/Berlin\"");
    }
    let device_id = match file.device_id.as_deref() {
        None | Some("restore") => DeviceId::Restore,
        Some("new") => DeviceId::New,
        Some(id) => match uuid::Uuid::parse_str(id) {
            Ok(id) => DeviceId::Given(id),
            Err(_) => {
                faults.add("identity.device-id", "takes \"restore\", \"new\" or a UUID");
                DeviceId::New
            }
        },
    };
    let hostid = match file.hostid.as_deref() {
        None | Some("carry-over") => HostIdChoice::Carry,
        Some("none") => HostIdChoice::None,
        Some(text) => match u32::from_str_radix(text, 16).ok().filter(|id| *id != 0 && text.len() == 8) {
            Some(id) => HostIdChoice::Id(id),
            None => {
                faults.add("identity.hostid", "takes \"carry-over\", \"none\" or eight hexadecimal digits, not all 0");
                HostIdChoice::Carry
            }
        },
    };
    let role = file.role.unwrap_or_else(|| {
        faults.add("identity.role", "is missing: \"local\" or \"cloud\"");
        Role::Local
    });
    Identity { role, hostname: file.hostname.clone(), device_id, timezone: file.timezone.clone(), hostid }
}

/// A host name: labels of letters, digits and hyphens.
pub fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let ends = !label.starts_with('-') && !label.ends_with('-');
        ends && (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A line of authorized_keys, without a comment of its own.
pub fn is_authorized_key(text: &str) -> bool {
    let words: Vec<&str> = text.split(' ').collect();
    let blob = |words: &[&str]| {
        let kind = ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|kind| words[0].starts_with(kind));
        let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        kind && words[1].len() >= 32 && words[1].chars().all(base64)
    };
    !text.contains(char::is_control) && words.windows(2).any(blob)
}

fn access(file: super::file::AccessFile, faults: &mut Faults) -> Access {
    for (n, key) in file.ssh_keys.iter().enumerate() {
        if !is_authorized_key(key) {
            let what = "is no line of authorized_keys, such as \"ssh-ed25519 AAAA... who\"";
            faults.add(format!("access.ssh-keys[{n}]"), what);
        }
    }
    if let Some(hash) = &file.password_hash
        && !(hash.starts_with('$') && hash.len() > 8 && hash.chars().all(|c| c.is_ascii_graphic() && c != ':'))
    {
        // The value is not repeated: it may be a password.
        faults.add("access.password-hash", "is no crypt(5) hash, such as `mkpasswd -m yescrypt` prints");
    }
    Access { ssh_keys: file.ssh_keys, password_hash: file.password_hash }
}

fn new_pool(file: NewPoolFile, faults: &mut Faults) -> NewPool {
    let (word, least) = file.layout.vdev();
    if file.disks.len() < least {
        faults.add("pool.disks", format!("{} are named, {word} takes at least {least}", file.disks.len()));
    }
    let starts = file.name.starts_with(|c: char| c.is_ascii_alphabetic());
    let reserved = ["mirror", "raidz", "draid", "spare", "log"].iter().any(|word| file.name.starts_with(word));
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !starts || reserved || !file.name.chars().all(fits) || file.name.len() > 64 {
        faults.add("pool.name", format!("`{}` is no name for a pool", file.name));
    }
    let disks = faults.disks("pool.disks", &file.disks);
    let spares = faults.disks("pool.spares", &file.spares);
    let log = faults.disks("pool.log", &file.log);
    let mut all: Vec<&DiskSpec> = disks.iter().chain(&spares).chain(&log).collect();
    all.sort();
    if all.windows(2).any(|two| two[0] == two[1]) {
        faults.add("pool", "names a disk twice");
    }
    NewPool { name: file.name, layout: file.layout, disks, spares, log }
}
