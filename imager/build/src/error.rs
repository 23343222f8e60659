//! Everything that can stop a build.

use std::path::{Path, PathBuf};

use siris_host::cmd::CmdError;
use siris_host::files::FileError;

use crate::archive::ArchiveError;
use crate::cache::CacheError;
use crate::lock::LockError;
use crate::profile::ProfileError;

/// Why there is no image. A variant is named for the step that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are the message's parts")]
pub enum BuildError {
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("the {step} step failed; its log is {}", .log.display())]
    Step {
        step: &'static str,
        log: PathBuf,
        #[source]
        source: CmdError,
    },
    #[error("{what} failed")]
    Tool {
        what: &'static str,
        #[source]
        source: CmdError,
    },
    #[error("cannot {what} {}", .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write an artefact")]
    File(#[from] FileError),
    #[error("building needs root rights to make root file systems: run it as root or through sudo")]
    NotRoot,
    #[error("the built root lacks {what}")]
    Incomplete { what: String },
    #[error("cannot use the answers in {}", .path.display())]
    Answers {
        path: PathBuf,
        #[source]
        source: siris_installer::answers::AnswersError,
    },
    #[error("cannot use the bundle {}", .path.display())]
    OldBundle {
        path: PathBuf,
        #[source]
        source: Box<siris_ibu::bundle::BundleError>,
    },
    #[error(
        "version {version} would replace {lowest} and later only, as the profile's lowest-replaces says: give a later --version"
    )]
    Version { version: siris_ibu::Version, lowest: siris_ibu::Version },
    #[error("cannot sign: {message}")]
    Signing { message: String },
    #[error("{what}: {message}")]
    Payload { what: &'static str, message: String },
    #[error("not enough space: {} has {free} MiB free, and this build needs some {need} MiB there: make room, or point {elsewhere}", .path.display())]
    NoSpace { path: PathBuf, free: u64, need: u64, elsewhere: &'static str },
}

impl BuildError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            BuildError::Profile(_) => "bad-profile",
            BuildError::Lock(_) => "bad-lock",
            BuildError::Archive(ArchiveError::Unreachable { .. } | ArchiveError::Fetch { .. }) => "archive-unreachable",
            BuildError::Archive(_) => "archive-failed",
            BuildError::Cache(_) => "cache-failed",
            BuildError::Step { source, .. } | BuildError::Tool { source, .. } => source.code(),
            BuildError::Io { .. } | BuildError::File(_) => "io-failed",
            BuildError::NotRoot => "not-root",
            BuildError::Incomplete { .. } => "incomplete-root",
            BuildError::Answers { .. } => "answers-faulty",
            BuildError::OldBundle { source, .. } => source.code(),
            BuildError::Version { .. } => "bad-version",
            BuildError::Signing { .. } => "cannot-sign",
            BuildError::Payload { .. } => "bad-payload",
            BuildError::NoSpace { .. } => "no-space",
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
        let path = path.to_owned();
        move |source| BuildError::Io { what, path, source }
    }
}
