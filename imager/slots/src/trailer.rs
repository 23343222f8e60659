//! The slot trailer: the last MiB of a root partition, which says what the slot holds.
//!
//! `SIRISLOT` | length of the manifest, u32 LE | length of the signature file, u32 LE | manifest | signature file |
//! zeros. It is cleared before anything else of a slot is written and written after everything else: where there is
//! one that verifies, the slot is complete.

use std::io::{self, Read, Seek, SeekFrom};

use siris_ibu::keys::PublicKey;
use siris_ibu::manifest::{self, TRAILER};
use siris_ibu::signature::{self, Policy, VerifyError};
use siris_ibu::{Manifest, SignedManifest};

use crate::layout::{Layout, Part};
use crate::slot::Slot;

const MAGIC: &[u8; 8] = b"SIRISLOT";
const HEAD: usize = 16;

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotInfo {
    /// No trailer: nothing, or something unfinished.
    Empty,
    /// A trailer that makes no sense.
    Damaged,
    /// A trailer. Nothing it says is proven before [`Trailer::verify`].
    Written(Trailer),
}

/// A trailer as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    manifest: Vec<u8>,
    signature: Vec<u8>,
}

impl Trailer {
    /// The manifest, verified.
    pub fn verify(&self, trusted: &[PublicKey], policy: Policy) -> Result<SignedManifest, VerifyError> {
        SignedManifest::verify(&self.manifest, &self.signature, trusted, policy)
    }

    /// The manifest as it claims to be: to be shown, never to be acted on.
    pub fn unverified(&self) -> Option<Manifest> {
        Manifest::parse(&self.manifest).ok()
    }
}

/// The trailer's bytes: exactly its size.
pub(crate) fn encode(signed: &SignedManifest) -> Vec<u8> {
    let (manifest, signature) = (signed.bytes(), signed.signature_bytes());
    let mut bytes = Vec::with_capacity(TRAILER.bytes() as usize);
    bytes.extend_from_slice(MAGIC);
    // Both were parsed, and parsing refuses what is longer than some KiB.
    bytes.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(signature.len() as u32).to_le_bytes());
    bytes.extend_from_slice(manifest);
    bytes.extend_from_slice(signature);
    bytes.resize(TRAILER.bytes() as usize, 0);
    bytes
}

/// Where the trailer of `slot` begins.
pub(crate) fn offset(layout: &Layout, slot: Slot) -> u64 {
    let part = Part::Root(slot);
    layout.start(part) + layout.len(part) - TRAILER.bytes()
}

/// Reads what `slot` says of itself.
pub fn read_slot<D: Read + Seek + ?Sized>(dev: &mut D, layout: &Layout, slot: Slot) -> io::Result<SlotInfo> {
    let mut head = [0; HEAD];
    dev.seek(SeekFrom::Start(offset(layout, slot)))?;
    dev.read_exact(&mut head)?;
    if !head.starts_with(MAGIC) {
        return Ok(SlotInfo::Empty);
    }
    let len = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (manifest_len, signature_len) = (len(8), len(12));
    if manifest_len > manifest::MAX_BYTES || signature_len > signature::MAX_BYTES {
        return Ok(SlotInfo::Damaged);
    }
    let (mut manifest, mut signature) = (vec![0; manifest_len], vec![0; signature_len]);
    dev.read_exact(&mut manifest)?;
    dev.read_exact(&mut signature)?;
    Ok(SlotInfo::Written(Trailer { manifest, signature }))
}
