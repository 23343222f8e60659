//! What a bundle is, and what stands against it on this box.

use std::io::Read;

use serde::{Deserialize, Serialize};
use siris_ibu::MemberKind;
use siris_ibu::bundle::Bundle;
use siris_zfs::Zfs;

use super::{Allowed, Running, UpgradeError, gate};
use crate::root::Root;

/// A bundle whose signature was verified, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct About {
    /// For which product.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Version of its ZFS.
    pub zfs: String,
    /// Bytes that its payload has on the disk.
    pub size: u64,
    /// Name of the key that signed it.
    pub key: String,
    /// Why it is not for this box: a code, a colon, a text.
    pub refused: Option<String>,
}

impl About {
    /// Reads the manifest of the bundle in `source`, and no more.
    ///
    /// # Errors
    /// When the box or the bundle cannot be looked at, or the bundle is not to be trusted.
    pub fn look(root: &Root, zfs: &dyn Zfs, source: impl Read) -> Result<Self, UpgradeError> {
        let running = Running::look(root, zfs)?;
        let bundle = Bundle::open(source, &running.trusted, running.policy())?;
        let (signed, manifest) = (bundle.signed(), bundle.signed().manifest());
        let refused = gate::check(manifest, &running, Allowed::default()).err();
        Ok(About {
            product: manifest.product.to_string(),
            version: manifest.version.to_string(),
            kernel: manifest.kernel.clone(),
            zfs: manifest.zfs.version.clone(),
            size: MemberKind::ALL.into_iter().map(|kind| manifest.member(kind).size.bytes()).sum(),
            key: signed.verified().key.name().to_owned(),
            refused: refused.map(|error| UpgradeError::from(error).said()),
        })
    }
}
