//! The numbers by which ZFS knows pools and vdevs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not a guid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a guid: a decimal number is wanted, as `zpool get guid` prints it")]
pub struct ParseGuidError(String);

macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The guid that is this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn number(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.to_string())
            }
        }

        impl FromStr for $name {
            type Err = ParseGuidError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                // `u64::from_str` takes a sign; two texts for one guid would break comparisons of answers as text.
                match text.parse() {
                    Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Self(number)),
                    _ => Err(ParseGuidError(text.to_owned())),
                }
            }
        }

        // Text, since TOML and JSON readers lose digits of numbers beyond 2^63 or 2^53.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

guid! {
    /// What a pool is: its name may change, its guid changes only by `zpool reguid` and `zpool split`.
    PoolGuid
}
guid! {
    /// What a vdev is, whether a disk or a group of disks. Unique in its pool.
    VdevGuid
}

#[cfg(test)]
mod tests {
    use super::PoolGuid;

    #[test]
    fn a_guid_has_one_text() {
        let guid: PoolGuid = "18446744073709551615".parse().unwrap();
        assert_eq!((guid.number(), guid.to_string()), (u64::MAX, "18446744073709551615".to_owned()));
        assert_eq!(serde_json::to_string(&guid).unwrap(), "\"18446744073709551615\"");
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "18446744073709551616", "1a"] {
            assert!(text.parse::<PoolGuid>().is_err(), "{text:?}");
        }
    }
}
