//! Ports that fail, that somebody has broken, and that lie behind a link.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use siris_zfs::{
    Bookmark, Dataset, DatasetName, Datasets, Guid, Hold, Label, ModelDatasets, Newest, Notes, PoolName, Rest, Sending,
    Snapshot, SnapshotName, Stream, UserProperties, ZfsError,
};

use super::super::VectorId;
use super::super::digest::{Amount, Digests, Scope};
use super::super::end::{End, EndError, Local};
use super::super::peer::{Rights, Session};
use super::super::plan::View;
use super::super::travel::VectorRecord;
use super::super::wire::{Answer, Fault, Mark, Request, entries_in};

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
pub(super) struct Fused<'a>(pub(super) &'a dyn Datasets, pub(super) Fuse);

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

fn fused<'a, T>(port: &Fused<'a>, call: impl FnOnce(&'a dyn Datasets) -> Result<T, ZfsError>) -> Result<T, ZfsError> {
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
    fn property(&self, dataset: &DatasetName, name: &str) -> Result<Option<String>, ZfsError> {
        self.0.property(dataset, name)
    }

    fn show(
        &self,
        snapshot: &SnapshotName,
        look: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        self.0.show(snapshot, look)
    }

    fn open(
        &self,
        dataset: &DatasetName,
        work: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        self.0.open(dataset, work)
    }

    fn leads_to(&self, token: &str) -> Option<Rest> {
        self.0.leads_to(token)
    }

    pass! { fused:
        datasets(pools: &[PoolName]) -> Vec<Dataset>;
        newest(pools: &[PoolName]) -> BTreeMap<DatasetName, Newest>;
        dataset(name: &DatasetName) -> Option<Dataset>;
        snapshots(dataset: &DatasetName) -> Vec<Snapshot>;
        bookmarks(dataset: &DatasetName) -> Vec<Bookmark>;
        holds(dataset: &DatasetName, labels: &[Label]) -> Vec<Hold>;
        create(dataset: &DatasetName) -> ();
        own_properties(dataset: &DatasetName) -> UserProperties;
        set_property(dataset: &DatasetName, name: &str, value: Option<&str>) -> ();
        mount(dataset: &DatasetName) -> ();
        unmount(dataset: &DatasetName) -> ();
        is_changed(dataset: &DatasetName) -> bool;
        snapshot(datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> ();
        bookmark(snapshot: &SnapshotName, label: &Label) -> ();
        destroy_bookmark(dataset: &DatasetName, label: &Label) -> ();
        hold(snapshot: &SnapshotName, tag: &Label) -> ();
        release(snapshot: &SnapshotName, tag: &Label) -> ();
        destroy_snapshots(dataset: &DatasetName, labels: &[Label]) -> ();
        clone_snapshot(snapshot: &SnapshotName, target: &DatasetName, properties: &UserProperties) -> ();
        promote(clone: &DatasetName) -> ();
        rename(dataset: &DatasetName, name: &DatasetName) -> ();
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
    fn property(&self, dataset: &DatasetName, name: &str) -> Result<Option<String>, ZfsError> {
        self.0.property(dataset, name)
    }

    fn show(
        &self,
        snapshot: &SnapshotName,
        look: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        self.0.show(snapshot, look)
    }

    fn open(
        &self,
        dataset: &DatasetName,
        work: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        self.0.open(dataset, work)
    }

    fn leads_to(&self, token: &str) -> Option<Rest> {
        self.0.leads_to(token)
    }

    pass! { plainly:
        datasets(pools: &[PoolName]) -> Vec<Dataset>;
        newest(pools: &[PoolName]) -> BTreeMap<DatasetName, Newest>;
        create(dataset: &DatasetName) -> ();
        own_properties(dataset: &DatasetName) -> UserProperties;
        set_property(dataset: &DatasetName, name: &str, value: Option<&str>) -> ();
        mount(dataset: &DatasetName) -> ();
        unmount(dataset: &DatasetName) -> ();
        is_changed(dataset: &DatasetName) -> bool;
        snapshot(datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> ();
        bookmark(snapshot: &SnapshotName, label: &Label) -> ();
        destroy_bookmark(dataset: &DatasetName, label: &Label) -> ();
        release(snapshot: &SnapshotName, tag: &Label) -> ();
        destroy_snapshots(dataset: &DatasetName, labels: &[Label]) -> ();
        clone_snapshot(snapshot: &SnapshotName, target: &DatasetName, properties: &UserProperties) -> ();
        promote(clone: &DatasetName) -> ();
        rename(dataset: &DatasetName, name: &DatasetName) -> ();
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
    fn is_far(&self) -> bool {
        true
    }

    fn land(
        &self,
        dataset: &DatasetName,
        id: &VectorId,
        (from, to): (Option<Guid>, Guid),
        stream: &mut dyn Read,
    ) -> Result<Option<View>, EndError> {
        from.map_or(Ok(()), |from| self.0.must_be_at(dataset, from))?;
        self.receive(dataset, stream)?;
        self.0.keep(dataset, id, to, None)?;
        self.0.look(dataset)
    }

    fn look(&self, dataset: &DatasetName) -> Result<Option<View>, EndError> {
        self.0.look(dataset)
    }

    fn pin(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError> {
        self.0.pin(dataset, id, guid, seen)
    }

    fn keep(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError> {
        self.0.keep(dataset, id, guid, seen)
    }

    fn forget(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        self.0.forget(dataset, id)
    }

    fn enter(&self, dataset: &DatasetName, record: &VectorRecord) -> Result<(), EndError> {
        self.0.enter(dataset, record)
    }

    fn tell(&self, dataset: &DatasetName, notes: &Notes) -> Result<(), EndError> {
        self.0.tell(dataset, notes)
    }

    fn send(&self, dataset: &DatasetName, stream: &Stream) -> Result<Box<dyn Sending>, EndError> {
        self.0.send(dataset, stream)
    }

    fn size(&self, dataset: &DatasetName, stream: &Stream) -> Result<u64, EndError> {
        self.0.size(dataset, stream)
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), EndError> {
        let mut some = Vec::new();
        let whole = stream.take(self.1).read_to_end(&mut some).is_ok() && (some.len() as u64) < self.1;
        self.0.receive(dataset, &mut &some[..])?;
        if whole { Ok(()) } else { Err(ZfsError::Stream(io::Error::other("the link is cut")).into()) }
    }

    fn digest(&self, dataset: &DatasetName, guid: Guid, scope: Scope) -> Result<Digests, EndError> {
        self.0.digest(dataset, guid, scope)
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), EndError> {
        self.0.abort_receive(dataset)
    }

    fn step_down(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        self.0.step_down(dataset, id)
    }

    fn take_over(&self, dataset: &DatasetName, id: &VectorId, newest: Guid) -> Result<(), EndError> {
        self.0.take_over(dataset, id, newest)
    }
}

/// An end behind a session of `siris-agent peer`: what goes over SSH goes through here as bytes.
#[derive(Debug)]
pub(super) struct Wired<'a>(pub(super) &'a ModelDatasets, pub(super) &'a Rights);

impl Wired<'_> {
    fn ask(&self, request: &Request, input: &mut dyn Read) -> Result<Answer, EndError> {
        let session = Session { zfs: self.0, root: None, rights: self.1 };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        session.run(&serde_json::to_string(request).unwrap(), input, &mut output, &mut errors);
        match serde_json::from_slice(&output).unwrap() {
            Answer::Failed(Fault { code, text }) => Err(EndError::Peer { code, text }),
            answer => Ok(answer),
        }
    }
}

impl End for Wired<'_> {
    fn is_far(&self) -> bool {
        true
    }

    fn look(&self, dataset: &DatasetName) -> Result<Option<View>, EndError> {
        match self.ask(&Request::Look { dataset: dataset.to_string() }, &mut io::empty())? {
            Answer::View(view) => Ok(view.map(|view| (*view).try_into()).transpose()?),
            other => panic!("{other:?}"),
        }
    }

    fn pin(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, _seen: Option<&View>) -> Result<(), EndError> {
        self.ask(&Request::Pin(Mark::new(dataset, id, guid)), &mut io::empty()).map(drop)
    }

    fn keep(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, _seen: Option<&View>) -> Result<(), EndError> {
        self.ask(&Request::Keep(Mark::new(dataset, id, guid)), &mut io::empty()).map(drop)
    }

    fn forget(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        let request = Request::Forget { dataset: dataset.to_string(), vector: id.to_string() };
        self.ask(&request, &mut io::empty()).map(drop)
    }

    fn enter(&self, dataset: &DatasetName, record: &VectorRecord) -> Result<(), EndError> {
        let request = Request::Enter { dataset: dataset.to_string(), record: record.clone() };
        self.ask(&request, &mut io::empty()).map(drop)
    }

    fn tell(&self, dataset: &DatasetName, notes: &Notes) -> Result<(), EndError> {
        let request = Request::Tell { dataset: dataset.to_string(), notes: notes.clone() };
        self.ask(&request, &mut io::empty()).map(drop)
    }

    fn send(&self, dataset: &DatasetName, stream: &Stream) -> Result<Box<dyn Sending>, EndError> {
        let session = Session { zfs: self.0, root: None, rights: self.1 };
        let request = Request::Send { dataset: dataset.to_string(), stream: stream.into() };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let request = serde_json::to_string(&request).unwrap();
        if session.run(&request, &mut io::empty(), &mut output, &mut errors) {
            return Ok(Box::new(Bytes(io::Cursor::new(output))));
        }
        match serde_json::from_slice(&errors).unwrap() {
            Answer::Failed(Fault { code, text }) => Err(EndError::Peer { code, text }),
            other => panic!("{other:?}"),
        }
    }

    fn size(&self, dataset: &DatasetName, stream: &Stream) -> Result<u64, EndError> {
        let request = Request::Size { dataset: dataset.to_string(), stream: stream.into() };
        match self.ask(&request, &mut io::empty())? {
            Answer::Size(bytes) => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), EndError> {
        self.ask(&Request::Receive { dataset: dataset.to_string() }, stream).map(drop)
    }

    fn land(
        &self,
        dataset: &DatasetName,
        id: &VectorId,
        (from, to): (Option<Guid>, Guid),
        stream: &mut dyn Read,
    ) -> Result<Option<View>, EndError> {
        match self.ask(&Request::land(dataset, id, from, to), stream)? {
            Answer::View(view) => Ok(view.map(|view| (*view).try_into()).transpose()?),
            other => panic!("{other:?}"),
        }
    }

    fn digest(&self, dataset: &DatasetName, guid: Guid, scope: Scope) -> Result<Digests, EndError> {
        let (dataset, guid, whole) = (dataset.to_string(), guid.as_u64(), scope == Scope::Whole);
        match self.ask(&Request::Prove { dataset, guid, whole }, &mut io::empty())? {
            Answer::Proven { digests, read, data } => {
                Ok(Digests { entries: entries_in(digests)?, amount: Some(Amount { read, data }) })
            }
            other => panic!("{other:?}"),
        }
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), EndError> {
        self.ask(&Request::Abort { dataset: dataset.to_string() }, &mut io::empty()).map(drop)
    }

    fn step_down(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        let request = Request::StepDown { dataset: dataset.to_string(), vector: id.to_string() };
        self.ask(&request, &mut io::empty()).map(drop)
    }

    fn take_over(&self, dataset: &DatasetName, id: &VectorId, newest: Guid) -> Result<(), EndError> {
        let request = Request::TakeOver(Mark::new(dataset, id, newest));
        self.ask(&request, &mut io::empty()).map(drop)
    }
}

#[derive(Debug)]
pub(super) struct Bytes(pub(super) io::Cursor<Vec<u8>>);

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Sending for Bytes {
    fn finish(self: Box<Self>) -> Result<(), ZfsError> {
        Ok(())
    }
}
