//! The signed payload: manifest, signatures, verity tree.
//!
//! Owns the formats that a disk image, an installer and an upgrade share: what a manifest says, who may have
//! signed it, and how a root image is hashed. Everything here is pure: bytes come in through `Read` or slices and
//! go out through `Write`. It opens no file, knows no slot and no disk, and never uses a payload byte before the
//! manifest that names it was verified.

pub mod bundle;
pub mod delta;
pub mod digest;
pub mod keys;
pub mod manifest;
pub mod signature;
pub mod size;
pub mod verity;
pub mod version;

pub use bundle::Bundle;
pub use digest::{HashingReader, HashingWriter, Sha256};
pub use manifest::{Manifest, MemberKind};
pub use signature::SignedManifest;
pub use size::ByteSize;
pub use version::Version;

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// What was given is wrong: another file, another option.
    Input,
    /// What surrounds the program is wrong: a medium, a network, a full disk.
    Environment,
    /// The machine itself refuses.
    Host,
    /// This program is wrong.
    Bug,
}

impl Class {
    /// The word used in JSON and on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Input => "input",
            Class::Environment => "environment",
            Class::Host => "host",
            Class::Bug => "bug",
        }
    }
}

/// Serialises a type as the text its `Display` prints and its `FromStr` reads.
macro_rules! text_serde {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;
