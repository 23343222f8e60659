//! Why a label copy, or a list of names and values in it, cannot be used.

use serde::{Deserialize, Serialize};
use siris_ibu::Class;

/// Why a list of names and values cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum NvlistError {
    /// It ends before it is complete.
    #[error("it ends too early")]
    Short,
    /// Neither of the two encodings, or an unknown byte order or version.
    #[error("its encoding is unknown")]
    Encoding,
    /// A length does not fit what it counts.
    #[error("a length in it is impossible")]
    Length,
    /// A text has no end.
    #[error("a text in it has no end")]
    Text,
    /// A name is there twice.
    #[error("a name in it is there twice")]
    Duplicate,
    /// A value of a type that does not exist.
    #[error("a value in it has an unknown type")]
    Type,
    /// Lists in lists in lists: more than ZFS ever makes.
    #[error("it is nested too deeply")]
    Depth,
}

/// What is wrong with a label copy that is there, or that left traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "damage")]
pub enum Damage {
    /// The device refused to read it.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// There is something of a label (a configuration, uberblocks), but nothing that vouches for it.
    #[error("has no checksum")]
    NoChecksum,
    /// Its bytes are not those that ZFS wrote, or were written for another place.
    #[error("fails its checksum")]
    Checksum,
    /// What the checksum covers is no list of names and values.
    #[error("holds no configuration: {source}")]
    Nvlist {
        /// Why.
        source: NvlistError,
    },
    /// The configuration lacks a value, or has an impossible one.
    #[error("holds an unusable configuration: `{field}` is missing or impossible")]
    Content {
        /// The name of the value in the label.
        field: String,
    },
}

impl Damage {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "label-unreadable",
            Self::NoChecksum => "label-no-checksum",
            Self::Checksum => "label-checksum",
            Self::Nvlist { .. } => "label-nvlist",
            Self::Content { .. } => "label-content",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        Class::Host
    }
}
