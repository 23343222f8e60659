//! `siris-agent trial-checks`: what the profile wants to see done in a slot on trial before it is kept.
//!
//! A check is a service that runs and ends: what it may do, how long it may take and what it says are its unit's own.
//! Owns: that each runs, in the profile's order, and what is kept of those that do not end well. Never: decides what
//! comes of it ([`crate::trial`] does), and nothing in a slot that is kept already.

use std::io;

use siris_api::HealthReason;
use siris_host::cmd::{Cmd, Tool};

use crate::root::{Root, SETTINGS};
use crate::settings::{Settings, SettingsError};
use crate::slots;

/// Checks that did not end well in this boot.
pub const FAILED: &str = "/run/siris/failed-checks.json";

/// Why the checks could not be run, or that some failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Reading or writing failed.
    #[error("cannot read the settings or keep what failed")]
    File(#[from] io::Error),
    /// The image is faulty.
    #[error("{SETTINGS} cannot be used")]
    Settings(#[from] SettingsError),
    /// Some did not end well.
    #[error("not every check of the trial ended well:{}", list(.0))]
    Failed(Vec<HealthReason>),
}

fn list(reasons: &[HealthReason]) -> String {
    reasons.iter().map(|r| format!("\n  {}", r.text)).collect()
}

/// Runs the profile's checks, all of them, if the booted slot is on trial; returns how many.
///
/// # Errors
/// When one does not end well, or they cannot be run.
pub fn run(root: &Root) -> Result<usize, CheckError> {
    let on_trial = crate::observe::booted_slot(root).slot.is_some_and(|slot| slots::on_trial(root, slot));
    if !on_trial {
        return Ok(0);
    }
    let settings = Settings::parse(&root.read(SETTINGS)?.unwrap_or_default())?;
    run_each(root, &settings.checks, |unit| {
        Cmd::new(Tool::Systemctl).args(["start", "--", unit]).run().map_err(|error| error.to_string())
    })
}

fn run_each(
    root: &Root,
    checks: &[String],
    mut start: impl FnMut(&str) -> Result<(), String>,
) -> Result<usize, CheckError> {
    let failed: Vec<HealthReason> = checks
        .iter()
        .filter_map(|unit| {
            let error = start(unit).err()?;
            eprintln!("{error}");
            let text = format!("{unit} did not end well: see its lines in the journal");
            Some(HealthReason { code: "check-failed".to_owned(), text })
        })
        .collect();
    let kept: Vec<(&str, &str)> = failed.iter().map(|r| (r.code.as_str(), r.text.as_str())).collect();
    root.write(FAILED, serde_json::to_string(&kept).map_err(io::Error::from)?.as_bytes(), 0o644)?;
    if failed.is_empty() { Ok(checks.len()) } else { Err(CheckError::Failed(failed)) }
}

/// The checks that did not end well in this boot.
pub fn failed(root: &Root) -> Vec<HealthReason> {
    let text = root.read(FAILED).ok().flatten().unwrap_or_default();
    let kept: Vec<(String, String)> = serde_json::from_str(&text).unwrap_or_default();
    kept.into_iter().map(|(code, text)| HealthReason { code, text }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_runs_and_each_that_fails_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let checks = ["one.service", "two.service", "three.service"].map(str::to_owned);
        let mut started = Vec::new();
        let mut start = |unit: &str| {
            started.push(unit.to_owned());
            if unit == "two.service" { Err("status 1".to_owned()) } else { Ok(()) }
        };
        assert!(matches!(run_each(&root, &checks, &mut start), Err(CheckError::Failed(failed)) if failed.len() == 1));
        assert_eq!(failed(&root)[0].text, "two.service did not end well: see its lines in the journal");
        assert_eq!(run_each(&root, &checks[2..], &mut start).unwrap(), 1);
        assert_eq!(failed(&root), []);
        assert_eq!(started, ["one.service", "two.service", "three.service", "three.service"]);
    }
}
