//! Vectors: how a dataset gets to another machine, and how it stays the same there.
//!
//! Owns: what is sent next ([`plan`]), what a vector leaves on both ends ([`end`]), one sync from its beginning to its
//! end ([`sync`], or [`rsync`] where one end has no ZFS), and what of a dataset vectors need ([`needs`]).
//! Never: rolls back, forces, or destroys a snapshot. Where the two ends do not fit, that has a name and a remedy, and
//! both stay as they are.
//!
//! What a vector knows of a dataset lies in ZFS itself, on both ends: a hold on the newest snapshot that both have, its
//! base, and a bookmark of it, named by the vector and the snapshot's guid. So nothing is lost with a database, and
//! whoever looks at a snapshot sees who needs it.

pub mod aside;
pub mod digest;
pub mod end;
pub mod keys;
pub mod lag;
pub mod limit;
pub mod needs;
mod pace;
pub mod peer;
pub mod plan;
pub mod prove;
pub mod record;
pub mod remote;
pub mod role;
pub mod rsync;
pub mod schedule;
mod server;
pub mod sync;
mod week;
mod wire;
pub mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use siris_zfs::{Guid, Label};
use uuid::Uuid;

/// What the tags of the holds of all vectors begin with.
const TAGS: &str = "siris:vector:";
/// What their bookmarks begin with.
const BOOKMARKS: &str = "siris-vector-";

/// A vector: the machine that made it, and its number there. Printed as `UUID_N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VectorId {
    /// Device id of the machine.
    pub device: Uuid,
    /// Its number, from 1 on.
    pub number: u64,
}

/// A text that is no vector's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a vector's id: the device id of the box that made it, _ and a number")]
pub struct VectorIdError(String);

impl fmt::Display for VectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.device.hyphenated(), self.number)
    }
}

impl FromStr for VectorId {
    type Err = VectorIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('_').and_then(|(device, number)| {
            let id = VectorId { device: device.parse().ok()?, number: number.parse().ok().filter(|n| *n > 0)? };
            // One vector, one spelling: its marks are found by it.
            (id.to_string() == text).then_some(id)
        });
        parts.ok_or_else(|| VectorIdError(text.to_owned()))
    }
}

impl VectorId {
    /// The tag of its holds.
    pub fn tag(&self) -> Label {
        label(format!("{TAGS}{self}"))
    }

    /// The vector whose hold has this tag; `None` for every other one.
    pub fn of_tag(tag: &Label) -> Option<Self> {
        tag.as_str().strip_prefix(TAGS)?.parse().ok()
    }

    /// The name of its bookmark of the snapshot with this guid.
    pub fn bookmark(&self, guid: Guid) -> Label {
        label(format!("{}{guid}", self.bookmarks()))
    }

    /// Whether a bookmark of that name is one of its own.
    pub fn owns(&self, bookmark: &Label) -> bool {
        bookmark.as_str().strip_prefix(&self.bookmarks()).is_some_and(|guid| guid.parse::<Guid>().is_ok())
    }

    /// The vector that has made a bookmark; `None` for every other one.
    pub fn of_bookmark(bookmark: &Label) -> Option<Self> {
        let (id, guid) = bookmark.as_str().strip_prefix(BOOKMARKS)?.rsplit_once('-')?;
        guid.parse::<Guid>().ok()?;
        id.parse().ok()
    }

    fn bookmarks(&self) -> String {
        format!("{BOOKMARKS}{self}-")
    }
}

fn label(text: String) -> Label {
    // Letters, digits, dashes and colons, some 80 of them.
    text.parse().expect("the name of a vector's mark is one of ZFS's")
}
