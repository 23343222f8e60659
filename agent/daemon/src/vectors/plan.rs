//! What a vector sends next: a pure function of what both ends have.
//!
//! Owns: the choice of the base, and the names of what keeps a vector from going on. Never: looks at anything itself;
//! matches by name. Snapshots are the same where their guids are.

use std::collections::{BTreeMap, BTreeSet};

use siris_zfs::{Base, Bookmark, Dataset, Guid, Label, Resume, Snapshot, SnapshotName, Stream};

use super::VectorId;
use super::end::PARTIAL_FOREIGN;
use super::sync::Pair;

/// What one end has of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The dataset.
    pub dataset: Dataset,
    /// The guid of the snapshot it is a clone of.
    pub origin: Option<Guid>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Its bookmarks.
    pub bookmarks: Vec<Bookmark>,
}

impl View {
    /// The snapshot with this guid.
    pub fn snapshot(&self, guid: Guid) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.guid == guid)
    }

    /// The newest base that the vector has marked.
    pub fn base(&self, id: &VectorId) -> Option<&Bookmark> {
        self.bookmarks.iter().filter(|bookmark| id.owns(&bookmark.label)).max_by_key(|bookmark| bookmark.createtxg)
    }

    fn has(&self, guid: Guid) -> bool {
        self.snapshot(guid).is_some() || self.bookmarks.iter().any(|bookmark| bookmark.guid == guid)
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: both have this snapshot as their newest.
    UpToDate {
        /// The snapshot, as the target has it.
        base: Snapshot,
    },
    /// A stream that broke off is continued.
    Resume {
        /// Where it stands.
        token: String,
        /// The snapshot at its end.
        to: Guid,
    },
    /// What a stream has left is given up: the source has not what would continue it.
    Abort,
    /// Snapshots are sent.
    Send {
        /// Which, from where.
        stream: Stream,
        /// The last one.
        to: Guid,
    },
}

/// What keeps a vector from going on. Both ends stay as they are until somebody decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// There is nothing to send.
    #[error("the source has no recovery point yet: take one")]
    NoPoints,
    /// The source is not there.
    #[error("there is no dataset {0} on the source")]
    SourceMissing(String),
    /// The target has a dataset of that name that nobody has received.
    #[error(
        "the target has a dataset {0} of its own, without a snapshot: set it aside there (sirisctl dataset set-aside {0}), or \
         choose another target"
    )]
    TargetTaken(String),
    /// The target has snapshots, and none of them came from this source.
    #[error(
        "no snapshot of the target {0} is one of the source's: set it aside there (sirisctl dataset set-aside {0}), and all is \
         sent anew"
    )]
    NothingInCommon(String),
    /// The target's newest snapshot was sent by this vector, and the source has not got it any more.
    #[error(
        "the source was rolled back behind {newest}, which the target has: set what is newer aside there (sirisctl dataset \
         set-aside {common}), and the vector goes on from what both have"
    )]
    SourceRolledBack {
        /// The target's newest.
        newest: Label,
        /// The newest that both have, by its name on the target.
        common: SnapshotName,
    },
    /// The target has snapshots that no source has sent.
    #[error(
        "the target has {count} snapshots of its own, the newest {newest}: set them aside there (sirisctl dataset set-aside \
         {common}), and the vector goes on from what both have"
    )]
    TargetDiverged {
        /// The target's newest.
        newest: Label,
        /// The newest that both have, by its name on the target.
        common: SnapshotName,
        /// How many came after it.
        count: usize,
    },
    /// The source was made by cloning what the target has.
    #[error(
        "the source is a clone of the snapshot {newest} that the target has, and what a clone sends first does not fit \
         there: promote the clone (zfs promote), and the vector goes on"
    )]
    SourceIsClone {
        /// The target's newest.
        newest: Label,
    },
    /// A name that the target would have to have is longer than ZFS lets one be.
    #[error(
        "{name} would have {length} bytes, and a name of ZFS has {NAME_MAX} at most: it takes a dataset with a shorter name"
    )]
    NameTooLong {
        /// The snapshot, or the mark that the vector leaves of it.
        name: String,
        /// Its bytes.
        length: usize,
    },
    /// Another snapshot has that name on the target.
    #[error("the target has another snapshot named {0}: rename it there (zfs rename), and the vector goes on")]
    NameTaken(Label),
    /// The target was written to.
    #[error(
        "the target was changed since its newest snapshot: set that aside there (sirisctl dataset set-aside {0}), and the \
         vector goes on"
    )]
    TargetModified(SnapshotName),
    /// The target is not there.
    #[error("there is no dataset {0} on the target: sync first")]
    TargetMissing(String),
    /// The target is written to: somebody made it the primary.
    #[error(
        "{0} is the primary now: have this vector turned (sirisctl vector turn), or remove it; what the source has newer is \
         left as it is"
    )]
    TargetIsPrimary(String),
    /// Others lie in the source.
    #[error(
        "other datasets lie in {0}, and this vector does not send them: what is in {0} itself is on the target, what is in \
         them is not. Keep what is to be replicated in {0} itself, and have them elsewhere (zfs rename)"
    )]
    ChildrenNotSent(String),
    /// What a receive left is not this source's.
    #[error(
        "the target {0} is the beginning of another stream than this source's: another vector sends there, or what was being sent is \
         gone. If nobody needs it, give it up there (zfs receive -A {0}), and all is sent"
    )]
    PartialForeign(String),
    /// What a receive left cannot be understood.
    #[error("the target has the rest of a stream in a form that is not known: it was left by another version of ZFS")]
    RestUnknown,
}

impl Obstacle {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Obstacle::NoPoints => "no-recovery-point",
            Obstacle::SourceMissing(_) => "source-missing",
            Obstacle::TargetTaken(_) => "target-taken",
            Obstacle::NothingInCommon(_) => "nothing-in-common",
            Obstacle::SourceRolledBack { .. } => "source-rolled-back",
            Obstacle::TargetDiverged { .. } => "target-diverged",
            Obstacle::SourceIsClone { .. } => "source-is-clone",
            Obstacle::NameTooLong { .. } => "target-name-too-long",
            Obstacle::NameTaken(_) => "snapshot-name-taken",
            Obstacle::TargetModified(_) => "target-modified",
            Obstacle::TargetMissing(_) => "target-missing",
            Obstacle::TargetIsPrimary(_) => "target-is-primary",
            Obstacle::ChildrenNotSent(_) => "children-not-sent",
            Obstacle::PartialForeign(_) => PARTIAL_FOREIGN,
            Obstacle::RestUnknown => "partial-unknown",
        }
    }
}

/// At most so many snapshots in one stream: a limit, a pause, or another vector's turn waits no longer than for these.
pub const BATCH: usize = 256;

/// Bytes of the longest name of a snapshot or bookmark, its dataset's included (zfsconcepts(7): below 256).
const NAME_MAX: usize = 255;

/// Decides on the next step. `target` is nothing where there is no such dataset.
///
/// # Errors
/// Where the two do not fit.
pub fn plan(pair: &Pair, source: &View, target: Option<&View>) -> Result<Step, Obstacle> {
    if let Some(target) = target.filter(|target| target.dataset.primary == Some(true)) {
        return Err(Obstacle::TargetIsPrimary(target.dataset.name.to_string()));
    }
    if let Some((target, rest)) = target.and_then(|target| Some((target, target.dataset.resume.as_ref()?))) {
        return resume(&pair.id, source, target, rest);
    }
    let Some(newest) = source.snapshots.last() else { return Err(Obstacle::NoPoints) };
    let Some(target) = target else {
        return send(pair, source, Base::Nothing, &source.snapshots[..1]);
    };
    let name = || target.dataset.name.to_string();
    let Some(theirs) = target.snapshots.last() else { return Err(Obstacle::TargetTaken(name())) };
    if newest.guid == theirs.guid {
        return Ok(Step::UpToDate { base: theirs.clone() });
    }
    let snapshot = source.snapshot(theirs.guid);
    let bookmark = source.bookmarks.iter().find(|bookmark| bookmark.guid == theirs.guid);
    let (base, createtxg) = match (snapshot, bookmark) {
        (Some(found), _) => {
            let name = SnapshotName::new(source.dataset.name.clone(), found.label.clone());
            (Base::Snapshot(name), found.createtxg)
        }
        (None, Some(found)) => (Base::Bookmark(found.label.clone()), found.createtxg),
        (None, None) => return Err(apart(&pair.id, source, target, theirs)),
    };
    let after = source.snapshots.partition_point(|snapshot| snapshot.createtxg <= createtxg);
    let left = &source.snapshots[after..];
    if left.is_empty() {
        return Ok(Step::UpToDate { base: theirs.clone() });
    }
    // From a bookmark only one snapshot at a time can be sent: the first one, so that none is left out.
    let count = if matches!(base, Base::Bookmark(_)) { 1 } else { left.len().min(BATCH) };
    let wanted = &left[..count];
    let taken: BTreeMap<&Label, Guid> = target.snapshots.iter().map(|s| (&s.label, s.guid)).collect();
    if let Some(clash) = wanted.iter().find(|s| taken.get(&s.label).is_some_and(|guid| *guid != s.guid)) {
        return Err(Obstacle::NameTaken(clash.label.clone()));
    }
    send(pair, source, base, wanted)
}

/// What is to be sent, and the snapshots it leads from and to, if the target still has the vector's base as its newest one. Nothing
/// where the source has no such base, or nothing new.
pub fn ahead(pair: &Pair, source: &View) -> Option<(Stream, (Guid, Guid))> {
    let base = source.snapshot(source.base(&pair.id)?.guid)?;
    let dataset = Dataset { name: pair.target.clone(), resume: None, primary: None, ..source.dataset.clone() };
    let supposed = View { dataset, origin: None, snapshots: vec![base.clone()], bookmarks: Vec::new() };
    match plan(pair, source, Some(&supposed)) {
        Ok(Step::Send { stream, to }) => Some((stream, (base.guid, to))),
        _ => None,
    }
}

fn send(pair: &Pair, source: &View, base: Base, wanted: &[Snapshot]) -> Result<Step, Obstacle> {
    // Also the mark that follows, of whatever guid: without it there would be nothing to go on from.
    let mark = pair.id.bookmark(Guid::new(u64::MAX));
    let names = wanted.iter().map(|snapshot| format!("{}@{}", pair.target, snapshot.label));
    let mut names = names.chain([&pair.target, &pair.source].map(|dataset| format!("{dataset}#{mark}")));
    if let Some(name) = names.find(|name| name.len() > NAME_MAX) {
        return Err(Obstacle::NameTooLong { length: name.len(), name });
    }
    let last = &wanted[wanted.len() - 1];
    let stream = Stream::Snapshot {
        snapshot: SnapshotName::new(source.dataset.name.clone(), last.label.clone()),
        base,
        between: wanted.len() > 1,
        raw: source.dataset.encrypted,
    };
    Ok(Step::Send { stream, to: last.guid })
}

/// Goes on with a stream where the source can, and gives it up where it cannot, but for one that may be somebody else's.
fn resume(id: &VectorId, source: &View, target: &View, rest: &Resume) -> Result<Step, Obstacle> {
    let Some(stands) = &rest.stands else { return Err(Obstacle::RestUnknown) };
    let from = stands.from.is_none_or(|from| source.has(from) || source.origin == Some(from));
    if from && source.snapshot(stands.to).is_some() {
        return Ok(Step::Resume { token: rest.token.clone(), to: stands.to });
    }
    let shares = target.base(id).is_some() || target.snapshots.iter().any(|snapshot| source.has(snapshot.guid));
    if shares { Ok(Step::Abort) } else { Err(Obstacle::PartialForeign(target.dataset.name.to_string())) }
}

/// Why there is nothing to go on from.
fn apart(id: &VectorId, source: &View, target: &View, newest: &Snapshot) -> Obstacle {
    if source.origin == Some(newest.guid) {
        return Obstacle::SourceIsClone { newest: newest.label.clone() };
    }
    let ours: BTreeSet<Guid> = source
        .snapshots
        .iter()
        .map(|snapshot| snapshot.guid)
        .chain(source.bookmarks.iter().map(|bookmark| bookmark.guid))
        .collect();
    let Some(at) = target.snapshots.iter().rposition(|snapshot| ours.contains(&snapshot.guid)) else {
        return Obstacle::NothingInCommon(target.dataset.name.to_string());
    };
    let newest = newest.clone();
    let common = SnapshotName::new(target.dataset.name.clone(), target.snapshots[at].label.clone());
    if target.base(id).is_some_and(|base| base.guid == newest.guid) {
        Obstacle::SourceRolledBack { newest: newest.label, common }
    } else {
        Obstacle::TargetDiverged { newest: newest.label, common, count: target.snapshots.len() - 1 - at }
    }
}
