//! Why a directory on another machine was not brought into line, or is not what it should be.

use siris_host::cmd::CmdError;
use siris_zfs::{DatasetName, Label, Refusal, ZfsError};

use super::super::end::EndError;
use super::super::remote::unreachable;
use crate::datasets::PointError;

/// What the script there begins its refusals with.
const REFUSED: &str = "siris-refused: ";
/// What rsync exits with when the link broke: the socket, the protocol, somebody killed the other side's, a time-out; and what
/// SSH does.
const LINK: [i32; 8] = [10, 12, 16, 19, 20, 30, 35, 255];
/// What rsync exits with when some of it could not be transferred.
const PARTIAL: i32 = 23;
/// And when some of it vanished meanwhile.
const VANISHED: i32 = 24;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// This end, or the way to the other one.
    #[error(transparent)]
    End(#[from] EndError),
    /// The other machine refuses, by a code of the script there.
    #[error("{what}: {remedy}")]
    Refused {
        /// The stable code.
        code: &'static str,
        /// What it is about, on the other machine.
        what: String,
        /// What is wrong with it, and what to do.
        remedy: &'static str,
    },
    /// There was a copy, and there is none.
    #[error(
        "recovery point {0} was sent to {1}, and nothing is there now: have its disk mounted; if the copy is gone for good, \
         remove the vector and add it again, and all is sent anew"
    )]
    CopyMissing(Label, String),
    /// The copy is of something else.
    #[error(
        "{0} holds a whole copy of recovery point {1}, which this dataset never had, or has no more: nothing there is replaced. \
         Move it away if it is not needed, and all is sent anew"
    )]
    CopyUnknown(String, String),
    /// Some files did not get through.
    #[error(
        "some of it could not be transferred, and what is there is no recovery point; rsync says which, and why: mend that, and \
         have it synced again"
    )]
    Partial(#[source] CmdError),
    /// A disk there is full.
    #[error("there is no room left: make some, and it goes on where it stopped")]
    NoSpace(#[source] CmdError),
    /// Something else.
    #[error("rsync, or what goes with it on the other machine, failed")]
    Rsync(#[source] CmdError),
    /// The program or its log cannot be used.
    #[error("cannot run rsync")]
    Run(#[source] std::io::Error),
    /// Others lie in the dataset.
    #[error("{0} has other datasets in it, which rsync does not see: it is for datasets without")]
    HasChildren(DatasetName),
    /// There is nothing to fetch into.
    #[error("there is no dataset {0} here: make it (zfs create -p {0})")]
    TargetMissing(DatasetName),
    /// It is not this vector's.
    #[error(
        "{0} holds what this vector has not fetched, and not all of it is in a recovery point: fetching would overwrite it. \
         Remove the vector, take a point (sirisctl dataset snapshot), and add it again; or fetch into an empty dataset"
    )]
    TargetNotOurs(DatasetName),
    /// Somebody took over, or it is what another vector sends into.
    #[error("{0} is {1}: nothing is fetched into it any more. Remove the vector")]
    TargetHasRole(DatasetName, &'static str),
    /// A name that means something else is taken.
    #[error("the file {0} at the top of the dataset has the name of the mark of copies: rename it")]
    MarkTaken(&'static str),
    /// It has no recovery point of which the other machine has a copy.
    #[error("there is nothing to compare yet: sync first")]
    NothingInCommon,
    /// It goes one way.
    #[error("a directory that rsync fills or reads does not change places with a dataset: only two that have ZFS do")]
    NotTurned,
    /// Nobody can tell.
    #[error("what the directory there has and this dataset has not is only seen by a sync")]
    LagUnknown,
    /// The other machine answers in words that are not known.
    #[error("the other machine's answer is not known: {0:?}")]
    Answer(String),
}

impl From<ZfsError> for MirrorError {
    fn from(error: ZfsError) -> Self {
        EndError::from(error).into()
    }
}

impl From<PointError> for MirrorError {
    fn from(error: PointError) -> Self {
        EndError::from(error).into()
    }
}

/// Codes of the script there, and what to do.
const REFUSALS: [(&str, &str); 13] = [
    ("source-missing", "there is no such directory: have its disk mounted, or make it"),
    ("source-unreadable", "the directory cannot be read"),
    (
        "source-empty",
        "the directory is empty, and the dataset here is not: nothing was deleted. Have its disk mounted; if it is meant to be \
         empty, put a file there",
    ),
    ("parent-missing", "there is no such directory to make the copy in: have its disk mounted, or make it"),
    ("path-not-ours", "something is there that this vector has not made: move it away, or choose another path"),
    ("path-of-another", "it holds the copy of another vector: move it away, or choose another path"),
    ("inside-a-copy", "it holds a copy, within which no other may lie: choose another path"),
    ("copy-busy", "another rsync is at work in it"),
    ("copy-not-made", "it cannot be made"),
    ("copy-not-kept", "it cannot be written to"),
    ("copy-not-moved", "it cannot be moved: is something mounted there?"),
    ("copy-not-removed", "it cannot be removed: is something mounted in it?"),
    ("rsync-missing", "there is no rsync on the machine: install it"),
];

impl MirrorError {
    /// The refusal with this code, about `what`.
    pub(super) fn refused(code: &str, what: &str) -> Self {
        let known = REFUSALS.into_iter().find(|(known, _)| *known == code);
        let (code, remedy) = known.unwrap_or(("refused", "for a reason that is not known here"));
        MirrorError::Refused { code, what: what.to_owned(), remedy }
    }

    /// Reads it from how a command there, or rsync, ended.
    pub(super) fn of(error: CmdError) -> Self {
        let CmdError::Failed { status, tail, .. } = &error else { return MirrorError::Rsync(error) };
        let refused = tail.lines().find_map(|line| line.split_once(REFUSED)?.1.split_once(' '));
        if let Some((code, what)) = refused
            && REFUSALS.iter().any(|(known, _)| *known == code)
        {
            return MirrorError::refused(code, if what.is_empty() { "the other machine" } else { what });
        }
        if tail.contains("No space left on device") || tail.contains("Disk quota exceeded") {
            return MirrorError::NoSpace(error);
        }
        match status.code() {
            Some(code) if LINK.contains(&code) => unreachable(error).into(),
            Some(PARTIAL | VANISHED) => MirrorError::Partial(error),
            _ => MirrorError::Rsync(error),
        }
    }

    /// Whether rsync has only missed files that went away while it ran.
    pub(super) fn is_of_vanished(&self) -> bool {
        let code =
            |error: &CmdError| matches!(error, CmdError::Failed { status, .. } if status.code() == Some(VANISHED));
        matches!(self, MirrorError::Partial(error) if code(error))
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            MirrorError::End(error) => error.code(),
            MirrorError::Refused { code, .. } => code,
            MirrorError::CopyMissing(..) => "copy-missing",
            MirrorError::CopyUnknown(..) => "copy-unknown",
            MirrorError::Partial(_) => "partial-transfer",
            MirrorError::NoSpace(_) => "no-space",
            MirrorError::Rsync(_) => "rsync-failed",
            MirrorError::Run(_) => "rsync-not-run",
            MirrorError::HasChildren(_) => "dataset-has-children",
            MirrorError::TargetMissing(_) => "target-missing",
            MirrorError::TargetNotOurs(_) => "target-not-ours",
            MirrorError::TargetHasRole(..) => "target-has-role",
            MirrorError::MarkTaken(_) => "mark-taken",
            MirrorError::NothingInCommon => "nothing-in-common",
            MirrorError::NotTurned => "rsync-not-turned",
            MirrorError::LagUnknown => "lag-unknown",
            MirrorError::Answer(_) => "peer-unknown-answer",
        }
    }

    /// Whether trying again may help.
    pub fn passes(&self) -> bool {
        match self {
            MirrorError::End(error) => error.refusal() == Some(Refusal::Incomplete),
            MirrorError::Refused { code, .. } => *code == "copy-busy",
            _ => false,
        }
    }
}
