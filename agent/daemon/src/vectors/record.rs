//! What is kept of machines and vectors.

use std::fmt;
use std::str::FromStr;

use siris_ibu::digest::Sha256;
use siris_zfs::DatasetName;
use uuid::Uuid;

use super::limit::Limits;
use super::peer::Rights;
use super::remote::Address;
use super::schedule::Schedule;

/// A text that is no machine's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a machine's name: a letter or digit, then letters, digits and . _ - in up to 63")]
pub struct NameError(String);

/// A machine's name here, safe as an argument and as a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.len() <= 63 && text.chars().all(fits) {
            Ok(Name(text.to_owned()))
        } else {
            Err(NameError(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A word that is not one of those that there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is none of: {known}")]
pub struct WordError {
    found: String,
    known: String,
}

macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $(#[doc = $each:literal] $variant:ident = $word:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $(#[doc = $each] $variant,)* }

        impl $name {
            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok($name::$variant),)*
                    _ => Err(WordError { found: text.to_owned(), known: [$($word),*].join(", ") }),
                }
            }
        }
    };
}

words! {
    /// What a machine is.
    MachineKind {
        /// One with an agent.
        Device = "device",
        /// One with ZFS and SSH, and no agent.
        Server = "server",
    }
}

words! {
    /// Which way the data goes, as seen from the machine that dials.
    Direction {
        /// From this machine to the other.
        Push = "push",
        /// From the other machine to this one.
        Pull = "pull",
        /// From one other machine to another one: this one dials both, and the stream passes through it.
        Relay = "relay",
    }
}

words! {
    /// What carries the data.
    Mode {
        /// Streams of ZFS, between two that have it.
        Zfs = "zfs",
        /// The rsync program, to or from a directory of a machine that need not have ZFS.
        Rsync = "rsync",
    }
}

words! {
    /// What a replica is for.
    Tier {
        /// The first place to restore from.
        Primary = "primary",
        /// The second.
        Secondary = "secondary",
    }
}

/// A text that is no directory's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the path of a directory: from / on, without empty, . and .. parts, in up to {MAX} bytes", MAX = FarPath::MAX)]
pub struct FarPathError(String);

/// A directory on another machine: an absolute path with one spelling, without a slash at its end. Never `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarPath(String);

impl FarPath {
    /// The longest one, in bytes: what is put beside it has a longer name.
    pub const MAX: usize = 3800;

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FarPath {
    type Err = FarPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() < 240;
        match text.strip_prefix('/') {
            Some(parts) if parts.split('/').all(fits) && text.len() <= FarPath::MAX && !text.contains('\0') => {
                Ok(FarPath(text.to_owned()))
            }
            _ => Err(FarPathError(text.to_owned())),
        }
    }
}

impl fmt::Display for FarPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A number that is no priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a priority: 1 (first) to 5 (last)")]
pub struct PriorityError(u64);

/// Who goes first where several wait: 1 before 5. Printed as the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Default for Priority {
    /// The one in the middle.
    fn default() -> Self {
        Priority(3)
    }
}

impl Priority {
    /// The number.
    pub fn as_u32(self) -> u32 {
        self.0.into()
    }
}

impl TryFrom<u64> for Priority {
    type Error = PriorityError;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        let fits = u8::try_from(number).ok().filter(|number| (1..=5).contains(number));
        fits.map(Priority).ok_or(PriorityError(number))
    }
}

/// A machine that this one dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name here.
    pub name: Name,
    /// What it is.
    pub kind: MachineKind,
    /// Its device id, where it has one.
    pub device: Option<Uuid>,
    /// How it is reached.
    pub address: Address,
    /// Below which dataset this machine may do something there.
    pub prefix: DatasetName,
}

/// A machine that may dial this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name here.
    pub name: Name,
    /// Its public key, as in a `.pub` file, without a comment.
    pub key: String,
    /// What it may do.
    pub rights: Rights,
}

/// A vector that this machine has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// Its number here.
    pub number: u64,
    /// The other machine; of a relay the one that the data goes to.
    pub machine: Name,
    /// Of a relay, the machine that the data comes from.
    pub from: Option<Name>,
    /// Which way the data goes.
    pub direction: Direction,
    /// The dataset on the source; see [`Vector::ends`].
    pub source: DatasetName,
    /// The dataset on the target; see [`Vector::ends`].
    pub target: DatasetName,
    /// The directory on the other machine that rsync fills or reads; `None` where both ends are ZFS.
    pub path: Option<FarPath>,
    /// What the replica is for.
    pub tier: Tier,
    /// Who goes first where several wait.
    pub priority: Priority,
    /// How much of the link it may take, and when.
    pub limits: Limits,
    /// When it syncs by itself.
    pub schedule: Schedule,
    /// What the schedule's next time is counted from, in seconds since 1970: the beginning of the last sync that ended well, or
    /// when the schedule was set. `None` where a sync is owed: it was asked for and has not ended well. Not kept up to date
    /// while the schedule does not go by the clock.
    pub counted: Option<u64>,
    /// It waits until somebody has it go on.
    pub paused: bool,
    /// The newest snapshot of which both ends were read and found the same; empty where none was.
    pub proven: String,
}

impl Vector {
    /// What carries the data.
    pub fn mode(&self) -> Mode {
        if self.path.is_some() { Mode::Rsync } else { Mode::Zfs }
    }

    /// Its dataset on this machine; a relay has none.
    pub fn here(&self) -> Option<&DatasetName> {
        match self.direction {
            Direction::Push => Some(&self.source),
            Direction::Pull => Some(&self.target),
            Direction::Relay => None,
        }
    }

    /// Source and target: a dataset each, or the directory of the other machine.
    pub fn ends(&self) -> (&str, &str) {
        let (source, target) = (self.source.as_str(), self.target.as_str());
        match (&self.path, self.direction) {
            (None, _) => (source, target),
            (Some(path), Direction::Push) => (source, path.as_str()),
            (Some(path), Direction::Pull) => (path.as_str(), target),
            // Between two others there are datasets only.
            (Some(_), Direction::Relay) => (source, target),
        }
    }
}

/// What stands for a directory where a dataset's name is kept: a name that no pool has. A release that does not know of
/// directories finds no such dataset, and does nothing.
pub fn stand_in(path: &FarPath) -> DatasetName {
    format!("siris-no-pool/{}", Sha256::of(path.as_str().as_bytes()))
        .parse()
        .expect("letters, digits and a slash are a dataset's name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_spelling() {
        for good in ["/srv", "/srv/backups/a b", "/srv/it's\n$(x)*", "/srv/...", "/-"] {
            assert_eq!(good.parse::<FarPath>().unwrap().as_str(), good);
        }
        for bad in ["", "/", "srv", "/srv/", "//srv", "/srv//a", "/srv/.", "/srv/../etc", "/..", "/a\0b", "~/x"] {
            assert!(bad.parse::<FarPath>().is_err(), "{bad:?}");
        }
        assert!(format!("/{}", "x".repeat(240)).parse::<FarPath>().is_err(), "no room for what is put beside it");
        let [one, other] = ["/srv/a", "/srv/b"].map(|path| stand_in(&path.parse().unwrap()));
        assert_ne!(one, other);
    }
}
