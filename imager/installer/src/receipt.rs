//! The receipt: what was installed, and the proof that nothing else was written, signed by the box's own key.
//!
//! File: one JSON object with `receipt`, `public-key` and `signature` (hexadecimal). Signed are the canonical bytes of
//! `receipt`: JSON without blanks, members of objects sorted by name (by bytes), texts escaped as serde_json does. It
//! holds no floating-point numbers, so there is one form. The key is made at the install; that it is the box's is known
//! from its public half, which a box shows and a receipt names.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use siris_ibu::{Class, Sha256};

use crate::plan::{Disabled, NewPoolPlan, Plan, PoolPlan, TargetPlan};
use crate::prove::Proof;

/// Why a receipt cannot be made, or is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// No randomness.
    #[error("no randomness for a key: {0}")]
    Random(getrandom::Error),
    /// Not a receipt.
    #[error("not a receipt")]
    Parse(#[source] serde_json::Error),
    /// A key or signature that is none.
    #[error("its {0} is not one")]
    Form(&'static str),
    /// The signature does not fit.
    #[error("its signature does not fit: it was changed, or damaged")]
    Signature,
    /// Another key than the one that was asked for.
    #[error("it was signed by key {found}, not by {wanted}")]
    OtherKey {
        /// Its key.
        found: String,
        /// The key that was asked for.
        wanted: String,
    },
}

impl ReceiptError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Random(_) => "no-randomness",
            Self::Parse(_) | Self::Form(_) => "receipt-unreadable",
            Self::Signature => "receipt-signature",
            Self::OtherKey { .. } => "receipt-other-key",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Random(_) => Class::Host,
            _ => Class::Input,
        }
    }
}

/// The box's own key.
pub struct BoxKey(SigningKey);

impl BoxKey {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, ReceiptError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(ReceiptError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Its file: the secret half (RFC 8032) in hexadecimal. To be kept from others.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{}\n", hex::encode(self.0.as_bytes())).into_bytes()
    }

    /// Its public half in hexadecimal.
    pub fn public(&self) -> String {
        hex::encode(self.0.verifying_key().as_bytes())
    }
}

/// What a receipt says.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Receipt<'a> {
    schema: u32,
    install: &'a str,
    image: &'a str,
    manifest: Sha256,
    started: u64,
    ended: u64,
    written: Vec<Written<'a>>,
    disabled: &'a [Disabled],
    new_pool: Option<&'a NewPoolPlan>,
    pools: &'a [PoolPlan],
    proof: &'a Proof,
    /// What the figures cover, in words.
    covers: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Written<'a> {
    #[serde(flatten)]
    target: &'a TargetPlan,
    disk_guid: String,
    state_sha256: Sha256,
}

/// A disk that was written, as far as the plan does not say it.
#[derive(Debug, Clone)]
pub struct WrittenDisk<'a> {
    /// Its plan.
    pub target: &'a TargetPlan,
    /// GUID of its partition table.
    pub disk_guid: String,
    /// Digest of the state partition's image.
    pub state_sha256: Sha256,
}

impl<'a> Receipt<'a> {
    /// What there is to say. Times are seconds since 1970 by the clock of the box.
    pub fn new(plan: &'a Plan, written: &[WrittenDisk<'a>], proof: &'a Proof, started: u64, ended: u64) -> Self {
        let written = written.iter().map(|disk| Written {
            target: disk.target,
            disk_guid: disk.disk_guid.clone(),
            state_sha256: disk.state_sha256,
        });
        Self {
            schema: 1,
            install: &plan.id,
            image: &plan.image,
            manifest: plan.manifest,
            started,
            ended,
            written: written.collect(),
            disabled: &plan.disabled,
            new_pool: plan.new_pool.as_ref(),
            pools: &plan.pools,
            proof,
            covers: covers(),
        }
    }
}

fn covers() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("manifest", "SHA-256 of manifest.toml, whose signature was verified before anything of the payload was used"),
        (
            "written",
            "the disks that were opened for writing: root image, hash tree and boot image were read back from each and \
             compared with the manifest, the EFI system partition and the partition table with what was to be written; \
             state-sha256 is the digest of the start of the state partition before this receipt was written into it",
        ),
        (
            "proof.disks",
            "every disk that was there before the first write but those under written, new-pool and disabled and the \
             installer's own medium",
        ),
        (
            "proof.disks.edges",
            "SHA-256 of the first and of the last MiB of the disk and of each partition, read before the first write \
             and again after the last but that of this receipt, and equal; the four ZFS labels with their uberblocks \
             and the partition tables lie in these ranges; the rest of the disk is not covered by them",
        ),
        (
            "proof.disks.written",
            "sectors of 512 bytes that the kernel has sent to the disk in write requests since it booted, by whomever",
        ),
        ("proof.disks.discarded", "sectors of 512 bytes that the kernel has asked the disk to discard since it booted"),
        (
            "proof.appeared",
            "disks that were attached after the first look: read-only since, and not written; nothing is \
                            known of them before",
        ),
    ])
}

/// The file as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SignedFile {
    public_key: String,
    receipt: Value,
    signature: String,
}

/// The bytes that are signed.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            out.push('{');
            for (n, (name, value)) in sorted.into_iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                canonical(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn canonical_bytes(value: &Value) -> Vec<u8> {
    let mut text = String::new();
    canonical(value, &mut text);
    text.into_bytes()
}

/// Signs a receipt; returns its file.
///
/// # Errors
/// Never in fact: a receipt is JSON.
pub fn sign(receipt: &Receipt<'_>, key: &BoxKey) -> Result<Vec<u8>, ReceiptError> {
    let receipt = serde_json::to_value(receipt).map_err(ReceiptError::Parse)?;
    let signature = hex::encode(key.0.sign(&canonical_bytes(&receipt)).to_bytes());
    let file = SignedFile { public_key: key.public(), receipt, signature };
    let mut bytes = serde_json::to_vec_pretty(&file).map_err(ReceiptError::Parse)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A receipt whose signature fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The public key that signed it.
    pub key: String,
    /// The install.
    pub install: String,
    /// Whether its proof holds.
    pub holds: bool,
    /// Everything it says.
    pub receipt: Value,
}

/// Verifies a receipt's file: by the key it names, or by `key` alone where one is given.
///
/// # Errors
/// When it is none, or its signature does not fit.
pub fn verify(bytes: &[u8], key: Option<&str>) -> Result<Verified, ReceiptError> {
    let file: SignedFile = serde_json::from_slice(bytes).map_err(ReceiptError::Parse)?;
    if let Some(wanted) = key
        && !wanted.eq_ignore_ascii_case(&file.public_key)
    {
        return Err(ReceiptError::OtherKey { found: file.public_key, wanted: wanted.to_owned() });
    }
    let (mut public, mut signature) = ([0; 32], [0; 64]);
    hex::decode_to_slice(&file.public_key, &mut public).map_err(|_| ReceiptError::Form("public key"))?;
    hex::decode_to_slice(&file.signature, &mut signature).map_err(|_| ReceiptError::Form("signature"))?;
    let public = VerifyingKey::from_bytes(&public).map_err(|_| ReceiptError::Form("public key"))?;
    let signature = Signature::from_bytes(&signature);
    public.verify_strict(&canonical_bytes(&file.receipt), &signature).map_err(|_| ReceiptError::Signature)?;
    let install = file.receipt["install"].as_str().unwrap_or_default().to_owned();
    let holds = file.receipt["proof"]["holds"].as_bool().unwrap_or(false);
    Ok(Verified { key: file.public_key, install, holds, receipt: file.receipt })
}

#[cfg(test)]
mod tests;
