//! Keys: ed25519 pairs (RFC 8032) with a name, a role and an epoch, and their files.
//!
//! A secret key is in a file of its own, is never printed, and is wiped from memory when dropped.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::signature::KeySignature;
use crate::{Class, Sha256, text_serde};

/// The schema of key and signature files.
pub(crate) const SCHEMA: u32 = 1;

/// A generation of keys. Boxes never go back to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Made by whoever builds, protected by nothing.
    Development,
    /// Kept by release engineering.
    Release,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Development => "development",
            Role::Release => "release",
        })
    }
}

/// Short name of a key: the first 8 bytes of the SHA-256 of the public key, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

/// A text that is not the hexadecimal form of a key, a key id or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {0}")]
pub struct ParseKeyError(pub(crate) &'static str);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl FromStr for KeyId {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseKeyError("key id"))?;
        Ok(Self(bytes))
    }
}

text_serde!(KeyId);

/// A point that signatures are verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point(VerifyingKey);

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for Point {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseKeyError("public key"))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| ParseKeyError("public key"))?;
        // A key of small order verifies signatures nobody made.
        if key.is_weak() {
            return Err(ParseKeyError("public key"));
        }
        Ok(Self(key))
    }
}

text_serde!(Point);

/// A public key with what is known of it. This is also its file's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PublicKey {
    schema: u32,
    name: String,
    role: Role,
    epoch: Epoch,
    public: Point,
}

/// Why bytes are not a key or a signature file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not a TOML text with exactly the fields wanted.
    #[error("the {what} cannot be read")]
    Parse {
        /// Which kind of file.
        what: &'static str,
        /// Where it went wrong. Never quoted for a secret key.
        source: Option<toml::de::Error>,
    },
    /// Another schema.
    #[error("the {what} has schema {schema}, this program reads schema {SCHEMA}")]
    Schema {
        /// Which kind of file.
        what: &'static str,
        /// Its schema.
        schema: u32,
    },
    /// Public and secret half do not belong together.
    #[error("the secret key does not belong to the public key beside it")]
    Mismatch,
    /// The system has no randomness to give.
    #[error("no randomness for a new key: {0}")]
    Random(getrandom::Error),
}

impl KeyFileError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Parse { .. } => "key-file-unreadable",
            Self::Schema { .. } => "unknown-schema",
            Self::Mismatch => "key-mismatch",
            Self::Random(_) => "no-randomness",
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

impl PublicKey {
    /// Reads a public key file.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let what = "public key file";
        let key: Self = parse(bytes, what)?;
        check_schema(key.schema, what)?;
        Ok(key)
    }

    /// The public key file.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and integers only, which TOML can always hold.
        toml::to_string(self).expect("a key is TOML").into_bytes()
    }

    /// Its short name.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::of(self.public.0.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_bytes()[..8]);
        KeyId(id)
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may be used for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its generation.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether this key made `signature` over exactly these bytes (strict verification).
    pub(crate) fn made(&self, signature: &Signature, bytes: &[u8]) -> bool {
        self.public.0.verify_strict(bytes, signature).is_ok()
    }
}

/// A key pair that signs.
pub struct SecretKey {
    public: PublicKey,
    signing: SigningKey,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SecretKeyFile {
    schema: u32,
    name: String,
    role: Role,
    epoch: Epoch,
    public: Point,
    secret: String,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SecretKey {
    /// Makes a new pair.
    pub fn generate(name: &str, role: Role, epoch: Epoch) -> Result<Self, KeyFileError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyFileError::Random)?;
        Ok(Self::from_seed(name, role, epoch, seed))
    }

    /// The pair of a 32-byte secret (RFC 8032's private key).
    pub fn from_seed(name: &str, role: Role, epoch: Epoch, seed: [u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(&seed);
        let public = Point(signing.verifying_key());
        Self { public: PublicKey { schema: SCHEMA, name: name.to_owned(), role, epoch, public }, signing }
    }

    /// Reads a secret key file. The error never quotes it.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let what = "secret key file";
        let unreadable = |_| KeyFileError::Parse { what, source: None };
        let file: SecretKeyFile = parse(bytes, what).map_err(unreadable)?;
        check_schema(file.schema, what)?;
        let mut seed = [0; 32];
        hex::decode_to_slice(&file.secret, &mut seed).map_err(|_| KeyFileError::Parse { what, source: None })?;
        let key = Self::from_seed(&file.name, file.role, file.epoch, seed);
        match key.public.public == file.public {
            true => Ok(key),
            false => Err(KeyFileError::Mismatch),
        }
    }

    /// The secret key file. The caller keeps others from reading it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let PublicKey { schema, name, role, epoch, public } = self.public.clone();
        let file = SecretKeyFile { schema, name, role, epoch, public, secret: hex::encode(self.signing.as_bytes()) };
        // Strings and integers only, which TOML can always hold.
        toml::to_string(&file).expect("a key is TOML").into_bytes()
    }

    /// The half that may be shown.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs the manifest's exact bytes.
    pub fn sign(&self, bytes: &[u8]) -> KeySignature {
        KeySignature::new(self.public.id(), self.signing.sign(bytes))
    }
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], what: &'static str) -> Result<T, KeyFileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeyFileError::Parse { what, source: None })?;
    toml::from_str(text).map_err(|source| KeyFileError::Parse { what, source: Some(source) })
}

pub(crate) fn check_schema(schema: u32, what: &'static str) -> Result<(), KeyFileError> {
    match schema {
        SCHEMA => Ok(()),
        schema => Err(KeyFileError::Schema { what, schema }),
    }
}

#[cfg(test)]
mod tests;
