//! One end of a vector: this machine, or another one that is reached over a link.
//!
//! Owns: what a vector leaves on an end (a hold and a bookmark of its base, a hold on what is being sent), and in which
//! order, so that whatever happens in between the next one finds a base. Never: destroys a snapshot.

use std::fmt::Debug;
use std::io::Read;

use siris_host::cmd::CmdError;
use siris_zfs::{
    Bookmark, DatasetName, Datasets, Guid, Label, Notes, Refusal, Sending, Snapshot, SnapshotName, Stream, ZfsError,
};

use super::VectorId;
use super::aside;
use super::digest::kept::Keeping;
use super::digest::since::Since;
use super::digest::{Digests, Reading, Scope};
use super::plan::View;
use super::role;
use super::travel::{self, VectorRecord};
use crate::datasets::PointError;
use crate::root::Root;

/// How many snapshots are asked for their holds at once: their names are arguments of one command.
const HOLDS: usize = 500;

/// The code of [`EndError::KeyNotLoaded`].
pub(super) const KEY_NOT_LOADED: &str = "key-not-loaded";
/// The code of [`EndError::NotNewest`].
pub(super) const NOT_NEWEST: &str = "not-the-newest";

/// The code of [`EndError::RestOfAnother`], and of a plan that comes upon one.
pub(super) const PARTIAL_FOREIGN: &str = "partial-foreign";

/// Why an end did not do what it was to.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The other machine refused.
    #[error("{text}")]
    Peer {
        /// The stable code.
        code: String,
        /// What it said.
        text: String,
    },
    /// The other machine is not to be reached, or the way to it broke.
    #[error("the way to the other machine is broken")]
    Link(#[source] CmdError),
    /// The other machine has another host key than the pinned one.
    #[error(
        "the machine that answers has another host key than the one that was pinned: if it was installed anew, add it once \
         more (sirisctl machine add --replace); if not, somebody is in between"
    )]
    HostKey(#[source] CmdError),
    /// The other machine does not take the key.
    #[error(
        "the other machine does not take this one's key: let it in there (a box: sirisctl machine add --replace, which does \
         so; another: what sirisctl machine key prints)"
    )]
    Denied(#[source] CmdError),
    /// The other machine speaks another language.
    #[error("the other machine's answer is not known: is it of another version?")]
    Answer(#[source] serde_json::Error),
    /// No point was taken.
    #[error(transparent)]
    Point(#[from] PointError),
    /// It has no snapshot.
    #[error("{0} has no snapshot yet: what is being received is all that there is of it")]
    NoPoints(DatasetName),
    /// Another machine's vector has to do with it, and nobody has said that it is the primary.
    #[error(
        "vector {other} of another machine has to do with {dataset}, which may be its replica: if it is the primary, say so \
         (sirisctl dataset take-over)"
    )]
    MayBeReplica {
        /// The dataset.
        dataset: DatasetName,
        /// The vector.
        other: VectorId,
    },
    /// It has another newest snapshot.
    #[error("{dataset} has another newest snapshot than the one with guid {guid}")]
    NotNewest {
        /// The dataset.
        dataset: DatasetName,
        /// The guid.
        guid: Guid,
    },
    /// rsync may be writing to it.
    #[error("vector {vector} fetches into {dataset}: remove that one first")]
    FetchedInto {
        /// The dataset.
        dataset: DatasetName,
        /// What the dataset says of the vector.
        vector: String,
    },
    /// What it has beside its source's was being set aside.
    #[error("{0} was being set aside when that broke off: say it once more there (sirisctl dataset set-aside {0})")]
    HalfSetAside(DatasetName),
    /// It names nothing of what is in a snapshot, not even its root.
    #[error("what is in the snapshot with guid {guid} of {dataset} was not told, as by an agent that does not work")]
    NothingTold {
        /// The dataset.
        dataset: DatasetName,
        /// The guid.
        guid: Guid,
    },
    /// What is in it is encrypted.
    #[error("{0} is encrypted and its key is not loaded: load it there (zfs load-key), and ask again")]
    KeyNotLoaded(DatasetName),
    /// A target asks for the rest of a stream that is not the dataset's.
    #[error(
        "the rest of a stream that the target asks for is that of no snapshot of {0}: somebody else sends there, or what was \
         being sent is gone"
    )]
    RestOfAnother(DatasetName),
    /// What is encrypted was to leave otherwise than it lies on disk.
    #[error(
        "{0} is encrypted, and leaves this machine as it lies on disk only: a stream of what is in it was asked for"
    )]
    NotRaw(DatasetName),
    /// The snapshot to be marked is gone.
    #[error("{dataset} has no snapshot with guid {guid} any more")]
    SnapshotGone {
        /// The dataset.
        dataset: DatasetName,
        /// The guid.
        guid: Guid,
    },
}

impl EndError {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            EndError::Zfs(error) => error.code(),
            EndError::Peer { code, .. } => code,
            EndError::Link(_) => "link-broken",
            EndError::HostKey(_) => "host-key-changed",
            EndError::Denied(_) => "key-not-allowed",
            EndError::Answer(_) => "peer-unknown-answer",
            EndError::Point(_) => "snapshot-failed",
            EndError::NoPoints(_) => "no-recovery-point",
            EndError::MayBeReplica { .. } => "may-be-replica",
            EndError::NotNewest { .. } => NOT_NEWEST,
            EndError::FetchedInto { .. } => "fetched-into",
            EndError::HalfSetAside(_) => "half-set-aside",
            EndError::NothingTold { .. } => "nothing-told",
            EndError::KeyNotLoaded(_) => KEY_NOT_LOADED,
            EndError::RestOfAnother(_) => PARTIAL_FOREIGN,
            EndError::NotRaw(_) => "not-raw",
            EndError::SnapshotGone { .. } => "snapshot-gone",
        }
    }

    /// Why ZFS refused, where it did.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            EndError::Zfs(ZfsError::Refused { why, .. } | ZfsError::NotReceived { why, .. }) => Some(*why),
            EndError::Zfs(ZfsError::Stream(_)) | EndError::Link(_) => Some(Refusal::Incomplete),
            EndError::Peer { code, .. } => Refusal::with_code(code),
            _ => None,
        }
    }
}

/// One end of a vector. Every call blocks.
pub trait End: Send + Sync + Debug {
    /// Whether each request costs a way to another machine, and [`End::land`] tells what it has.
    fn is_far(&self) -> bool {
        false
    }

    /// What it has of a dataset; `None` when there is no such dataset.
    ///
    /// # Errors
    /// When it cannot be asked. An error never means "none".
    fn look(&self, dataset: &DatasetName) -> Result<Option<View>, EndError>;

    /// Holds a snapshot for the vector, beside what it holds already: it is about to be sent. What the end was `seen` to have spares
    /// it a look.
    ///
    /// # Errors
    /// When the snapshot is gone, or ZFS refuses.
    fn pin(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError>;

    /// Makes a snapshot the vector's base: it is held and bookmarked, and what marked older ones goes.
    ///
    /// # Errors
    /// As [`End::pin`].
    fn keep(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError>;

    /// Takes back whatever the vector has marked. A dataset that is gone has nothing.
    ///
    /// # Errors
    /// When ZFS refuses.
    fn forget(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError>;

    /// Keeps a vector's record with the dataset.
    ///
    /// # Errors
    /// When there is no such dataset, or ZFS refuses.
    fn enter(&self, dataset: &DatasetName, record: &VectorRecord) -> Result<(), EndError>;

    /// Keeps with a replica what its source has of the asset and its vectors.
    ///
    /// # Errors
    /// As [`End::enter`].
    fn tell(&self, dataset: &DatasetName, notes: &Notes) -> Result<(), EndError>;

    /// Begins to send a stream of the dataset.
    ///
    /// # Errors
    /// As [`Datasets::send`].
    fn send(&self, dataset: &DatasetName, stream: &Stream) -> Result<Box<dyn Sending>, EndError>;

    /// How many bytes a stream of the dataset has, as the source estimates it.
    ///
    /// # Errors
    /// As [`Datasets::send_size`].
    fn size(&self, dataset: &DatasetName, stream: &Stream) -> Result<u64, EndError>;

    /// Receives a stream.
    ///
    /// # Errors
    /// As [`Datasets::receive`].
    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), EndError>;

    /// Receives a stream that leads from one snapshot to another and makes that one the vector's base, as [`End::keep`] does. The
    /// first one, where it is given, has to be the newest there is: ZFS itself does not mind one behind it that holds nothing new.
    /// Gives what the end has now, or nothing where it has to be asked once more.
    ///
    /// # Errors
    /// As [`End::receive`] and [`End::keep`]; [`EndError::NotNewest`].
    fn land(
        &self,
        dataset: &DatasetName,
        _id: &VectorId,
        (_from, _to): (Option<Guid>, Guid),
        stream: &mut dyn Read,
    ) -> Result<Option<View>, EndError> {
        self.receive(dataset, stream).map(|()| None)
    }

    /// The digest of each path in a snapshot, as this end's own disks have it. [`Scope::Changed`] is a leave to read less, where
    /// the end knows what was written since it read the dataset last.
    ///
    /// # Errors
    /// When the snapshot is gone, or cannot be looked into.
    fn digest(&self, dataset: &DatasetName, guid: Guid, scope: Scope) -> Result<Digests, EndError>;

    /// Gives up what a receive that broke off has left.
    ///
    /// # Errors
    /// When ZFS refuses.
    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), EndError>;

    /// As [`role::step_down`].
    ///
    /// # Errors
    /// As there.
    fn step_down(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError>;

    /// As [`role::take_over`], where `newest` is the newest snapshot.
    ///
    /// # Errors
    /// As there.
    fn take_over(&self, dataset: &DatasetName, id: &VectorId, newest: Guid) -> Result<(), EndError>;
}

fn not_kept(dataset: &DatasetName, error: &std::io::Error) {
    eprintln!("what was read of {dataset} is not kept, and is read again the next time: {error}");
}

/// Whether a stream that is asked for may leave this machine: what goes on where another one broke off is whatever the target says.
/// It is to be the rest of a snapshot of this dataset, and what is encrypted leaves as it lies on disk.
///
/// # Errors
/// [`EndError::RestOfAnother`], [`EndError::NotRaw`]; when ZFS cannot be asked.
pub(super) fn may_leave(zfs: &dyn Datasets, dataset: &DatasetName, stream: &Stream) -> Result<(), EndError> {
    let (of, is_raw) = match stream {
        Stream::Rest { token } => {
            let rest = zfs.leads_to(token).ok_or_else(|| EndError::RestOfAnother(dataset.clone()))?;
            if !zfs.snapshots(dataset)?.iter().any(|snapshot| snapshot.guid == rest.to) {
                return Err(EndError::RestOfAnother(dataset.clone()));
            }
            (dataset, rest.raw)
        }
        Stream::Snapshot { snapshot, raw, .. } => (&snapshot.dataset, *raw),
    };
    if !is_raw && zfs.dataset(of)?.is_some_and(|found| found.encrypted) {
        return Err(EndError::NotRaw(of.clone()));
    }
    Ok(())
}

/// Takes back the holds on these snapshots whose tags are some of those.
pub(super) fn release(
    zfs: &dyn Datasets,
    dataset: &DatasetName,
    labels: &[Label],
    is_one: impl Fn(&Label) -> bool,
) -> Result<(), ZfsError> {
    for some in labels.chunks(HOLDS) {
        for hold in zfs.holds(dataset, some)?.into_iter().filter(|hold| is_one(&hold.tag)) {
            zfs.release(&SnapshotName::new(dataset.clone(), hold.label), &hold.tag)?;
        }
    }
    Ok(())
}

/// This machine as an end.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    zfs: &'a dyn Datasets,
    /// Where what is read is kept.
    root: Option<&'a Root>,
}

impl<'a> Local<'a> {
    /// That keeps nothing of what it reads.
    pub fn new(zfs: &'a dyn Datasets) -> Self {
        Local { zfs, root: None }
    }

    /// That keeps what it reads, so as to read only what changed the next time.
    pub fn keeping(zfs: &'a dyn Datasets, root: &'a Root) -> Self {
        Local { zfs, root: Some(root) }
    }

    fn snapshot(&self, dataset: &DatasetName, guid: Guid) -> Result<Snapshot, EndError> {
        let found = self.zfs.snapshots(dataset)?.into_iter().find(|snapshot| snapshot.guid == guid);
        found.ok_or_else(|| EndError::SnapshotGone { dataset: dataset.clone(), guid })
    }

    /// The snapshot by its name, which is the one it was seen to have if that is the same one still.
    fn still(&self, dataset: &DatasetName, guid: Guid, seen: Option<&View>) -> Result<SnapshotName, EndError> {
        let named = |label: &Label| SnapshotName::new(dataset.clone(), label.clone());
        let seen = seen.and_then(|seen| seen.snapshot(guid)).map(|found| named(&found.label));
        match seen {
            Some(name) if self.zfs.guid_of(&name)? == Some(guid) => Ok(name),
            _ => Ok(named(&self.snapshot(dataset, guid)?.label)),
        }
    }

    /// Its newest snapshot is that one.
    pub(super) fn must_be_at(&self, dataset: &DatasetName, guid: Guid) -> Result<(), EndError> {
        let newest = self.zfs.snapshots(dataset)?.pop();
        let is_it = newest.is_some_and(|newest| newest.guid == guid);
        if is_it { Ok(()) } else { Err(EndError::NotNewest { dataset: dataset.clone(), guid }) }
    }

    /// How a snapshot is to be read. What cannot be known or kept is told in the journal, and costs time only.
    fn reading(&self, dataset: &DatasetName, snapshot: &Snapshot, scope: Scope) -> Result<Reading, EndError> {
        let found = self.zfs.dataset(dataset)?;
        // An encrypted one's streams say nothing of what is in its files.
        let Some((root, found)) = self.root.zip(found.filter(|found| !found.encrypted)) else {
            return Ok(Reading::default());
        };
        let since = match scope {
            Scope::Whole => None,
            Scope::Changed => Since::last(self.zfs, root, &found, snapshot).unwrap_or_else(|error| {
                eprintln!("all of {dataset} is read: {}", crate::chain(&error));
                None
            }),
        };
        let keeping = Keeping::begin(root, found.name.pool(), found.guid, snapshot);
        let keeping = keeping.map_err(|error| not_kept(dataset, &error)).ok();
        Ok(Reading::new(since, keeping))
    }

    /// Takes the vector's holds on these snapshots back.
    fn release(&self, dataset: &DatasetName, id: &VectorId, labels: &[Label]) -> Result<(), EndError> {
        let tag = id.tag();
        Ok(release(self.zfs, dataset, labels, |found| *found == tag)?)
    }

    fn own(&self, dataset: &DatasetName, id: &VectorId) -> Result<Vec<Bookmark>, EndError> {
        let mut all = self.zfs.bookmarks(dataset)?;
        all.retain(|bookmark| id.owns(&bookmark.label));
        Ok(all)
    }
}

impl End for Local<'_> {
    fn look(&self, dataset: &DatasetName) -> Result<Option<View>, EndError> {
        let Some(found) = self.zfs.dataset(dataset)? else {
            let clone = aside::clone_of(dataset).map(|clone| self.zfs.dataset(&clone)).transpose()?;
            return if clone.flatten().is_some() { Err(EndError::HalfSetAside(dataset.clone())) } else { Ok(None) };
        };
        let origin = match &found.origin {
            None => None,
            Some(origin) => {
                let all = self.zfs.snapshots(&origin.dataset)?;
                all.into_iter().find(|snapshot| snapshot.label == origin.label).map(|snapshot| snapshot.guid)
            }
        };
        let (snapshots, bookmarks) = self.zfs.marks(dataset)?;
        Ok(Some(View { dataset: found, origin, snapshots, bookmarks }))
    }

    fn pin(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError> {
        let snapshot = self.still(dataset, guid, seen)?;
        Ok(self.zfs.hold(&snapshot, &id.tag())?)
    }

    fn keep(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError> {
        let looked = if seen.is_some() { None } else { self.look(dataset)? };
        let gone = || EndError::SnapshotGone { dataset: dataset.clone(), guid };
        let seen = seen.or(looked.as_ref()).ok_or_else(gone)?;
        let createtxg = seen.snapshot(guid).ok_or_else(gone)?.createtxg;
        let snapshot = self.still(dataset, guid, Some(seen))?;
        let own: Vec<&Bookmark> = seen.bookmarks.iter().filter(|bookmark| id.owns(&bookmark.label)).collect();
        // The new one is there before the old ones go.
        self.zfs.hold(&snapshot, &id.tag())?;
        if !own.iter().any(|bookmark| bookmark.guid == guid) {
            self.zfs.bookmark(&snapshot, &id.bookmark(guid))?;
        }
        let old: Vec<&Bookmark> = own.into_iter().filter(|bookmark| bookmark.guid != guid).collect();
        // What is held lies between the oldest base that is still marked and the new one, or is pinned behind that.
        let oldest = old.iter().map(|bookmark| bookmark.createtxg).min().unwrap_or(0);
        let passed = seen.snapshots.iter().filter(|s| oldest <= s.createtxg && s.createtxg < createtxg);
        self.release(dataset, id, &passed.map(|snapshot| snapshot.label.clone()).collect::<Vec<_>>())?;
        // Last: they say where to look for holds.
        for bookmark in old {
            self.zfs.destroy_bookmark(dataset, &bookmark.label)?;
        }
        Ok(())
    }

    fn forget(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        let Some(found) = self.zfs.dataset(dataset)? else { return Ok(()) };
        let all: Vec<Label> = self.zfs.snapshots(dataset)?.into_iter().map(|snapshot| snapshot.label).collect();
        self.release(dataset, id, &all)?;
        for bookmark in self.own(dataset, id)? {
            self.zfs.destroy_bookmark(dataset, &bookmark.label)?;
        }
        Ok(travel::remove(self.zfs, dataset, &found.notes, id)?)
    }

    fn enter(&self, dataset: &DatasetName, record: &VectorRecord) -> Result<(), EndError> {
        Ok(travel::enter(self.zfs, dataset, record)?)
    }

    fn tell(&self, dataset: &DatasetName, notes: &Notes) -> Result<(), EndError> {
        Ok(travel::keep(self.zfs, dataset, notes)?)
    }

    fn send(&self, dataset: &DatasetName, stream: &Stream) -> Result<Box<dyn Sending>, EndError> {
        // The other kind is this box's own doing.
        if matches!(stream, Stream::Rest { .. }) {
            may_leave(self.zfs, dataset, stream)?;
        }
        Ok(self.zfs.send(stream)?)
    }

    fn size(&self, _dataset: &DatasetName, stream: &Stream) -> Result<u64, EndError> {
        Ok(self.zfs.send_size(stream)?)
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), EndError> {
        Ok(self.zfs.receive(dataset, stream)?)
    }

    fn land(
        &self,
        dataset: &DatasetName,
        id: &VectorId,
        (from, to): (Option<Guid>, Guid),
        stream: &mut dyn Read,
    ) -> Result<Option<View>, EndError> {
        from.map_or(Ok(()), |from| self.must_be_at(dataset, from))?;
        self.receive(dataset, stream)?;
        let Some(mut view) = self.look(dataset)? else { return Ok(None) };
        // Where it led elsewhere, what there is now says where to.
        if let Some(createtxg) = view.snapshot(to).map(|landed| landed.createtxg) {
            self.keep(dataset, id, to, Some(&view))?;
            view.bookmarks.retain(|bookmark| !id.owns(&bookmark.label));
            view.bookmarks.push(Bookmark { label: id.bookmark(to), guid: to, createtxg });
        }
        Ok(Some(view))
    }

    fn digest(&self, dataset: &DatasetName, guid: Guid, scope: Scope) -> Result<Digests, EndError> {
        let snapshot = self.snapshot(dataset, guid)?;
        if self.zfs.property(dataset, "keystatus")?.as_deref() == Some("unavailable") {
            return Err(EndError::KeyNotLoaded(dataset.clone()));
        }
        let guid_of = || Ok::<_, EndError>(self.zfs.dataset(dataset)?.map(|found| found.guid));
        let before = guid_of()?;
        let mut reading = self.reading(dataset, &snapshot, scope)?;
        let name = SnapshotName::new(dataset.clone(), snapshot.label.clone());
        self.zfs.show(&name, &mut |dir| reading.tree(dir))?;
        // It was found by its guid and read by its name: both are of the same one still.
        if self.snapshot(dataset, guid)? != snapshot || guid_of()? != before {
            return Err(EndError::SnapshotGone { dataset: dataset.clone(), guid });
        }
        let (digests, keeping) = reading.done();
        if let Some(Err(error)) = keeping.map(Keeping::finish) {
            not_kept(dataset, &error);
        }
        Ok(digests)
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), EndError> {
        Ok(self.zfs.abort_receive(dataset)?)
    }

    fn step_down(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        role::step_down(self.zfs, dataset, id, crate::now())
    }

    fn take_over(&self, dataset: &DatasetName, _id: &VectorId, newest: Guid) -> Result<(), EndError> {
        role::take_over(self.zfs, dataset, Some(newest))
    }
}
