//! What the agent asks of ZFS, behind one trait.
//!
//! Owns: the traits [`Zfs`] (pools) and [`Datasets`] (what is in them), the real one of both ([`OpenZfs`]: the tools, and
//! libzfs_core with the feature `libzetta`), the in-memory [`Model`] and [`ModelDatasets`] that tests drive.
//! Never: decides which pool is imported; imports by force; keeps state between calls.
//! In: names and guids as newtypes. Out: what ZFS says now, or an error; a row that cannot be read fails the call.

mod dataset;
mod import_text;
#[cfg(feature = "libzetta")]
mod lzc;
mod model;
mod real;
mod status_json;
mod types;

pub use dataset::{
    ASSET_ID, ASSET_NAME, Base, Bookmark, Content, Dataset, Datasets, FETCHED_BY, Guid, Hold, Kind, Label, LabelError,
    LineError, ModelDatasets, Newest, Notes, PRIMARY, RETENTION, Refusal, Rest, Resume, RunsZfs, Sending, Snapshot,
    SnapshotName, SnapshotNameError, Stands, Stream, VECTORS, record,
};
pub use import_text::ImportTextError;
pub use model::{Model, ModelPool};
pub use real::{IMPORT_ROOT, OpenZfs};
pub use status_json::JsonError;
pub use types::{DatasetName, ImportablePool, Member, NameError, Pool, PoolGuid, PoolName, PoolState};

/// User properties of a dataset, by name.
pub type UserProperties = std::collections::BTreeMap<String, String>;

/// Bytes that the value of a user property may have (zfsprops(7)).
pub const USER_PROPERTY_MAX: usize = 8191;

/// Why ZFS did not do or say what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ZfsError {
    /// The tool failed; its own words are in the source.
    #[error("ZFS's tool failed")]
    RunTool(#[from] siris_host::cmd::CmdError),
    /// `zpool ... -j` printed something else than expected.
    #[error("cannot read what `{command}` printed")]
    ReadJson {
        /// The command.
        command: &'static str,
        /// What is wrong with it.
        #[source]
        source: JsonError,
    },
    /// `zpool import` printed something else than expected.
    #[error("cannot read what `zpool import` printed")]
    ReadImportable(#[from] ImportTextError),
    /// `zfs` printed a row that is not known.
    #[error("cannot read what `{command}` printed")]
    ReadLines {
        /// The command.
        command: String,
        /// The row.
        #[source]
        source: LineError,
    },
    /// ZFS refused; its own words are in the source.
    #[error("ZFS refuses ({})", .why.code())]
    Refused {
        /// Why.
        why: Refusal,
        /// What the tool said.
        #[source]
        source: siris_host::cmd::CmdError,
    },
    /// A stream was not received, or not to its end.
    #[error("{dataset} does not receive it ({}): {what}", .why.code())]
    NotReceived {
        /// The dataset.
        dataset: DatasetName,
        /// Why.
        why: Refusal,
        /// In words.
        what: String,
    },
    /// A stream's other end failed.
    #[error("the stream broke off")]
    Stream(#[source] std::io::Error),
    /// What is in a snapshot cannot be read.
    #[error("cannot look into {snapshot}")]
    Show {
        /// The snapshot.
        snapshot: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Pools came and went while they were being listed.
    #[error("the pools changed while they were being listed")]
    ChangedMeanwhile,
    /// No pool with this guid is to be found on any device.
    #[error("no device carries a pool with guid {0}")]
    NotFound(PoolGuid),
    /// The pool was imported, and its root dataset does not answer.
    #[error("pool {0} was imported, but its root dataset does not answer")]
    Unanswering(PoolName),
}

impl ZfsError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            ZfsError::RunTool(error) => error.code(),
            ZfsError::ReadJson { .. } | ZfsError::ReadImportable(_) | ZfsError::ReadLines { .. } => {
                "zfs-output-unknown"
            }
            ZfsError::Refused { why, .. } | ZfsError::NotReceived { why, .. } => why.code(),
            ZfsError::Stream(_) => "zfs-stream-incomplete",
            ZfsError::Show { .. } => "snapshot-unreadable",
            ZfsError::ChangedMeanwhile => "zfs-changed-meanwhile",
            ZfsError::NotFound(_) => "pool-not-found",
            ZfsError::Unanswering(_) => "pool-unanswering",
        }
    }
}

/// ZFS, as far as the agent needs it. Every call blocks; none is to be made on the bus's thread.
pub trait Zfs: Send + Sync + std::fmt::Debug {
    /// Every imported pool, by name.
    ///
    /// # Errors
    /// When ZFS cannot be asked, or says something unknown. An error never means "no pools".
    fn pools(&self) -> Result<Vec<Pool>, ZfsError>;

    /// The active features of every imported pool, without their domains.
    ///
    /// # Errors
    /// As [`Zfs::pools`].
    fn active_features(&self) -> Result<Vec<(PoolName, Vec<String>)>, ZfsError>;

    /// Pools found on devices, not imported. Reads labels only.
    ///
    /// # Errors
    /// As [`Zfs::pools`].
    fn importable(&self) -> Result<Vec<ImportablePool>, ZfsError>;

    /// Imports the pool with this guid: nothing mounted, never by force, no cache file, its mount points below
    /// `/srv/pools/NAME`.
    ///
    /// # Errors
    /// When the pool is not found, or ZFS refuses it (in use by another system, too few devices, name taken).
    fn import(&self, guid: PoolGuid, name: &PoolName) -> Result<(), ZfsError>;

    /// The user properties (those with a colon) set on a dataset itself; `None` when there is no such dataset.
    ///
    /// # Errors
    /// As [`Zfs::pools`].
    fn user_properties(&self, dataset: &DatasetName) -> Result<Option<UserProperties>, ZfsError>;

    /// Sets user properties of a dataset, all in one transaction; an empty value takes a property out. A dataset that
    /// is not there is made, as one that is never mounted. Values have up to [`USER_PROPERTY_MAX`] bytes, without line
    /// ends and tabs.
    ///
    /// # Errors
    /// When ZFS refuses: no such pool, read-only, full.
    fn set_user_properties(&self, dataset: &DatasetName, properties: &UserProperties) -> Result<(), ZfsError>;

    /// Exports an imported pool.
    ///
    /// # Errors
    /// When it is not imported or busy.
    fn export(&self, name: &PoolName) -> Result<(), ZfsError>;

    /// What is in the pools.
    fn sets(&self) -> &dyn Datasets;
}
