//! The escrow: on each pool of the box, a copy of what makes the box itself, so that no box is irreplaceable.
//!
//! Owns: the dataset `POOL/siris-escrow` (never mounted), a dataset below it for each box that has had the pool, and
//! what their user properties say. A property set is one transaction, and needs no mount that an export would trip over.
//! Never: takes another box's record away; puts a secret there (password hash, private keys: a box that was installed anew makes
//! a new key for each machine that it dials, which has to allow that one).
//!
//! | property | on | says |
//! |---|---|---|
//! | `org.siris:current` | `POOL/siris-escrow` | DeviceId of the box that has the pool now |
//! | `org.siris:record.N` | `POOL/siris-escrow/DEVICE-ID` | part N, from 0, of the hexadecimal digits of the record: JSON, gzip |
//!
//! A box that was installed anew beside its old pools finds itself there: [`restore`] runs once, at the first boot, if
//! the install left word that it may ([`PENDING`]).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use siris_zfs::{DatasetName, Pool, PoolName, USER_PROPERTY_MAX, UserProperties, Zfs, ZfsError};
use uuid::Uuid;

use crate::config::{BoxConfig, Key};
use crate::pools::memory;
use crate::root::{CONFIG, DEVICE_ID, NETWORK, RECEIPT, RECEIPTS, Root};
use crate::store::{Dump, Store, StoreError};
use crate::vectors::keys;
use crate::vectors::record::Peer;

/// What the installer leaves where a box may take its identity from a pool: a TOML file.
pub const PENDING: &str = "/var/lib/siris/escrow-pending.toml";

const DATASET: &str = "siris-escrow";
const CURRENT: &str = "org.siris:current";
const PART: &str = "org.siris:record.";
/// More than this is not unpacked: a record of ours has some ten thousand bytes.
const RECORD_MAX: u64 = 16 << 20;

/// Why the escrow could not be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum EscrowError {
    /// ZFS.
    #[error("the escrow on pool {0}")]
    Zfs(PoolName, #[source] ZfsError),
    /// ZFS does not say which pools there are.
    #[error("the pools are not known")]
    Pools(#[source] ZfsError),
    /// A file of the box.
    #[error("cannot read or write {0}")]
    File(String, #[source] io::Error),
    /// Something else of the box.
    #[error("{0}")]
    Box(String),
    /// A record that is not one.
    #[error("the record on pool {0} is damaged: {1}")]
    Damaged(PoolName, String),
    /// Pools name different boxes.
    #[error("the pools were last in different boxes ({0}): give identity.device-id when installing")]
    Ambiguous(String),
}

impl EscrowError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            EscrowError::Zfs(_, error) | EscrowError::Pools(error) => error.code(),
            EscrowError::File(..) | EscrowError::Box(_) => "escrow-box",
            EscrowError::Damaged(..) => "escrow-damaged",
            EscrowError::Ambiguous(_) => "escrow-ambiguous",
        }
    }
}

/// What makes a box itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// Generation of this format. A later release may add fields.
    pub schema: u32,
    /// Who it is.
    pub device_id: Uuid,
    /// Its configuration, the file.
    #[serde(default)]
    pub config: String,
    /// Its network files, by name.
    #[serde(default)]
    pub network: BTreeMap<String, String>,
    /// Receipts of its installs, by file name.
    #[serde(default)]
    pub receipts: BTreeMap<String, String>,
    /// Its records: machines, their public keys, vectors.
    #[serde(default)]
    pub records: Dump,
}

/// What the installer left.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pending {
    /// Whether the network may be the old one.
    #[serde(default)]
    network: bool,
}

/// What came of looking for the box's former self.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// Nothing was to be looked for, or nothing is there.
    Nothing,
    /// The pools are not all there yet: it is looked for again at the next boot.
    Later,
    /// The box is this one again. What it has taken on comes into effect with a reboot.
    Again(Uuid),
}

/// Keeps the box's record on each of its pools; returns on how many something was written.
///
/// # Errors
/// The first thing that failed; the other pools were tried all the same.
pub fn store(root: &Root, zfs: &dyn Zfs) -> Result<usize, EscrowError> {
    let pools = own_pools(root, zfs)?;
    if pools.is_empty() {
        return Ok(0);
    }
    let record = collect(root)?;
    let (mut written, mut failure) = (0, None);
    for pool in pools {
        match store_on(&record, &pool.name, zfs) {
            Ok(wrote) => written += usize::from(wrote),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(written), Err)
}

fn store_on(record: &Record, pool: &PoolName, zfs: &dyn Zfs) -> Result<bool, EscrowError> {
    let fault = |error| EscrowError::Zfs(pool.clone(), error);
    let (top, own) = (top(pool)?, of(pool, record.device_id)?);
    let wanted = encode(record)?;
    let there = zfs.user_properties(&own).map_err(fault)?.unwrap_or_default();
    let parts = |all: &UserProperties| -> UserProperties {
        all.iter().filter(|(name, _)| name.starts_with(PART)).map(|(n, v)| (n.clone(), v.clone())).collect()
    };
    let current = record.device_id.to_string();
    let named = zfs.user_properties(&top).map_err(fault)?.unwrap_or_default();
    let (is_same, is_named) = (parts(&there) == wanted, named.get(CURRENT) == Some(&current));
    if !is_same {
        // Parts of a longer record of before go in the same transaction's wake: the decoder stops at the end of the gzip.
        let gone =
            parts(&there).into_keys().filter(|name| !wanted.contains_key(name)).map(|name| (name, String::new()));
        zfs.set_user_properties(&own, &wanted.clone().into_iter().chain(gone).collect()).map_err(fault)?;
    }
    if !is_named {
        zfs.set_user_properties(&top, &UserProperties::from([(CURRENT.to_owned(), current)])).map_err(fault)?;
    }
    Ok(!(is_same && is_named))
}

/// Gives a box that was installed anew its former self back, if its pools know it. Once: afterwards nothing is pending.
///
/// # Errors
/// When the pools disagree, or something cannot be read or written. It stays pending then.
pub fn restore(root: &Root, zfs: &dyn Zfs) -> Result<Restored, EscrowError> {
    let Some(text) = root.read(PENDING).map_err(file(PENDING))? else { return Ok(Restored::Nothing) };
    let pending: Pending = toml::from_str(&text).map_err(|error| EscrowError::Box(format!("{PENDING}: {error}")))?;
    let pools = own_pools(root, zfs)?;
    let mut found: BTreeMap<String, PoolName> = BTreeMap::new();
    for pool in &pools {
        let properties = zfs.user_properties(&top(&pool.name)?);
        let properties = properties.map_err(|error| EscrowError::Zfs(pool.name.clone(), error))?.unwrap_or_default();
        if let Some(id) = properties.get(CURRENT) {
            found.entry(id.clone()).or_insert_with(|| pool.name.clone());
        }
    }
    let done = || fs::remove_file(root.path(PENDING)).map_err(file(PENDING));
    if found.len() > 1 {
        let boxes: Vec<String> = found.iter().map(|(id, pool)| format!("{pool}: {id}")).collect();
        return Err(EscrowError::Ambiguous(boxes.join(", ")));
    }
    let Some((_, pool)) = found.into_iter().next() else {
        let expected = memory::load(root).map_err(|error| EscrowError::Box(crate::chain(&error)))?;
        if expected.keys().any(|guid| pools.iter().all(|pool| pool.guid != *guid)) {
            return Ok(Restored::Later);
        }
        done()?;
        return Ok(Restored::Nothing);
    };
    let record = read(&pool, zfs)?;
    let own = root.read(DEVICE_ID).map_err(file(DEVICE_ID))?.unwrap_or_default();
    if own.trim() == record.device_id.to_string() {
        done()?;
        return Ok(Restored::Nothing);
    }
    take_on(root, &record, pending.network)?;
    done()?;
    Ok(Restored::Again(record.device_id))
}

/// Writes what the record says and the install did not decide. The device id goes last: until then it can be done again.
fn take_on(root: &Root, record: &Record, network: bool) -> Result<(), EscrowError> {
    let said = |error: &dyn std::error::Error| EscrowError::Box(crate::chain(error));
    let (mut config, _) = BoxConfig::load(root).map_err(|error| said(&error))?;
    let former = BoxConfig::of_text(root, &record.config).map_err(|error| said(&error))?.0;
    for key in Key::ALL.into_iter().filter(|key| *key != Key::Role) {
        if let (None, Some(value)) = (config.value(key), former.value(key)) {
            config.change(root, key, Some(value.clone())).map_err(EscrowError::Box)?;
        }
    }
    config.commit(root).map_err(|error| said(&error))?;
    if network {
        for (name, text) in record.network.iter().filter(|(name, _)| is_plain(name)) {
            let path = format!("{NETWORK}/{name}");
            root.ensure(&path, text.as_bytes(), 0o644).map_err(file(&path))?;
        }
    }
    for (name, text) in record.receipts.iter().filter(|(name, _)| is_plain(name)) {
        let path = format!("{RECEIPTS}/{name}");
        root.ensure(&path, text.as_bytes(), 0o644).map_err(file(&path))?;
    }
    if !record.records.is_empty() {
        let taken = || -> Result<Vec<Peer>, StoreError> {
            let mut store = Store::open(root)?;
            // Done before, where it broke off later.
            match store.take_back(&record.records) {
                Err(StoreError::Exists(_)) | Ok(()) => store.peers(),
                Err(error) => Err(error),
            }
        };
        let peers = taken().map_err(|error| said(&error))?;
        keys::authorize(root, &peers).map_err(|error| said(&error))?;
    }
    let id = format!("{}\n", record.device_id);
    root.write(DEVICE_ID, id.as_bytes(), 0o644).map_err(file(DEVICE_ID))
}

/// The record of the box that has the pool.
fn read(pool: &PoolName, zfs: &dyn Zfs) -> Result<Record, EscrowError> {
    let fault = |error| EscrowError::Zfs(pool.clone(), error);
    let damaged = |why: &str| EscrowError::Damaged(pool.clone(), why.to_owned());
    let named = zfs.user_properties(&top(pool)?).map_err(fault)?.unwrap_or_default();
    let id = named.get(CURRENT).and_then(|id| Uuid::parse_str(id).ok()).ok_or_else(|| damaged("it names no box"))?;
    let parts = zfs.user_properties(&of(pool, id)?).map_err(fault)?.ok_or_else(|| damaged("it is missing"))?;
    let record = decode(&parts).map_err(|why| EscrowError::Damaged(pool.clone(), why))?;
    if record.device_id == id { Ok(record) } else { Err(damaged("it is another box's")) }
}

/// A fault with that file.
fn file(path: &str) -> impl Fn(io::Error) -> EscrowError + use<> {
    let path = path.to_owned();
    move |error| EscrowError::File(path.clone(), error)
}

fn own_pools(root: &Root, zfs: &dyn Zfs) -> Result<Vec<Pool>, EscrowError> {
    let expected = memory::load(root).map_err(|error| EscrowError::Box(crate::chain(&error)))?;
    let pools = zfs.pools().map_err(EscrowError::Pools)?;
    Ok(pools.into_iter().filter(|pool| expected.contains_key(&pool.guid)).collect())
}

fn top(pool: &PoolName) -> Result<DatasetName, EscrowError> {
    DatasetName::new(pool, DATASET).map_err(|error| EscrowError::Box(error.to_string()))
}

fn of(pool: &PoolName, id: Uuid) -> Result<DatasetName, EscrowError> {
    DatasetName::new(pool, &format!("{DATASET}/{id}")).map_err(|error| EscrowError::Box(error.to_string()))
}

/// What this box is.
fn collect(root: &Root) -> Result<Record, EscrowError> {
    let id = root.read(DEVICE_ID).map_err(file(DEVICE_ID))?.unwrap_or_default();
    let device_id = Uuid::parse_str(id.trim()).map_err(|_| EscrowError::Box("the box has no device id yet".into()))?;
    let mut receipts = texts(root, RECEIPTS, |name| name.ends_with(".json")).map_err(file(RECEIPTS))?;
    // Each install's receipt has one name on the box; here it has one of its own.
    if let Some(text) = receipts.remove(RECEIPT.rsplit('/').next().unwrap_or_default()) {
        let install = serde_json::from_str::<serde_json::Value>(&text).ok();
        let install = install.and_then(|receipt| Some(find(&receipt, "install")?.to_owned()));
        if let Some(install) = install.filter(|install| is_plain(install)) {
            receipts.insert(format!("install-{install}.json"), text);
        }
    }
    Ok(Record {
        schema: 1,
        device_id,
        config: root.read(CONFIG).map_err(file(CONFIG))?.unwrap_or_default(),
        network: texts(root, NETWORK, |_| true).map_err(file(NETWORK))?,
        receipts,
        records: records(root).map_err(|error| EscrowError::Box(crate::chain(&error)))?,
    })
}

fn records(root: &Root) -> Result<Dump, StoreError> {
    Store::read(root)?.map_or_else(|| Ok(Dump::new()), |store| store.dump())
}

/// The text of that key, at the top or one level below: a receipt is signed as a whole.
fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a str> {
    let below = || value.as_object()?.values().find_map(|value| value.get(key)?.as_str());
    value.get(key).and_then(serde_json::Value::as_str).or_else(below)
}

/// The text files of a directory; none when it is not there.
fn texts(root: &Root, dir: &str, wanted: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, String>> {
    let entries = match fs::read_dir(root.path(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let mut texts = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_plain(&name) && wanted(&name) && entry.file_type()?.is_file() {
            texts.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(texts)
}

/// A file name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn encode(record: &Record) -> Result<UserProperties, EscrowError> {
    let fault = |error: &dyn std::error::Error| EscrowError::Box(format!("the record cannot be written: {error}"));
    let json = serde_json::to_vec(record).map_err(|error| fault(&error))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let bytes = gzip.write_all(&json).and_then(|()| gzip.finish()).map_err(|error| fault(&error))?;
    let digits = hex::encode(bytes);
    let parts = digits.as_bytes().chunks(USER_PROPERTY_MAX & !1).enumerate();
    // Three digits keep the order of names that of the parts.
    Ok(parts.map(|(n, part)| (format!("{PART}{n:03}"), String::from_utf8_lossy(part).into_owned())).collect())
}

fn decode(parts: &UserProperties) -> Result<Record, String> {
    let digits: String =
        parts.iter().filter(|(name, _)| name.starts_with(PART)).map(|(_, part)| part.as_str()).collect();
    let bytes = hex::decode(digits).map_err(|error| error.to_string())?;
    let mut json = Vec::new();
    GzDecoder::new(&bytes[..]).take(RECORD_MAX).read_to_end(&mut json).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    if record.schema == 1 { Ok(record) } else { Err(format!("it has schema {}", record.schema)) }
}

#[cfg(test)]
mod tests;
