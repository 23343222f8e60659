//! The health of the box, as a pure function of facts.
//!
//! Owns: which facts make which reason, and which reasons hold back `boot-complete.target` (and so a new slot).
//! Never: looks at anything itself.
//! In: [`Facts`]. Out: a [`Verdict`].
//!
//! | code | weight | when |
//! |---|---|---|
//! | `unit-starting`, `pools-importing` | starting | it belongs to the boot and is under way |
//! | `unit-failed`, `unit-inactive` | failed | a unit of the profile's list is not active |
//! | `unit-restarting` | degraded | such a unit is on its way back, after the boot |
//! | `state-not-mounted`, `state-read-only` | failed | nothing would last |
//! | `state-low` | degraded; failed in a slot on trial | the state partition is nearly full |
//! | `identity-fault`, `settings-invalid` | failed | the agent cannot know who it is or what is asked of it |
//! | `slot-mismatch` | failed | the kernel command line and the disk disagree on the slot |
//! | `pools-unreadable` | failed | ZFS does not answer |
//! | `pool-missing` | degraded; failed in a slot on trial, if the pool was there before | an expected pool is not imported |
//! | `pool-degraded`, `pool-faulted` | degraded; failed in a slot on trial, if the pool was better before | a pool is not ONLINE |
//! | `pool-errors` | degraded | a pool has lost data |
//! | `config-invalid` | degraded | a part of the configuration could not be applied |
//!
//! A pool's hardware may die on any day: that must not cost a committed slot its boot tries. A slot on trial is
//! different: there the new OS is the suspect.

use std::collections::{BTreeMap, BTreeSet};

use siris_api::Health;
use siris_zfs::{Pool, PoolGuid, PoolName, PoolState};

use crate::settings::FreeMin;

/// A unit, as the service manager sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFact {
    /// `active`, `inactive`, `failed`, `activating`, ...
    pub active_state: String,
    /// A job is queued or running for it.
    pub has_job: bool,
}

/// The state partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFact {
    /// Nothing is mounted at `/state`.
    NotMounted,
    /// It is mounted read-only.
    ReadOnly,
    /// It can be written.
    Writable {
        /// Bytes of the partition.
        size: u64,
        /// Bytes free to everyone, without what the file system keeps for root.
        free: u64,
    },
}

/// How pools came to be imported in this boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ImportFact {
    /// The import of this boot is still to come, or under way.
    #[default]
    Pending,
    /// It will not come: its unit is down and left no record.
    NotRun,
    /// It is over; these failed, for these reasons.
    Done(BTreeMap<PoolGuid, String>),
}

/// A pool the box is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedFact {
    /// Its name when last seen.
    pub name: PoolName,
    /// Its state when last seen in a committed slot; `None` if it was missing then.
    pub baseline: Option<PoolState>,
}

/// Everything the health is made of.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Listed units. One that has not been asked about yet is absent.
    pub units: BTreeMap<String, Option<UnitFact>>,
    /// The boot was over once, for this agent: from now on nothing is "starting".
    pub settled: bool,
    /// `None` before the first look.
    pub state: Option<StateFact>,
    /// Least free space of the state partition.
    pub state_free_min: Option<FreeMin>,
    /// Imported pools, or why they are unknown. `None` before the first look.
    pub pools: Option<Result<Vec<Pool>, String>>,
    /// Expected pools.
    pub expected: BTreeMap<PoolGuid, ExpectedFact>,
    /// This boot's import.
    pub import: ImportFact,
    /// The booted slot is on trial.
    pub trial: bool,
    /// Why the booted slot is not what it says to be.
    pub slot_mismatch: Option<String>,
    /// What is wrong with the device id.
    pub identity_fault: Option<String>,
    /// What is wrong with the memory of pools.
    pub memory_fault: Option<String>,
    /// What is wrong with the agent's settings.
    pub settings_fault: Option<String>,
    /// What is wrong with the configuration.
    pub config_faults: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Degraded,
    Starting,
    Failed,
}

/// One reason of a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong with what, and what to do.
    pub text: String,
    weight: Weight,
}

/// The health and its reasons, the gravest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The health.
    pub health: Health,
    /// Why it is not `healthy`.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// The verdict before anything is known.
    pub fn unknown() -> Self {
        Verdict { health: Health::Starting, reasons: Vec::new() }
    }

    /// Whether something of the boot is still under way, whatever the health is.
    pub fn waits(&self) -> bool {
        self.reasons.iter().any(|r| r.weight == Weight::Starting)
    }
}

struct Reasons(Vec<Reason>);

impl Reasons {
    fn add(&mut self, weight: Weight, code: &'static str, text: String) {
        self.0.push(Reason { code, text, weight });
    }
}

/// Judges the facts.
pub fn evaluate(facts: &Facts) -> Verdict {
    let mut reasons = Reasons(Vec::new());
    judge_agent(facts, &mut reasons);
    judge_units(facts, &mut reasons);
    judge_state(facts, &mut reasons);
    judge_pools(facts, &mut reasons);
    let mut reasons = reasons.0;
    reasons.sort_by_key(|r| std::cmp::Reverse(r.weight));
    let health = match reasons.first().map(|r| r.weight) {
        None => Health::Healthy,
        Some(Weight::Degraded) => Health::Degraded,
        Some(Weight::Starting) => Health::Starting,
        Some(Weight::Failed) => Health::Failed,
    };
    Verdict { health, reasons }
}

fn judge_agent(facts: &Facts, reasons: &mut Reasons) {
    if let Some(fault) = &facts.settings_fault {
        reasons.add(
            Weight::Failed,
            "settings-invalid",
            format!("{}: {fault}; the image is faulty: install another version", crate::root::SETTINGS),
        );
    }
    for fault in facts.identity_fault.iter().chain(&facts.memory_fault) {
        reasons.add(
            Weight::Failed,
            "identity-fault",
            format!("{fault}; check the state partition (`journalctl -b -p err`)"),
        );
    }
    if let Some(fault) = &facts.slot_mismatch {
        reasons.add(Weight::Failed, "slot-mismatch", format!("{fault}; reboot, and reinstall if it says so again"));
    }
    for fault in &facts.config_faults {
        reasons.add(
            Weight::Degraded,
            "config-invalid",
            format!("{fault}; the rest was applied: correct it with `sirisctl config set` and reboot"),
        );
    }
}

fn judge_units(facts: &Facts, reasons: &mut Reasons) {
    for (unit, fact) in &facts.units {
        let Some(fact) = fact else {
            reasons.add(Weight::Starting, "unit-starting", format!("{unit} has not been looked at yet"));
            continue;
        };
        let state = fact.active_state.as_str();
        let under_way =
            fact.has_job || matches!(state, "activating" | "deactivating" | "reloading" | "refreshing" | "maintenance");
        match state {
            "active" | "reloading" | "refreshing" => {}
            "failed" if !fact.has_job => {
                let text = format!("{unit} has failed: see `journalctl -b -u {unit}`, then `systemctl restart {unit}`");
                reasons.add(Weight::Failed, "unit-failed", text);
            }
            _ if under_way && !facts.settled => {
                reasons.add(Weight::Starting, "unit-starting", format!("{unit} is {state}: waiting for it"))
            }
            _ if under_way => {
                reasons.add(Weight::Degraded, "unit-restarting", format!("{unit} is {state}: waiting for it"))
            }
            _ => {
                let text = format!("{unit} is {state}: start it with `systemctl start {unit}`");
                reasons.add(Weight::Failed, "unit-inactive", text);
            }
        }
    }
}

fn judge_state(facts: &Facts, reasons: &mut Reasons) {
    match facts.state {
        None => reasons.add(Weight::Starting, "state-unknown", "the state partition has not been looked at yet".into()),
        Some(StateFact::NotMounted) => {
            reasons.add(
                Weight::Failed,
                "state-not-mounted",
                "/state is not mounted, nothing would last: check the OS disk's partition 7 and reboot".into(),
            );
        }
        Some(StateFact::ReadOnly) => {
            reasons.add(
                Weight::Failed,
                "state-read-only",
                "/state is read-only, nothing lasts: see `journalctl -k` for disk errors, then reboot".into(),
            );
        }
        Some(StateFact::Writable { size, free }) => {
            let least = facts.state_free_min.map_or(0, |min| min.bytes_of(size));
            if free < least {
                // Without the free bytes themselves: a text that changes with each look would be told each time.
                let text = format!(
                    "/state has less than {least} of its {size} bytes free: see `du -xh /state`, make room with \
                     `journalctl --vacuum-size=200M`"
                );
                // A new OS that fills it, or has no room to work in, is not one to stay with.
                let weight = if facts.trial { Weight::Failed } else { Weight::Degraded };
                reasons.add(weight, "state-low", text);
            }
        }
    }
}

fn judge_pools(facts: &Facts, reasons: &mut Reasons) {
    let pools = match &facts.pools {
        None => {
            return reasons.add(Weight::Starting, "pools-importing", "the pools have not been looked at yet".into());
        }
        Some(Err(error)) => {
            let text = format!("ZFS does not tell its pools ({error}): check `lsmod | grep zfs` and `zpool status`");
            return reasons.add(Weight::Failed, "pools-unreadable", text);
        }
        Some(Ok(pools)) => pools,
    };
    let worse = |baseline: Option<PoolState>, now: Option<PoolState>| match (baseline, now) {
        _ if !facts.trial => Weight::Degraded,
        (None, _) => Weight::Degraded,
        (Some(_), None) => Weight::Failed,
        (Some(before), Some(now)) if now > before => Weight::Failed,
        _ => Weight::Degraded,
    };
    for pool in pools {
        let baseline = facts.expected.get(&pool.guid).and_then(|e| e.baseline);
        let look = format!("see `zpool status {}`", pool.name);
        let weight = worse(baseline, Some(pool.state));
        match pool.state {
            PoolState::Online => {}
            PoolState::Degraded => {
                let missing: Vec<&str> =
                    pool.members.iter().filter(|m| m.state > PoolState::InUse).map(|m| m.name.as_str()).collect();
                let text = format!(
                    "pool \"{}\" is DEGRADED ({}): replace or bring back the device, {look}",
                    pool.name,
                    missing.join(", ")
                );
                reasons.add(weight, "pool-degraded", text);
            }
            state => reasons.add(weight, "pool-faulted", format!("pool \"{}\" is {state}: {look}", pool.name)),
        }
        if pool.errors > 0 {
            reasons.add(
                Weight::Degraded,
                "pool-errors",
                format!("pool \"{}\" has {} unrepaired data errors: {look} -v", pool.name, pool.errors),
            );
        }
    }
    judge_missing(facts, pools, worse, reasons);
}

fn judge_missing(
    facts: &Facts,
    pools: &[Pool],
    worse: impl Fn(Option<PoolState>, Option<PoolState>) -> Weight,
    reasons: &mut Reasons,
) {
    for (guid, expected) in &facts.expected {
        if pools.iter().any(|p| p.guid == *guid) {
            continue;
        }
        let name = &expected.name;
        let what_to_do = format!("import it with `zpool import`, or give it up with `sirisctl pools forget {guid}`");
        let why = match &facts.import {
            ImportFact::Pending if !facts.settled => {
                reasons.add(Weight::Starting, "pools-importing", format!("pool \"{name}\" is being imported"));
                continue;
            }
            ImportFact::Pending | ImportFact::NotRun => {
                "this boot's import did not run, see `journalctl -b -u siris-pools`".to_owned()
            }
            ImportFact::Done(failed) => {
                failed.get(guid).cloned().unwrap_or_else(|| "it is not imported any more".into())
            }
        };
        reasons.add(
            worse(expected.baseline, None),
            "pool-missing",
            format!("pool \"{name}\" (guid {guid}) is missing: {why}; {what_to_do}"),
        );
    }
}

#[cfg(test)]
mod tests;
