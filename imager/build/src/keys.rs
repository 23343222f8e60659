//! Who signs what is built.
//!
//! Owns: the key directory, the development pair made on first use, and the way to who signs elsewhere.
//! Never: holds a release's secret key; that one signs elsewhere.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, Tool};
use siris_host::files::write_atomic;
use siris_ibu::SignedManifest;
use siris_ibu::keys::{Epoch, PublicKey, Role, SecretKey};
use siris_ibu::signature::{Policy, SignatureFile};

use crate::error::BuildError;
use crate::payload::chain;
use crate::progress::Progress;

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

/// Who is to sign, and whom the built system trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signing {
    /// A shell command that is given the manifest and prints its signature file; without one, this machine's
    /// development key signs.
    pub command: Option<String>,
    /// Files of the public keys that the built system trusts, instead of this machine's development key.
    pub trust: Vec<PathBuf>,
    /// What is built is for others: no development key signs it or is trusted by it.
    pub release: bool,
}

/// Who signs.
pub(crate) struct Signer {
    /// The files of public keys that go into the system.
    pub(crate) public_files: Vec<PathBuf>,
    trusted: Vec<PublicKey>,
    how: How,
    release: bool,
}

enum How {
    Development(Box<SecretKey>),
    Command(String),
}

impl Signer {
    /// Finds the keys.
    ///
    /// # Errors
    /// When a key cannot be read or made, or a release would trust or need a development key.
    pub(crate) fn find(signing: &Signing, progress: &Progress) -> Result<Self, BuildError> {
        let refused = |message: &str| Err(BuildError::Signing { message: message.to_owned() });
        let mut public_files = signing.trust.clone();
        let how = match &signing.command {
            Some(command) => How::Command(command.clone()),
            None if signing.release => return refused("a release is signed elsewhere: name a --signer"),
            None => {
                let key = development(&default_dir()?)?;
                if key.created {
                    let file = key.public_file.display();
                    progress.line(format!("made a DEVELOPMENT key, {file}: never ship what it signs"));
                }
                if public_files.is_empty() {
                    public_files.push(key.public_file);
                }
                How::Development(Box::new(key.secret))
            }
        };
        if public_files.is_empty() {
            return refused(
                "what a --signer signs has to be trusted by what is built: name its public key with --trust",
            );
        }
        let trusted: Vec<PublicKey> = public_files.iter().map(|file| read_public(file)).collect::<Result<_, _>>()?;
        if let Some(key) = trusted.iter().find(|key| signing.release && key.role() == Role::Development) {
            return refused(&format!("a release must not trust the development key {} ({})", key.name(), key.id()));
        }
        Ok(Self { public_files, trusted, how, release: signing.release })
    }

    /// Whether what is built is for others.
    pub(crate) fn is_release(&self) -> bool {
        self.release
    }

    /// The epoch below which no key is trusted by a box that runs what is built.
    pub(crate) fn epoch(&self) -> Epoch {
        self.trusted.iter().map(PublicKey::epoch).min().unwrap_or(Epoch(1))
    }

    /// Says who signs and who is trusted: it changes when what is signed may change.
    pub(crate) fn id(&self) -> String {
        let ids: Vec<String> = self.trusted.iter().map(|key| key.id().to_string()).collect();
        let how = match &self.how {
            How::Development(key) => key.public().id().to_string(),
            How::Command(command) => command.clone(),
        };
        format!("{how} {} {}", ids.join(","), self.release)
    }

    /// Has a manifest signed, and verifies that a box which runs it would believe the signature.
    ///
    /// # Errors
    /// When the signer fails, or no key that the system trusts has signed.
    pub(crate) fn sign(&self, manifest: &[u8]) -> Result<SignedManifest, BuildError> {
        let signatures = match &self.how {
            How::Development(key) => SignatureFile::new(vec![key.sign(manifest)]).to_bytes(),
            How::Command(command) => ask(command, manifest)?,
        };
        let policy = Policy { allow_development: !self.release, min_epoch: self.epoch() };
        SignedManifest::verify(manifest, &signatures, &self.trusted, policy)
            .map_err(|error| BuildError::Signing { message: chain(&error) })
    }
}

/// Gives a command the manifest, and takes the signature file that it prints.
fn ask(command: &str, manifest: &[u8]) -> Result<Vec<u8>, BuildError> {
    let failed = |error: &dyn std::error::Error| BuildError::Signing {
        message: format!("the signer `{command}` failed: {}", chain(error)),
    };
    let log = tempfile::NamedTempFile::new().map_err(|e| failed(&e))?;
    let signer = Cmd::new(Tool::Bash).args(["-c", command]).log(log.path());
    let mut running = signer.spawn().map_err(|e| failed(&e))?;
    if let Some(mut stdin) = running.stdin() {
        // One that prints a signature made before may not read it.
        let _ = stdin.write_all(manifest);
    }
    let mut signatures = Vec::new();
    if let Some(stdout) = running.stdout() {
        let most = siris_ibu::signature::MAX_BYTES as u64 + 1;
        stdout.take(most).read_to_end(&mut signatures).map_err(|e| failed(&e))?;
    }
    running.wait().map_err(|e| failed(&e))?;
    Ok(signatures)
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
