//! GUIDs of disks and partitions.

use std::fmt;
use std::str::FromStr;

use siris_ibu::Sha256;
use uuid::Uuid;

/// A GUID as GPT has it. Text form: lower case with dashes, as in `/dev/disk/by-partuuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(Uuid);

impl Guid {
    /// The GUID with this number, read in the order of its text form.
    pub const fn from_u128(n: u128) -> Self {
        Self(Uuid::from_u128(n))
    }

    /// From the 16 bytes of a GPT entry (its first three fields are little-endian).
    pub fn from_disk(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes_le(bytes))
    }

    /// The 16 bytes of a GPT entry.
    pub fn to_disk(self) -> [u8; 16] {
        self.0.to_bytes_le()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl FromStr for Guid {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Where the GUIDs of a new layout come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuidSource {
    /// The system's randomness: an install.
    Random,
    /// Derived from a seed: a disk image that two builders make alike.
    Seed(Sha256),
}

impl GuidSource {
    /// The GUID for what `label` names.
    pub fn guid(&self, label: &str) -> Guid {
        match self {
            Self::Random => Guid(Uuid::new_v4()),
            Self::Seed(seed) => {
                let digest = Sha256::of(&[seed.as_bytes(), label.as_bytes()].concat());
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&digest.as_bytes()[..16]);
                Guid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
            }
        }
    }

    /// The serial number of a FAT file system that `label` names.
    pub fn volume_id(&self, label: &str) -> u32 {
        self.guid(label).0.as_u64_pair().1 as u32
    }
}
