//! The end of a trial that failed: the box goes back to the slot it came from, and there says why.
//!
//! Owns: the decision, the report of it on the state partition, and the mark in the boot environment, which is there even
//! when the state partition is full. Never: acts in a slot that is not on trial, or where there is no good one to go to.
//! A trial that ends in a panic or a hang leaves no report: its tries are spent, which [`failed`] tells as well.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use siris_api::HealthReason;
use siris_host::cmd::{Cmd, Tool};
use siris_slots::{BootEnv, Slot, SlotState};

use crate::observe;
use crate::root::Root;
use crate::slots::{OsDisk, SlotsError};

/// Why the last trial failed.
pub const REPORT: &str = "/var/lib/siris/failed-trial.json";
/// Its journal.
pub const JOURNAL: &str = "/var/lib/siris/failed-trial.journal.gz";
/// The variable of the boot environment that says that a trial failed: slot, colon, code of the first reason.
const VARIABLE: &str = "failed_trial";
/// Lines of the journal that are kept: its last ones, where what went wrong stands.
const JOURNAL_LINES: &str = "30000";
/// Longest code that goes into the boot environment.
const CODE_MAX: usize = 40;

/// Why a trial failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The slot that was tried.
    pub slot: String,
    /// The boot's id, as the journal has it.
    pub boot: String,
    /// Code and text of each reason.
    pub reasons: Vec<(String, String)>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The booted slot is not on trial.
    NotOnTrial,
    /// There is no good slot to go back to.
    NoWayBack,
    /// This slot is never booted again; the other one is next.
    TakenBack(Slot),
}

/// Takes the trial of the booted slot back for these reasons, if it is on trial. The box is to be rebooted then.
///
/// # Errors
/// When the boot environment cannot be read or written. A report that cannot be kept is no error.
pub fn take_back(root: &Root, reasons: &[HealthReason]) -> Result<Outcome, SlotsError> {
    let slot = observe::booted_slot(root).slot.ok_or(SlotsError::NoSlot)?;
    let disk = OsDisk::find(root)?;
    let mut env = disk.environment()?;
    if env.record(slot).state != SlotState::Trial {
        return Ok(Outcome::NotOnTrial);
    }
    if env.record(slot.other()).state != SlotState::Good {
        return Ok(Outcome::NoWayBack);
    }
    let code = reasons.first().map_or("no-answer", |reason| reason.code.as_str());
    env.mark_bad(slot)?;
    env.set_other(VARIABLE, &format!("{slot}:{}", code.chars().take(CODE_MAX).collect::<String>()));
    disk.save(&env)?;
    let reasons = reasons.iter().map(|reason| (reason.code.clone(), reason.text.clone())).collect();
    let boot = root.read("/proc/sys/kernel/random/boot_id").ok().flatten().unwrap_or_default().trim().to_owned();
    let report = Report { slot: slot.to_string(), boot, reasons };
    if let Err(error) = keep(root, &report) {
        eprintln!("the report of the failed trial cannot be kept: {error}");
    }
    Ok(Outcome::TakenBack(slot))
}

fn keep(root: &Root, report: &Report) -> io::Result<()> {
    // What an earlier trial left would be taken for this one's.
    root.remove(REPORT)?;
    root.remove(JOURNAL)?;
    root.write(REPORT, serde_json::to_string_pretty(report)?.as_bytes(), 0o644)?;
    if root.is_machine() {
        let args = ["-b", "--no-pager", "-o", "short-precise", "-n", JOURNAL_LINES];
        let text = Cmd::new(Tool::Journalctl).args(args).output().map_err(io::Error::other)?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(&text)?;
        root.write(JOURNAL, &packed.finish()?, 0o640)?;
    }
    Ok(())
}

/// The slot is written anew: what an earlier trial in it came to is over.
pub(crate) fn forget(env: &mut BootEnv) {
    env.remove_other(VARIABLE);
}

/// What is known of a trial of this slot that failed, in words; `None` when none did since it was written.
///
/// # Errors
/// When the boot environment cannot be read.
pub fn failed(root: &Root, slot: Slot) -> Result<Option<String>, SlotsError> {
    let env = OsDisk::find(root)?.environment()?;
    let record = env.record(slot);
    if record.state == SlotState::Trial && record.tries.left() == 0 {
        let text = "no-answer: none of its tries came as far as to say why; its last words are in `journalctl -b -1`";
        return Ok(Some(text.to_owned()));
    }
    let Some((name, code)) = env.other(VARIABLE).and_then(|text| text.split_once(':')) else { return Ok(None) };
    if name != slot.as_str() || record.state != SlotState::Bad {
        return Ok(None);
    }
    let report: Option<Report> = root
        .read(REPORT)
        .ok()
        .flatten()
        .and_then(|text| serde_json::from_str(&text).ok())
        .filter(|r: &Report| r.slot == name);
    let Some(report) = report else {
        return Ok(Some(format!("{code}: the rest could not be kept")));
    };
    let reasons: Vec<String> = report.reasons.iter().map(|(code, text)| format!("{code}: {text}")).collect();
    let reasons = if reasons.is_empty() { format!("{code}: the agent did not answer") } else { reasons.join("; ") };
    Ok(Some(format!("{reasons} (its journal: zcat {JOURNAL})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::slots_box;

    fn machine(env: &BootEnv, booted: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        slots_box::lay(dir.path());
        let root = Root::new(dir.path());
        OsDisk::find(&root).unwrap().save(env).unwrap();
        std::fs::write(root.path("/proc/cmdline"), format!("siris.slot={booted} siris.root=AA\n")).unwrap();
        (dir, root)
    }

    fn on_trial() -> BootEnv {
        let mut env = BootEnv::first(Slot::A);
        env.arm(Slot::B).unwrap();
        env
    }

    fn reason(code: &str) -> HealthReason {
        HealthReason { code: code.to_owned(), text: format!("{code} it is") }
    }

    #[test]
    fn a_trial_that_failed_is_taken_back_and_tells_why() {
        let (_dir, root) = machine(&on_trial(), "b");
        assert_eq!(failed(&root, Slot::B).unwrap(), None);
        let outcome = take_back(&root, &[reason("unit-failed"), reason("state-full")]).unwrap();
        assert_eq!(outcome, Outcome::TakenBack(Slot::B));
        let env = OsDisk::find(&root).unwrap().environment().unwrap();
        assert_eq!((env.record(Slot::B).state, env.order()[0]), (SlotState::Bad, Slot::A));
        let text = failed(&root, Slot::B).unwrap().unwrap();
        assert!(text.starts_with("unit-failed: unit-failed it is; state-full: state-full it is"), "{text}");
        assert_eq!(failed(&root, Slot::A).unwrap(), None);
        // Once is enough.
        assert_eq!(take_back(&root, &[]).unwrap(), Outcome::NotOnTrial);
    }

    #[test]
    fn a_full_state_partition_keeps_the_code_at_least() {
        let (_dir, root) = machine(&on_trial(), "b");
        // A directory in its place: nothing can be written there.
        std::fs::create_dir_all(root.path(REPORT).join("x")).unwrap();
        assert_eq!(take_back(&root, &[reason("state-full")]).unwrap(), Outcome::TakenBack(Slot::B));
        assert_eq!(failed(&root, Slot::B).unwrap().unwrap(), "state-full: the rest could not be kept");
    }

    #[test]
    fn nothing_is_taken_back_where_that_would_leave_nothing_to_boot() {
        let (_dir, root) = machine(&BootEnv::first(Slot::A), "a");
        assert_eq!(take_back(&root, &[reason("unit-failed")]).unwrap(), Outcome::NotOnTrial);
        let mut alone = on_trial();
        alone.clear(Slot::A);
        alone.arm(Slot::B).unwrap();
        let (_dir, root) = machine(&alone, "b");
        assert_eq!(take_back(&root, &[reason("unit-failed")]).unwrap(), Outcome::NoWayBack);
        let env = OsDisk::find(&root).unwrap().environment().unwrap();
        assert_eq!(env, alone);
    }

    #[test]
    fn tries_that_are_spent_are_told_as_well() {
        let text = String::from_utf8_lossy(&on_trial().to_block().unwrap()).replace("b_tries=3", "b_tries=0");
        let (_dir, root) = machine(&BootEnv::parse(text.as_bytes()).unwrap(), "a");
        assert!(failed(&root, Slot::B).unwrap().unwrap().starts_with("no-answer: "));
    }
}
