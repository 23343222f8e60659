//! The box's pools: what is remembered of them, and their import at boot.

pub mod import;
pub mod memory;
