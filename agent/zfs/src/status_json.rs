//! Parsers of `zpool list -j` and `zpool status -j` (with `--json-int`), OpenZFS 2.3 and later.
//!
//! Shape: zpool-status(8) and zpool-list(8). The output names its own version; another major is refused. Keys that
//! this parser does not need are passed over: minor versions add some. What it needs must be there and readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::types::{Member, NameError, Pool, PoolGuid, PoolState, UnknownState};

/// What is wrong with a tool's JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not of the known shape.
    #[error("not of the known shape")]
    Shape(#[from] serde_json::Error),
    /// A shape of another generation.
    #[error("output version {0}.{1}, known is 0.x")]
    Version(u64, u64),
    /// A pool name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A state word that is none.
    #[error(transparent)]
    State(#[from] UnknownStateError),
    /// A property that must be there.
    #[error("pool {0} has no property \"{1}\"")]
    Property(String, &'static str),
}

/// See [`PoolState`]'s parser.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UnknownStateError(#[from] UnknownState);

const KNOWN_MAJOR: u64 = 0;

#[derive(Deserialize)]
struct Output<P> {
    output_version: OutputVersion,
    // Absent when no pool is imported.
    #[serde(default = "BTreeMap::new")]
    pools: BTreeMap<String, P>,
}

#[derive(Deserialize)]
struct OutputVersion {
    vers_major: Number,
    vers_minor: Number,
}

/// A number, or (where a tool prints it so in spite of `--json-int`) its decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Number(n) => Ok(Number(n)),
            Raw::Text(text) => {
                text.parse().map(Number).map_err(|_| serde::de::Error::custom(format!("\"{text}\" is not a number")))
            }
        }
    }
}

fn parse<P: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<BTreeMap<String, P>, JsonError> {
    // Without pools `zpool list -j` prints nothing at all, where `zpool status -j` prints an empty object.
    if json.trim_ascii().is_empty() {
        return Ok(BTreeMap::new());
    }
    let output: Output<P> = serde_json::from_slice(json)?;
    let version = output.output_version;
    if version.vers_major.0 != KNOWN_MAJOR {
        return Err(JsonError::Version(version.vers_major.0, version.vers_minor.0));
    }
    Ok(output.pools)
}

/// Size and free bytes of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub size: u64,
    pub free: u64,
}

#[derive(Deserialize)]
struct ListPool {
    pool_guid: Number,
    properties: BTreeMap<String, ListProperty>,
}

#[derive(Deserialize)]
struct ListProperty {
    value: serde_json::Value,
}

/// Parses `zpool list -j --json-int -p -o size,free`.
pub(crate) fn parse_list(json: &[u8]) -> Result<BTreeMap<PoolGuid, Space>, JsonError> {
    let mut spaces = BTreeMap::new();
    for (name, pool) in parse::<ListPool>(json)? {
        let number = |key: &'static str| match pool.properties.get(key).map(|p| &p.value) {
            // A pool that cannot be opened has "-" for its space.
            Some(serde_json::Value::String(dash)) if dash == "-" => Ok(0),
            Some(value) => Ok(serde_json::from_value::<Number>(value.clone())?.0),
            None => Err(JsonError::Property(name.clone(), key)),
        };
        let space = Space { size: number("size")?, free: number("free")? };
        spaces.insert(PoolGuid::new(pool.pool_guid.0), space);
    }
    Ok(spaces)
}

type Vdevs = BTreeMap<String, Vdev>;

#[derive(Deserialize)]
struct StatusPool {
    name: String,
    state: String,
    pool_guid: Number,
    #[serde(default)]
    error_count: Number,
    #[serde(default)]
    vdevs: Vdevs,
    #[serde(default)]
    dedup: Vdevs,
    #[serde(default)]
    special: Vdevs,
    #[serde(default)]
    logs: Vdevs,
    #[serde(default)]
    l2cache: Vdevs,
    #[serde(default)]
    spares: Vdevs,
}

#[derive(Deserialize)]
struct Vdev {
    name: String,
    #[serde(default)]
    vdev_type: String,
    path: Option<String>,
    state: String,
    #[serde(default)]
    read_errors: Number,
    #[serde(default)]
    write_errors: Number,
    #[serde(default)]
    checksum_errors: Number,
    #[serde(default)]
    vdevs: Vdevs,
}

/// Parses `zpool status -j --json-int -p -P`; size and free are filled in from `spaces`.
///
/// `None` when the two do not speak of the same pools: one came or went in between.
pub(crate) fn parse_status(json: &[u8], spaces: &BTreeMap<PoolGuid, Space>) -> Result<Option<Vec<Pool>>, JsonError> {
    let status = parse::<StatusPool>(json)?;
    if status.len() != spaces.len() {
        return Ok(None);
    }
    let mut pools = Vec::new();
    for pool in status.into_values() {
        let guid = PoolGuid::new(pool.pool_guid.0);
        let Some(space) = spaces.get(&guid) else { return Ok(None) };
        let mut members = Vec::new();
        // The tree's root is named like the pool; its children are the top-level vdevs.
        for root in pool.vdevs.values() {
            collect(&root.vdevs, "", "normal", &mut members)?;
        }
        let classes = [
            (&pool.special, "special"),
            (&pool.dedup, "dedup"),
            (&pool.logs, "log"),
            (&pool.l2cache, "cache"),
            (&pool.spares, "spare"),
        ];
        for (vdevs, class) in classes {
            collect(vdevs, "", class, &mut members)?;
        }
        pools.push(Pool {
            guid,
            name: pool.name.parse()?,
            state: state(&pool.state)?,
            size: space.size,
            free: space.free,
            errors: pool.error_count.0,
            members,
        });
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(pools))
}

fn state(word: &str) -> Result<PoolState, JsonError> {
    // The JSON has the kernel's own names where the table for people says UNAVAIL and ONLINE.
    let word = match word {
        "CANT_OPEN" | "CLOSED" => "UNAVAIL",
        "HEALTHY" => "ONLINE",
        word => word,
    };
    Ok(word.parse::<PoolState>().map_err(UnknownStateError)?)
}

fn collect(vdevs: &Vdevs, group: &str, class: &str, members: &mut Vec<Member>) -> Result<(), JsonError> {
    for vdev in vdevs.values() {
        if vdev.vdevs.is_empty() {
            // A hole is what a removed log leaves behind: no device.
            if vdev.vdev_type == "hole" || vdev.vdev_type == "indirect" {
                continue;
            }
            members.push(Member {
                name: vdev.path.clone().unwrap_or_else(|| vdev.name.clone()),
                group: group.to_owned(),
                class: class.to_owned(),
                state: state(&vdev.state)?,
                read_errors: vdev.read_errors.0,
                write_errors: vdev.write_errors.0,
                checksum_errors: vdev.checksum_errors.0,
            });
        } else {
            // Of nested groups (a spare or a replacement inside a mirror) the outermost is named.
            collect(&vdev.vdevs, if group.is_empty() { &vdev.name } else { group }, class, members)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
