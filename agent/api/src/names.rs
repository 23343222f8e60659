//! Names on the bus. Those of interfaces carry the version of the whole contract.

/// The agent's well-known name on the system bus.
pub const BUS_NAME: &str = "org.siris.Agent1";
/// The root object: `Manager` and the ObjectManager of the tree below.
pub const ROOT_PATH: &str = "/org/siris/Agent1";
/// Parent of the pool objects.
pub const POOLS_PATH: &str = "/org/siris/Agent1/pools";
/// The upgrade object.
pub const UPGRADE_PATH: &str = "/org/siris/Agent1/upgrade";

/// Parent of the objects of assets' datasets.
pub const DATASETS_PATH: &str = "/org/siris/Agent1/datasets";

/// Parent of the objects of vectors.
pub const VECTORS_PATH: &str = "/org/siris/Agent1/vectors";
/// The object that machines and vectors are added with.
pub const REPLICATION_PATH: &str = "/org/siris/Agent1/replication";

/// Interface of the root object.
pub const MANAGER_INTERFACE: &str = "org.siris.Agent1.Manager";
/// Interface of a pool.
pub const POOL_INTERFACE: &str = "org.siris.Agent1.Pool";
/// Interface of an asset's dataset.
pub const DATASET_INTERFACE: &str = "org.siris.Agent1.Dataset";
/// Interface of a vector.
pub const VECTOR_INTERFACE: &str = "org.siris.Agent1.Vector";
/// Interface of the object that machines and vectors are added with.
pub const REPLICATION_INTERFACE: &str = "org.siris.Agent1.Replication";
/// Interface of the upgrade object.
pub const UPGRADE_INTERFACE: &str = "org.siris.Agent1.Upgrade";

/// polkit action: change the box's configuration.
pub const CONFIGURE_ACTION: &str = "org.siris.agent1.configure";
/// polkit action: have the agent look at the pools again.
pub const REFRESH_ACTION: &str = "org.siris.agent1.refresh";
/// polkit action: take recovery points.
pub const DATASET_ACTION: &str = "org.siris.agent1.dataset";
/// polkit action: change machines, keys and vectors, and sync.
pub const REPLICATION_ACTION: &str = "org.siris.agent1.replication";
/// polkit action: collect a support bundle.
pub const SUPPORT_ACTION: &str = "org.siris.agent1.support";

/// polkit action: install an upgrade, and say which slot boots.
pub const UPGRADE_ACTION: &str = "org.siris.agent1.upgrade";

/// The object of the pool with this guid, the same for as long as the pool exists.
pub fn pool_path(guid: u64) -> String {
    format!("{POOLS_PATH}/{guid}")
}

/// The object of the dataset with this guid, the same for as long as the dataset exists.
pub fn dataset_path(guid: u64) -> String {
    format!("{DATASETS_PATH}/{guid}")
}

/// The object of the vector with this id (`UUID_N`), the same for as long as the vector exists.
pub fn vector_path(id: &str) -> String {
    format!("{VECTORS_PATH}/{}", id.replace('-', "_"))
}
