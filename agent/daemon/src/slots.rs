//! The slots, as far as the agent reads them.

use siris_api::SlotStatus;

use crate::root::Root;

/// Why the slots cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The box was not booted from a slot.
    #[error("this system was not booted from a slot")]
    NoSlot,
}

/// Whether the slot is on trial: booted, and not yet found good.
pub fn on_trial(_root: &Root, _name: &str) -> bool {
    false
}

/// Both slots.
///
/// # Errors
/// When the boot environment cannot be read.
pub fn status(_root: &Root, _booted: Option<&str>) -> Result<Vec<SlotStatus>, SlotsError> {
    Err(SlotsError::NoSlot)
}

/// The slot the next boot tries first.
///
/// # Errors
/// When the boot environment cannot be read.
pub fn primary(_root: &Root) -> Result<String, SlotsError> {
    Err(SlotsError::NoSlot)
}

/// Both slots as text, for people.
pub fn describe(_root: &Root, _booted: Option<&str>) -> String {
    String::new()
}
