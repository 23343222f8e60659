//! Which pools the box is to have: what is remembered over a reboot, and what is forgotten.
//!
//! Owns: `/var/lib/siris/pools.toml` and the record of this boot's import.
//! Rules: a pool seen imported is remembered; one that was imported in this boot and is gone was exported or
//! destroyed, and is forgotten; one that failed to import is neither, and stays remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::{Deserialize, Serialize};
use siris_zfs::{Pool, PoolGuid, PoolName, PoolState};

use crate::root::{BOOT_IMPORTS, POOLS, Root};

/// Why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(&'static str, #[source] io::Error),
    /// The file cannot be written.
    #[error("cannot write {0}")]
    Write(&'static str, #[source] io::Error),
    /// It is not what this release (or the next) writes.
    #[error("{0} is damaged: {1}")]
    Damaged(&'static str, String),
}

impl MemoryError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            MemoryError::Read(..) => "pools-memory-unreadable",
            MemoryError::Write(..) => "pools-memory-unwritable",
            MemoryError::Damaged(..) => "pools-memory-damaged",
        }
    }
}

/// A remembered pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its name when last seen.
    pub name: PoolName,
    /// Its state when last seen in a committed slot.
    pub state: PoolState,
}

/// All of them.
pub type Memory = BTreeMap<PoolGuid, Remembered>;

/// This boot's import: pools that could not be imported, and why. Its existence says that the import is over.
pub type BootImports = BTreeMap<PoolGuid, String>;

// A TOML integer is signed; half of all guids do not fit.
#[derive(Serialize, Deserialize)]
struct MemoryFile {
    schema: u32,
    #[serde(default)]
    pool: Vec<PoolEntry>,
}

#[derive(Serialize, Deserialize)]
struct PoolEntry {
    guid: String,
    name: String,
    state: String,
}

#[derive(Serialize, Deserialize)]
struct BootFile {
    schema: u32,
    #[serde(default)]
    failed: Vec<FailedEntry>,
}

#[derive(Serialize, Deserialize)]
struct FailedEntry {
    guid: String,
    text: String,
}

/// Reads the memory; empty when there is none yet.
///
/// # Errors
/// When it cannot be read. Nothing must then be forgotten or written.
pub fn load(root: &Root) -> Result<Memory, MemoryError> {
    let Some(text) = root.read(POOLS).map_err(|e| MemoryError::Read(POOLS, e))? else { return Ok(Memory::new()) };
    let damaged = |what: String| MemoryError::Damaged(POOLS, what);
    let file: MemoryFile = toml::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    let entry = |e: PoolEntry| {
        let guid = e.guid.parse::<PoolGuid>().map_err(|_| damaged(format!("guid \"{}\"", e.guid)))?;
        let name = e.name.parse::<PoolName>().map_err(|error| damaged(error.to_string()))?;
        let state = e.state.parse::<PoolState>().map_err(|error| damaged(error.to_string()))?;
        Ok((guid, Remembered { name, state }))
    };
    file.pool.into_iter().map(entry).collect()
}

/// Writes the memory, unless it is what is on file.
///
/// # Errors
/// When the state cannot be written; the old memory stays.
pub fn store(root: &Root, memory: &Memory) -> Result<(), MemoryError> {
    let entry = |(guid, pool): (&PoolGuid, &Remembered)| PoolEntry {
        guid: guid.to_string(),
        name: pool.name.to_string(),
        state: pool.state.to_string(),
    };
    let file = MemoryFile { schema: 1, pool: memory.iter().map(entry).collect() };
    let text = toml::to_string(&file).map_err(|e| MemoryError::Damaged(POOLS, e.to_string()))?;
    root.ensure_kept(POOLS, text.as_bytes(), 0o644).map_err(|e| MemoryError::Write(POOLS, e))
}

/// Reads the record of this boot's import; `None` while there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn load_boot(root: &Root) -> Result<Option<BootImports>, MemoryError> {
    let Some(text) = root.read(BOOT_IMPORTS).map_err(|e| MemoryError::Read(BOOT_IMPORTS, e))? else { return Ok(None) };
    let damaged = |what: String| MemoryError::Damaged(BOOT_IMPORTS, what);
    let file: BootFile = toml::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    let entry = |e: FailedEntry| Ok((e.guid.parse().map_err(|_| damaged(format!("guid \"{}\"", e.guid)))?, e.text));
    file.failed.into_iter().map(entry).collect::<Result<_, _>>().map(Some)
}

/// Writes the record of this boot's import.
///
/// # Errors
/// When `/run` cannot be written.
pub fn store_boot(root: &Root, failed: &BootImports) -> Result<(), MemoryError> {
    let entry = |(guid, text): (&PoolGuid, &String)| FailedEntry { guid: guid.to_string(), text: text.clone() };
    let file = BootFile { schema: 1, failed: failed.iter().map(entry).collect() };
    let text = toml::to_string(&file).map_err(|e| MemoryError::Damaged(BOOT_IMPORTS, e.to_string()))?;
    root.ensure(BOOT_IMPORTS, text.as_bytes(), 0o644).map(drop).map_err(|e| MemoryError::Write(BOOT_IMPORTS, e))
}

/// What is remembered, and what of this boot's failures still stands, now that `seen` are imported.
///
/// `gone` are pools that this agent saw imported and that are no longer: forgotten whatever the record says.
/// `committed`: the booted slot is not on trial, so states seen now are the measure for the next upgrade.
pub fn reconcile(
    memory: &Memory,
    boot: Option<&BootImports>,
    seen: &[Pool],
    gone: &BTreeSet<PoolGuid>,
    committed: bool,
) -> (Memory, Option<BootImports>) {
    let is_seen = |guid: &PoolGuid| seen.iter().any(|p| p.guid == *guid);
    let mut next: Memory = memory
        .iter()
        .filter(|(guid, _)| match boot {
            _ if is_seen(guid) => true,
            _ if gone.contains(guid) => false,
            // This boot's import is not over: what is not there may yet come.
            None => true,
            Some(failed) => failed.contains_key(guid),
        })
        .map(|(guid, pool)| (*guid, pool.clone()))
        .collect();
    for pool in seen {
        let state = match memory.get(&pool.guid) {
            Some(old) if !committed => old.state,
            _ => pool.state,
        };
        next.insert(pool.guid, Remembered { name: pool.name.clone(), state });
    }
    let boot = boot.map(|failed| {
        failed
            .iter()
            .filter(|(guid, _)| !is_seen(guid) && next.contains_key(guid))
            .map(|(g, t)| (*g, t.clone()))
            .collect()
    });
    (next, boot)
}

#[cfg(test)]
mod tests;
