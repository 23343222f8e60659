//! `org.siris.Agent1.Dataset`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use siris_api::{DATASET_ACTION, ErrorCode, SnapshotRow};
use siris_zfs::{Guid, Refusal, Snapshot, ZfsError};
use zbus::message::Header;
use zbus::{Connection, fdo};

use crate::agent::Agent;
use crate::bus::options::{Options, only};
use crate::bus::{Authority, Failure, Publisher};
use crate::datasets::{self, AssetDataset, PointError};

/// Most snapshots in one answer.
const PAGE_MAX: u32 = 100_000;

/// The object of one asset's dataset. What it shows is read from the agent.
pub struct DatasetObject {
    agent: Arc<Agent>,
    publisher: Publisher,
    authority: Authority,
    guid: Guid,
}

impl DatasetObject {
    /// The object of the dataset with this guid.
    pub fn new(agent: Arc<Agent>, publisher: Publisher, authority: Authority, guid: Guid) -> Self {
        DatasetObject { agent, publisher, authority, guid }
    }

    fn shown(&self) -> fdo::Result<AssetDataset> {
        self.dataset().map_err(|gone| fdo::Error::UnknownObject(gone.to_string()))
    }

    fn dataset(&self) -> Result<AssetDataset, Failure> {
        let gone = || Failure::new(ErrorCode::DatasetNotFound, format!("dataset {} is not there any more", self.guid));
        self.agent.dataset(self.guid).ok_or_else(gone)
    }
}

/// The name of the newest snapshot, as it travels.
pub(super) fn newest(dataset: &AssetDataset) -> String {
    dataset.newest.as_ref().map(|newest| newest.snapshot.label.to_string()).unwrap_or_default()
}

/// How many snapshots there are, as it travels.
pub(super) fn count(dataset: &AssetDataset) -> u64 {
    dataset.newest.as_ref().map_or(0, |newest| newest.count)
}

fn unreadable(error: &ZfsError) -> Failure {
    let code = match error {
        ZfsError::Refused { why: Refusal::Missing, .. } => ErrorCode::DatasetNotFound,
        _ => ErrorCode::DatasetsUnreadable,
    };
    Failure::new(code, crate::chain(error))
}

/// Runs what blocks on a thread of its own.
async fn off_the_bus<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))
}

#[zbus::interface(name = "org.siris.Agent1.Dataset", introspection_docs = false)]
impl DatasetObject {
    #[zbus(property)]
    fn name(&self) -> fdo::Result<String> {
        Ok(self.shown()?.dataset.name.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn guid(&self) -> u64 {
        self.guid.as_u64()
    }

    #[zbus(property)]
    fn asset(&self) -> fdo::Result<String> {
        Ok(self.shown()?.asset.to_string())
    }

    #[zbus(property)]
    fn used(&self) -> fdo::Result<u64> {
        Ok(self.shown()?.dataset.used)
    }

    #[zbus(property)]
    fn snapshot_count(&self) -> fdo::Result<u64> {
        Ok(count(&self.shown()?))
    }

    #[zbus(property)]
    fn newest_snapshot(&self) -> fdo::Result<String> {
        Ok(newest(&self.shown()?))
    }

    #[zbus(out_args("snapshots"))]
    async fn list_snapshots(&self, after: u64, limit: u32, options: Options) -> Result<Vec<SnapshotRow>, Failure> {
        only(&options, &[])?;
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        let all = off_the_bus(move || agent.zfs.sets().snapshots(&name)).await?.map_err(|e| unreadable(&e))?;
        let row =
            |s: Snapshot| SnapshotRow { name: s.label.to_string(), guid: s.guid.as_u64(), createtxg: s.createtxg };
        let page = all.into_iter().filter(|s| s.createtxg > after).take(limit.min(PAGE_MAX) as usize);
        Ok(page.map(row).collect())
    }

    #[zbus(out_args("name"))]
    async fn snapshot(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, DATASET_ACTION).await?;
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let taken = off_the_bus(move || datasets::take_point(agent.zfs.sets(), &name, now)).await?;
        let label = taken.map_err(|error: PointError| Failure::new(ErrorCode::SnapshotFailed, crate::chain(&error)))?;
        self.publisher.refresh_datasets().await?;
        Ok(label.to_string())
    }
}
