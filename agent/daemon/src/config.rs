//! `/etc/siris/config.toml`: what an operator may set on a box.
//!
//! Owns: the keys, what a value must look like, reading and changing the file.
//! Never: puts a value into effect (`provision` does, at boot).
//! A faulty key never takes the others with it: reading yields what is good and says what is not. For that reason the
//! file is read key by key, not as one struct. A key that is not known is a fault too, and is kept when another is
//! changed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use toml::{Table, Value};

use crate::datasets::asset::IdRange;
use crate::root::{CONFIG, Root};

/// A value of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigValue {
    /// One text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// Every key, in the order of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `local` or `cloud`; set at install.
    Role,
    /// Host name.
    Hostname,
    /// A name of the time zone database.
    Timezone,
    /// Keys that may log in as root.
    SshAuthorizedKeys,
    /// Time servers; none: the network's and the distribution's.
    NtpServers,
    /// Name servers; none: the network's.
    DnsServers,
    /// Numbers that this box gives to its assets; none: nobody but people gives them.
    AssetIds,
}

impl Key {
    /// All of them.
    pub const ALL: [Key; 7] = [
        Key::Role,
        Key::Hostname,
        Key::Timezone,
        Key::SshAuthorizedKeys,
        Key::NtpServers,
        Key::DnsServers,
        Key::AssetIds,
    ];

    /// The dotted path in the file, which is the key's name everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Key::Role => "role",
            Key::Hostname => "hostname",
            Key::Timezone => "timezone",
            Key::SshAuthorizedKeys => "ssh.authorized-keys",
            Key::NtpServers => "ntp.servers",
            Key::DnsServers => "dns.servers",
            Key::AssetIds => "asset-ids",
        }
    }

    /// The key of that name.
    pub fn find(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|k| k.as_str() == name)
    }

    fn is_list(self) -> bool {
        matches!(self, Key::SshAuthorizedKeys | Key::NtpServers | Key::DnsServers)
    }

    /// Checks a value; the error says what the key takes.
    ///
    /// # Errors
    /// When the value does not fit the key.
    pub fn check(self, root: &Root, value: &ConfigValue) -> Result<(), String> {
        match (self.is_list(), value) {
            (false, ConfigValue::Text(text)) => self.check_text(root, text),
            (true, ConfigValue::List(items)) => items.iter().try_for_each(|item| self.check_text(root, item)),
            (false, ConfigValue::List(_)) => Err("takes one text, not a list".into()),
            (true, ConfigValue::Text(_)) => Err("takes a list of texts".into()),
        }
    }

    fn check_text(self, root: &Root, text: &str) -> Result<(), String> {
        let (fits, takes) = match self {
            Key::Role => (matches!(text, "local" | "cloud"), "\"local\" or \"cloud\""),
            Key::Hostname => (
                is_hostname(text) && text.len() <= 64,
                "a host name: letters, digits and hyphens, dots between labels, at most 64 in all",
            ),
            Key::Timezone => (
                is_timezone(root, text),
                "a name of the time zone database, such as \"Europe/Berlin\" (`timedatectl list-timezones`)",
            ),
            Key::SshAuthorizedKeys => {
                (is_authorized_key(text), "a line of authorized_keys, such as \"ssh-ed25519 AAAA... who\"")
            }
            Key::NtpServers => {
                (is_hostname(text) || text.parse::<std::net::IpAddr>().is_ok(), "a host name or address")
            }
            Key::DnsServers => (text.parse::<std::net::IpAddr>().is_ok(), "an address"),
            Key::AssetIds => {
                (text.parse::<IdRange>().is_ok(), "a range of numbers that no other box has, such as \"1000-1999\"")
            }
        };
        if fits { Ok(()) } else { Err(format!("\"{text}\" does not fit: it takes {takes}")) }
    }
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let ends = !label.starts_with('-') && !label.ends_with('-');
        ends && (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn is_timezone(root: &Root, text: &str) -> bool {
    let safe = text.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()));
    let fits = text.chars().all(|c| c.is_ascii_alphanumeric() || "/_+-".contains(c));
    safe && fits && root.path("/usr/share/zoneinfo").join(text).is_file()
}

fn is_authorized_key(text: &str) -> bool {
    const TYPES: [&str; 6] = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
    ];
    // Options, which may hold blanks in quotes, can stand before the type.
    let mut words = text.split(' ').skip_while(|word| !TYPES.contains(word));
    let blob = words.nth(1).unwrap_or_default();
    let base64 = blob.len() >= 32 && blob.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
    base64 && !text.contains(char::is_control)
}

/// What is wrong with one part of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted path.
    pub path: String,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CONFIG}: {}: {}", self.path, self.text)
    }
}

/// Why the file as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {CONFIG}")]
    Read(#[source] io::Error),
    /// It cannot be written.
    #[error("cannot write {CONFIG}")]
    Write(#[source] io::Error),
    /// It is no TOML.
    #[error("{CONFIG} is no TOML, none of it is applied: correct it, or remove it and set each value again")]
    Syntax(#[source] toml::de::Error),
    /// It is of another generation.
    #[error("{CONFIG} has schema {0}, this release reads schema 1")]
    Schema(i64),
}

impl ConfigError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            ConfigError::Write(_) => "config-write-failed",
            _ => "config-unreadable",
        }
    }
}

/// The configuration of the box: what of the file is good.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BoxConfig {
    table: Table,
    values: BTreeMap<Key, ConfigValue>,
}

impl BoxConfig {
    /// Reads it; an absent file is an empty configuration.
    ///
    /// # Errors
    /// When none of the file can be used.
    pub fn load(root: &Root) -> Result<(Self, Vec<Fault>), ConfigError> {
        let text = root.read(CONFIG).map_err(ConfigError::Read)?.unwrap_or_default();
        Self::parse(root, &text)
    }

    /// Reads the text of such a file, another box's say.
    ///
    /// # Errors
    /// When none of it can be used.
    pub fn of_text(root: &Root, text: &str) -> Result<(Self, Vec<Fault>), ConfigError> {
        Self::parse(root, text)
    }

    fn parse(root: &Root, text: &str) -> Result<(Self, Vec<Fault>), ConfigError> {
        let table: Table = text.parse().map_err(ConfigError::Syntax)?;
        let mut config = BoxConfig { table: Table::new(), values: BTreeMap::new() };
        let mut faults = Vec::new();
        match table.get("schema") {
            None | Some(Value::Integer(1)) => {}
            Some(Value::Integer(other)) => return Err(ConfigError::Schema(*other)),
            Some(_) => faults.push(Fault { path: "schema".into(), text: "takes a number".into() }),
        }
        for (path, value) in leaves(&table) {
            let fault = |text: String| Fault { path: path.clone(), text };
            match (Key::find(&path), from_toml(&value)) {
                (None, _) => faults.push(fault("no such key".into())),
                (Some(_), None) => faults.push(fault("takes a text or a list of texts".into())),
                (Some(key), Some(value)) => match key.check(root, &value) {
                    Ok(()) => drop(config.values.insert(key, value)),
                    Err(text) => faults.push(fault(text)),
                },
            }
        }
        config.table = table;
        Ok((config, faults))
    }

    /// The value of a key, if it is set and good.
    pub fn value(&self, key: Key) -> Option<&ConfigValue> {
        self.values.get(&key)
    }

    /// The text of a key that takes one.
    pub fn text(&self, key: Key) -> Option<&str> {
        match self.value(key) {
            Some(ConfigValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The list of a key that takes one; empty when not set.
    pub fn list(&self, key: Key) -> &[String] {
        match self.value(key) {
            Some(ConfigValue::List(items)) => items,
            _ => &[],
        }
    }

    /// Role of the box; `local` when nobody said otherwise.
    pub fn role(&self) -> &str {
        self.text(Key::Role).unwrap_or("local")
    }

    /// Sets a key, or (with `None`) takes it out. What the file has beside it stays.
    ///
    /// # Errors
    /// Says what the key takes, when the value does not fit.
    pub fn change(&mut self, root: &Root, key: Key, value: Option<ConfigValue>) -> Result<(), String> {
        if let Some(value) = &value {
            key.check(root, value)?;
        }
        let (section, name) = match key.as_str().split_once('.') {
            Some((section, name)) => (Some(section), name),
            None => (None, key.as_str()),
        };
        let table = match section {
            None => &mut self.table,
            Some(section) => {
                let entry = self.table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                entry.as_table_mut().ok_or_else(|| format!("[{section}] of {CONFIG} is no table: correct the file"))?
            }
        };
        match value {
            Some(value) => {
                table.insert(name.to_owned(), to_toml(&value));
                self.values.insert(key, value);
            }
            None => {
                table.remove(name);
                self.values.remove(&key);
            }
        }
        Ok(())
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the state cannot be written; the old file stays.
    pub fn commit(&self, root: &Root) -> Result<(), ConfigError> {
        let mut table = self.table.clone();
        table.insert("schema".into(), Value::Integer(1));
        root.ensure_kept(CONFIG, table.to_string().as_bytes(), 0o644).map_err(ConfigError::Write)
    }
}

fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (name, value) in table.iter().filter(|(name, _)| *name != "schema") {
        match value {
            Value::Table(section) => {
                leaves.extend(section.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())))
            }
            value => leaves.push((name.clone(), value.clone())),
        }
    }
    leaves
}

fn from_toml(value: &Value) -> Option<ConfigValue> {
    match value {
        Value::String(text) => Some(ConfigValue::Text(text.clone())),
        Value::Array(items) => {
            items.iter().map(|i| i.as_str().map(str::to_owned)).collect::<Option<_>>().map(ConfigValue::List)
        }
        _ => None,
    }
}

fn to_toml(value: &ConfigValue) -> Value {
    match value {
        ConfigValue::Text(text) => Value::String(text.clone()),
        ConfigValue::List(items) => Value::Array(items.iter().cloned().map(Value::String).collect()),
    }
}

#[cfg(test)]
mod tests;
