//! Slots: their layout on disk, their boot state, their one writer.
//!
//! Owns where things are on an OS disk and in which order they are written, so that at every instant a disk boots
//! the old or the new complete system. Disks come in as [`device::Device`] (a file, a block device, memory); it opens
//! nothing, mounts nothing and runs nothing. A slot is written here and nowhere else, whether by the image builder,
//! the installer or an upgrade.

pub mod boot_code;
pub mod bootenv;
pub mod compose;
pub mod device;
pub mod fat;
pub mod gpt;
pub mod guid;
pub mod layout;
pub mod slot;
pub mod table;
pub mod trailer;
pub mod writer;

pub use bootenv::BootEnv;
pub use layout::{Layout, Part, SectorSize, Sizes};
pub use slot::{Slot, SlotState, Tries};
