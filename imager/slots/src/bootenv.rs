//! The boot state: GRUB's environment block, and the changes that are legal.
//!
//! The block is 1024 bytes: a signature line, `name=value` lines, then `#` to the end (GRUB manual, "Environment
//! block"). Everything we keep is in its first 512 bytes and the rest is always `#`, so a write that is torn between
//! sectors leaves the old or the new state, never a mixture. It is loaded from bytes, changed in memory, and written
//! by the caller in one piece over the same disk blocks: GRUB can only save to a file whose blocks never move.
//! [`decide()`] is the model of what the boot script does with it.

mod model;
#[cfg(test)]
mod tests;

pub use model::{BootDecision, Outcome, Skip, decide};

use std::str::FromStr;

use siris_ibu::Class;

use crate::slot::{ParseSlotError, Slot, SlotState, Tries};

/// Size of the block.
pub const BLOCK: usize = 1024;
/// Where the block is on the EFI system partition.
pub const PATH: &str = "siris/grubenv";
const SECTOR: usize = 512;
const SIGNATURE: &str = "# GRUB Environment Block\n";

/// Why a boot state could not be read or written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootEnvError {
    /// Not 1024 bytes.
    #[error("the boot environment has {0} bytes, not {BLOCK}")]
    Size(usize),
    /// The first line is not GRUB's.
    #[error("the boot environment does not begin with GRUB's signature")]
    Signature,
    /// A line is not `name=value`, or not text.
    #[error("line {0} of the boot environment is not `name=value`")]
    Line(usize),
    /// A variable of ours has a value that means nothing.
    #[error("`{name}` in the boot environment cannot be read")]
    Value {
        /// The variable.
        name: String,
        /// What is wrong.
        source: ParseSlotError,
    },
    /// The variables would reach beyond the first sector.
    #[error("the boot environment needs {0} bytes, but only the {SECTOR} of one sector are written in one piece")]
    Full(usize),
    /// The change makes no sense in the state the slot is in.
    #[error("slot {slot} is {state}: it cannot be {change}")]
    Transition {
        /// The slot.
        slot: Slot,
        /// Its state.
        state: SlotState,
        /// The change that was asked for.
        change: &'static str,
    },
}

impl BootEnvError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Size(_) | Self::Signature | Self::Line(_) | Self::Value { .. } => "bootenv-unreadable",
            Self::Full(_) => "bootenv-full",
            Self::Transition { .. } => "slot-transition",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Full(_) => Class::Bug,
            Self::Transition { .. } => Class::Input,
            _ => Class::Host,
        }
    }
}

/// What is recorded of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its state.
    pub state: SlotState,
    /// The tries it has left.
    pub tries: Tries,
}

/// The boot state in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEnv {
    order: [Slot; 2],
    records: [Record; 2],
    last: Option<Slot>,
    halted: Option<String>,
    /// Variables of others, in their order.
    others: Vec<(String, String)>,
}

impl BootEnv {
    /// The state of a disk that has just been given its first OS.
    pub fn first(slot: Slot) -> Self {
        let empty = Record { state: SlotState::Empty, tries: Tries::NONE };
        let mut env =
            Self { order: [slot, slot.other()], records: [empty; 2], last: None, halted: None, others: Vec::new() };
        *env.record_mut(slot) = Record { state: SlotState::Good, tries: Tries::FULL };
        env
    }

    /// Reads the block. A variable that is absent has the value with which nothing boots.
    pub fn parse(bytes: &[u8]) -> Result<Self, BootEnvError> {
        if bytes.len() != BLOCK {
            return Err(BootEnvError::Size(bytes.len()));
        }
        let body = bytes.strip_prefix(SIGNATURE.as_bytes()).ok_or(BootEnvError::Signature)?;
        let mut env = Self::first(Slot::A);
        env.records[0] = env.records[1];
        for (n, line) in lines(body).enumerate() {
            let fault = || BootEnvError::Line(n + 2);
            let line = String::from_utf8(line).map_err(|_| fault())?;
            let (name, value) = line.split_once('=').ok_or_else(fault)?;
            env.set(name, value).map_err(|source| BootEnvError::Value { name: name.to_owned(), source })?;
        }
        Ok(env)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ParseSlotError> {
        match name {
            "order" => self.order = parse_order(value)?,
            "a_state" => self.record_mut(Slot::A).state = value.parse()?,
            "b_state" => self.record_mut(Slot::B).state = value.parse()?,
            "a_tries" => self.record_mut(Slot::A).tries = value.parse()?,
            "b_tries" => self.record_mut(Slot::B).tries = value.parse()?,
            "last" => self.last = non_empty(value).map(Slot::from_str).transpose()?,
            "halted" => self.halted = non_empty(value).map(str::to_owned),
            _ => {
                self.others.retain(|(other, _)| other != name);
                self.others.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }

    /// The block to write.
    pub fn to_block(&self) -> Result<[u8; BLOCK], BootEnvError> {
        let [first, second] = self.order;
        let mut text = format!("{SIGNATURE}order={first} {second}\n");
        for slot in Slot::ALL {
            let Record { state, tries } = self.record(slot);
            text += &format!("{slot}_state={state}\n{slot}_tries={tries}\n");
        }
        let last = self.last.map(|slot| ("last", slot.as_str()));
        let halted = self.halted.as_deref().map(|why| ("halted", why));
        let others = self.others.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in last.into_iter().chain(halted).chain(others) {
            let value = value.replace('\\', "\\\\").replace('\n', "\\\n");
            text += &format!("{name}={value}\n");
        }
        if text.len() > SECTOR {
            return Err(BootEnvError::Full(text.len()));
        }
        let mut block = [b'#'; BLOCK];
        block[..text.len()].copy_from_slice(text.as_bytes());
        Ok(block)
    }

    /// The order in which slots are tried.
    pub fn order(&self) -> [Slot; 2] {
        self.order
    }

    /// A variable that is none of the boot script's.
    pub fn other(&self, name: &str) -> Option<&str> {
        self.others.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Keeps a variable that the boot script of the disk does not look at, for who looks at the disk from outside.
    pub fn set_other(&mut self, name: &str, value: &str) {
        self.others.retain(|(other, _)| other != name);
        self.others.push((name.to_owned(), value.to_owned()));
    }

    /// Takes such a variable away.
    pub fn remove_other(&mut self, name: &str) {
        self.others.retain(|(other, _)| other != name);
    }

    /// What is recorded of `slot`.
    pub fn record(&self, slot: Slot) -> Record {
        self.records[slot as usize]
    }

    fn record_mut(&mut self, slot: Slot) -> &mut Record {
        &mut self.records[slot as usize]
    }

    /// The slot that was last attempted.
    pub fn last(&self) -> Option<Slot> {
        self.last
    }

    /// Why the boot loader halted, when it did since the last healthy boot.
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// The booted slot is healthy: it is good and has its tries back. Says whether that changed anything.
    pub fn bless(&mut self, slot: Slot) -> Result<bool, BootEnvError> {
        let before = self.clone();
        match self.record(slot).state {
            // `Bad` too: it was marked while it ran, and is now healthy all the same; but only a person unmarks it.
            SlotState::Trial | SlotState::Good => {
                *self.record_mut(slot) = Record { state: SlotState::Good, tries: Tries::FULL };
                self.halted = None;
            }
            state => return Err(BootEnvError::Transition { slot, state, change: "found healthy" }),
        }
        Ok(*self != before)
    }

    /// `slot` is about to be written: it must not boot until it is armed. The other one comes first from now on.
    pub fn clear(&mut self, slot: Slot) {
        *self.record_mut(slot) = Record { state: SlotState::Empty, tries: Tries::NONE };
        self.order = [slot.other(), slot];
    }

    /// `slot` holds a complete and verified OS: it is tried first from now on.
    pub fn arm(&mut self, slot: Slot) -> Result<(), BootEnvError> {
        let change = "armed";
        match self.record(slot).state {
            SlotState::Empty | SlotState::Trial => {}
            state @ (SlotState::Good | SlotState::Bad) => {
                return Err(BootEnvError::Transition { slot, state, change });
            }
        }
        *self.record_mut(slot) = Record { state: SlotState::Trial, tries: Tries::FULL };
        self.order = [slot, slot.other()];
        Ok(())
    }

    /// `slot` is not to be booted again. Refused for the last one that is good: a box must keep one to boot.
    pub fn mark_bad(&mut self, slot: Slot) -> Result<(), BootEnvError> {
        let state = self.record(slot).state;
        let only_good = state == SlotState::Good && self.record(slot.other()).state != SlotState::Good;
        if only_good || state == SlotState::Empty {
            return Err(BootEnvError::Transition { slot, state, change: "marked bad (no other slot is good)" });
        }
        *self.record_mut(slot) = Record { state: SlotState::Bad, tries: Tries::NONE };
        self.order = [slot.other(), slot];
        Ok(())
    }

    /// A good `slot` is tried first from now on.
    pub fn prefer(&mut self, slot: Slot) -> Result<(), BootEnvError> {
        match self.record(slot).state {
            SlotState::Good => {
                self.order = [slot, slot.other()];
                Ok(())
            }
            state => Err(BootEnvError::Transition { slot, state, change: "preferred" }),
        }
    }
}

fn non_empty(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty())
}

fn parse_order(value: &str) -> Result<[Slot; 2], ParseSlotError> {
    match value {
        "a b" => Ok([Slot::A, Slot::B]),
        "b a" => Ok([Slot::B, Slot::A]),
        _ => Err(ParseSlotError::new(value, "an order of slots: `a b` or `b a`")),
    }
}

/// The lines of the body, comments and padding left out, backslash escapes undone. A last line without an end is
/// one too: GRUB would take it so.
fn lines(body: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut lines = vec![Vec::new()];
    let mut bytes = body.iter().copied();
    let (mut comment, mut start) = (false, true);
    while let Some(byte) = bytes.next() {
        comment |= start && byte == b'#';
        start = false;
        match byte {
            b'\n' => {
                lines.push(Vec::new());
                (comment, start) = (false, true);
            }
            _ if comment => {}
            b'\\' => lines.last_mut().into_iter().for_each(|line| line.extend(bytes.next())),
            byte => lines.last_mut().into_iter().for_each(|line| line.push(byte)),
        }
    }
    lines.into_iter().filter(|line| !line.is_empty())
}
