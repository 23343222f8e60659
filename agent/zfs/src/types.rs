//! Names, ids and states of pools.

use std::fmt;
use std::str::FromStr;

/// A pool's guid: what stays the same when a pool is renamed. Printed in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolGuid(u64);

impl PoolGuid {
    /// The guid with this number.
    pub fn new(guid: u64) -> Self {
        PoolGuid(guid)
    }

    /// Its number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PoolGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for PoolGuid {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(PoolGuid)
    }
}

/// A text that ZFS would not take as a pool's or a dataset's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a name of ZFS: it starts with a letter, followed by letters, digits and _ - : . in up to 255 bytes \
     (zpoolconcepts(7), zfsconcepts(7))"
)]
pub struct NameError(String);

/// A pool's name, safe as an argument and as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName(String);

impl PoolName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PoolName {
    type Err = NameError;

    /// Rules of zpool-create(8), blanks (which `zpool create` refuses, but old pools may have) excepted.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
        let all_fit = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-:. ".contains(c));
        if starts_well && all_fit && text.len() < 256 {
            Ok(PoolName(text.to_owned()))
        } else {
            Err(NameError(text.to_owned()))
        }
    }
}

/// A dataset's name, `POOL/PATH`, safe as an argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetName(String);

impl DatasetName {
    /// The dataset at `path` in a pool: components of letters, digits, blanks and `_ - : .`, parted by slashes.
    ///
    /// # Errors
    /// When ZFS would not take it.
    pub fn new(pool: &PoolName, path: &str) -> Result<Self, NameError> {
        let name = format!("{pool}/{path}");
        let part = |part: &str| {
            let begins = part.starts_with(|c: char| c.is_ascii_alphanumeric());
            begins && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-:. ".contains(c))
        };
        if path.split('/').all(part) && name.len() < 256 { Ok(DatasetName(name)) } else { Err(NameError(name)) }
    }

    /// The pool it is in.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The name of that pool.
    pub fn pool_name(&self) -> PoolName {
        PoolName(self.pool().to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It and what it lies in, below the pool's root: `a/b`, `a/b/c` of `a/b/c`.
    pub fn from_the_top(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).skip(1).chain([self.0.len()]);
        ends.map(|end| &self.0[..end])
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pool, path) = text.split_once('/').ok_or_else(|| NameError(text.to_owned()))?;
        DatasetName::new(&pool.parse()?, path)
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// State of a pool or of a vdev, best first: a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the words of zpoolconcepts(7)")]
pub enum PoolState {
    Online,
    Avail,
    InUse,
    Degraded,
    Offline,
    Removed,
    Faulted,
    Unavail,
    Suspended,
}

const STATES: [(PoolState, &str); 9] = [
    (PoolState::Online, "ONLINE"),
    (PoolState::Avail, "AVAIL"),
    (PoolState::InUse, "INUSE"),
    (PoolState::Degraded, "DEGRADED"),
    (PoolState::Offline, "OFFLINE"),
    (PoolState::Removed, "REMOVED"),
    (PoolState::Faulted, "FAULTED"),
    (PoolState::Unavail, "UNAVAIL"),
    (PoolState::Suspended, "SUSPENDED"),
];

impl PoolState {
    /// The word ZFS has for it.
    pub fn as_str(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("UNKNOWN", |(_, word)| word)
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A state that is none of those known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown pool or vdev state \"{0}\"")]
pub struct UnknownState(String);

impl FromStr for PoolState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        STATES
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(state, _)| *state)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// An imported pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its guid.
    pub guid: PoolGuid,
    /// Its name.
    pub name: PoolName,
    /// Its state.
    pub state: PoolState,
    /// Bytes, as `zpool list` counts them.
    pub size: u64,
    /// Bytes not allocated.
    pub free: u64,
    /// Data errors that could not be repaired.
    pub errors: u64,
    /// Leaves of its vdev tree, in the tree's order.
    pub members: Vec<Member>,
}

/// A leaf of a pool's vdev tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Device path, or what ZFS calls it.
    pub name: String,
    /// Its group (`mirror-0`), or empty.
    pub group: String,
    /// `normal`, `log`, `cache`, `spare`, `special`, `dedup`.
    pub class: String,
    /// Its state.
    pub state: PoolState,
    /// Read errors.
    pub read_errors: u64,
    /// Write errors.
    pub write_errors: u64,
    /// Checksum errors.
    pub checksum_errors: u64,
}

/// A pool that lies on devices and is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportablePool {
    /// Its guid.
    pub guid: PoolGuid,
    /// Its name.
    pub name: PoolName,
    /// The state it would have.
    pub state: PoolState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_option_and_no_path() {
        for bad in ["", "-f", "../x", "a/b", "1tank", "tank\n", "ta@nk"] {
            assert!(bad.parse::<PoolName>().is_err(), "{bad:?}");
        }
        for good in ["tank", "homePool", "a-b_c:d.e9"] {
            assert_eq!(good.parse::<PoolName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_dataset_is_made_from_the_top() {
        let pool: PoolName = "tank".parse().unwrap();
        let name = DatasetName::new(&pool, "a/b-1/c").unwrap();
        assert_eq!(name.from_the_top().collect::<Vec<_>>(), ["tank/a", "tank/a/b-1", "tank/a/b-1/c"]);
        for bad in ["", "a//b", "../x", "a/-b", "a@b"] {
            assert!(DatasetName::new(&pool, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn states_are_ordered_from_best_to_worst() {
        assert!(PoolState::Online < PoolState::Degraded);
        assert!(PoolState::Degraded < PoolState::Faulted);
        for (state, word) in STATES {
            assert_eq!(word.parse::<PoolState>().unwrap(), state);
            assert_eq!(state.as_str(), word);
        }
        assert!("SPLIT".parse::<PoolState>().is_err());
    }
}
