//! ZFS in memory: what tests drive the agent with.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::{DatasetName, ImportablePool, Member, Pool, PoolGuid, PoolName, PoolState};
use crate::{Datasets, ModelDatasets, UserProperties, Zfs, ZfsError};

/// A pool of the model, imported or not.
#[derive(Debug, Clone)]
pub struct ModelPool {
    /// As it shows when imported.
    pub pool: Pool,
    /// Whether it is.
    pub imported: bool,
    /// Its devices cannot be seen: it cannot be imported, nor is it listed as importable.
    pub hidden: bool,
    /// Its active features.
    pub features: Vec<String>,
    /// Datasets below the root, with what they say.
    pub datasets: BTreeMap<DatasetName, UserProperties>,
}

/// ZFS in memory. Clones of an `Arc<Model>` see the same pools.
#[derive(Debug)]
pub struct Model {
    pools: Mutex<BTreeMap<PoolGuid, ModelPool>>,
    broken: Mutex<bool>,
    /// What is in the pools.
    pub sets: ModelDatasets,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    /// A machine without pools.
    pub fn new() -> Self {
        Model { pools: Mutex::default(), broken: Mutex::default(), sets: ModelDatasets::new(1, &[]) }
    }

    /// Makes a pool of one mirror, imported, as `zpool create` does.
    ///
    /// # Panics
    /// When `name` is no pool name: a fault of the test.
    pub fn create(&self, guid: u64, name: &str) -> PoolGuid {
        let guid = PoolGuid::new(guid);
        let name: PoolName = name.parse().expect("a pool name");
        let member = |device: &str| Member {
            name: format!("/dev/disk/by-id/{device}"),
            group: "mirror-0".into(),
            class: "normal".into(),
            state: PoolState::Online,
            read_errors: 0,
            write_errors: 0,
            checksum_errors: 0,
        };
        let pool = Pool {
            guid,
            name,
            state: PoolState::Online,
            size: 1 << 30,
            free: 1 << 29,
            errors: 0,
            members: vec![member("one"), member("two")],
        };
        self.sets.set_pool(pool.name.as_str(), true);
        lock(&self.pools).insert(
            guid,
            ModelPool { pool, imported: true, hidden: false, features: Vec::new(), datasets: BTreeMap::new() },
        );
        guid
    }

    /// Destroys a pool.
    pub fn destroy(&self, guid: PoolGuid) {
        if let Some(gone) = lock(&self.pools).remove(&guid) {
            self.sets.set_pool(gone.pool.name.as_str(), false);
        }
    }

    /// Changes a pool in place.
    pub fn change(&self, guid: PoolGuid, change: impl FnOnce(&mut ModelPool)) {
        if let Some(pool) = lock(&self.pools).get_mut(&guid) {
            change(pool);
        }
    }

    /// What a reboot does: nothing is imported any more.
    pub fn reboot(&self) {
        for pool in lock(&self.pools).values_mut() {
            pool.imported = false;
        }
    }

    /// From now on every call fails (or no longer does), as without the kernel module.
    pub fn set_broken(&self, broken: bool) {
        *lock(&self.broken) = broken;
    }

    /// The imported pool that a dataset is in.
    fn with_pool_of<T>(&self, dataset: &DatasetName, act: impl FnOnce(&mut ModelPool) -> T) -> Result<T, ZfsError> {
        let pool = dataset.as_str().split('/').next().unwrap_or_default();
        let mut pools = lock(&self.pools);
        let found = pools.values_mut().find(|p| p.imported && p.pool.name.as_str() == pool);
        found.map(act).ok_or(ZfsError::NotFound(PoolGuid::new(0)))
    }

    fn works(&self) -> Result<(), ZfsError> {
        if *lock(&self.broken) {
            return Err(siris_host::cmd::CmdError::Missing { tool: siris_host::cmd::Tool::Zpool }.into());
        }
        Ok(())
    }
}

impl Zfs for Model {
    fn pools(&self) -> Result<Vec<Pool>, ZfsError> {
        self.works()?;
        let mut pools: Vec<Pool> = lock(&self.pools).values().filter(|p| p.imported).map(|p| p.pool.clone()).collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pools)
    }

    fn active_features(&self) -> Result<Vec<(PoolName, Vec<String>)>, ZfsError> {
        self.works()?;
        let pools = lock(&self.pools);
        Ok(pools.values().filter(|p| p.imported).map(|p| (p.pool.name.clone(), p.features.clone())).collect())
    }

    fn importable(&self) -> Result<Vec<ImportablePool>, ZfsError> {
        self.works()?;
        let pools = lock(&self.pools);
        let found = pools.values().filter(|p| !p.imported && !p.hidden);
        Ok(found
            .map(|p| ImportablePool { guid: p.pool.guid, name: p.pool.name.clone(), state: p.pool.state })
            .collect())
    }

    fn import(&self, guid: PoolGuid, _name: &PoolName) -> Result<(), ZfsError> {
        self.works()?;
        match lock(&self.pools).get_mut(&guid) {
            Some(pool) if !pool.imported && !pool.hidden => {
                self.sets.set_pool(pool.pool.name.as_str(), true);
                pool.imported = true;
                Ok(())
            }
            _ => Err(ZfsError::NotFound(guid)),
        }
    }

    fn user_properties(&self, dataset: &DatasetName) -> Result<Option<UserProperties>, ZfsError> {
        self.works()?;
        self.with_pool_of(dataset, |pool| pool.datasets.get(dataset).cloned())
    }

    fn set_user_properties(&self, dataset: &DatasetName, properties: &UserProperties) -> Result<(), ZfsError> {
        self.works()?;
        self.with_pool_of(dataset, |pool| {
            let all = pool.datasets.entry(dataset.clone()).or_default();
            all.extend(properties.clone());
            all.retain(|_, value| !value.is_empty());
        })?;
        // Those that are file systems of the model have theirs there too.
        for (name, value) in properties {
            match self.sets.set_property(dataset, name, Some(value.as_str()).filter(|value| !value.is_empty())) {
                Err(ZfsError::Refused { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn export(&self, name: &PoolName) -> Result<(), ZfsError> {
        self.works()?;
        let mut pools = lock(&self.pools);
        match pools.values_mut().find(|p| p.imported && p.pool.name == *name) {
            Some(pool) => {
                self.sets.set_pool(name.as_str(), false);
                pool.imported = false;
                Ok(())
            }
            None => Err(ZfsError::NotFound(PoolGuid::new(0))),
        }
    }

    fn sets(&self) -> &dyn Datasets {
        &self.sets
    }
}

impl Default for Model {
    fn default() -> Self {
        Model::new()
    }
}
