//! The payload, proven: the manifest before anything of it is used, each member before the first write.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use siris_ibu::digest::Hasher;
use siris_ibu::signature::VerifyError;
use siris_ibu::{Class, MemberKind, Sha256, SignedManifest};
use siris_live::LIVE;
use siris_live::load::{self, KEYS, LoadError, POLICY};

use crate::host::Host;
use crate::plan::Image;
use crate::refusal::Refusal;
use crate::run::{Progress, Stop};

const BUFFER: usize = 1 << 20;

/// Why the payload is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The trusted keys.
    #[error("the keys in {KEYS}")]
    Keys(#[source] Box<LoadError>),
    /// A file of the payload.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The manifest.
    #[error("the manifest of the payload")]
    Manifest(#[source] Box<VerifyError>),
    /// A member.
    #[error("member {} is not what was signed", .0.as_str())]
    Tampered(MemberKind),
    /// A person stopped it.
    #[error("stopped")]
    Stopped,
}

impl CheckError {
    /// Stable name of the error: what a refusal is called where it is one.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys-unreadable",
            Self::Read(..) => "image-unreadable",
            Self::Manifest(error) => match **error {
                VerifyError::UnknownKey { .. } | VerifyError::KeyEpoch { .. } | VerifyError::DevelopmentKey { .. } => {
                    "key-unknown"
                }
                _ => "image-tampered",
            },
            Self::Tampered(_) => "image-tampered",
            Self::Stopped => "stopped",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Keys(_) | Self::Read(..) => Class::Environment,
            _ => Class::Input,
        }
    }

    /// As a refusal.
    pub fn refusal(&self) -> Refusal {
        let mut what = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            what.push_str(&format!(": {error}"));
            source = error.source();
        }
        Refusal::new(self.code(), what, "use an installer's medium as it was released; this one was changed or damaged")
    }
}

/// The payload's manifest, verified.
///
/// # Errors
/// When it, or what verifies it, is not as it has to be.
pub fn manifest(host: &Host) -> Result<(SignedManifest, Image), CheckError> {
    let trusted = load::keys(&host.path(KEYS)).map_err(|error| CheckError::Keys(Box::new(error)))?;
    let read = |name: &str| {
        let path = host.path(LIVE).join(name);
        fs::read(&path).map_err(|error| CheckError::Read(path, error))
    };
    let (bytes, signatures) = (read("manifest.toml")?, read("manifest.sig")?);
    let signed = SignedManifest::verify(&bytes, &signatures, &trusted, POLICY);
    let signed = signed.map_err(|error| CheckError::Manifest(Box::new(error)))?;
    let image = Image { manifest: signed.manifest().clone(), digest: Sha256::of(&bytes) };
    Ok((signed, image))
}

/// A member of the payload, to be read.
///
/// # Errors
/// When it is not there.
pub fn member(host: &Host, kind: MemberKind) -> Result<File, CheckError> {
    let path = host.path(LIVE).join(kind.as_str());
    File::open(&path).map_err(|error| CheckError::Read(path, error))
}

/// Proves every member.
///
/// # Errors
/// The first member that is not what was signed.
pub fn members(
    host: &Host,
    signed: &SignedManifest,
    progress: &mut dyn Progress,
    stop: &Stop,
) -> Result<(), CheckError> {
    let total = MemberKind::ALL.iter().map(|kind| signed.manifest().member(*kind).size.bytes()).sum();
    progress.step("checking the image", total);
    let mut done = 0;
    for kind in MemberKind::ALL {
        let wanted = signed.manifest().member(kind);
        let mut file = member(host, kind)?;
        let fault = |error| CheckError::Read(host.path(LIVE).join(kind.as_str()), error);
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; BUFFER]);
        loop {
            if stop.wanted() {
                return Err(CheckError::Stopped);
            }
            let read = file.read(&mut buffer).map_err(fault)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            done += read as u64;
            progress.at(done);
        }
        if hasher.finish() != (wanted.sha256, wanted.size.bytes()) {
            return Err(CheckError::Tampered(kind));
        }
    }
    progress.done();
    Ok(())
}
