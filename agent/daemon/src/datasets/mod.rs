//! Datasets of protected machines: which there are, their recovery points, and which of these stay.
//!
//! Owns: what a dataset of an asset is (`POOL/home/agents/UUID`), how a recovery point is named and taken.
//! Never: keeps anything; ZFS is the truth about datasets and snapshots.

pub mod asset;
pub mod clones;
pub mod points;
pub mod prune;
pub mod retention;

use std::collections::{BTreeMap, BTreeSet};

use siris_zfs::{
    Dataset, DatasetName, Datasets, Guid, Label, Newest, PoolName, Refusal, Snapshot, UserProperties, ZfsError,
};
use uuid::Uuid;

use asset::AssetId;

/// Where the datasets of assets lie in a pool.
const AGENTS: &str = "home/agents";
/// How many seconds a recovery point's name may be moved on where names are taken.
const COLLISIONS: u64 = 600;
/// How many datasets are asked for their snapshots at once: their names are arguments of one command.
const LISTED: usize = 2000;

/// A dataset of an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetDataset {
    /// As ZFS shows it.
    pub dataset: Dataset,
    /// The asset, as the name says.
    pub asset: Uuid,
    /// Its snapshots; `None` when there are none.
    pub newest: Option<Newest>,
}

/// Those behind a name, by name, up to the one with which they have `limit` snapshots, as last seen; one at least.
pub fn page(all: impl Iterator<Item = AssetDataset>, after: &str, limit: u64) -> Vec<Dataset> {
    let mut rest: Vec<AssetDataset> = all.filter(|one| one.dataset.name.as_str() > after).collect();
    rest.sort_by(|a, b| a.dataset.name.cmp(&b.dataset.name));
    let mut before = 0;
    let ends = rest.iter().take_while(|one| {
        let is_in = before == 0 || before < limit;
        // One without snapshots is an entry, too.
        before += one.newest.as_ref().map_or(0, |newest| newest.count).max(1);
        is_in
    });
    let count = ends.count();
    rest.into_iter().take(count).map(|one| one.dataset).collect()
}

/// The snapshots of each of these datasets, oldest first; one that has none, or went meanwhile, is left out.
///
/// # Errors
/// When ZFS cannot be asked.
pub fn snapshots(zfs: &dyn Datasets, names: &[DatasetName]) -> Result<BTreeMap<DatasetName, Vec<Snapshot>>, ZfsError> {
    let mut all = BTreeMap::new();
    for some in names.chunks(LISTED) {
        all.extend(match zfs.all_snapshots(some) {
            Err(ZfsError::Refused { why: Refusal::Missing, .. }) => {
                let pools: BTreeSet<PoolName> = some.iter().map(DatasetName::pool_name).collect();
                let there = zfs.datasets(&pools.into_iter().collect::<Vec<_>>())?;
                let there: BTreeSet<DatasetName> = there.into_iter().map(|found| found.name).collect();
                let left: Vec<DatasetName> = some.iter().filter(|name| there.contains(name)).cloned().collect();
                zfs.all_snapshots(&left)?
            }
            found => found?,
        });
    }
    Ok(all)
}

impl AssetDataset {
    /// The asset's number; `None` where it has none, or one that is not known.
    pub fn id(&self) -> Option<AssetId> {
        self.dataset.notes.asset_id.as_deref()?.parse().ok()
    }

    /// What people call the asset; empty where nobody has said.
    pub fn asset_name(&self) -> &str {
        self.dataset.notes.asset_name.as_deref().unwrap_or_default()
    }

    /// Whether somebody who says this means it: the dataset's name, the asset's UUID, or its number.
    pub fn is(&self, name: &str) -> bool {
        self.dataset.name.as_str() == name
            || self.asset.to_string() == name
            || self.id().is_some_and(|id| id.to_string() == name)
    }
}

/// The asset that a dataset holds the backups of; `None` for every other dataset.
pub fn asset_of(name: &DatasetName) -> Option<Uuid> {
    let (parent, own) = name.as_str().rsplit_once('/')?;
    let (_, path) = parent.split_once('/')?;
    // Hyphens and all: what ZFS sorts under another name is another dataset.
    let asset = own.parse::<Uuid>().ok().filter(|asset| asset.hyphenated().to_string() == own)?;
    (path == AGENTS).then_some(asset)
}

/// Whether other software may take a dataset for an asset's, by its name: a UUID has more spellings than one.
pub fn looks_like_asset(name: &DatasetName) -> bool {
    let parts = name.as_str().rsplit_once('/').and_then(|(parent, own)| Some((parent.split_once('/')?.1, own)));
    parts.is_some_and(|(path, own)| path == AGENTS && own.parse::<Uuid>().is_ok())
}

/// Every asset's dataset of these pools, by guid.
///
/// # Errors
/// When ZFS cannot be asked, or says something unknown.
pub fn look(zfs: &dyn Datasets, pools: &[PoolName]) -> Result<BTreeMap<Guid, AssetDataset>, ZfsError> {
    let shown = |dataset: Dataset| {
        let asset = asset_of(&dataset.name)?;
        Some((dataset.guid, AssetDataset { asset, dataset, newest: None }))
    };
    let mut found: BTreeMap<Guid, AssetDataset> = zfs.datasets(pools)?.into_iter().filter_map(shown).collect();
    // Only pools that have any are asked for their snapshots.
    let theirs: BTreeSet<PoolName> = found.values().map(|asset| asset.dataset.name.pool_name()).collect();
    let mut newest = zfs.newest(&theirs.into_iter().collect::<Vec<_>>())?;
    found.values_mut().for_each(|asset| asset.newest = newest.remove(&asset.dataset.name));
    Ok(found)
}

/// Why no recovery point was taken.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// Ten minutes of names are taken.
    #[error("there are recovery points for each second from {from} on: is the clock right?")]
    Taken {
        /// Seconds since 1970.
        from: u64,
    },
}

/// Takes a recovery point of a dataset and all that lies in it, of one instant. It is named by the second; where a name
/// is taken (a clock was set back, or two came in one second), by the next one that is free.
///
/// # Errors
/// When ZFS refuses, or no name is free.
pub fn take_point(zfs: &dyn Datasets, dataset: &DatasetName, now: u64) -> Result<Label, PointError> {
    let below = format!("{dataset}/");
    let all: Vec<DatasetName> = zfs
        .datasets(&[dataset.pool_name()])?
        .into_iter()
        .map(|d| d.name)
        .filter(|name| name == dataset || name.as_str().starts_with(&below))
        .collect();
    for epoch in now..now + COLLISIONS {
        let label = Label::of_epoch(epoch);
        match zfs.snapshot(&all, &label, &UserProperties::new()) {
            Ok(()) => return Ok(label),
            Err(ZfsError::Refused { why: Refusal::Exists, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(PointError::Taken { from: now })
}

#[cfg(test)]
mod tests {
    use std::slice;

    use siris_zfs::ModelDatasets;

    use super::*;

    const ASSET: &str = "0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";

    fn name(text: &str) -> DatasetName {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_datasets_of_assets_are_shown() {
        let zfs = ModelDatasets::new(1, &["tank"]);
        let asset = name(&format!("tank/home/agents/{ASSET}"));
        for dataset in [&asset, &name("tank/home/agents/other"), &name(&format!("tank/agents/{ASSET}"))] {
            zfs.create(dataset).unwrap();
        }
        zfs.create(&name(&format!("{asset}/below"))).unwrap();
        let found = look(&zfs, &["tank".parse().unwrap()]).unwrap();
        let only = found.values().next().unwrap();
        assert_eq!((found.len(), only.asset.to_string().as_str(), &only.newest), (1, ASSET, &None));
        let spelt = name(&format!("tank/home/agents/{}", ASSET.to_uppercase()));
        assert!(asset_of(&spelt).is_none() && looks_like_asset(&spelt) && looks_like_asset(&asset));
        assert!(!looks_like_asset(&name(&format!("tank/agents/{ASSET}"))));
    }

    #[test]
    fn a_page_of_datasets_ends_where_it_is_full() {
        let zfs = ModelDatasets::new(1, &["tank"]);
        let names: Vec<DatasetName> =
            (1..=4).map(|n| name(&format!("tank/home/agents/{}{n}", &ASSET[..ASSET.len() - 1]))).collect();
        for (n, dataset) in names.iter().enumerate() {
            zfs.create(dataset).unwrap();
            for second in 0..[2, 0, 5, 1][n] {
                zfs.snapshot(slice::from_ref(dataset), &Label::of_epoch(1 + second), &UserProperties::new()).unwrap();
            }
        }
        let all = look(&zfs, &["tank".parse().unwrap()]).unwrap();
        for (limit, pages) in
            [(0, [1, 1, 1, 1].as_slice()), (2, &[1, 2, 1]), (3, &[2, 1, 1]), (4, &[3, 1]), (100, &[4])]
        {
            let (mut found, mut sizes, mut after) = (Vec::new(), Vec::new(), String::new());
            loop {
                let page = page(all.values().cloned(), &after, limit);
                let Some(last) = page.last() else { break };
                after = last.name.to_string();
                sizes.push(page.len());
                found.extend(page.into_iter().map(|dataset| dataset.name));
            }
            assert_eq!((&found, &sizes[..]), (&names, pages), "{limit}");
        }
    }

    #[test]
    fn a_dataset_that_went_takes_no_list_with_it() {
        let zfs = ModelDatasets::new(1, &["tank"]);
        let names = ["5", "6", "7"].map(|last| name(&format!("tank/home/agents/{}{last}", &ASSET[..ASSET.len() - 1])));
        names.iter().for_each(|dataset| zfs.create(dataset).unwrap());
        zfs.snapshot(&names, &Label::of_epoch(1), &UserProperties::new()).unwrap();
        zfs.create(&name("tank/other")).unwrap();
        let asked = [&names[..], &[name("tank/other")]].concat();
        let listed = |asked| snapshots(&zfs, asked).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(listed(&asked), names);
        zfs.destroy_snapshots(&names[1], &[Label::of_epoch(1)]).unwrap();
        zfs.destroy(&names[1]).unwrap();
        assert_eq!(listed(&asked), [names[0].clone(), names[2].clone()]);
    }

    #[test]
    fn a_point_is_of_all_that_lies_in_the_dataset_and_finds_a_free_second() {
        let zfs = ModelDatasets::new(1, &["tank"]);
        let asset = name(&format!("tank/home/agents/{ASSET}"));
        let below = name(&format!("{asset}/below"));
        zfs.create(&below).unwrap();
        let labels = [100, 100, 99].map(|now| take_point(&zfs, &asset, now).unwrap().to_string());
        assert_eq!(labels, ["100", "101", "99"]);
        // Ordered by what was first, whatever the clock said.
        let order =
            |of: &DatasetName| zfs.snapshots(of).unwrap().iter().map(|s| s.label.to_string()).collect::<Vec<_>>();
        assert_eq!(order(&below), labels);
        let found = look(&zfs, &["tank".parse().unwrap()]).unwrap();
        let newest = found.values().next().unwrap().newest.as_ref().unwrap();
        assert_eq!((newest.count, newest.snapshot.label.as_str()), (3, "99"));
    }
}
