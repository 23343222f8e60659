//! `org.siris.Agent1.Upgrade`, read-only in this release.

use std::sync::Arc;

use siris_api::{ErrorCode, SlotStatus};

use crate::agent::Agent;
use crate::bus::Failure;
use crate::slots::{self, SlotsError};

/// The upgrade object.
pub struct UpgradeObject {
    agent: Arc<Agent>,
}

impl UpgradeObject {
    /// The object over this agent.
    pub fn new(agent: Arc<Agent>) -> Self {
        UpgradeObject { agent }
    }
}

/// Reads the disk on a thread of its own: it may be slow, or dead.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, SlotsError> + Send + 'static,
) -> Result<T, Failure> {
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
    read.map_err(|e| Failure::new(ErrorCode::SlotsUnreadable, crate::chain(&e)))
}

#[zbus::interface(name = "org.siris.Agent1.Upgrade", introspection_docs = false)]
impl UpgradeObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn boot_slot(&self) -> String {
        self.agent.slot.word().to_owned()
    }

    #[zbus(out_args("slots"))]
    async fn get_slot_status(&self) -> Result<Vec<SlotStatus>, Failure> {
        let agent = self.agent.clone();
        blocking(move || slots::status(&agent.root, agent.slot.slot)).await
    }

    #[zbus(out_args("slot"))]
    async fn get_primary(&self) -> Result<String, Failure> {
        let agent = self.agent.clone();
        let slot = blocking(move || slots::primary(&agent.root)).await?;
        Ok(slot.map_or(String::new(), |s| s.to_string()))
    }
}
