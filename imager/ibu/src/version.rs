//! Versions of an image.

use std::fmt;
use std::str::FromStr;

use crate::text_serde;

/// `MAJOR.MINOR.PATCH`, ordered as semver orders it. Pre-releases and build metadata are refused: a version orders
/// upgrades on boxes, and two texts must never mean the same place in that order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

/// A text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version: MAJOR.MINOR.PATCH is wanted, such as `1.4.0`")]
pub struct ParseVersionError(String);

impl Version {
    /// The version `major.minor.patch`.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self(semver::Version::new(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match semver::Version::parse(text) {
            Ok(v) if v.pre.is_empty() && v.build.is_empty() => Ok(Self(v)),
            _ => Err(ParseVersionError(text.to_owned())),
        }
    }
}

text_serde!(Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_plain_numbers() {
        let parsed: Version = "1.10.0".parse().unwrap();
        assert_eq!(parsed, Version::new(1, 10, 0));
        assert!(parsed > Version::new(1, 9, 99));
        for bad in ["", "1", "1.2", "v1.2.3", "1.2.3-rc1", "1.2.3+x", "01.2.3", "1.2.3.4", " 1.2.3"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
