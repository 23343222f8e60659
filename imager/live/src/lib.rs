//! Loads the OS from the installer's medium into memory, in the initrd.
//!
//! A BMC's virtual CD is slow, good at one sequential read, and may go away at any time. So the bundle on the medium
//! is read once, from front to back; its manifest is verified before a byte of it is used, each member is checked
//! against the manifest while it is unpacked into a tmpfs of exactly the size it needs, and from then on nobody needs
//! the medium.
//!
//! Owns: finding the medium, the tmpfs at [`LIVE`], and what a person sees meanwhile. Never: opens a disk for
//! writing, mounts anything but a CD's file system read-only, or goes on with a payload that is not what was signed.

pub mod console;
pub mod load;
pub mod medium;

/// Where the payload is in memory: `manifest.toml`, `manifest.sig`, `tree`, `boot`, `root`; and, about the medium,
/// `medium` (its kernel name) and `install.toml` (the answers on it, if any).
pub const LIVE: &str = "/run/siris/medium";
