//! Which recovery points of an asset stay: a pure function of the points, what needs them, a policy and the time.
//!
//! Owns: the choice, and the reasons for each point in words. Never: destroys anything; looks at the clock; touches a
//! snapshot that is no recovery point.
//!
//! A policy is a span for each kind of period. The point of a period that was there first stands for it, so that a point which
//! has been chosen stays chosen until its span is over, however often one prunes, and whatever comes later. Periods are those of UTC, weeks begin on Monday.
//! What something needs stays whatever the policy says (invariant 8), and so does the newest point: the last copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use siris_zfs::{Guid, Label, Snapshot};
use time::OffsetDateTime;

const DAY: u64 = 86_400;

/// For how long points are kept, in seconds back from now; 0 keeps none for that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Policy {
    /// Every point.
    pub all: u64,
    /// One an hour.
    pub hourly: u64,
    /// One a day.
    pub daily: u64,
    /// One a week.
    pub weekly: u64,
    /// One a month.
    pub monthly: u64,
}

/// A text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no retention policy: words such as all=2d hourly=1w daily=1m weekly=3m monthly=2y; h, d, w, m (30 days) and \
     y (365 days)"
)]
pub struct PolicyError(String);

const UNITS: [(char, u64); 5] = [('y', 365 * DAY), ('m', 30 * DAY), ('w', 7 * DAY), ('d', DAY), ('h', 3600)];

impl Policy {
    fn spans(&mut self) -> [(&'static str, &mut u64); 5] {
        let Policy { all, hourly, daily, weekly, monthly } = self;
        [("all", all), ("hourly", hourly), ("daily", daily), ("weekly", weekly), ("monthly", monthly)]
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PolicyError(text.to_owned());
        let (mut policy, mut seen) = (Policy::default(), BTreeSet::new());
        for word in text.split_whitespace() {
            let (name, span) = word.split_once('=').ok_or_else(wrong)?;
            let unit = UNITS.iter().find(|(letter, _)| span.ends_with(*letter)).ok_or_else(wrong)?;
            let count: u64 = span[..span.len() - 1].parse().map_err(|_| wrong())?;
            let span = count.checked_mul(unit.1).ok_or_else(wrong)?;
            let mut spans = policy.spans();
            let (known, value) = spans.iter_mut().find(|(known, _)| *known == name).ok_or_else(wrong)?;
            if !seen.insert(*known) {
                return Err(wrong());
            }
            **value = span;
        }
        // Everything but the newest point would go.
        if policy == Policy::default() { Err(wrong()) } else { Ok(policy) }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut policy = *self;
        let mut gap = "";
        for (name, span) in policy.spans().into_iter().filter(|(_, span)| **span > 0) {
            let (letter, unit) = UNITS.iter().find(|(_, unit)| *span % unit == 0).unwrap_or(&('h', 3600));
            write!(f, "{gap}{name}={}{letter}", *span / unit)?;
            gap = " ";
        }
        Ok(())
    }
}

/// What needs a point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// It is the base that a vector's next stream begins from.
    Base {
        /// The vector.
        vector: String,
    },
    /// A vector has yet to send it.
    Queued {
        /// The vector.
        vector: String,
    },
    /// A restore runs on it.
    Restore {
        /// The restore.
        restore: String,
    },
    /// Someone holds it.
    Hold {
        /// The tag.
        tag: String,
    },
    /// A dataset shares what is in it.
    Clone {
        /// The dataset.
        clone: String,
    },
    /// What lies in the dataset needs its part of it.
    Inner {
        /// The snapshot there.
        point: String,
        /// Why it does.
        why: String,
    },
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Base { vector } => write!(f, "vector {vector} goes on from it"),
            Need::Queued { vector } => write!(f, "vector {vector} has yet to send it"),
            Need::Restore { restore } => write!(f, "restore {restore} runs on it"),
            Need::Hold { tag } => write!(f, "it is held by {tag}"),
            Need::Clone { clone } => write!(f, "{clone} is a clone of it"),
            Need::Inner { point, why } => write!(f, "{point}: {why}"),
        }
    }
}

/// Why a point stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Every point of that time does.
    All,
    /// It stands for a period.
    Period(Period),
    /// It is the newest one.
    Newest,
    /// Its time has not come yet: a clock has been set back.
    Future,
    /// Something needs it.
    Needed(Need),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::All => f.write_str("every point of that time stays"),
            Why::Period(period) => write!(f, "it is the first one of its {period}"),
            Why::Newest => f.write_str("it is the newest one"),
            Why::Future => f.write_str("it is from the future: the clock has been set back"),
            Why::Needed(need) => need.fmt(f),
        }
    }
}

/// A kind of period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the words")]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
}

impl Period {
    const ALL: [Period; 4] = [Period::Hour, Period::Day, Period::Week, Period::Month];

    /// The number of the period that a second belongs to.
    fn of(self, epoch: u64) -> u64 {
        match self {
            Period::Hour => epoch / 3600,
            Period::Day => epoch / DAY,
            // The first of January 1970 was a Thursday.
            Period::Week => (epoch / DAY + 3) / 7,
            Period::Month => {
                let date = i64::try_from(epoch).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
                // After the year 9999 each day is a month of its own: nothing is lost by it.
                date.map_or(epoch, |date| date.year().unsigned_abs() as u64 * 12 + u64::from(u8::from(date.month())))
            }
        }
    }

    fn span(self, policy: &Policy) -> u64 {
        match self {
            Period::Hour => policy.hourly,
            Period::Day => policy.daily,
            Period::Week => policy.weekly,
            Period::Month => policy.monthly,
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
        })
    }
}

/// What becomes of one recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The point.
    pub label: Label,
    /// Its time, in seconds since 1970.
    pub epoch: u64,
    /// Why it stays. Nothing: it goes.
    pub stays: Vec<Why>,
}

impl Decision {
    /// Whether it goes.
    pub fn goes(&self) -> bool {
        self.stays.is_empty()
    }
}

/// Decides on each recovery point, in the order given: `snapshots` are all of the dataset, oldest first by `createtxg`.
pub fn decide(
    snapshots: &[Snapshot],
    needs: &BTreeMap<Guid, BTreeSet<Need>>,
    policy: &Policy,
    now: u64,
) -> Vec<Decision> {
    let points: Vec<(&Snapshot, u64)> = snapshots.iter().filter_map(|s| Some((s, s.label.epoch()?))).collect();
    let mut stays: BTreeMap<Guid, Vec<Why>> = BTreeMap::new();
    let age = |epoch: u64| now.saturating_sub(epoch);
    for period in Period::ALL {
        let mut seen = BTreeSet::new();
        // As they came, not by their names: whatever comes later, with whatever name, takes no point's place.
        for (snapshot, epoch) in &points {
            if seen.insert(period.of(*epoch)) && age(*epoch) < period.span(policy) {
                stays.entry(snapshot.guid).or_default().push(Why::Period(period));
            }
        }
    }
    for (snapshot, epoch) in &points {
        let why = stays.entry(snapshot.guid).or_default();
        if *epoch > now {
            why.insert(0, Why::Future);
        } else if age(*epoch) < policy.all {
            why.insert(0, Why::All);
        }
        why.extend(needs.get(&snapshot.guid).into_iter().flatten().cloned().map(Why::Needed));
    }
    if let Some((newest, _)) = points.last() {
        stays.entry(newest.guid).or_default().push(Why::Newest);
    }
    let mut decision = |(snapshot, epoch): &(&Snapshot, u64)| Decision {
        label: snapshot.label.clone(),
        epoch: *epoch,
        stays: stays.remove(&snapshot.guid).unwrap_or_default(),
    };
    points.iter().map(&mut decision).collect()
}

#[cfg(test)]
mod tests;
