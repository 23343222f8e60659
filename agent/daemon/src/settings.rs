//! `/usr/lib/siris/agent.toml`: what the profile asks of the agent.

use serde::Deserialize;

use crate::root::{Root, SETTINGS};

/// The file's shape.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SettingsFile {
    schema: u32,
    #[serde(default)]
    health: HealthFile,
    #[serde(default)]
    upgrade: UpgradeFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct HealthFile {
    #[serde(default)]
    units: Vec<String>,
    state_free_min: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UpgradeFile {
    #[serde(default)]
    checks: Vec<String>,
}

/// Why the settings cannot be used. The image is at fault.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not the known shape.
    #[error("not the known shape")]
    Shape(#[from] toml::de::Error),
    /// Written for another agent.
    #[error("schema {0} is unknown; this agent reads schema 1")]
    Schema(u32),
    /// Neither a share nor a size.
    #[error("health.state-free-min: \"{0}\" is neither a share like \"5%\" nor a size like \"200MiB\"")]
    FreeMin(String),
    /// Not a unit's name.
    #[error("{0}: \"{1}\" is not a unit name")]
    Unit(&'static str, String),
}

/// The least free space the state partition must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeMin {
    /// Per cent of the partition.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

impl FreeMin {
    /// The least number of free bytes on a partition of `size` bytes.
    pub fn bytes_of(self, size: u64) -> u64 {
        match self {
            FreeMin::Percent(percent) => size / 100 * u64::from(percent),
            FreeMin::Bytes(bytes) => bytes,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().ok().filter(|p| *p <= 100).map(FreeMin::Percent);
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u64 = match &text[digits.len()..] {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(unit).map(FreeMin::Bytes)
    }
}

/// What the profile asks of the agent, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Units that must be active.
    pub units: Vec<String>,
    /// Least free space on `/state`.
    pub state_free_min: FreeMin,
    /// Units that must run to a good end in a slot on trial.
    pub checks: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { units: Vec::new(), state_free_min: FreeMin::Percent(5), checks: Vec::new() }
    }
}

impl Settings {
    /// Those of the image; the usual ones where they cannot be read, which the box's health tells.
    pub fn of(root: &Root) -> Self {
        let text = root.read(SETTINGS).ok().flatten().unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    /// Reads them from the file's text.
    ///
    /// # Errors
    /// When the text is not what the builder of this release writes.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let file: SettingsFile = toml::from_str(text)?;
        if file.schema != 1 {
            return Err(SettingsError::Schema(file.schema));
        }
        let state_free_min = match file.health.state_free_min {
            None => Settings::default().state_free_min,
            Some(text) => FreeMin::parse(&text).ok_or(SettingsError::FreeMin(text))?,
        };
        let valid = |unit: &&String| {
            unit.contains('.') && unit.chars().all(|c| c.is_ascii_alphanumeric() || "@-_.:\\".contains(c))
        };
        for (key, units) in [("health.units", &file.health.units), ("upgrade.checks", &file.upgrade.checks)] {
            if let Some(bad) = units.iter().find(|u| !valid(u)) {
                return Err(SettingsError::Unit(key, bad.clone()));
            }
        }
        Ok(Settings { units: file.health.units, state_free_min, checks: file.upgrade.checks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_sizes() {
        let parse = |min: &str| {
            Settings::parse(&format!("schema = 1\n[health]\nunits = [\"ssh.service\"]\nstate-free-min = \"{min}\"\n"))
        };
        assert_eq!(parse("5%").unwrap().state_free_min.bytes_of(1000), 50);
        assert_eq!(parse("200MiB").unwrap().state_free_min.bytes_of(0), 200 << 20);
        for bad in ["5", "101%", "-1%", "5 %", "MiB", "5MB", "99999999999999GiB"] {
            let accepted = parse(bad).is_ok();
            assert_eq!(accepted, bad == "5", "{bad}");
        }
    }

    #[test]
    fn an_unknown_key_is_a_fault() {
        assert!(Settings::parse("schema = 1\n[health]\nunit = []\n").is_err());
        assert!(matches!(Settings::parse("schema = 2\n"), Err(SettingsError::Schema(2))));
        assert!(matches!(
            Settings::parse("schema = 1\n[health]\nunits = [\"x/../y.service\"]\n"),
            Err(SettingsError::Unit("health.units", _))
        ));
        assert!(matches!(
            Settings::parse("schema = 1\n[upgrade]\nchecks = [\"--now.service x\"]\n"),
            Err(SettingsError::Unit("upgrade.checks", _))
        ));
    }
}
