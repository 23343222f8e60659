//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An exact number of bytes. Text form: a number with an optional binary unit (`200MiB`, `4GiB`, `512`); files may
/// also hold a plain number, which is what is written to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a whole number of bytes or one with KiB, MiB, GiB or TiB, such as `4GiB`")]
pub struct ParseSizeError(String);

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl ByteSize {
    /// A size of `n` bytes.
    pub const fn from_bytes(n: u64) -> Self {
        Self(n)
    }

    /// A size of `n` MiB.
    ///
    /// # Panics
    /// When that is more than a u64 holds.
    pub const fn mib(n: u64) -> Self {
        match n.checked_mul(1 << 20) {
            Some(bytes) => Self(bytes),
            None => panic!("size out of range"),
        }
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in the unit that reads best, rounded to a tenth: `543.2 MiB`. For people; does not parse back.
    pub fn rounded(self) -> String {
        for (unit, shift) in UNITS {
            if self.0 >= 1 << shift {
                return format!("{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64);
            }
        }
        format!("{} B", self.0)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return f.pad(&format!("{}{unit}", self.0 >> shift));
            }
        }
        f.pad(&self.0.to_string())
    }
}

impl FromStr for ByteSize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || ParseSizeError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| fault())?;
        let shift = match &text[digits..] {
            "" | "B" => 0,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?.1,
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(fault)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"4GiB\" or a number of bytes")
            }

            fn visit_u64<E: Error>(self, n: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(n))
            }

            fn visit_i64<E: Error>(self, n: i64) -> Result<ByteSize, E> {
                u64::try_from(n).map(ByteSize).map_err(|_| E::custom(format!("{n} is not a size")))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn units_are_binary_and_exact() {
        for (text, bytes) in [("0", 0), ("512", 512), ("7B", 7), ("200MiB", 200 << 20), ("4GiB", 4 << 30)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "GiB", "4 GiB", "4GB", "4gib", "-1", "1.5GiB", "99999999TiB", "4GiBx", "é"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(n: u64, shift in 0u32..50) {
            let size = ByteSize(n >> shift << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
