//! Brings what the bus shows into line with what the agent knows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use siris_api::{
    DATASET_INTERFACE, ExpectedPool, HealthReason, MANAGER_INTERFACE, POOL_INTERFACE, ROOT_PATH, dataset_path,
    pool_path,
};
use siris_zfs::Pool;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use zbus::fdo::Properties;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Variant};

use crate::agent::{Agent, PoolChanges, Shown};
use crate::bus::dataset::{DatasetObject, asset_id, count, newest, role};
use crate::bus::pool::{PoolObject, members};
use crate::bus::{Authority, Vectors};
use crate::datasets::AssetDataset;

/// Emits signals, adds and removes pool objects. Clones share their turn.
#[derive(Clone)]
pub struct Publisher {
    connection: Connection,
    agent: Arc<Agent>,
    authority: Authority,
    looks: Arc<Looks>,
    vectors: Vectors,
}

#[derive(Default)]
struct Looks {
    pools: Turns,
    datasets: Turns,
    again: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// Turns of one kind of look.
#[derive(Default)]
struct Turns {
    taken: AtomicU64,
    /// The turn that began last and is over.
    done: Mutex<u64>,
    /// When the next one at leisure may begin.
    rested: std::sync::Mutex<Option<Instant>>,
}

/// Looks at leisure take one part in so many of the time, at most: a box that receives thousands of snapshots is not to
/// list them all for each one.
const LEISURE: u32 = 5;
/// And wait no longer than this, which is less than clients of the bus wait for an answer.
const REST_MAX: Duration = Duration::from_secs(15);

impl Turns {
    /// Looks in turn with others. A caller that comes while another is waiting for its turn shares that one's look: a
    /// burst of events costs two looks, not one each. `None` where another's look did.
    async fn take<T>(&self, look: impl Future<Output = T>) -> Option<T> {
        self.take_after(self.taken.load(Ordering::SeqCst), look).await
    }

    /// Like [`Turns::take`], when the look before has been over for a while.
    async fn take_at_leisure<T>(&self, look: impl Future<Output = T>) -> Option<T> {
        let ticket = self.taken.load(Ordering::SeqCst);
        let rested = *self.rested();
        if let Some(rested) = rested {
            sleep_until(rested).await;
        }
        self.take_after(ticket, look).await
    }

    async fn take_after<T>(&self, ticket: u64, look: impl Future<Output = T>) -> Option<T> {
        let mut done = self.done.lock().await;
        if *done > ticket {
            return None;
        }
        let turn = self.taken.fetch_add(1, Ordering::SeqCst) + 1;
        let began = Instant::now();
        let seen = look.await;
        *done = turn;
        let rest = (began.elapsed() * (LEISURE - 1)).min(REST_MAX);
        *self.rested() = Some(Instant::now() + rest);
        Some(seen)
    }

    fn rested(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rested.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pauses between the looks that follow an event.
const AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];

impl Publisher {
    /// A publisher for this agent on this connection.
    pub fn new(connection: Connection, agent: Arc<Agent>, authority: Authority) -> Self {
        let vectors = Vectors::new(connection.clone(), agent.clone(), authority);
        Publisher { connection, agent, authority, looks: Arc::default(), vectors }
    }

    /// The vectors, which sync when their datasets have new snapshots.
    pub fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// Judges the facts and tells the bus when the verdict is another one.
    ///
    /// # Errors
    /// When the bus does not take the signal.
    pub async fn publish_health(&self) -> zbus::Result<()> {
        let Some(verdict) = self.agent.judge() else { return Ok(()) };
        let reasons = reasons(&self.agent.shown());
        for reason in &reasons {
            eprintln!("health {}: {}: {}", verdict.health, reason.code, reason.text);
        }
        if reasons.is_empty() {
            eprintln!("health {}", verdict.health);
        }
        let changed = HashMap::from([
            ("Health", Variant::from(verdict.health.as_str())),
            ("HealthReasons", Variant::from(reasons)),
        ]);
        self.changed(ROOT_PATH, MANAGER_INTERFACE, changed).await
    }

    /// Has the agent look at the pools and what is in them, and tells the bus.
    ///
    /// # Errors
    /// When the bus does not take the signals.
    pub async fn refresh_pools(&self) -> zbus::Result<()> {
        let told = self.looks.pools.take(self.look_at_pools()).await;
        told.unwrap_or(Ok(()))
    }

    async fn look_at_pools(&self) -> zbus::Result<()> {
        let agent = self.agent.clone();
        let before = expected(&agent.shown());
        let changes = tokio::task::spawn_blocking(move || agent.look_at_pools()).await;
        // The task does not panic, and is not cancelled while the runtime runs.
        self.publish_pools(changes.unwrap_or_default()).await?;
        self.refresh_datasets().await?;
        let shown = self.agent.shown();
        let now = expected(&shown);
        if now != before {
            let changed = HashMap::from([("ExpectedPools", Variant::from(now))]);
            self.changed(ROOT_PATH, MANAGER_INTERFACE, changed).await?;
        }
        self.publish_health().await
    }

    /// Has vectors begin whose time has come.
    pub fn take_turns(&self) {
        self.vectors.take_turns();
    }

    /// Has the agent look at the datasets of assets, and tells the bus. Where ZFS does not answer, the bus shows on what
    /// it showed.
    ///
    /// # Errors
    /// When the bus does not take the signals.
    pub async fn refresh_datasets(&self) -> zbus::Result<()> {
        let told = self.looks.datasets.take(self.look_at_datasets()).await;
        told.unwrap_or(Ok(()))
    }

    /// Like [`Publisher::refresh_datasets`], but not at once where the look before took long: for who tells of every change.
    ///
    /// # Errors
    /// When the bus does not take the signals.
    pub async fn refresh_datasets_at_leisure(&self) -> zbus::Result<()> {
        let told = self.looks.datasets.take_at_leisure(self.look_at_datasets()).await;
        told.unwrap_or(Ok(()))
    }

    async fn look_at_datasets(&self) -> zbus::Result<()> {
        let agent = self.agent.clone();
        let changes = match tokio::task::spawn_blocking(move || agent.look_at_datasets()).await {
            Ok(Ok(changes)) => changes,
            Ok(Err(error)) => {
                eprintln!("cannot look at the datasets: {}", crate::chain(&error));
                return Ok(());
            }
            // The task does not panic, and is not cancelled while the runtime runs.
            Err(_) => return Ok(()),
        };
        let newer =
            changes.changed.iter().filter(|(old, new)| old.newest != new.newest).map(|(_, new)| new.dataset.guid);
        let newer = changes.added.iter().copied().chain(newer).filter_map(|guid| self.agent.dataset(guid));
        let newer = newer.map(|found| (found.dataset.name, found.newest.map(|newest| newest.snapshot.guid)));
        self.vectors.wake(&newer.collect());
        self.vectors.take_turns();
        let server = self.connection.object_server();
        for guid in changes.removed {
            server.remove::<DatasetObject, _>(dataset_path(guid.as_u64())).await?;
        }
        for guid in changes.added {
            let object = DatasetObject::new(self.agent.clone(), self.clone(), self.authority, guid);
            server.at(dataset_path(guid.as_u64()), object).await?;
        }
        for (old, new) in changes.changed {
            let path = dataset_path(new.dataset.guid.as_u64());
            self.changed(&path, DATASET_INTERFACE, dataset_differences(&old, &new)).await?;
        }
        Ok(())
    }

    /// Like [`Publisher::refresh_pools`], and looks again a little later: an event of ZFS may come before what it tells
    /// of is over (a pool that is being exported is still there). However many events come, one such task runs.
    ///
    /// # Errors
    /// As [`Publisher::refresh_pools`].
    pub async fn refresh_pools_and_again(&self) -> zbus::Result<()> {
        self.refresh_pools().await?;
        let mut again = self.looks.again.lock().await;
        if again.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            let publisher = self.clone();
            *again = Some(tokio::spawn(async move {
                for pause in AGAIN {
                    tokio::time::sleep(pause).await;
                    if let Err(error) = publisher.refresh_pools().await {
                        eprintln!("cannot tell the bus: {error}");
                    }
                }
            }));
        }
        Ok(())
    }

    /// Tells the bus that the role or the expected pools may have changed.
    ///
    /// # Errors
    /// When the bus does not take the signal.
    pub async fn publish_settings(&self) -> zbus::Result<()> {
        let shown = self.agent.shown();
        let changed = HashMap::from([
            ("Role", Variant::from(shown.role.as_str())),
            ("ExpectedPools", Variant::from(expected(&shown))),
        ]);
        self.changed(ROOT_PATH, MANAGER_INTERFACE, changed).await?;
        self.publish_health().await
    }

    async fn publish_pools(&self, changes: PoolChanges) -> zbus::Result<()> {
        let server = self.connection.object_server();
        for guid in changes.removed {
            server.remove::<PoolObject, _>(pool_path(guid.as_u64())).await?;
        }
        for pool in changes.added {
            server.at(pool_path(pool.guid.as_u64()), PoolObject::new(self.agent.clone(), pool.guid)).await?;
        }
        for (old, new) in changes.changed {
            self.changed(&pool_path(new.guid.as_u64()), POOL_INTERFACE, differences(&old, &new)).await?;
        }
        Ok(())
    }

    async fn changed(&self, path: &str, interface: &str, changed: HashMap<&str, Variant<'_>>) -> zbus::Result<()> {
        let emitter = SignalEmitter::new(&self.connection, path)?;
        Properties::properties_changed(&emitter, InterfaceName::try_from(interface)?, changed, (&[][..]).into()).await
    }
}

/// The reasons as they travel.
pub fn reasons(shown: &Shown) -> Vec<HealthReason> {
    shown.verdict.reasons.iter().map(|r| HealthReason { code: r.code.to_owned(), text: r.text.clone() }).collect()
}

/// The expected pools as they travel.
pub fn expected(shown: &Shown) -> Vec<ExpectedPool> {
    shown
        .expected
        .iter()
        .map(|(guid, pool)| ExpectedPool { guid: guid.as_u64(), name: pool.name.to_string() })
        .collect()
}

fn dataset_differences<'a>(old: &AssetDataset, new: &'a AssetDataset) -> HashMap<&'static str, Variant<'a>> {
    let mut changed = HashMap::new();
    if old.dataset.name != new.dataset.name {
        changed.insert("Name", Variant::from(new.dataset.name.as_str()));
    }
    if old.asset != new.asset {
        changed.insert("Asset", Variant::from(new.asset.to_string()));
    }
    if old.id() != new.id() {
        changed.insert("AssetId", Variant::from(asset_id(new)));
    }
    if old.asset_name() != new.asset_name() {
        changed.insert("AssetName", Variant::from(new.asset_name()));
    }
    if old.dataset.used != new.dataset.used {
        changed.insert("Used", Variant::from(new.dataset.used));
    }
    if old.dataset.primary != new.dataset.primary {
        changed.insert("Role", Variant::from(role(new)));
    }
    if old.newest != new.newest {
        changed.insert("SnapshotCount", Variant::from(count(new)));
        changed.insert("NewestSnapshot", Variant::from(newest(new)));
    }
    changed
}

fn differences<'a>(old: &Pool, new: &'a Pool) -> HashMap<&'static str, Variant<'a>> {
    let mut changed = HashMap::new();
    if old.name != new.name {
        changed.insert("Name", Variant::from(new.name.as_str()));
    }
    if old.state != new.state {
        changed.insert("State", Variant::from(new.state.as_str()));
    }
    for (key, old, new) in
        [("Size", old.size, new.size), ("Free", old.free, new.free), ("Errors", old.errors, new.errors)]
    {
        if old != new {
            changed.insert(key, Variant::from(new));
        }
    }
    if old.members != new.members {
        changed.insert("Members", Variant::from(members(new)));
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_look_at_leisure_waits_and_shares_one_that_began_meanwhile() {
        let turns = Turns::default();
        turns.take(tokio::time::sleep(LOOK)).await.unwrap();
        let ended = Instant::now();
        turns.take_at_leisure(async {}).await.unwrap();
        assert!(ended.elapsed() >= LOOK * (LEISURE - 1));

        turns.take(tokio::time::sleep(LOOK)).await.unwrap();
        let began = Instant::now();
        let (leisurely, at_once) = tokio::join!(turns.take_at_leisure(async { "again" }), turns.take(async { "once" }));
        assert_eq!((leisurely, at_once), (None, Some("once")));
        assert!(began.elapsed() >= LOOK * (LEISURE - 1));
    }
}
