//! Signatures over a manifest, and what it takes to trust one.
//!
//! Signatures are over the manifest's exact bytes. A [`SignedManifest`] can only be made by verifying: whoever holds
//! one may use what it says.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::Signature;
use serde::{Deserialize, Serialize};

use crate::keys::{Epoch, KeyFileError, KeyId, ParseKeyError, PublicKey, Role, SCHEMA, check_schema, parse};
use crate::manifest::{Manifest, ManifestError};
use crate::{Class, text_serde};

/// A signature file larger than this is not parsed.
pub const MAX_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Raw(Signature);

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.to_bytes()))
    }
}

impl FromStr for Raw {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseKeyError("signature"))?;
        Ok(Self(Signature::from_bytes(&bytes)))
    }
}

text_serde!(Raw);

/// One key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeySignature {
    /// Who signed.
    pub key_id: KeyId,
    signature: Raw,
}

impl KeySignature {
    pub(crate) fn new(key_id: KeyId, signature: Signature) -> Self {
        Self { key_id, signature: Raw(signature) }
    }
}

/// `manifest.sig`: the signatures over a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignatureFile {
    schema: u32,
    #[serde(rename = "signature")]
    signatures: Vec<KeySignature>,
}

impl SignatureFile {
    /// A file of these signatures.
    pub fn new(signatures: Vec<KeySignature>) -> Self {
        Self { schema: SCHEMA, signatures }
    }

    /// Reads `manifest.sig`.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let what = "signature file";
        if bytes.len() > MAX_BYTES {
            return Err(KeyFileError::Parse { what, source: None });
        }
        let file: Self = parse(bytes, what)?;
        check_schema(file.schema, what)?;
        Ok(file)
    }

    /// The bytes of `manifest.sig`.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and integers only, which TOML can always hold.
        toml::to_string(self).expect("signatures are TOML").into_bytes()
    }

    /// The signatures.
    pub fn signatures(&self) -> &[KeySignature] {
        &self.signatures
    }
}

/// Which of the trusted keys are good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether a development key will do.
    pub allow_development: bool,
    /// Keys of an earlier epoch will not.
    pub min_epoch: Epoch,
}

/// Why a manifest is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A trusted key's signature does not fit the bytes.
    #[error("the signature by key {key} does not fit the manifest: it was changed, or damaged on its way")]
    BadSignature {
        /// The key.
        key: KeyId,
    },
    /// The only signature that fits is by a key of an earlier epoch.
    #[error("signed by key {key} of epoch {epoch}: only epoch {min} and later are still trusted")]
    KeyEpoch {
        /// The key.
        key: KeyId,
        /// Its epoch.
        epoch: Epoch,
        /// The least one.
        min: Epoch,
    },
    /// The only signature that fits is by a development key.
    #[error("signed by development key {key}: only release keys are accepted here")]
    DevelopmentKey {
        /// The key.
        key: KeyId,
    },
    /// A key has signed twice.
    #[error("two signatures by key {key}: a signature file holds one of each key")]
    DuplicateKey {
        /// The key.
        key: KeyId,
    },
    /// No signature is by a trusted key.
    #[error("not signed by a trusted key (signed by: {})", names(.signed_by))]
    UnknownKey {
        /// Who signed it.
        signed_by: Vec<KeyId>,
    },
    /// The signature file itself.
    #[error(transparent)]
    Signatures(#[from] KeyFileError),
    /// The manifest's signature is good, the manifest is not.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

fn names(keys: &[KeyId]) -> String {
    match keys {
        [] => "nobody".to_owned(),
        keys => keys.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", "),
    }
}

impl VerifyError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadSignature { .. } => "bad-signature",
            Self::KeyEpoch { .. } => "key-epoch",
            Self::DevelopmentKey { .. } => "development-key",
            Self::DuplicateKey { .. } => "duplicate-key",
            Self::UnknownKey { .. } => "unknown-key",
            Self::Signatures(KeyFileError::Parse { .. }) => "signatures-unreadable",
            Self::Signatures(error) => error.code(),
            Self::Manifest(error) => error.code(),
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        Class::Input
    }
}

/// Who vouches for some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The key whose signature fits.
    pub key: PublicKey,
}

/// Proves that a trusted key that `policy` accepts has signed `bytes`. One such signature is enough, unless a
/// trusted key's signature does not fit: then something is wrong with the bytes or the file, and it is refused.
pub fn verify(
    bytes: &[u8],
    signatures: &SignatureFile,
    trusted: &[PublicKey],
    policy: Policy,
) -> Result<Verified, VerifyError> {
    let mut accepted = None;
    let mut refused = None;
    for (n, KeySignature { key_id, signature }) in signatures.signatures().iter().enumerate() {
        if signatures.signatures()[..n].iter().any(|earlier| earlier.key_id == *key_id) {
            return Err(VerifyError::DuplicateKey { key: *key_id });
        }
        let Some(key) = trusted.iter().find(|key| key.id() == *key_id) else { continue };
        if !key.made(&signature.0, bytes) {
            return Err(VerifyError::BadSignature { key: *key_id });
        }
        if key.epoch() < policy.min_epoch {
            let (epoch, min) = (key.epoch(), policy.min_epoch);
            refused = Some(VerifyError::KeyEpoch { key: *key_id, epoch, min });
        } else if key.role() == Role::Development && !policy.allow_development {
            refused = Some(VerifyError::DevelopmentKey { key: *key_id });
        } else {
            accepted = accepted.or(Some(Verified { key: key.clone() }));
        }
    }
    accepted.ok_or_else(|| {
        let signed_by = signatures.signatures().iter().map(|s| s.key_id).collect();
        refused.unwrap_or(VerifyError::UnknownKey { signed_by })
    })
}

/// A manifest whose signature was verified, with the exact bytes of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
    signature_bytes: Vec<u8>,
    verified: Verified,
}

impl SignedManifest {
    /// Verifies, and only then parses, a manifest.
    pub fn verify(
        bytes: &[u8],
        signature_bytes: &[u8],
        trusted: &[PublicKey],
        policy: Policy,
    ) -> Result<Self, VerifyError> {
        let verified = verify(bytes, &SignatureFile::parse(signature_bytes)?, trusted, policy)?;
        let manifest = Manifest::parse(bytes)?;
        Ok(Self { manifest, bytes: bytes.to_vec(), signature_bytes: signature_bytes.to_vec(), verified })
    }

    /// What it says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes that were signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the signature file.
    pub fn signature_bytes(&self) -> &[u8] {
        &self.signature_bytes
    }

    /// Who vouches for it.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }
}

#[cfg(test)]
mod tests;
