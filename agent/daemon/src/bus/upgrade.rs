//! `org.siris.Agent1.Upgrade`, read-only in this release.

use std::sync::Arc;

use siris_api::{ErrorCode, SlotStatus};

use crate::agent::Agent;
use crate::bus::Failure;
use crate::slots;

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

#[zbus::interface(name = "org.siris.Agent1.Upgrade", introspection_docs = false)]
impl UpgradeObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn boot_slot(&self) -> String {
        self.agent.slot.name.unwrap_or_default().to_owned()
    }

    #[zbus(out_args("slots"))]
    async fn get_slot_status(&self) -> Result<Vec<SlotStatus>, Failure> {
        slots::status(&self.agent.root, self.agent.slot.name).map_err(|e| Failure::new(ErrorCode::SlotsUnreadable, crate::chain(&e)))
    }

    #[zbus(out_args("slot"))]
    async fn get_primary(&self) -> Result<String, Failure> {
        slots::primary(&self.agent.root).map_err(|e| Failure::new(ErrorCode::SlotsUnreadable, crate::chain(&e)))
    }
}
