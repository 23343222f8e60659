//! `org.siris.Agent1.Pool`.

use std::sync::Arc;

use siris_api::PoolMember;
use siris_zfs::{Pool, PoolGuid};
use zbus::fdo;

use crate::agent::Agent;

/// The object of one imported pool. What it shows is read from the agent.
pub struct PoolObject {
    agent: Arc<Agent>,
    guid: PoolGuid,
}

impl PoolObject {
    /// The object of the pool with this guid.
    pub fn new(agent: Arc<Agent>, guid: PoolGuid) -> Self {
        PoolObject { agent, guid }
    }

    fn pool(&self) -> fdo::Result<Pool> {
        self.agent
            .pool(self.guid)
            .ok_or_else(|| fdo::Error::UnknownObject(format!("pool {} is not imported any more", self.guid)))
    }
}

/// The members of a pool as they travel.
pub fn members(pool: &Pool) -> Vec<PoolMember> {
    let member = |m: &siris_zfs::Member| PoolMember {
        name: m.name.clone(),
        group: m.group.clone(),
        class: m.class.clone(),
        state: m.state.to_string(),
        read_errors: m.read_errors,
        write_errors: m.write_errors,
        checksum_errors: m.checksum_errors,
    };
    pool.members.iter().map(member).collect()
}

#[zbus::interface(name = "org.siris.Agent1.Pool", introspection_docs = false)]
impl PoolObject {
    #[zbus(property)]
    fn name(&self) -> fdo::Result<String> {
        Ok(self.pool()?.name.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn guid(&self) -> u64 {
        self.guid.as_u64()
    }

    #[zbus(property)]
    fn state(&self) -> fdo::Result<String> {
        Ok(self.pool()?.state.to_string())
    }

    #[zbus(property)]
    fn size(&self) -> fdo::Result<u64> {
        Ok(self.pool()?.size)
    }

    #[zbus(property)]
    fn free(&self) -> fdo::Result<u64> {
        Ok(self.pool()?.free)
    }

    #[zbus(property)]
    fn errors(&self) -> fdo::Result<u64> {
        Ok(self.pool()?.errors)
    }

    #[zbus(property)]
    fn members(&self) -> fdo::Result<Vec<PoolMember>> {
        Ok(members(&self.pool()?))
    }
}
