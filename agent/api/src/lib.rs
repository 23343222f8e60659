//! The D-Bus contract between siris-agent and its clients.
//!
//! Owns: bus names, object paths, interface proxies, wire types and error codes. The interfaces themselves are
//! written down in `agent/api/xml/*.xml`; a test compares them with what a running agent says of itself.
//! Never: domain logic, files, processes.

mod error;
mod names;
mod proxy;
mod wire;

pub use error::{Class, ErrorCode, code_of, message_of};
pub use names::{
    BUS_NAME, CONFIGURE_ACTION, DATASET_ACTION, DATASET_INTERFACE, DATASETS_PATH, MANAGER_INTERFACE, POOL_INTERFACE,
    POOLS_PATH, REFRESH_ACTION, REPLICATION_ACTION, REPLICATION_INTERFACE, REPLICATION_PATH, ROOT_PATH, SUPPORT_ACTION,
    UPGRADE_ACTION, UPGRADE_INTERFACE, UPGRADE_PATH, VECTOR_INTERFACE, VECTORS_PATH, dataset_path, pool_path,
    vector_path,
};
pub use proxy::{DatasetProxy, ManagerProxy, PoolProxy, ReplicationProxy, UpgradeProxy, VectorProxy};
pub use wire::{
    ConfigMap, Details, ExpectedPool, Health, HealthReason, HoldRow, Options, PoolMember, PruneRow, SlotStatus,
    SnapshotRow, SnapshotRows, UnknownHealth,
};
