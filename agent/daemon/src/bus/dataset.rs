//! `org.siris.Agent1.Dataset`.

use std::collections::HashMap;
use std::sync::Arc;

use siris_api::{DATASET_ACTION, ErrorCode, HoldRow, PruneRow, SnapshotRow};
use siris_zfs::{Dataset, DatasetName, Datasets, Guid, Hold, Refusal, Snapshot, ZfsError};
use zbus::message::Header;
use zbus::{Connection, fdo};

use crate::agent::Agent;
use crate::bus::options::{Options, flag, large, only, text};
use crate::bus::{Authority, Failure, Publisher};
use crate::datasets::asset::{self, AssetId, AssetName, DescribeError, Number};
use crate::datasets::retention::{Decision, Policy};
use crate::datasets::{self, AssetDataset, PointError, clones, points, prune};
use crate::store::{Store, StoreError};
use crate::vectors::end::{End, EndError, Local};
use crate::vectors::needs::{Side, concerned};
use crate::vectors::plan::View;
use crate::vectors::record::{Peer, Vector};
use crate::vectors::travel::{self, Party, Records, VectorRecord};
use crate::vectors::{self, VectorId};

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

/// The dataset that somebody means: by its name, or its asset's UUID or number.
pub(super) fn find(agent: &Agent, name: &str) -> Result<Dataset, Failure> {
    let failed = |text: String| Failure::new(ErrorCode::DatasetNotFound, text);
    let mut found = agent.shown().datasets.into_values().filter(|one| one.is(name)).map(|one| one.dataset);
    let first = found.next().ok_or_else(|| failed(format!("no asset's dataset is named \"{name}\"")))?;
    match found.next() {
        None => Ok(first),
        Some(other) => Err(failed(format!("\"{name}\" is {} and {}: give the dataset's name", first.name, other.name))),
    }
}

/// The name of the newest snapshot, as it travels.
pub(super) fn newest(dataset: &AssetDataset) -> String {
    dataset.newest.as_ref().map(|newest| newest.snapshot.label.to_string()).unwrap_or_default()
}

/// The asset's number, as it travels: 0 where it has none.
pub(super) fn asset_id(dataset: &AssetDataset) -> u64 {
    dataset.id().map_or(0, AssetId::as_u64)
}

/// How many snapshots there are, as it travels.
pub(super) fn count(dataset: &AssetDataset) -> u64 {
    dataset.newest.as_ref().map_or(0, |newest| newest.count)
}

impl DatasetObject {
    /// Does something with its snapshots.
    async fn with_points<T: Send + 'static, E: Into<Failure> + Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Datasets, &DatasetName) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure> {
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        off_the_bus(move || work(agent.zfs.sets(), &name)).await?.map_err(Into::into)
    }

    /// Prunes it, or says what would become of each point; `None` where there is no policy.
    async fn pruned(&self, dry: bool) -> Result<Option<Vec<PruneRow>>, Failure> {
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        let pruned = off_the_bus(move || {
            // Without the records nobody knows what is needed, and nothing goes.
            let (vectors, peers) = records(&agent)?;
            let concerned = |view: &View| concerned(view, agent.device_id, &vectors, &peers);
            let done = prune::run(agent.zfs.sets(), &name, &concerned, crate::now(), dry);
            done.map_err(|error| Failure::new(ErrorCode::PruneFailed, crate::chain(&error)))
        });
        let Some(decisions) = pruned.await?? else { return Ok(None) };
        if !dry && decisions.iter().any(Decision::goes) {
            self.publisher.refresh_datasets().await?;
        }
        let row = |one: Decision| PruneRow {
            goes: one.goes(),
            name: one.label.to_string(),
            why: one.stays.iter().map(ToString::to_string).collect(),
        };
        Ok(Some(decisions.into_iter().map(row).collect()))
    }
}

/// Whether it is written to here, as it travels: `primary`, `replica`, or nothing where nobody has said.
pub(super) fn role(dataset: &AssetDataset) -> &'static str {
    match dataset.dataset.primary {
        Some(true) => "primary",
        Some(false) => "replica",
        None => "",
    }
}

/// The vector that sends into a dataset; `None` where there is none, or somebody took over.
fn received_by(agent: &Agent, name: &DatasetName) -> Result<Option<VectorId>, Failure> {
    let found = agent.zfs.sets().dataset(name).map_err(|error| unreadable(&error))?;
    let mut concerned = concerned_with(agent, name)?.into_iter();
    // What may fetch from here as well is taken for one that does, but for what its record says.
    let fills =
        |id: &VectorId| found.as_ref().is_some_and(|found| travel::fills(id, agent.device_id, name, &found.notes));
    let receives = match found.as_ref().and_then(|found| found.primary) {
        Some(true) => None,
        // Whichever it is: it was the primary, and stepped down for one of them.
        Some(false) => concerned.next(),
        None => concerned.find(|(id, side)| *side == Side::Target || fills(id)),
    };
    Ok(receives.map(|(id, _)| id))
}

/// The records of vectors, and of peers that have their own here.
fn records(agent: &Agent) -> Result<(Vec<Vector>, Vec<Peer>), Failure> {
    let unusable = |error: StoreError| Failure::new(ErrorCode::RecordsUnusable, crate::chain(&error));
    Ok(match Store::read(&agent.root).map_err(unusable)? {
        None => (Vec::new(), Vec::new()),
        Some(store) => (store.vectors().map_err(unusable)?, store.peers().map_err(unusable)?),
    })
}

/// The vectors that have to do with a dataset.
fn concerned_with(agent: &Agent, name: &DatasetName) -> Result<Vec<(VectorId, Side)>, Failure> {
    let (vectors, peers) = records(agent)?;
    let failed = |error: EndError| Failure::new(ErrorCode::PruneFailed, crate::chain(&error));
    let view = Local::new(agent.zfs.sets()).look(name).map_err(failed)?;
    Ok(view.map(|view| concerned(&view, agent.device_id, &vectors, &peers)).unwrap_or_default())
}

/// A snapshot, as it travels.
pub(super) fn row(snapshot: &Snapshot) -> SnapshotRow {
    let Snapshot { label, guid, createtxg } = snapshot;
    SnapshotRow { name: label.to_string(), guid: guid.as_u64(), createtxg: *createtxg }
}

pub(super) fn unreadable(error: &ZfsError) -> Failure {
    let code = match error {
        ZfsError::Refused { why: Refusal::Missing, .. } => ErrorCode::DatasetNotFound,
        _ => ErrorCode::DatasetsUnreadable,
    };
    Failure::new(code, crate::chain(error))
}

/// A vector's record, as it travels.
fn shown_record(record: &VectorRecord) -> HashMap<String, String> {
    let VectorRecord { id, from, source, to, target, tier, .. } = record;
    let device = |party: &Party| party.device.map(|device| device.to_string()).unwrap_or_default();
    let texts = [
        ("id", id.clone()),
        ("from", from.name.clone()),
        ("from-device", device(from)),
        ("source", source.clone()),
        ("to", to.name.clone()),
        ("to-device", device(to)),
        ("target", target.clone()),
        ("tier", tier.clone()),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

/// The first `limit` of those that were made after a transaction group, and the others of the last one's group: the next
/// page begins behind it.
fn page(all: &[Snapshot], after: u64, limit: usize) -> &[Snapshot] {
    let rest = &all[all.partition_point(|snapshot| snapshot.createtxg <= after)..];
    let Some(last) = rest[..limit.min(rest.len())].last() else { return &[] };
    &rest[..rest.partition_point(|snapshot| snapshot.createtxg <= last.createtxg)]
}

/// Runs what blocks on a thread of its own.
pub(super) async fn off_the_bus<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
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
    fn asset_id(&self) -> fdo::Result<u64> {
        Ok(asset_id(&self.shown()?))
    }

    #[zbus(property)]
    fn asset_name(&self) -> fdo::Result<String> {
        Ok(self.shown()?.asset_name().to_owned())
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

    #[zbus(property)]
    fn role(&self) -> fdo::Result<String> {
        Ok(role(&self.shown()?).to_owned())
    }

    #[zbus(out_args("snapshots"))]
    async fn list_snapshots(&self, after: u64, limit: u32, options: Options) -> Result<Vec<SnapshotRow>, Failure> {
        only(&options, &[])?;
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        let all = off_the_bus(move || agent.zfs.sets().snapshots(&name)).await?.map_err(|e| unreadable(&e))?;
        Ok(page(&all, after, limit.min(PAGE_MAX) as usize).iter().map(self::row).collect())
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
        let agent = self.agent.clone();
        let one = self.dataset()?;
        let taken = off_the_bus(move || {
            let name = &one.dataset.name;
            if let Some(id) = received_by(&agent, name)? {
                let text = format!(
                    "{name} is a replica: vector {id} could send it nothing any more after a point of its own. Take over \
                     (sirisctl dataset take-over) if it is to be the primary"
                );
                return Err(Failure::new(ErrorCode::DatasetIsReplica, text));
            }
            asset::ensure_number(&agent, &one);
            Ok(datasets::take_point(agent.zfs.sets(), name, crate::now()))
        });
        let label =
            taken.await??.map_err(|error: PointError| Failure::new(ErrorCode::SnapshotFailed, crate::chain(&error)))?;
        self.publisher.refresh_datasets().await?;
        // A point more may be one too many. What keeps it from being pruned is no reason not to have taken it.
        if let Err(error) = self.pruned(false).await {
            eprintln!("retention: {error}");
        }
        Ok(label.to_string())
    }

    /// For each recovery point: its name, whether it goes, and why it stays.
    #[zbus(out_args("points"))]
    async fn prune(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<PruneRow>, Failure> {
        let dry = flag(&options, "dry-run")?;
        only(&options, &["dry-run"])?;
        if !dry {
            self.authority.check(connection, &call, DATASET_ACTION).await?;
        }
        let rows = self.pruned(dry).await?;
        rows.ok_or_else(|| {
            Failure::new(ErrorCode::NoRetention, "the dataset has no retention policy: everything stays")
        })
    }

    async fn take_over(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, DATASET_ACTION).await?;
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        let taken = off_the_bus(move || vectors::role::take_over(agent.zfs.sets(), &name, None)).await?;
        taken.map_err(|error| {
            let text = format!("{}: {}", error.code(), crate::chain(&error));
            Failure::new(ErrorCode::TakeOverFailed, text)
        })?;
        Ok(self.publisher.refresh_datasets().await?)
    }

    async fn set_retention(
        &self,
        policy: &str,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        // As it will be read; nothing takes it back.
        let kept = match policy {
            "" => String::new(),
            text => text
                .parse::<Policy>()
                .map_err(|error| Failure::new(ErrorCode::OptionInvalid, error.to_string()))?
                .to_string(),
        };
        self.authority.check(connection, &call, DATASET_ACTION).await?;
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        let properties = siris_zfs::UserProperties::from([(siris_zfs::RETENTION.to_owned(), kept)]);
        let set = off_the_bus(move || agent.zfs.set_user_properties(&name, &properties)).await?;
        set.map_err(|error| unreadable(&error))
    }

    #[zbus(out_args("policy"))]
    async fn get_retention(&self) -> Result<String, Failure> {
        let (agent, name) = (self.agent.clone(), self.dataset()?.dataset.name);
        let policy = off_the_bus(move || prune::policy(agent.zfs.sets(), &name)).await?;
        let policy = policy.map_err(|error| Failure::new(ErrorCode::PruneFailed, crate::chain(&error)))?;
        Ok(policy.map(|policy| policy.to_string()).unwrap_or_default())
    }

    async fn describe(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &["id", "next-id", "name"])?;
        let invalid = |text: String| Failure::new(ErrorCode::OptionInvalid, text);
        let number = match (large(&options, "id")?, flag(&options, "next-id")?) {
            (Some(_), true) => return Err(invalid("id or next-id, not both".to_owned())),
            (None, true) => Some(Number::Next),
            (Some(0), false) => Some(Number::Nothing),
            (Some(id), false) => {
                Some(Number::Is(id.to_string().parse().map_err(|e: asset::AssetIdError| invalid(e.to_string()))?))
            }
            (None, false) => None,
        };
        let name = match text(&options, "name")?.as_deref() {
            None => None,
            Some("") => Some(None),
            Some(name) => Some(Some(name.parse::<AssetName>().map_err(|e| invalid(e.to_string()))?)),
        };
        self.authority.check(connection, &call, DATASET_ACTION).await?;
        let (agent, one) = (self.agent.clone(), self.dataset()?);
        let told = move || asset::describe(&agent, &one, number, name.as_ref().map(Option::as_ref));
        off_the_bus(told).await?.map_err(|error: DescribeError| {
            Failure::new(ErrorCode::DescribeFailed, format!("{}: {}", error.code(), crate::chain(&error)))
        })?;
        Ok(self.publisher.refresh_datasets().await?)
    }

    #[zbus(out_args("vectors"))]
    async fn get_vectors(&self) -> Result<Vec<HashMap<String, String>>, Failure> {
        let notes = self.dataset()?.dataset.notes;
        let records = Records::of(&notes).map_err(|e| Failure::new(ErrorCode::DatasetsUnreadable, crate::chain(&e)))?;
        Ok(records.iter().map(shown_record).collect())
    }

    #[zbus(out_args("name"))]
    async fn hold(
        &self,
        point: String,
        tag: String,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, DATASET_ACTION).await?;
        Ok(self.with_points(move |zfs, name| points::hold(zfs, name, &point, &tag)).await?.to_string())
    }

    #[zbus(out_args("name"))]
    async fn release(
        &self,
        point: String,
        tag: String,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, DATASET_ACTION).await?;
        Ok(self.with_points(move |zfs, name| points::release(zfs, name, &point, &tag)).await?.to_string())
    }

    #[zbus(out_args("holds"))]
    async fn list_holds(&self, points: Vec<String>, options: Options) -> Result<Vec<HoldRow>, Failure> {
        only(&options, &[])?;
        if points.len() > PAGE_MAX as usize {
            let text = format!("{} names in one call: ask for {PAGE_MAX} at most at a time", points.len());
            return Err(Failure::new(ErrorCode::OptionInvalid, text));
        }
        let holds = self.with_points(move |zfs, name| points::holds(zfs, name, &points)).await?;
        let row = |hold: Hold| HoldRow {
            vector: VectorId::of_tag(&hold.tag).map(|id| id.to_string()).unwrap_or_default(),
            point: hold.label.to_string(),
            tag: hold.tag.to_string(),
        };
        Ok(holds.into_iter().map(row).collect())
    }

    #[zbus(name = "Clone")]
    async fn clone_point(
        &self,
        point: String,
        target: String,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, DATASET_ACTION).await?;
        self.with_points(move |zfs, name| clones::make(zfs, name, &point, &target)).await.map(drop)
    }

    #[zbus(out_args("snapshots"))]
    async fn destroy_point(
        &self,
        point: String,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, Failure> {
        let dry = flag(&options, "dry-run")?;
        only(&options, &["dry-run"])?;
        if !dry {
            self.authority.check(connection, &call, DATASET_ACTION).await?;
        }
        let agent = self.agent.clone();
        let destroy = move |zfs: &dyn Datasets, name: &DatasetName| -> Result<_, Failure> {
            // Without the records nobody knows what is needed, and nothing goes.
            let (vectors, peers) = records(&agent)?;
            let concerned = |view: &View| concerned(view, agent.device_id, &vectors, &peers);
            Ok(points::destroy(zfs, name, &point, &concerned, dry)?)
        };
        let gone = self.with_points(destroy).await?;
        if !dry {
            self.publisher.refresh_datasets().await?;
        }
        Ok(gone.iter().map(ToString::to_string).collect())
    }
}

#[cfg(test)]
mod tests {
    use siris_zfs::Guid;

    use super::*;

    #[test]
    fn no_page_ends_within_a_transaction_group() {
        let all: Vec<Snapshot> = [1, 2, 2, 2, 3]
            .iter()
            .enumerate()
            .map(|(n, txg)| Snapshot {
                label: n.to_string().parse().unwrap(),
                guid: Guid::new(n as u64),
                createtxg: *txg,
            })
            .collect();
        for limit in 1..7 {
            let (mut found, mut after) = (Vec::new(), 0);
            while let [.., last] = page(&all, after, limit) {
                found.extend_from_slice(page(&all, after, limit));
                after = last.createtxg;
            }
            assert_eq!(found, all, "{limit} at a time");
        }
        assert_eq!(page(&all, 0, 2).len(), 4);
        assert!(page(&all, 0, 0).is_empty() && page(&[], 0, 5).is_empty());
    }
}
