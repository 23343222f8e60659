//! One sync of a vector, from a look at both ends to the last snapshot sent.
//!
//! Owns: the order of steps. Whatever stops it, and wherever, beginning again finishes the work: nothing is remembered
//! but what lies in ZFS. Never: tries again by itself (who runs it does, with pauses).

use siris_zfs::{DatasetName, Guid, Notes, Refusal, Snapshot, SnapshotName, Stream, ZfsError};

use super::VectorId;
use super::end::{End, EndError};
use super::limit::Rate;
use super::peer::NOT_A_REQUEST;
use super::plan::{self, Obstacle, Step, View, plan};
use super::rsync::MirrorError;
use super::travel::{self, VectorRecord};

/// At most so many bytes are sent to a target that was not asked what it has: they may be for nothing.
const AHEAD_MAX: u64 = 1 << 20;

/// Why a sync did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Somebody has to decide.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    /// The source failed.
    #[error("the source failed")]
    Source(#[source] EndError),
    /// The target failed.
    #[error("the target failed")]
    Target(#[source] EndError),
    /// Both did: one of them because of the other.
    #[error("the stream broke off: the source failed ({}), and so did the target", crate::chain(.source_failed))]
    Both {
        /// The source's failure.
        source_failed: Box<EndError>,
        /// The target's failure.
        #[source]
        target_failed: EndError,
    },
    /// What the target received is not what the source sends, and both of them are well.
    #[error(
        "what arrived is not what was sent: something between the two cuts the stream short or changes it. Nothing of that \
         was kept but what had come before, and the next try goes on from there; if it happens again, look at what is \
         between them, and at their memory"
    )]
    Damaged(#[source] EndError),
    /// A stream was received, and the target is as it was.
    #[error("a stream was sent to its end, and the target is as it was before")]
    Stuck,
    /// The target has what it was sent, and not the key to it.
    #[error(
        "{0} is encrypted and its key is not loaded there, as it should be: what is in it can be compared where its key is \
         only. That it is what was sent is proven there by a scrub (zpool scrub), and by nothing more"
    )]
    Sealed(String, #[source] EndError),
    /// Two were to change places, and only the source has stepped down.
    #[error(
        "nobody writes to either end now: the source has stepped down, and the target is not the primary yet. Have it turned \
         again; or, to leave it as it was, take over on the source (sirisctl dataset take-over)"
    )]
    HalfTurned(#[source] Box<SyncError>),
    /// One end is a directory that rsync fills or reads.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Somebody has stopped it.
    #[error("it was stopped")]
    Stopped,
}

impl SyncError {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            SyncError::Obstacle(obstacle) => obstacle.code(),
            SyncError::Source(error) | SyncError::Target(error) => error.code(),
            SyncError::Both { target_failed, .. } => target_failed.code(),
            SyncError::Damaged(_) => "stream-damaged",
            SyncError::Sealed(..) => "replica-is-encrypted",
            SyncError::HalfTurned(_) => "half-turned",
            SyncError::Mirror(error) => error.code(),
            SyncError::Stuck => "sync-stuck",
            SyncError::Stopped => "stopped",
        }
    }
}

/// What is to be synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The vector.
    pub id: VectorId,
    /// The dataset on the source.
    pub source: DatasetName,
    /// The dataset on the target.
    pub target: DatasetName,
    /// What both ends are to know of the vector.
    pub record: VectorRecord,
}

/// What a sync tells on its way, and is told. By itself it listens to nothing and limits nothing.
pub trait Watch: Send {
    /// The target has nothing yet, or nothing any more: what was said of it before is said of something else.
    fn is_anew(&mut self) {}
    /// A stream begins; how many bytes it has is an estimate, and not always known.
    fn begins(&mut self, _bytes: Option<u64>) {}
    /// So many bytes of it are on their way now. `false` stops it.
    fn passes(&mut self, _bytes: u64) -> bool {
        true
    }
    /// So many bytes have passed at the rate that was asked for. `false` stops it.
    fn passed(&mut self, _bytes: u64) -> bool {
        true
    }
    /// How fast it may go now.
    fn rate(&mut self) -> Rate {
        Rate::Free
    }
}

/// Nobody watches.
impl Watch for () {}

/// Sends until the target has what the source has; gives the newest snapshot of both, as the target has it.
///
/// # Errors
/// When it does not come to its end. Run again, it goes on.
pub fn sync(pair: &Pair, source: &dyn End, target: &dyn End, watch: &mut dyn Watch) -> Result<Snapshot, SyncError> {
    let (mut before, mut landed): (Option<Step>, Option<View>) = (None, None);
    let mut may_go_ahead = target.is_far();
    loop {
        let ours = source.look(&pair.source).map_err(SyncError::Source)?;
        let ours = ours.ok_or_else(|| Obstacle::SourceMissing(pair.source.to_string()))?;
        if std::mem::take(&mut may_go_ahead) {
            landed = ahead(pair, source, target, &ours, watch)?;
            if landed.is_some() {
                continue;
            }
        }
        let theirs = match landed.take() {
            None => target.look(&pair.target).map_err(SyncError::Target)?,
            just_told => just_told,
        };
        settle(pair, source, target, &ours, theirs.as_ref())?;
        let step = plan(pair, &ours, theirs.as_ref())?;
        if before.as_ref() == Some(&step) {
            return Err(SyncError::Stuck);
        }
        if theirs.as_ref().is_none_or(|theirs| theirs.snapshots.is_empty()) {
            watch.is_anew();
            announce(pair, source, &ours)?;
        }
        let sent = match &step {
            Step::UpToDate { .. } => told(pair, source, target, &ours, theirs.as_ref()).map(|()| None),
            Step::Abort => target.abort_receive(&pair.target).map(|()| None).map_err(SyncError::Target),
            Step::Resume { token, to } => {
                let stream = Stream::Rest { token: token.clone() };
                transfer(pair, (source, &ours), target, (&stream, None, *to), sized(pair, source, &stream), watch)
            }
            Step::Send { stream, to } => {
                transfer(pair, (source, &ours), target, (stream, None, *to), sized(pair, source, stream), watch)
            }
        };
        landed = sent.map_err(|error| of_target(error, pair, theirs.as_ref()))?;
        match step {
            // Nobody is to take it for the whole of the source.
            Step::UpToDate { .. } if ours.dataset.has_children => {
                return Err(Obstacle::ChildrenNotSent(pair.source.to_string()).into());
            }
            Step::UpToDate { base } => return Ok(base),
            other => before = Some(other),
        }
    }
}

/// Marks the newest snapshot of the target, where the source has it too, as the base of both: first on the target.
fn settle(
    pair: &Pair,
    source: &dyn End,
    target: &dyn End,
    ours: &View,
    theirs: Option<&View>,
) -> Result<(), SyncError> {
    let newest = theirs.and_then(|theirs| Some((theirs, theirs.snapshots.last()?)));
    let Some((theirs, newest)) = newest.filter(|(_, newest)| ours.snapshot(newest.guid).is_some()) else {
        return Ok(());
    };
    let only = |view: &View| {
        let mut own = view.bookmarks.iter().filter(|bookmark| pair.id.owns(&bookmark.label));
        own.next().is_some_and(|bookmark| bookmark.guid == newest.guid) && own.next().is_none()
    };
    if !only(theirs) {
        target.keep(&pair.target, &pair.id, newest.guid, Some(theirs)).map_err(SyncError::Target)?;
    }
    if !only(ours) {
        source.keep(&pair.source, &pair.id, newest.guid, Some(ours)).map_err(SyncError::Source)?;
    }
    Ok(())
}

/// Has another machine know of a vector that will fetch from it: what waits for its turn stays from now on, while it has marked
/// nothing yet.
fn announce(pair: &Pair, source: &dyn End, ours: &View) -> Result<(), SyncError> {
    let is_new = |told: travel::Told| told.source != ours.dataset.notes;
    if source.is_far() && travel::told(&pair.record, &ours.dataset.notes, &Notes::default()).is_ok_and(is_new) {
        known(source.enter(&pair.source, &pair.record)).map_err(SyncError::Source)?;
    }
    Ok(())
}

/// What an agent of an older version does not know how to be told is not told.
fn known(done: Result<(), EndError>) -> Result<(), EndError> {
    match done {
        Err(EndError::Peer { code, .. }) if code == NOT_A_REQUEST => Ok(()),
        other => other,
    }
}

/// Has both ends know of the vector, and the target of the asset. What one of them cannot read or does not know is no reason not
/// to have synced.
fn told(pair: &Pair, source: &dyn End, target: &dyn End, ours: &View, theirs: Option<&View>) -> Result<(), SyncError> {
    let Some(theirs) = theirs else { return Ok(()) };
    let told = match travel::told(&pair.record, &ours.dataset.notes, &theirs.dataset.notes) {
        Ok(told) => told,
        Err(error) => {
            eprintln!("vector {}: {}", pair.id, crate::chain(&error));
            return Ok(());
        }
    };
    if told.source != ours.dataset.notes {
        known(source.enter(&pair.source, &pair.record)).map_err(SyncError::Source)?;
    }
    if told.target != theirs.dataset.notes {
        known(target.tell(&pair.target, &told.target)).map_err(SyncError::Target)?;
    }
    Ok(())
}

/// A target that was written to says so in ZFS's words when it is to receive.
fn of_target(error: SyncError, pair: &Pair, theirs: Option<&View>) -> SyncError {
    let newest = theirs.and_then(|theirs| theirs.snapshots.last());
    match (&error, newest) {
        (SyncError::Target(failed) | SyncError::Both { target_failed: failed, .. }, Some(newest))
            if failed.refusal() == Some(Refusal::Modified) =>
        {
            Obstacle::TargetModified(SnapshotName::new(pair.target.clone(), newest.label.clone())).into()
        }
        _ => error,
    }
}

/// How many bytes a stream has, about. A sync does not fail of it.
fn sized(pair: &Pair, source: &dyn End, stream: &Stream) -> Option<u64> {
    source.size(&pair.source, stream).ok()
}

/// Sends what little there is behind the vector's base without having asked what the target has: mostly that is the base, and
/// what it says to what it received is all that has to be known. Where it is not, it refuses, and nothing has happened. Gives what
/// the target has then; nothing where it is to be asked.
fn ahead(
    pair: &Pair,
    source: &dyn End,
    target: &dyn End,
    ours: &View,
    watch: &mut dyn Watch,
) -> Result<Option<View>, SyncError> {
    let Some((stream, (from, to))) = plan::ahead(pair, ours) else { return Ok(None) };
    let size = sized(pair, source, &stream).filter(|size| *size <= AHEAD_MAX);
    if size.is_none() {
        return Ok(None);
    }
    match transfer(pair, (source, ours), target, (&stream, Some(from), to), size, watch) {
        Err(SyncError::Target(refused) | SyncError::Both { target_failed: refused, .. }) if is_its_word(&refused) => {
            Ok(None)
        }
        other => other,
    }
}

/// Sends one stream, with what [`End::land`] is to know of it; gives what the target has now, where it tells.
fn transfer(
    pair: &Pair,
    (source, ours): (&dyn End, &View),
    target: &dyn End,
    (stream, from, to): (&Stream, Option<Guid>, Guid),
    size: Option<u64>,
    watch: &mut dyn Watch,
) -> Result<Option<View>, SyncError> {
    source.pin(&pair.source, &pair.id, to, Some(ours)).map_err(SyncError::Source)?;
    watch.begins(size);
    let sending = source.send(&pair.source, stream).map_err(SyncError::Source)?;
    let mut watched = Watched { sending, watch, stopped: false, ended: false };
    let received = target.land(&pair.target, &pair.id, (from, to), &mut watched);
    let Watched { sending, stopped, ended, .. } = watched;
    // A stream that nobody reads any more ends in an error of its own; what the target said goes first.
    let sent = sending.finish();
    // All of it was sent, or the target would not read on.
    let was_well = sent.is_ok() || !ended;
    match (sent, received) {
        _ if stopped => Err(SyncError::Stopped),
        (_, Err(error)) if was_well && found_bad(&error) => Err(SyncError::Damaged(error)),
        (Ok(()), Ok(landed)) => Ok(landed),
        (Err(error), Ok(_)) => Err(SyncError::Source(error.into())),
        // Its own disks, most likely: what the target says of a stream that ends early is of no use.
        (Err(error @ ZfsError::Refused { .. }), Err(_)) if ended => Err(SyncError::Source(error.into())),
        (Ok(()), Err(error)) => Err(SyncError::Target(error)),
        (Err(sent), Err(target_failed)) => Err(SyncError::Both { source_failed: Box::new(sent.into()), target_failed }),
    }
}

/// Whether the target itself has said it, and not the link that broke.
fn is_its_word(error: &EndError) -> bool {
    matches!(
        error,
        EndError::Peer { .. }
            | EndError::NotNewest { .. }
            | EndError::Zfs(ZfsError::Refused { .. } | ZfsError::NotReceived { .. })
    )
}

/// Whether it is the target's ZFS that does not take a stream for one.
fn found_bad(error: &EndError) -> bool {
    is_its_word(error) && matches!(error.refusal(), Some(Refusal::Incomplete | Refusal::Corrupt))
}

/// A stream, watched.
struct Watched<'a> {
    sending: Box<dyn siris_zfs::Sending>,
    watch: &'a mut dyn Watch,
    stopped: bool,
    /// It was read to its end.
    ended: bool,
}

impl std::io::Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.sending.read(buffer);
        self.ended |= !matches!(read, Ok(1..));
        let n = read?;
        if self.watch.passes(n as u64) {
            return Ok(n);
        }
        self.stopped = true;
        Err(std::io::Error::other("stopped"))
    }
}
