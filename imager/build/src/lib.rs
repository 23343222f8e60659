//! From a profile to an image.
//!
//! profile + lock -> package files -> builder root, base root -> ZFS modules, agent, initrd, GRUB -> root image with
//! its verity tree -> boot image -> signed manifest -> disk image. Every arrow is a cached layer named by the digest
//! of what went into it; a layer is complete or absent.
//!
//! This crate runs on a build machine only. What writes slots and disks is shared with the box: `siris-slots`.

pub mod archive;
pub mod cache;
pub mod carriers;
pub mod deltas;
pub mod diff;
pub mod earlier;
pub mod error;
pub mod image;
pub mod keys;
pub mod lock;
pub mod parts;
pub mod payload;
pub mod profile;
pub mod progress;
pub mod rootfs;
pub mod roots;
pub mod sbom;
mod workshop;

pub use carriers::{IbuArtefacts, IsoArtefacts, ibu, iso};
pub use deltas::{Image, Older, PatchArtefact, unpack};
pub use diff::{Difference, diff};
pub use earlier::{Earlier, Packages, earlier};
pub use error::BuildError;
pub use image::{Request, bmc, build, is_root, peers, tools, update};
pub use keys::Signing;
pub use payload::Artefacts;
pub use profile::{Profile, Profiles};
pub use progress::Progress;
pub use workshop::agent_tests;
