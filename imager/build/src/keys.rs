//! Where signing keys are kept on a build machine.
//!
//! Owns: the key directory and the development pair made on first use.
//! Never: holds a release's secret key; that one signs elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use siris_host::files::write_atomic;
use siris_ibu::keys::{Epoch, PublicKey, Role, SecretKey};

use crate::error::BuildError;

/// The directory of keys: `SIRIS_KEYS`, or `siris/keys` below the user's configuration directory.
///
/// # Errors
/// When none of the variables that could name it is set.
pub fn default_dir() -> Result<PathBuf, BuildError> {
    let env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    env("SIRIS_KEYS")
        .or_else(|| env("XDG_CONFIG_HOME").map(|d| d.join("siris/keys")))
        .or_else(|| env("HOME").map(|d| d.join(".config/siris/keys")))
        .ok_or_else(|| BuildError::Incomplete { what: "a place for keys (set SIRIS_KEYS or HOME)".into() })
}

/// The development pair of a build machine.
#[derive(Debug)]
pub struct DevelopmentKey {
    /// Signs.
    pub secret: SecretKey,
    /// The file of its public half, which goes into images.
    pub public_file: PathBuf,
    /// Whether it was made just now.
    pub created: bool,
}

/// The development pair in `dir`, made if there is none.
///
/// # Errors
/// When the files cannot be read or written, or are not keys.
pub fn development(dir: &Path) -> Result<DevelopmentKey, BuildError> {
    let secret_file = dir.join("development.secret.toml");
    let public_file = dir.join("development.pub.toml");
    let bad =
        |e: siris_ibu::keys::KeyFileError| BuildError::Payload { what: "the development key", message: e.to_string() };
    if secret_file.exists() {
        let bytes = fs::read(&secret_file).map_err(BuildError::io("read", &secret_file))?;
        let secret = SecretKey::parse(&bytes).map_err(bad)?;
        write_atomic(&public_file, &secret.public().to_bytes())?;
        return Ok(DevelopmentKey { secret, public_file, created: false });
    }
    fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(BuildError::io("set the mode of", dir))?;
    let secret = SecretKey::generate("development", Role::Development, Epoch(1)).map_err(bad)?;
    write_atomic(&secret_file, &secret.to_bytes())?;
    write_atomic(&public_file, &secret.public().to_bytes())?;
    Ok(DevelopmentKey { secret, public_file, created: true })
}

/// A public key file's content.
///
/// # Errors
/// When it cannot be read or is not a public key.
pub fn read_public(file: &Path) -> Result<PublicKey, BuildError> {
    let bytes = fs::read(file).map_err(BuildError::io("read", file))?;
    PublicKey::parse(&bytes).map_err(|e| BuildError::Payload { what: "a public key", message: e.to_string() })
}
