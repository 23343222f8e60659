//! The payload, proven: the manifest before anything of it is used, each member before the first write.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use siris_ibu::digest::Hasher;
use siris_ibu::signature::VerifyError;
use siris_ibu::verity::{self, VerityError};
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
    let fault = |kind: MemberKind| move |error| CheckError::Read(host.path(LIVE).join(kind.as_str()), error);
    for kind in [MemberKind::Tree, MemberKind::Boot] {
        let wanted = signed.manifest().member(kind);
        let mut file = Watched { file: member(host, kind)?, stop, progress: &mut *progress, done: &mut done };
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(_) if stop.wanted() => return Err(CheckError::Stopped),
                Err(error) => return Err(fault(kind)(error)),
            }
        }
        if hasher.finish() != (wanted.sha256, wanted.size.bytes()) {
            return Err(CheckError::Tampered(kind));
        }
    }
    // The largest one block by block, against the tree, which several processors do at once.
    let (kind, verity) = (MemberKind::Root, &signed.manifest().verity);
    let tree = io::BufReader::new(member(host, MemberKind::Tree)?);
    let leaves = verity::check_tree(verity, tree).map_err(|_| CheckError::Tampered(MemberKind::Tree))?;
    let file = member(host, kind)?;
    let length = file.metadata().map_err(fault(kind))?.len();
    let proven = verity::check_data(verity, Watched { file, stop, progress: &mut *progress, done: &mut done }, &leaves);
    match proven {
        _ if stop.wanted() => return Err(CheckError::Stopped),
        Err(VerityError::ReadData { source, .. }) if source.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(fault(kind)(source));
        }
        Ok(()) if length == signed.manifest().root.size.bytes() => {}
        _ => return Err(CheckError::Tampered(kind)),
    }
    progress.done();
    Ok(())
}

/// A member that is read: says how far it is, and ends when a person wants to stop.
struct Watched<'a> {
    file: File,
    stop: &'a Stop,
    progress: &'a mut dyn Progress,
    done: &'a mut u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.wanted() {
            return Err(io::Error::other("stopped"));
        }
        let read = self.file.read(buffer)?;
        *self.done += read as u64;
        self.progress.at(*self.done);
        Ok(read)
    }
}
