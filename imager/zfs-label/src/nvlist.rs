//! Packed lists of names and values ("nvlists"), in the two encodings that OpenZFS knows.
//!
//! Labels are written in XDR (RFC 4506, always big-endian). The native encoding, in the byte order of its writer, is
//! understood too, since ZFS itself would take it. Source: OpenZFS `module/nvpair/nvpair.c`. Only the kinds of values
//! that labels use are kept; all others are checked and passed over.

mod native;
mod xdr;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::bytes::{Cursor, Endian};
use crate::damage::NvlistError;

/// How deep lists may lie in each other. A label of the deepest pool (raidz of replaced spares) needs 6; ZFS stops at
/// 100 (and below 20 in its kernel).
const MAX_DEPTH: usize = 16;

/// A list of names and values. Each name is there once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct List(BTreeMap<String, Value>);

/// A value of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A name without a value: it is there, or it is not.
    Flag,
    /// An unsigned number of 64 bits.
    Number(u64),
    /// Several of them.
    Numbers(Vec<u64>),
    /// A text, free of control characters.
    Text(String),
    /// A list.
    List(List),
    /// Several lists.
    Lists(Vec<List>),
    /// Something of a kind that labels have no use for.
    Other,
}

impl List {
    /// Reads the packed list at the start of `bytes`. What follows it is not looked at.
    pub(crate) fn unpack(bytes: &[u8]) -> Result<Self, NvlistError> {
        let mut header = Cursor::new(bytes);
        let [encoding, endian, _, _] = header.array()?;
        match (encoding, endian) {
            (0, 0) => native::unpack(header.with(Endian::Big)),
            (0, 1) => native::unpack(header.with(Endian::Little)),
            // The byte order that an XDR list names is its writer's, and means nothing.
            (1, 0 | 1) => xdr::unpack(header.with(Endian::Big)),
            _ => Err(NvlistError::Encoding),
        }
    }

    /// The value of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn insert(&mut self, name: String, value: Value) -> Result<(), NvlistError> {
        match self.0.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
            // Two readers could each believe another one of the two.
            Entry::Occupied(_) => Err(NvlistError::Duplicate),
        }
    }
}

/// What is known of a kind of value by its number (`data_type_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    /// One number of that many bytes.
    Scalar(usize),
    /// Numbers of that many bytes each.
    Array(usize),
    /// Bytes, packed without gaps in both encodings.
    Bytes,
    Text,
    Texts,
    List,
    Lists,
}

impl Kind {
    fn of(number: u32) -> Result<Self, NvlistError> {
        Ok(match number {
            1 => Self::Flag,
            // Byte, int8, uint8
            2 | 22 | 23 => Self::Scalar(1),
            // int16, uint16
            3 | 4 => Self::Scalar(2),
            // int32, uint32, boolean value
            5 | 6 | 21 => Self::Scalar(4),
            // int64, uint64, hrtime, double
            7 | 8 | 18 | 27 => Self::Scalar(8),
            9 => Self::Text,
            10 => Self::Bytes,
            // int8 array, uint8 array
            25 | 26 => Self::Array(1),
            // int16 array, uint16 array
            11 | 12 => Self::Array(2),
            // int32 array, uint32 array, boolean array
            13 | 14 | 24 => Self::Array(4),
            // int64 array, uint64 array
            15 | 16 => Self::Array(8),
            17 => Self::Texts,
            19 => Self::List,
            20 => Self::Lists,
            _ => return Err(NvlistError::Type),
        })
    }

    /// Can there be that many values of this kind under one name?
    fn allows(self, count: usize) -> bool {
        match self {
            Self::Flag => count == 0,
            Self::Scalar(_) | Self::Text | Self::List => count == 1,
            Self::Array(_) | Self::Bytes | Self::Texts | Self::Lists => true,
        }
    }
}

/// Numbers of these kinds (`uint64`, `uint64 array`) are kept.
const UINT64: u32 = 8;
const UINT64_ARRAY: u32 = 16;

/// The text in `bytes`, up to a NUL if there is one. Texts of labels end up on consoles: what is no character is
/// replaced, and so is what would command a terminal.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end])
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
