//! What an asset is called: its number in the fleet and its name, which lie with its dataset as user properties.
//!
//! Owns: how both are written, and which number an asset gets that nobody has given one: the next one of the box's own range.
//! Never: gives one number to two assets; takes one away.

use std::fmt;
use std::str::FromStr;

use siris_zfs::{DatasetName, Notes, ZfsError};

use super::AssetDataset;
use crate::agent::Agent;
use crate::config::{BoxConfig, Key};
use crate::store::{Store, StoreError};
use crate::vectors::travel;

/// A text that is no number of an asset's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an asset's number: digits, from 1 on")]
pub struct AssetIdError(String);

/// An asset's number, unique in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssetId(u64);

impl AssetId {
    /// The number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl FromStr for AssetId {
    type Err = AssetIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let number = digits.then(|| text.parse().ok()).flatten();
        number.map(AssetId).ok_or_else(|| AssetIdError(text.to_owned()))
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no name of an asset's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an asset's name: up to 255 bytes of text on one line, other than -")]
pub struct AssetNameError(String);

/// What people call an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetName(String);

impl AssetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AssetName {
    type Err = AssetNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A dash is how ZFS's tools write that there is none.
        let fits = !matches!(text, "" | "-") && text.len() <= 255 && text.trim() == text;
        if fits && !text.chars().any(char::is_control) {
            Ok(AssetName(text.to_owned()))
        } else {
            Err(AssetNameError(text.to_owned()))
        }
    }
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a range of assets' numbers: the first, a dash and the last, as in 1000-1999")]
pub struct IdRangeError(String);

/// Numbers that a box gives to its assets: no other box of the fleet has any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    first: AssetId,
    last: AssetId,
}

impl FromStr for IdRange {
    type Err = IdRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some(IdRange { first, last })
        });
        range.ok_or_else(|| IdRangeError(text.to_owned()))
    }
}

impl IdRange {
    /// The first of them that was never given and that none of these has; `last` was the last one given.
    fn next(self, last: Option<AssetId>, used: impl Iterator<Item = AssetId>) -> Option<AssetId> {
        let given = used.chain(last).filter(|id| (self.first..=self.last).contains(id)).max();
        let next = given.map_or(Some(self.first), |given| given.0.checked_add(1).map(AssetId))?;
        (next <= self.last).then_some(next)
    }
}

/// Why an asset cannot be called so.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Another one has that number.
    #[error("{id} is the number of the asset whose dataset is {dataset}")]
    Taken {
        /// The number.
        id: AssetId,
        /// The other one's dataset.
        dataset: DatasetName,
    },
    /// The box has no numbers to give.
    #[error("this box has no range of numbers to give to assets: set one (sirisctl config set asset-ids 1000-1999)")]
    NoRange,
    /// The box has given all of its numbers.
    #[error("all numbers of this box's range are given: set another one (sirisctl config set asset-ids)")]
    RangeUsedUp,
    /// The records cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
}

impl DescribeError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            DescribeError::Taken { .. } => "asset-id-taken",
            DescribeError::NoRange => "no-asset-ids",
            DescribeError::RangeUsedUp => "asset-ids-used-up",
            DescribeError::Store(_) => "records-unusable",
            DescribeError::Zfs(error) => error.code(),
        }
    }
}

/// The number that an asset is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// None.
    Nothing,
    /// This one.
    Is(AssetId),
    /// The next one of the box's range.
    Next,
}

/// Gives an asset a number, a name, or both; `None` leaves what there is. `name` is nothing where it is taken away.
///
/// # Errors
/// When the number is another asset's, the box has none to give, or ZFS refuses.
pub fn describe(
    agent: &Agent,
    one: &AssetDataset,
    number: Option<Number>,
    name: Option<Option<&AssetName>>,
) -> Result<(), DescribeError> {
    let mut notes = match agent.zfs.sets().dataset(&one.dataset.name)? {
        Some(found) => found.notes,
        None => Notes::default(),
    };
    let all = agent.shown().datasets;
    let others = || all.values().filter(|other| other.asset != one.asset);
    let id = match number {
        None => None,
        Some(Number::Nothing) => Some(None),
        Some(Number::Is(id)) => match others().find(|other| other.id() == Some(id)) {
            Some(other) => return Err(DescribeError::Taken { id, dataset: other.dataset.name.clone() }),
            None => Some(Some(id)),
        },
        Some(Number::Next) => {
            let range = range(agent).ok_or(DescribeError::NoRange)?;
            let mut store = Store::open(&agent.root)?;
            let used: Vec<AssetId> = all.values().filter_map(AssetDataset::id).collect();
            let next = store.next_asset_id(|last| range.next(last, used.into_iter()))?;
            agent.root.want_kept();
            Some(Some(next.ok_or(DescribeError::RangeUsedUp)?))
        }
    };
    if let Some(id) = id {
        notes.asset_id = id.map(|id| id.to_string());
    }
    if let Some(name) = name {
        notes.asset_name = name.map(|name| name.as_str().to_owned());
    }
    Ok(travel::keep(agent.zfs.sets(), &one.dataset.name, &notes)?)
}

/// Gives an asset that has no number the next one, where the box has a range. What keeps it from that is told in the journal, and
/// keeps nothing else from being done.
pub fn ensure_number(agent: &Agent, one: &AssetDataset) {
    if one.dataset.notes.asset_id.is_some() || range(agent).is_none() {
        return;
    }
    if let Err(error) = describe(agent, one, Some(Number::Next), None) {
        eprintln!("{} has no number: {}", one.dataset.name, crate::chain(&error));
    }
}

/// The numbers that this box gives, where somebody has said which.
fn range(agent: &Agent) -> Option<IdRange> {
    let (config, _) = BoxConfig::load(&agent.root).ok()?;
    config.text(Key::AssetIds)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_once() {
        let range: IdRange = "10-12".parse().unwrap();
        let id = AssetId;
        assert_eq!(range.next(None, [].into_iter()), Some(id(10)));
        assert_eq!(range.next(None, [id(3), id(11), id(99)].into_iter()), Some(id(12)));
        // One that is gone was given all the same.
        assert_eq!(range.next(Some(id(11)), [].into_iter()), Some(id(12)));
        assert_eq!(range.next(Some(id(12)), [].into_iter()), None);
        assert_eq!(range.next(Some(id(500)), [].into_iter()), Some(id(10)), "of another range");
        let end: IdRange = format!("1-{}", u64::MAX).parse().unwrap();
        assert_eq!(end.next(Some(id(u64::MAX)), [].into_iter()), None);
        for bad in ["", "1", "2-1", "0-5", "a-b", "1-2-3", "1 - 2", "-1-2"] {
            assert!(bad.parse::<IdRange>().is_err(), "{bad:?}");
        }
    }
}
