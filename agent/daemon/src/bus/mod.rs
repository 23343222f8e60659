//! The agent on the bus.
//!
//! Owns: the objects and their interfaces, authorisation, signals. A method is a few lines that call the agent.
//! Never: decides anything; blocks the bus's thread (what blocks runs on a thread of its own).

mod authority;
mod dataset;
mod failure;
mod launch;
mod manager;
mod options;
mod pool;
mod publish;
mod replication;
mod running;
mod transient;
mod upgrade;
mod vector;
mod vectors;

use std::sync::Arc;

use siris_api::{BUS_NAME, REPLICATION_PATH, ROOT_PATH, UPGRADE_PATH};
use zbus::Connection;

pub use authority::Authority;
pub use failure::Failure;
pub use publish::Publisher;
pub use vectors::Vectors;

use crate::agent::Agent;

/// Puts the agent on the bus: first the whole tree, then the ObjectManager, then the name, so that nobody sees half
/// of it and no signal is spent on what was there from the start.
///
/// # Errors
/// When the bus refuses, or another process has the name.
pub async fn serve(
    connection: &Connection,
    agent: Arc<Agent>,
    publisher: Publisher,
    authority: Authority,
) -> zbus::Result<()> {
    // Before the datasets are seen, which has them sync.
    let vectors = publisher.vectors().clone();
    vectors.load().await?;
    publisher.refresh_pools().await?;
    let server = connection.object_server();
    server.at(REPLICATION_PATH, replication::ReplicationObject::new(agent.clone(), authority, vectors)).await?;
    server.at(UPGRADE_PATH, upgrade::UpgradeObject::new(agent.clone(), authority)).await?;
    server.at(ROOT_PATH, manager::ManagerObject::new(agent, publisher, authority)).await?;
    server.at(ROOT_PATH, zbus::fdo::ObjectManager).await?;
    connection.request_name(BUS_NAME).await
}
