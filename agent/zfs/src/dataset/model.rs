//! Datasets in memory: what property tests write to, snapshot, send and break.
//!
//! As ZFS has them, as far as replication can tell: guids that travel with a stream and transaction groups that do not,
//! holds, bookmarks, clones and their origins, streams that break off and are continued. A file system's content is a
//! map of paths to bytes.

mod content;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use siris_host::cmd::CmdError;

pub use content::Content;
use stream::Partial;

use super::types::{
    ASSET_ID, ASSET_NAME, Bookmark, Dataset, Guid, Hold, Kind, Label, Newest, Notes, PRIMARY, Rest, Snapshot,
    SnapshotName, VECTORS,
};
use super::{Datasets, Refusal, Sending, Stream};
use crate::types::{DatasetName, PoolName};
use crate::{UserProperties, ZfsError};

#[derive(Debug, Clone)]
struct Snap {
    label: Label,
    guid: Guid,
    createtxg: u64,
    content: Arc<Content>,
    holds: BTreeSet<Label>,
    properties: UserProperties,
}

#[derive(Debug, Clone)]
struct Set {
    guid: Guid,
    encrypted: bool,
    content: Content,
    snaps: Vec<Snap>,
    bookmarks: Vec<Bookmark>,
    /// Guid of the snapshot it is a clone of.
    origin: Option<Guid>,
    partial: Option<Partial>,
    properties: UserProperties,
}

#[derive(Debug)]
struct State {
    sets: BTreeMap<DatasetName, Set>,
    pools: BTreeSet<String>,
    /// What was in each snapshot that ever was: a bookmark outlives its own.
    past: BTreeMap<Guid, Arc<Content>>,
    txg: u64,
    next_guid: u64,
}

/// Datasets of one machine, in memory.
#[derive(Debug)]
pub struct ModelDatasets(Mutex<State>);

fn refuse<T>(why: Refusal, what: impl std::fmt::Display) -> Result<T, ZfsError> {
    let tail = format!("{what}: {}", why.code());
    Err(ZfsError::Refused {
        why,
        source: CmdError::Failed { command: "model".to_owned(), status: ExitStatus::from_raw(1 << 8), tail },
    })
}

impl State {
    fn guid(&mut self) -> Guid {
        self.next_guid += 1;
        Guid::new(self.next_guid)
    }

    fn txg(&mut self) -> u64 {
        self.txg += 1;
        self.txg
    }

    fn set(&self, name: &DatasetName) -> Result<&Set, ZfsError> {
        self.sets.get(name).map_or_else(|| refuse(Refusal::Missing, name), Ok)
    }

    fn set_mut(&mut self, name: &DatasetName) -> Result<&mut Set, ZfsError> {
        self.sets.get_mut(name).map_or_else(|| refuse(Refusal::Missing, name), Ok)
    }

    fn snap(&self, name: &SnapshotName) -> Result<&Snap, ZfsError> {
        let found = self.set(&name.dataset)?.snaps.iter().find(|snap| snap.label == name.label);
        found.map_or_else(|| refuse(Refusal::Missing, name), Ok)
    }

    fn snap_mut(&mut self, name: &SnapshotName) -> Result<&mut Snap, ZfsError> {
        let found = self.set_mut(&name.dataset)?.snaps.iter_mut().find(|snap| snap.label == name.label);
        found.map_or_else(|| refuse(Refusal::Missing, name), Ok)
    }

    /// The snapshot with this guid, and where it is.
    fn by_guid(&self, guid: Guid) -> Option<(&DatasetName, &Set, &Snap)> {
        self.sets.iter().find_map(|(name, set)| Some((name, set, set.snaps.iter().find(|s| s.guid == guid)?)))
    }

    fn are_there(&self, pools: &[PoolName]) -> Result<(), ZfsError> {
        let missing = pools.iter().find(|pool| !self.pools.contains(pool.as_str()));
        missing.map_or(Ok(()), |pool| refuse(Refusal::Missing, pool))
    }

    fn may_make(&self, name: &DatasetName) -> Result<(), ZfsError> {
        if self.sets.contains_key(name) {
            return refuse(Refusal::Exists, name);
        }
        let parent = name.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let there = self.pools.contains(parent) || self.sets.keys().any(|set| set.as_str() == parent);
        if there { Ok(()) } else { refuse(Refusal::Missing, parent) }
    }

    fn has_children(&self, name: &DatasetName) -> bool {
        let below = format!("{name}/");
        self.sets.keys().any(|set| set.as_str().starts_with(&below))
    }

    fn fresh(&mut self, encrypted: bool) -> Set {
        let guid = self.guid();
        Set {
            guid,
            encrypted,
            content: Content::new(),
            snaps: Vec::new(),
            bookmarks: Vec::new(),
            origin: None,
            partial: None,
            properties: UserProperties::new(),
        }
    }

    fn shown(&self, name: &DatasetName, set: &Set) -> Dataset {
        let origin = set.origin.and_then(|guid| self.by_guid(guid));
        Dataset {
            name: name.clone(),
            guid: set.guid,
            kind: Kind::Filesystem,
            used: set.content.values().map(|bytes| bytes.len() as u64).sum(),
            encrypted: set.encrypted,
            origin: origin.map(|(name, _, snap)| SnapshotName::new(name.clone(), snap.label.clone())),
            resume: set.partial.as_ref().map(Partial::resume),
            primary: set.properties.get(PRIMARY).map(|value| value == "on"),
            has_children: self.has_children(name),
            notes: Notes {
                asset_id: set.properties.get(ASSET_ID).cloned(),
                asset_name: set.properties.get(ASSET_NAME).cloned(),
                vectors: set.properties.get(VECTORS).cloned(),
            },
        }
    }
}

impl ModelDatasets {
    /// A machine whose guids begin at `seed`, with these pools, empty.
    pub fn new(seed: u32, pools: &[&str]) -> Self {
        ModelDatasets(Mutex::new(State {
            sets: BTreeMap::new(),
            pools: pools.iter().map(|pool| (*pool).to_owned()).collect(),
            past: BTreeMap::new(),
            txg: 100,
            next_guid: u64::from(seed) << 32,
        }))
    }

    /// A pool of that name is imported, or is not any more.
    pub fn set_pool(&self, name: &str, there: bool) {
        let mut state = self.lock();
        if there {
            state.pools.insert(name.to_owned());
        } else {
            state.pools.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a file, or takes it away.
    ///
    /// # Errors
    /// When there is no such dataset.
    pub fn write(&self, dataset: &DatasetName, path: &str, bytes: Option<&[u8]>) -> Result<(), ZfsError> {
        let mut state = self.lock();
        let content = &mut state.set_mut(dataset)?.content;
        match bytes {
            Some(bytes) => content.insert(path.to_owned(), bytes.to_owned()),
            None => content.remove(path),
        };
        Ok(())
    }

    /// What is in a dataset now.
    ///
    /// # Errors
    /// When there is no such dataset.
    pub fn content(&self, dataset: &DatasetName) -> Result<Content, ZfsError> {
        Ok(self.lock().set(dataset)?.content.clone())
    }

    /// What is in a snapshot.
    ///
    /// # Errors
    /// When there is no such snapshot.
    pub fn content_at(&self, snapshot: &SnapshotName) -> Result<Content, ZfsError> {
        Ok(self.lock().snap(snapshot)?.content.as_ref().clone())
    }

    /// The user properties a snapshot was taken with.
    ///
    /// # Errors
    /// When there is no such snapshot.
    pub fn properties_at(&self, snapshot: &SnapshotName) -> Result<UserProperties, ZfsError> {
        Ok(self.lock().snap(snapshot)?.properties.clone())
    }

    /// As `zfs rollback` to the newest snapshot does.
    ///
    /// # Errors
    /// When there is no such dataset.
    pub fn roll_back(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let mut state = self.lock();
        let set = state.set_mut(dataset)?;
        set.content = set.snaps.last().map(|snap| snap.content.as_ref().clone()).unwrap_or_default();
        Ok(())
    }
}

impl Datasets for ModelDatasets {
    fn datasets(&self, pools: &[PoolName]) -> Result<Vec<Dataset>, ZfsError> {
        let state = self.lock();
        state.are_there(pools)?;
        let found = state.sets.iter().filter(|(name, _)| pools.iter().any(|pool| name.pool() == pool.as_str()));
        Ok(found.map(|(name, set)| state.shown(name, set)).collect())
    }

    fn newest(&self, pools: &[PoolName]) -> Result<BTreeMap<DatasetName, Newest>, ZfsError> {
        let state = self.lock();
        state.are_there(pools)?;
        let newest = |(name, set): (&DatasetName, &Set)| {
            let last = set.snaps.last().filter(|_| pools.iter().any(|pool| name.pool() == pool.as_str()))?;
            let snapshot = Snapshot { label: last.label.clone(), guid: last.guid, createtxg: last.createtxg };
            Some((name.clone(), Newest { count: set.snaps.len() as u64, snapshot }))
        };
        Ok(state.sets.iter().filter_map(newest).collect())
    }

    fn dataset(&self, name: &DatasetName) -> Result<Option<Dataset>, ZfsError> {
        let state = self.lock();
        Ok(state.sets.get(name).map(|set| state.shown(name, set)))
    }

    fn snapshots(&self, dataset: &DatasetName) -> Result<Vec<Snapshot>, ZfsError> {
        let state = self.lock();
        let shown = |s: &Snap| Snapshot { label: s.label.clone(), guid: s.guid, createtxg: s.createtxg };
        Ok(state.set(dataset)?.snaps.iter().map(shown).collect())
    }

    fn bookmarks(&self, dataset: &DatasetName) -> Result<Vec<Bookmark>, ZfsError> {
        let mut found = self.lock().set(dataset)?.bookmarks.clone();
        found.sort_by_key(|bookmark| bookmark.createtxg);
        Ok(found)
    }

    fn holds(&self, dataset: &DatasetName, labels: &[Label]) -> Result<Vec<Hold>, ZfsError> {
        let state = self.lock();
        let mut holds = Vec::new();
        for label in labels {
            let snap = state.snap(&SnapshotName::new(dataset.clone(), label.clone()))?;
            holds.extend(snap.holds.iter().map(|tag| Hold { label: label.clone(), tag: tag.clone() }));
        }
        holds.sort();
        Ok(holds)
    }

    fn create(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let mut state = self.lock();
        if state.sets.contains_key(dataset) {
            return refuse(Refusal::Exists, dataset);
        }
        if !state.pools.contains(dataset.pool()) {
            return refuse(Refusal::Missing, dataset.pool());
        }
        for name in dataset.from_the_top() {
            let Ok(name) = name.parse::<DatasetName>() else { return refuse(Refusal::Other, name) };
            if !state.sets.contains_key(&name) {
                let set = state.fresh(false);
                state.sets.insert(name, set);
            }
        }
        Ok(())
    }

    fn property(&self, dataset: &DatasetName, name: &str) -> Result<Option<String>, ZfsError> {
        let state = self.lock();
        state.set(dataset)?;
        let above: Vec<&str> = dataset.from_the_top().collect();
        let mut near =
            above.iter().rev().filter_map(|above| above.parse().ok()).filter_map(|above| state.sets.get(&above));
        Ok(near.find_map(|set| set.properties.get(name).cloned()))
    }

    fn own_properties(&self, dataset: &DatasetName) -> Result<UserProperties, ZfsError> {
        Ok(self.lock().set(dataset)?.properties.clone())
    }

    fn set_property(&self, dataset: &DatasetName, name: &str, value: Option<&str>) -> Result<(), ZfsError> {
        let mut state = self.lock();
        let properties = &mut state.set_mut(dataset)?.properties;
        match value {
            Some(value) => properties.insert(name.to_owned(), value.to_owned()),
            None => properties.remove(name),
        };
        Ok(())
    }

    fn unmount(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        self.lock().set(dataset).map(drop)
    }

    fn mount(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        self.lock().set(dataset).map(drop)
    }

    fn snapshot(&self, datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> Result<(), ZfsError> {
        let mut state = self.lock();
        for dataset in datasets {
            if state.set(dataset)?.snaps.iter().any(|snap| snap.label == *label) {
                return refuse(Refusal::Exists, label);
            }
        }
        let createtxg = state.txg();
        let mut past = Vec::new();
        for dataset in datasets {
            let guid = state.guid();
            let set = state.set_mut(dataset)?;
            let content = Arc::new(set.content.clone());
            past.push((guid, content.clone()));
            let (label, properties) = (label.clone(), properties.clone());
            set.snaps.push(Snap { label, guid, createtxg, content, holds: BTreeSet::new(), properties });
        }
        state.past.extend(past);
        Ok(())
    }

    fn bookmark(&self, snapshot: &SnapshotName, label: &Label) -> Result<(), ZfsError> {
        let mut state = self.lock();
        let snap = state.snap(snapshot)?;
        let made = Bookmark { label: label.clone(), guid: snap.guid, createtxg: snap.createtxg };
        let set = state.set_mut(&snapshot.dataset)?;
        if set.bookmarks.iter().any(|bookmark| bookmark.label == *label) {
            return refuse(Refusal::Exists, label);
        }
        set.bookmarks.push(made);
        Ok(())
    }

    fn destroy_bookmark(&self, dataset: &DatasetName, label: &Label) -> Result<(), ZfsError> {
        self.lock().set_mut(dataset)?.bookmarks.retain(|bookmark| bookmark.label != *label);
        Ok(())
    }

    fn hold(&self, snapshot: &SnapshotName, tag: &Label) -> Result<(), ZfsError> {
        self.lock().snap_mut(snapshot)?.holds.insert(tag.clone());
        Ok(())
    }

    fn release(&self, snapshot: &SnapshotName, tag: &Label) -> Result<(), ZfsError> {
        match self.lock().snap_mut(snapshot) {
            Ok(snap) => {
                snap.holds.remove(tag);
                Ok(())
            }
            Err(ZfsError::Refused { why: Refusal::Missing, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn destroy_snapshots(&self, dataset: &DatasetName, labels: &[Label]) -> Result<(), ZfsError> {
        let mut state = self.lock();
        for label in labels {
            let snap = state.snap(&SnapshotName::new(dataset.clone(), label.clone()))?;
            if !snap.holds.is_empty() || state.sets.values().any(|set| set.origin == Some(snap.guid)) {
                return refuse(Refusal::Busy, label);
            }
        }
        state.set_mut(dataset)?.snaps.retain(|snap| !labels.contains(&snap.label));
        Ok(())
    }

    fn clone_snapshot(
        &self,
        snapshot: &SnapshotName,
        target: &DatasetName,
        properties: &UserProperties,
    ) -> Result<(), ZfsError> {
        let mut state = self.lock();
        let (guid, content) = state.snap(snapshot).map(|snap| (snap.guid, snap.content.clone()))?;
        let encrypted = state.set(&snapshot.dataset)?.encrypted;
        state.may_make(target)?;
        let (content, properties) = (content.as_ref().clone(), properties.clone());
        let set = Set { content, properties, origin: Some(guid), ..state.fresh(encrypted) };
        state.sets.insert(target.clone(), set);
        Ok(())
    }

    fn promote(&self, clone: &DatasetName) -> Result<(), ZfsError> {
        let mut state = self.lock();
        let Some(origin) = state.set(clone)?.origin else { return refuse(Refusal::Other, "not a clone") };
        let Some(owner) = state.by_guid(origin).map(|(name, _, _)| name.clone()) else {
            return refuse(Refusal::Missing, origin);
        };
        let parent = state.set_mut(&owner)?;
        let end = parent.snaps.iter().position(|snap| snap.guid == origin).map_or(0, |at| at + 1);
        let moved: Vec<Snap> = parent.snaps.drain(..end).collect();
        let above = parent.origin.replace(origin);
        // Bookmarks go with what they are of, whether that is there still or not; those of what came later stay.
        let of_it = moved.last().map_or(0, |origin| origin.createtxg);
        let set = state.set_mut(clone)?;
        let clashes = moved.iter().any(|snap| set.snaps.iter().any(|own| own.label == snap.label));
        if clashes {
            let parent = state.set_mut(&owner)?;
            parent.snaps.splice(0..0, moved);
            parent.origin = above;
            return refuse(Refusal::Exists, clone);
        }
        set.snaps.splice(0..0, moved);
        set.origin = above;
        let parent = state.set_mut(&owner)?;
        let (moved, stay) = std::mem::take(&mut parent.bookmarks).into_iter().partition(|mark| mark.createtxg <= of_it);
        parent.bookmarks = stay;
        let moved: Vec<Bookmark> = moved;
        state.set_mut(clone)?.bookmarks.extend(moved);
        Ok(())
    }

    fn rename(&self, dataset: &DatasetName, name: &DatasetName) -> Result<(), ZfsError> {
        let mut state = self.lock();
        state.set(dataset)?;
        state.may_make(name)?;
        let (old, below) = (dataset.as_str().to_owned(), format!("{dataset}/"));
        let moves: Vec<DatasetName> =
            state.sets.keys().filter(|set| **set == *dataset || set.as_str().starts_with(&below)).cloned().collect();
        for from in moves {
            let to = format!("{name}{}", &from.as_str()[old.len()..]);
            let Ok(to) = to.parse() else { return refuse(Refusal::Other, to) };
            let set = state.sets.remove(&from);
            state.sets.extend(set.map(|set| (to, set)));
        }
        Ok(())
    }

    fn rename_snapshot(&self, snapshot: &SnapshotName, label: &Label) -> Result<(), ZfsError> {
        let mut state = self.lock();
        if state.set(&snapshot.dataset)?.snaps.iter().any(|snap| snap.label == *label) {
            return refuse(Refusal::Exists, label);
        }
        state.snap_mut(snapshot)?.label = label.clone();
        Ok(())
    }

    fn destroy(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let mut state = self.lock();
        if !state.set(dataset)?.snaps.is_empty() || state.has_children(dataset) {
            return refuse(Refusal::Busy, dataset);
        }
        state.sets.remove(dataset);
        Ok(())
    }

    fn send_size(&self, stream: &Stream) -> Result<u64, ZfsError> {
        let streams = self.lock().streams(stream)?;
        let records = streams.iter().flat_map(|(_, records)| records);
        Ok(records.map(|(path, bytes)| (path.len() + bytes.as_ref().map_or(0, Vec::len)) as u64).sum())
    }

    fn leads_to(&self, token: &str) -> Option<Rest> {
        stream::leads_to(token)
    }

    fn send(&self, stream: &Stream) -> Result<Box<dyn Sending>, ZfsError> {
        let streams = self.lock().streams(stream)?;
        stream::sending(streams)
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), ZfsError> {
        stream::read(stream, |header, records, is_whole| self.lock().receive(dataset, header, records, is_whole))
    }

    fn show(
        &self,
        snapshot: &SnapshotName,
        look: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        let content = self.content_at(snapshot)?;
        let shown = content::laid_out(&content).and_then(|dir| look(dir.path()));
        shown.map_err(|source| ZfsError::Show { snapshot: snapshot.to_string(), source })
    }

    fn open(
        &self,
        dataset: &DatasetName,
        work: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        let content = self.lock().set(dataset)?.content.clone();
        let mut opened = || {
            let dir = content::laid_out(&content)?;
            let worked = work(dir.path());
            // What was written stays written, however it ended.
            let mut now = Content::new();
            content::read_back(dir.path(), "", &mut now)?;
            Ok((now, worked))
        };
        let fault = |source| ZfsError::Show { snapshot: dataset.to_string(), source };
        let (now, worked) = opened().map_err(fault)?;
        self.lock().set_mut(dataset)?.content = now;
        worked.map_err(fault)
    }

    fn is_changed(&self, dataset: &DatasetName) -> Result<bool, ZfsError> {
        let state = self.lock();
        let set = state.set(dataset)?;
        Ok(set.snaps.last().is_none_or(|newest| *newest.content != set.content))
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let mut state = self.lock();
        let Some(set) = state.sets.get_mut(dataset) else { return Ok(()) };
        if set.partial.take().is_some_and(|partial| partial.is_fresh) {
            state.sets.remove(dataset);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
