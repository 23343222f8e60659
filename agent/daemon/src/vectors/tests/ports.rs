//! Ports to the model that fail, that somebody has broken, and that lie behind a link.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use siris_zfs::{
    Bookmark, Dataset, DatasetName, Datasets, Guid, Hold, Label, ModelDatasets, Newest, PoolName, Sending, Snapshot,
    SnapshotName, Stream, UserProperties, ZfsError,
};

use super::super::VectorId;
use super::super::end::{End, EndError, Local};
use super::super::plan::View;

/// A fuse that several ports share: it blows at some call.
#[derive(Debug, Clone)]
pub(super) struct Fuse {
    left: Arc<AtomicI64>,
    blows: Blows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blows {
    /// As when the process is killed before the call.
    Before,
    /// As when the process is killed behind the call.
    Behind,
    /// The call fails, and no other.
    Once,
}

impl Fuse {
    pub(super) fn after(calls: i64, blows: Blows) -> Self {
        Fuse { left: Arc::new(AtomicI64::new(calls)), blows }
    }

    pub(super) fn none() -> Self {
        Fuse::after(i64::MAX, Blows::Once)
    }

    pub(super) fn has_blown(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn call<T>(&self, call: impl FnOnce() -> Result<T, ZfsError>) -> Result<T, ZfsError> {
        let failed = || Err(ZfsError::Stream(io::Error::other("the fuse has blown")));
        match (self.left.fetch_sub(1, Ordering::SeqCst), self.blows) {
            (0, Blows::Behind) => call().and_then(|_| failed()),
            (0, _) | (..0, Blows::Before | Blows::Behind) => failed(),
            _ => call(),
        }
    }
}

/// A port with a fuse in it.
#[derive(Debug)]
pub(super) struct Fused<'a>(pub(super) &'a ModelDatasets, pub(super) Fuse);

/// A port on which somebody may have broken a rule of this module: the test of the tests.
#[derive(Debug)]
pub(super) struct Mutated<'a>(pub(super) Fused<'a>, pub(super) Option<Mutant>);

/// The rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Snapshots are the same where their names are.
    MatchByName,
    /// Nothing is held.
    SkipHold,
    /// What could not be asked is taken for what is not there.
    SwallowFailure,
    /// Retention does not ask the vectors what they need.
    PruneWithoutAsking,
}

macro_rules! pass {
    ($through:ident: $($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> Result<$result, ZfsError> {
            $through(self, |port| port.$name($($argument),*))
        })*
    };
}

fn fused<'a, T>(port: &Fused<'a>, call: impl FnOnce(&'a ModelDatasets) -> Result<T, ZfsError>) -> Result<T, ZfsError> {
    port.1.call(|| call(port.0))
}

fn plainly<'p, T>(
    port: &'p Mutated<'_>,
    call: impl FnOnce(&'p Fused<'p>) -> Result<T, ZfsError>,
) -> Result<T, ZfsError> {
    call(&port.0)
}

fn swallowing<'p, T: Default>(
    port: &'p Mutated<'_>,
    call: impl FnOnce(&'p Fused<'p>) -> Result<T, ZfsError>,
) -> Result<T, ZfsError> {
    let asked = call(&port.0);
    if port.1 == Some(Mutant::SwallowFailure) { Ok(asked.unwrap_or_default()) } else { asked }
}

impl Datasets for Fused<'_> {
    pass! { fused:
        datasets(pools: &[PoolName]) -> Vec<Dataset>;
        newest(pools: &[PoolName]) -> BTreeMap<DatasetName, Newest>;
        dataset(name: &DatasetName) -> Option<Dataset>;
        snapshots(dataset: &DatasetName) -> Vec<Snapshot>;
        bookmarks(dataset: &DatasetName) -> Vec<Bookmark>;
        holds(dataset: &DatasetName, labels: &[Label]) -> Vec<Hold>;
        create(dataset: &DatasetName) -> ();
        snapshot(datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> ();
        bookmark(snapshot: &SnapshotName, label: &Label) -> ();
        destroy_bookmark(dataset: &DatasetName, label: &Label) -> ();
        hold(snapshot: &SnapshotName, tag: &Label) -> ();
        release(snapshot: &SnapshotName, tag: &Label) -> ();
        destroy_snapshots(dataset: &DatasetName, labels: &[Label]) -> ();
        clone_snapshot(snapshot: &SnapshotName, target: &DatasetName) -> ();
        promote(clone: &DatasetName) -> ();
        rename_snapshot(snapshot: &SnapshotName, label: &Label) -> ();
        destroy(dataset: &DatasetName) -> ();
        send_size(stream: &Stream) -> u64;
        send(stream: &Stream) -> Box<dyn Sending>;
        receive(dataset: &DatasetName, stream: &mut dyn Read) -> ();
        abort_receive(dataset: &DatasetName) -> ();
    }
}

impl Mutated<'_> {
    /// The guid as it is, or one that only the name decides about.
    fn guid(&self, guid: Guid, label: &Label) -> Guid {
        if self.1 == Some(Mutant::MatchByName) {
            let mixed = label.as_str().bytes().fold(7u64, |sum, byte| sum.wrapping_mul(1_000_003) ^ u64::from(byte));
            return Guid::new(mixed);
        }
        guid
    }
}

impl Datasets for Mutated<'_> {
    pass! { plainly:
        datasets(pools: &[PoolName]) -> Vec<Dataset>;
        newest(pools: &[PoolName]) -> BTreeMap<DatasetName, Newest>;
        create(dataset: &DatasetName) -> ();
        snapshot(datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> ();
        bookmark(snapshot: &SnapshotName, label: &Label) -> ();
        destroy_bookmark(dataset: &DatasetName, label: &Label) -> ();
        release(snapshot: &SnapshotName, tag: &Label) -> ();
        destroy_snapshots(dataset: &DatasetName, labels: &[Label]) -> ();
        clone_snapshot(snapshot: &SnapshotName, target: &DatasetName) -> ();
        promote(clone: &DatasetName) -> ();
        rename_snapshot(snapshot: &SnapshotName, label: &Label) -> ();
        destroy(dataset: &DatasetName) -> ();
        send_size(stream: &Stream) -> u64;
        send(stream: &Stream) -> Box<dyn Sending>;
        receive(dataset: &DatasetName, stream: &mut dyn Read) -> ();
        abort_receive(dataset: &DatasetName) -> ();
    }

    pass! { swallowing:
        dataset(name: &DatasetName) -> Option<Dataset>;
        bookmarks(dataset: &DatasetName) -> Vec<Bookmark>;
        holds(dataset: &DatasetName, labels: &[Label]) -> Vec<Hold>;
    }

    fn snapshots(&self, dataset: &DatasetName) -> Result<Vec<Snapshot>, ZfsError> {
        let mut all = swallowing(self, |port| port.snapshots(dataset))?;
        all.iter_mut().for_each(|snapshot| snapshot.guid = self.guid(snapshot.guid, &snapshot.label));
        Ok(all)
    }

    fn hold(&self, snapshot: &SnapshotName, tag: &Label) -> Result<(), ZfsError> {
        if self.1 == Some(Mutant::SkipHold) { Ok(()) } else { self.0.hold(snapshot, tag) }
    }
}

/// A target behind a link that breaks after so many bytes.
#[derive(Debug)]
pub(super) struct Far<'a>(pub(super) Local<'a>, pub(super) u64);

impl End for Far<'_> {
    fn look(&self, dataset: &DatasetName) -> Result<Option<View>, EndError> {
        self.0.look(dataset)
    }

    fn pin(&self, dataset: &DatasetName, id: &VectorId, guid: Guid) -> Result<(), EndError> {
        self.0.pin(dataset, id, guid)
    }

    fn keep(&self, dataset: &DatasetName, id: &VectorId, guid: Guid) -> Result<(), EndError> {
        self.0.keep(dataset, id, guid)
    }

    fn forget(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        self.0.forget(dataset, id)
    }

    fn send(&self, stream: &Stream) -> Result<Box<dyn Sending>, EndError> {
        self.0.send(stream)
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), EndError> {
        let mut some = Vec::new();
        let whole = stream.take(self.1).read_to_end(&mut some).is_ok() && (some.len() as u64) < self.1;
        self.0.receive(dataset, &mut &some[..])?;
        if whole { Ok(()) } else { Err(ZfsError::Stream(io::Error::other("the link is cut")).into()) }
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), EndError> {
        self.0.abort_receive(dataset)
    }
}
