//! The two slots and the states they can be in.

use std::fmt;
use std::str::FromStr;

/// One of the two places where an OS can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Partitions `siris-boot-a` and `siris-a`.
    A,
    /// Partitions `siris-boot-b` and `siris-b`.
    B,
}

/// A word that names no slot, state or number of tries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct ParseSlotError {
    text: String,
    wanted: &'static str,
}

impl ParseSlotError {
    pub(crate) fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.to_owned(), wanted }
    }
}

impl Slot {
    /// Both, in their order.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// The one that this is not.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// `a` or `b`.
    pub fn as_str(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Slot {
    type Err = ParseSlotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "a" => Ok(Slot::A),
            "b" => Ok(Slot::B),
            _ => Err(ParseSlotError::new(text, "a slot: `a` or `b`")),
        }
    }
}

/// What is known of the OS in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// None, or one that is being written.
    Empty,
    /// A complete one that has not been healthy yet.
    Trial,
    /// One that has been healthy.
    Good,
    /// One that was tried in vain, or was marked so.
    Bad,
}

impl SlotState {
    /// The word in the GRUB environment.
    pub fn as_str(self) -> &'static str {
        match self {
            SlotState::Empty => "empty",
            SlotState::Trial => "trial",
            SlotState::Good => "good",
            SlotState::Bad => "bad",
        }
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SlotState {
    type Err = ParseSlotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "empty" => Ok(SlotState::Empty),
            "trial" => Ok(SlotState::Trial),
            "good" => Ok(SlotState::Good),
            "bad" => Ok(SlotState::Bad),
            _ => Err(ParseSlotError::new(text, "a slot state: `empty`, `trial`, `good` or `bad`")),
        }
    }
}

/// How often a slot may still be booted before its health has to give the tries back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tries(u8);

impl Tries {
    /// None left.
    pub const NONE: Tries = Tries(0);
    /// What a slot has when it is armed or found healthy.
    pub const FULL: Tries = Tries(3);

    /// How many these are.
    pub fn left(self) -> u8 {
        self.0
    }

    /// One fewer, or `None` when there was none to spend.
    pub fn spend(self) -> Option<Tries> {
        self.0.checked_sub(1).map(Tries)
    }
}

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Tries {
    type Err = ParseSlotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "0" => Ok(Tries(0)),
            "1" => Ok(Tries(1)),
            "2" => Ok(Tries(2)),
            "3" => Ok(Tries(3)),
            _ => Err(ParseSlotError::new(text, "a number of tries: 0 to 3")),
        }
    }
}
