//! Loading: one sequential read of the bundle, checked and unpacked into memory.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use siris_ibu::bundle::{Bundle, BundleError, MemberReader};
use siris_ibu::digest::Hasher;
use siris_ibu::keys::{Epoch, KeyFileError, PublicKey};
use siris_ibu::signature::Policy;
use siris_ibu::{ByteSize, MemberKind, Sha256, SignedManifest};

/// Where the trusted keys are, in the initrd and in the root.
pub const KEYS: &str = "/usr/lib/siris/keys";
/// What a development key signed runs where only development keys are: who builds a release leaves them out.
pub const POLICY: Policy = Policy { allow_development: true, min_epoch: Epoch(0) };

/// Room in the tmpfs beside the members: the manifest, answers, and what a file system needs for itself.
const MARGIN: u64 = 16 << 20;
/// What the running OS and its installer need beside the payload.
const WORK: u64 = 1 << 30;
const BUFFER: usize = 1 << 20;

/// Why the payload is not in memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A key in the initrd is not one.
    #[error("the initrd's key {0}")]
    Key(String, #[source] Box<KeyFileError>),
    /// The initrd's keys cannot be read.
    #[error("the initrd's keys")]
    Keys(#[source] io::Error),
    /// The bundle is not to be used.
    #[error("the bundle on the medium is refused")]
    Bundle(#[source] BundleError),
    /// A member is not what was signed.
    #[error("member {} of the bundle is not what was signed", .0.as_str())]
    Tampered(MemberKind),
    /// Too little memory.
    #[error("this box has {has} of memory: {needed} are needed to run the installer from memory")]
    Memory {
        /// What there is.
        has: ByteSize,
        /// What is needed.
        needed: ByteSize,
    },
    /// Reading the medium failed: it is gone, or damaged.
    #[error("reading the medium failed after {0}")]
    Medium(ByteSize, #[source] io::Error),
    /// Memory could not be written.
    #[error("unpacking into memory")]
    Unpack(#[source] io::Error),
    /// It is another medium than the one that was booted.
    #[error("the medium is not the one this boot was started from")]
    OtherMedium,
}

impl LoadError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(..) | Self::Keys(_) => "keys-unreadable",
            Self::Bundle(error) => error.code(),
            Self::Tampered(_) => "image-tampered",
            Self::Memory { .. } => "too-little-memory",
            Self::Medium(..) => "medium-lost",
            Self::Unpack(_) => "unpack-failed",
            Self::OtherMedium => "other-medium",
        }
    }

    /// Whether the same medium, attached again, may do better.
    pub fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Medium(..) | Self::OtherMedium | Self::Bundle(BundleError::Read(_)))
    }
}

/// The public keys in `dir`.
///
/// # Errors
/// When one cannot be read: which ones are trusted is not for chance to say.
pub fn keys(dir: &Path) -> Result<Vec<PublicKey>, LoadError> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(dir).map_err(LoadError::Keys)? {
        let path = entry.map_err(LoadError::Keys)?.path();
        let bytes = fs::read(&path).map_err(LoadError::Keys)?;
        keys.push(
            PublicKey::parse(&bytes).map_err(|error| LoadError::Key(path.display().to_string(), Box::new(error)))?,
        );
    }
    Ok(keys)
}

/// Refuses a machine that cannot hold the payload and work.
///
/// # Errors
/// [`LoadError::Memory`].
pub fn check_memory(has: ByteSize, signed: &SignedManifest) -> Result<(), LoadError> {
    let needed = ByteSize::from_bytes(tmpfs_bytes(signed) + WORK);
    if has < needed { Err(LoadError::Memory { has, needed }) } else { Ok(()) }
}

/// The size of the tmpfs that holds the payload.
pub fn tmpfs_bytes(signed: &SignedManifest) -> u64 {
    MemberKind::ALL.iter().map(|kind| signed.manifest().member(*kind).size.bytes()).sum::<u64>() + MARGIN
}

/// Verifies the manifest of the bundle in `source`, which is the one booted when its digest is `booted`.
///
/// # Errors
/// [`LoadError`].
pub fn open<R: Read>(source: R, trusted: &[PublicKey], booted: Option<Sha256>) -> Result<Bundle<R>, LoadError> {
    let bundle = Bundle::open(source, trusted, POLICY).map_err(LoadError::Bundle)?;
    match booted {
        Some(digest) if Sha256::of(bundle.signed().bytes()) != digest => Err(LoadError::OtherMedium),
        _ => Ok(bundle),
    }
}

/// Unpacks a verified bundle into `to`, which has room for it.
///
/// # Errors
/// [`LoadError`]; what `to` holds is then of no use.
pub fn unpack<R: Read>(bundle: Bundle<R>, to: &Path) -> Result<SignedManifest, LoadError> {
    let signed = bundle.signed().clone();
    fs::write(to.join("manifest.toml"), signed.bytes()).map_err(LoadError::Unpack)?;
    fs::write(to.join("manifest.sig"), signed.signature_bytes()).map_err(LoadError::Unpack)?;
    let mut members = bundle.members();
    member(&mut members.tree, MemberKind::Tree, &signed, to)?;
    member(&mut members.boot, MemberKind::Boot, &signed, to)?;
    member(&mut members.root, MemberKind::Root, &signed, to)?;
    Ok(signed)
}

fn member<R: Read>(
    reader: &mut MemberReader<R>,
    kind: MemberKind,
    signed: &SignedManifest,
    to: &Path,
) -> Result<(), LoadError> {
    let wanted = signed.manifest().member(kind);
    let mut file = File::create(to.join(kind.as_str())).map_err(LoadError::Unpack)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    let mut done = 0u64;
    loop {
        let read = fill(reader, &mut buffer).map_err(|error| read_error(kind, error, done))?;
        if read == 0 {
            break;
        }
        done += read as u64;
        if done > wanted.size.bytes() {
            return Err(LoadError::Tampered(kind));
        }
        hasher.update(&buffer[..read]);
        sparse(&mut file, &buffer[..read]).map_err(LoadError::Unpack)?;
    }
    file.set_len(done).map_err(LoadError::Unpack)?;
    match hasher.finish() {
        (sha256, size) if sha256 == wanted.sha256 && size == wanted.size.bytes() => Ok(()),
        _ => Err(LoadError::Tampered(kind)),
    }
}

/// The kernel's errors are the medium's; those without a number are the decoder's, which was given nonsense.
fn read_error(kind: MemberKind, error: io::Error, done: u64) -> LoadError {
    match error.downcast::<BundleError>() {
        Ok(BundleError::Read(error)) => LoadError::Medium(ByteSize::from_bytes(done), error),
        Ok(other) => LoadError::Bundle(other),
        Err(error) if error.raw_os_error().is_some() => LoadError::Medium(ByteSize::from_bytes(done), error),
        Err(_) => LoadError::Tampered(kind),
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Writes pages that are not zero: most of a boot image is, and memory is what a box is short of.
fn sparse(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    const PAGE: usize = 4096;
    for page in bytes.chunks(PAGE) {
        match page.iter().any(|byte| *byte != 0) {
            true => file.write_all(page)?,
            false => drop(file.seek(SeekFrom::Current(page.len() as i64))?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
