//! The agent's state, and the synchronous work that changes it.
//!
//! Owns: the facts, the verdict made of them, the pools last seen. What the bus shows is read from here.
//! Never: talks D-Bus (`bus` does), decides health itself (`health` does).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use siris_zfs::{Guid, Pool, PoolGuid, Zfs, ZfsError};

use crate::config::BoxConfig;
use crate::datasets::{self, AssetDataset};
use crate::health::{self, ExpectedFact, Facts, ImportFact, UnitFact, Verdict};
use crate::identity::{self, OsRelease};
use crate::observe::{self, BootedSlot};
use crate::pools::memory::{self, Memory};
use crate::root::{ESCROW_FAULT, PROVISION_FAULTS, Root, SETTINGS};
use crate::settings::Settings;
use crate::slots;

/// The unit that imports the pools.
pub const POOLS_UNIT: &str = "siris-pools.service";

/// What the bus shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Role of the box.
    pub role: String,
    /// Health and its reasons.
    pub verdict: Verdict,
    /// Expected pools.
    pub expected: BTreeMap<PoolGuid, ExpectedFact>,
    /// Imported pools.
    pub pools: BTreeMap<PoolGuid, Pool>,
    /// Datasets of assets.
    pub datasets: BTreeMap<Guid, AssetDataset>,
}

struct State {
    facts: Facts,
    shown: Shown,
    pools_unit: Option<UnitFact>,
    boot_record: bool,
}

/// The agent without its bus.
pub struct Agent {
    /// Where its files are.
    pub root: Root,
    /// ZFS.
    pub zfs: Arc<dyn Zfs>,
    /// The running OS.
    pub os: OsRelease,
    /// UUID of the box; nil when there is none to be had.
    pub device_id: uuid::Uuid,
    /// The booted slot.
    pub slot: BootedSlot,
    /// Units asked about.
    pub units: Vec<String>,
    state: Mutex<State>,
}

/// What one look at the pools changed.
#[derive(Debug, Clone, Default)]
pub struct PoolChanges {
    /// Pools not seen before.
    pub added: Vec<Pool>,
    /// Pools that differ: old and new.
    pub changed: Vec<(Pool, Pool)>,
    /// Pools that are gone.
    pub removed: Vec<PoolGuid>,
}

/// What one look at the datasets changed.
#[derive(Debug, Clone, Default)]
pub struct DatasetChanges {
    /// Not seen before.
    pub added: Vec<Guid>,
    /// Those that differ: old and new.
    pub changed: Vec<(AssetDataset, AssetDataset)>,
    /// Gone.
    pub removed: Vec<Guid>,
}

impl Agent {
    /// Reads what does not change while the agent runs. Faults become facts, not errors: an agent that does not
    /// start can tell nobody why.
    pub fn load(root: Root, zfs: Arc<dyn Zfs>) -> Self {
        let mut facts = Facts::default();
        let settings = match root.read(SETTINGS) {
            Ok(Some(text)) => Settings::parse(&text).map_err(|e| crate::chain(&e)),
            Ok(None) => Err("no such file".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let settings = settings.unwrap_or_else(|fault| {
            facts.settings_fault = Some(fault);
            Settings::default()
        });
        let device_id = identity::ensure_device_id(&root).unwrap_or_else(|error| {
            facts.identity_fault = Some(crate::chain(&error));
            uuid::Uuid::nil()
        });
        let slot = observe::booted_slot(&root);
        facts.slot_mismatch = slot.mismatch.clone();
        facts.trial = slot.slot.is_some_and(|slot| slots::on_trial(&root, slot));
        facts.state_free_min = Some(settings.state_free_min);
        facts.units = settings.units.iter().map(|u| (u.clone(), None)).collect();
        let shown = Shown {
            role: String::new(),
            verdict: Verdict::unknown(),
            expected: BTreeMap::new(),
            pools: BTreeMap::new(),
            datasets: BTreeMap::new(),
        };
        let agent = Agent {
            os: identity::os_release(&root),
            root,
            zfs,
            device_id,
            slot,
            units: settings.units,
            state: Mutex::new(State { facts, shown, pools_unit: None, boot_record: false }),
        };
        agent.look_at_config();
        agent.look_at_state();
        agent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if one did, the values are still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the bus shows now.
    pub fn shown(&self) -> Shown {
        self.lock().shown.clone()
    }

    /// One pool, as last seen.
    pub fn pool(&self, guid: PoolGuid) -> Option<Pool> {
        self.lock().shown.pools.get(&guid).cloned()
    }

    /// Whether a pool of that name was there when last looked.
    pub fn has_pool(&self, name: &str) -> bool {
        self.lock().shown.pools.values().any(|pool| pool.name.as_str() == name)
    }

    /// One dataset, as last seen.
    pub fn dataset(&self, guid: Guid) -> Option<AssetDataset> {
        self.lock().shown.datasets.get(&guid).cloned()
    }

    /// Asks ZFS for the datasets of assets. Blocks. What was seen before stays when ZFS does not answer.
    ///
    /// # Errors
    /// When ZFS cannot be asked, or says something unknown.
    pub fn look_at_datasets(&self) -> Result<DatasetChanges, ZfsError> {
        let pools: Vec<_> = self.lock().shown.pools.values().map(|pool| pool.name.clone()).collect();
        let seen = datasets::look(self.zfs.sets(), &pools)?;
        let before = std::mem::replace(&mut self.lock().shown.datasets, seen.clone());
        let mut changes = DatasetChanges::default();
        for (guid, now) in seen {
            match before.get(&guid) {
                None => changes.added.push(guid),
                Some(old) if *old != now => changes.changed.push((old.clone(), now)),
                Some(_) => {}
            }
        }
        let shown = &self.lock().shown.datasets;
        changes.removed = before.into_keys().filter(|guid| !shown.contains_key(guid)).collect();
        Ok(changes)
    }

    /// Why the pools could not be looked at, last time.
    pub fn pools_fault(&self) -> Option<String> {
        self.lock().facts.pools.as_ref().and_then(|p| p.as_ref().err().cloned())
    }

    /// Judges the facts anew; the verdict, if it is another one.
    pub fn judge(&self) -> Option<Verdict> {
        let mut state = self.lock();
        let verdict = health::evaluate(&state.facts);
        if !state.facts.settled && verdict.health != siris_api::Health::Starting && !verdict.waits() {
            state.facts.settled = true;
        }
        if verdict == state.shown.verdict {
            return None;
        }
        state.shown.verdict = verdict.clone();
        Some(verdict)
    }

    /// Reads the configuration: the role, and what is wrong with it.
    pub fn look_at_config(&self) {
        let (role, mut faults) = match BoxConfig::load(&self.root) {
            Ok((config, faults)) => (config.role().to_owned(), faults.into_iter().map(|f| f.to_string()).collect()),
            Err(error) => ("local".to_owned(), BTreeSet::from([crate::chain(&error)])),
        };
        for file in [PROVISION_FAULTS, ESCROW_FAULT] {
            let found = self.root.read(file).ok().flatten().unwrap_or_default();
            faults.extend(found.lines().map(str::to_owned));
        }
        let mut state = self.lock();
        state.shown.role = role;
        state.facts.config_faults = faults;
    }

    /// Looks at the state partition.
    pub fn look_at_state(&self) {
        let fact = observe::state_partition(&self.root);
        self.lock().facts.state = Some(fact);
    }

    /// Notes what the service manager says of a unit.
    pub fn note_unit(&self, unit: &str, fact: UnitFact) {
        let mut state = self.lock();
        if unit == POOLS_UNIT {
            state.pools_unit = Some(fact);
            let import = import_fact(&state);
            if let Some(import) = import {
                state.facts.import = import;
            }
        } else if let Some(known) = state.facts.units.get_mut(unit) {
            *known = Some(fact);
        }
    }

    /// Asks ZFS for the pools and brings the memory of them up to date. Blocks.
    pub fn look_at_pools(&self) -> PoolChanges {
        let seen = self.zfs.pools();
        // A trial ends while the agent runs: when the slot is kept.
        let trial = self.slot.slot.is_some_and(|slot| self.lock().facts.trial && slots::on_trial(&self.root, slot));
        let mut state = self.lock();
        state.facts.trial = trial;
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                state.facts.pools = Some(Err(crate::chain(&error)));
                return PoolChanges::default();
            }
        };
        let changes = compare(&state.shown.pools, &seen);
        let gone: BTreeSet<PoolGuid> = changes.removed.iter().copied().collect();
        state.facts.memory_fault = self.remember(&mut state, &seen, &gone).err().map(|e| crate::chain(&e));
        state.shown.pools = seen.iter().map(|p| (p.guid, p.clone())).collect();
        state.facts.pools = Some(Ok(seen));
        changes
    }

    fn remember(&self, state: &mut State, seen: &[Pool], gone: &BTreeSet<PoolGuid>) -> Result<(), memory::MemoryError> {
        let boot = memory::load_boot(&self.root)?;
        let memory = memory::load(&self.root)?;
        let (next, next_boot) = memory::reconcile(&memory, boot.as_ref(), seen, gone, !state.facts.trial);
        memory::store(&self.root, &next)?;
        state.boot_record = next_boot.is_some();
        match next_boot {
            Some(failed) => {
                memory::store_boot(&self.root, &failed)?;
                state.facts.import = ImportFact::Done(failed);
            }
            None => state.facts.import = import_fact(state).unwrap_or_default(),
        }
        show_expected(state, &next);
        Ok(())
    }

    /// Gives up a pool that is expected and not imported; says whether it was expected.
    ///
    /// # Errors
    /// When the memory cannot be read or written.
    pub fn forget_pool(&self, guid: PoolGuid) -> Result<bool, memory::MemoryError> {
        let mut state = self.lock();
        let mut memory = memory::load(&self.root)?;
        let known = memory.remove(&guid).is_some();
        memory::store(&self.root, &memory)?;
        show_expected(&mut state, &memory);
        Ok(known)
    }
}

fn show_expected(state: &mut State, memory: &Memory) {
    let expected =
        memory.iter().map(|(guid, pool)| (*guid, ExpectedFact { name: pool.name.clone(), baseline: Some(pool.state) }));
    state.shown.expected = expected.collect();
    state.facts.expected = state.shown.expected.clone();
}

/// What the pools' unit says about an import that has left no record; `None` when there is one.
fn import_fact(state: &State) -> Option<ImportFact> {
    if state.boot_record {
        return None;
    }
    Some(match &state.pools_unit {
        // Between its end and the look that it causes, "active" says only that a record is there to be read.
        Some(unit) if !unit.has_job && matches!(unit.active_state.as_str(), "inactive" | "failed") => {
            ImportFact::NotRun
        }
        _ => ImportFact::Pending,
    })
}

fn compare(old: &BTreeMap<PoolGuid, Pool>, seen: &[Pool]) -> PoolChanges {
    let mut changes = PoolChanges::default();
    for pool in seen {
        match old.get(&pool.guid) {
            None => changes.added.push(pool.clone()),
            Some(before) if before != pool => changes.changed.push((before.clone(), pool.clone())),
            Some(_) => {}
        }
    }
    changes.removed = old.keys().filter(|guid| !seen.iter().any(|p| p.guid == **guid)).copied().collect();
    changes
}
