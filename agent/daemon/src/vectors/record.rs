//! What is kept of machines and vectors.

use std::fmt;
use std::str::FromStr;

use siris_zfs::DatasetName;
use uuid::Uuid;

use super::limit::Limits;
use super::peer::Rights;
use super::remote::Address;

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
    /// The other machine.
    pub machine: Name,
    /// Which way the data goes.
    pub direction: Direction,
    /// The dataset on the source.
    pub source: DatasetName,
    /// The dataset on the target.
    pub target: DatasetName,
    /// What the replica is for.
    pub tier: Tier,
    /// Who goes first where several wait.
    pub priority: Priority,
    /// How much of the link it may take, and when.
    pub limits: Limits,
    /// It waits until somebody has it go on.
    pub paused: bool,
    /// The newest snapshot of which both ends were read and found the same; empty where none was.
    pub proven: String,
}
