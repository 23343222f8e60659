//! A bundle (`NAME-VERSION.ibu`): the whole payload in one file that is read once, from front to back, from a pipe.
//!
//! It is a plain tar archive (POSIX.1-1988 ustar, so that any tar lists and unpacks it) of exactly these members, in
//! this order and with nothing else:
//!
//! | # | name            | body                                                             |
//! |---|-----------------|------------------------------------------------------------------|
//! | 1 | `manifest.toml` | the manifest, at most [`manifest::MAX_BYTES`]                    |
//! | 2 | `manifest.sig`  | its signatures, at most [`signature::MAX_BYTES`]                 |
//! | 3 | `tree`          | the verity hash tree, as it is                                   |
//! | 4 | `boot`          | the boot partition's image, as far as in use: one zstd frame     |
//! | 5 | `root`          | the EROFS image: one zstd frame                                  |
//!
//! and two blocks of zeros. Each member is one header block of 512 bytes, its body, and zeros up to the next multiple
//! of 512. A header has one form for a name and a size: mode 0644, owner and group 0 without names, time 0, type `0`,
//! magic `ustar` with version `00`, sizes as eleven octal digits (or, from 8 GiB on, the base-256 form of GNU tar);
//! whatever differs in any byte is refused, so there is nothing in a header to be interpreted. Frames need a window
//! of 16 MiB at most (`zstd --long=24` or any level up to 19 without `--ultra`), so that a small box can decode them.
//!
//! For example, a manifest of 700 bytes: bytes 0-511 are the header of `manifest.toml` with the size field
//! `00000001274\0`, bytes 512-1211 the manifest, bytes 1212-1535 zeros, and the header of `manifest.sig` begins at
//! byte 1536.
//!
//! [`Bundle::open`] verifies the manifest's signature before anything else of the file is looked at. Members are then
//! handed out as [`Read`]; who writes them checks them against the manifest, as the slot writer does.

use std::cell::RefCell;
use std::io::{self, BufReader, Read, Write};
use std::rc::Rc;

use crate::digest::Hasher;
use crate::keys::PublicKey;
use crate::manifest::{self, Manifest, MemberKind};
use crate::signature::{self, Policy, SignedManifest, VerifyError};
use crate::{ByteSize, Class};

const BLOCK: u64 = 512;
const MANIFEST: &str = "manifest.toml";
const SIGNATURE: &str = "manifest.sig";
/// log2 of the largest window a frame may need.
const WINDOW_LOG_MAX: u32 = 24;

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The source failed.
    #[error("reading the bundle")]
    Read(#[source] io::Error),
    /// It ended early.
    #[error("the bundle ends in the middle: it is incomplete")]
    Truncated,
    /// Something else stands where a member should be.
    #[error("not a bundle: {wanted} should be at byte {at}")]
    Unexpected {
        /// The member that should be there.
        wanted: &'static str,
        /// Where its header should be.
        at: u64,
    },
    /// A member is too large to be looked at.
    #[error("{name} has {size}, at most {most} are read")]
    Oversized {
        /// The member.
        name: &'static str,
        /// Its size.
        size: ByteSize,
        /// The limit.
        most: ByteSize,
    },
    /// A member is not what was signed.
    #[error("member {} of the bundle is not what was signed", .0.as_str())]
    Member(MemberKind),
    /// The manifest is not to be trusted, or not sound.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl BundleError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "bundle-read",
            Self::Truncated => "bundle-truncated",
            Self::Unexpected { .. } => "bundle-malformed",
            Self::Oversized { .. } => "bundle-oversized",
            Self::Member(_) => "member-digest",
            Self::Verify(error) => error.code(),
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Read(_) => Class::Environment,
            Self::Verify(error) => error.class(),
            _ => Class::Input,
        }
    }
}

impl From<io::Error> for BundleError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}

/// The one header of a member.
fn header(name: &str, size: u64) -> [u8; BLOCK as usize] {
    let mut header = tar::Header::new_ustar();
    // The names are this module's own and short.
    header.set_path(name).expect("a short name");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    *header.as_bytes()
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// Bytes of a bundle whose members' bodies have these sizes.
pub fn len(bodies: [u64; 5]) -> u64 {
    bodies.iter().map(|size| BLOCK + size.next_multiple_of(BLOCK)).sum::<u64>() + 2 * BLOCK
}

/// The bodies of the three payload members, as the bundle holds them, with their exact sizes.
pub struct Bodies<'a> {
    /// The hash tree, as it is.
    pub tree: (u64, &'a mut dyn Read),
    /// The boot image, compressed.
    pub boot: (u64, &'a mut dyn Read),
    /// The root image, compressed.
    pub root: (u64, &'a mut dyn Read),
}

/// Writes a bundle.
///
/// # Errors
/// When a source or `out` fails, or a source has not the size it was said to have.
pub fn write(out: &mut dyn Write, manifest: &[u8], signatures: &[u8], bodies: Bodies<'_>) -> io::Result<()> {
    let (mut manifest, mut signatures) = ((manifest.len() as u64, manifest), (signatures.len() as u64, signatures));
    let members: [(&str, u64, &mut dyn Read); 5] = [
        (MANIFEST, manifest.0, &mut manifest.1),
        (SIGNATURE, signatures.0, &mut signatures.1),
        (MemberKind::Tree.as_str(), bodies.tree.0, bodies.tree.1),
        (MemberKind::Boot.as_str(), bodies.boot.0, bodies.boot.1),
        (MemberKind::Root.as_str(), bodies.root.0, bodies.root.1),
    ];
    for (name, size, body) in members {
        out.write_all(&header(name, size))?;
        let copied = io::copy(&mut body.take(size), out)?;
        if copied != size {
            return Err(io::Error::other(format!("{name} has {copied} bytes, {size} were announced")));
        }
        out.write_all(&[0; BLOCK as usize][..padding(size) as usize])?;
    }
    out.write_all(&[0; 2 * BLOCK as usize])
}

/// A source that knows how far it was read.
struct Source<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: Read> Source<R> {
    /// Reads a header, which must be that of `wanted`; returns the body's size.
    fn member(&mut self, wanted: &'static str) -> Result<u64, BundleError> {
        let at = self.at;
        let mut bytes = [0; BLOCK as usize];
        self.read_exact(&mut bytes)?;
        let size = tar::Header::from_byte_slice(&bytes).entry_size();
        match size {
            Ok(size) if bytes == header(wanted, size) => Ok(size),
            _ => Err(BundleError::Unexpected { wanted, at }),
        }
    }

    /// Reads the zeros behind a body.
    fn pad(&mut self, size: u64, wanted: &'static str) -> Result<(), BundleError> {
        let at = self.at;
        let mut bytes = [0; BLOCK as usize];
        let zeros = &mut bytes[..padding(size) as usize];
        self.read_exact(zeros)?;
        if zeros.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(BundleError::Unexpected { wanted, at }) }
    }

    /// Reads a whole small member.
    fn small(&mut self, name: &'static str, most: usize) -> Result<Vec<u8>, BundleError> {
        let size = self.member(name)?;
        if size > most as u64 {
            let (size, most) = (ByteSize::from_bytes(size), ByteSize::from_bytes(most as u64));
            return Err(BundleError::Oversized { name, size, most });
        }
        let mut bytes = vec![0; size as usize];
        self.read_exact(&mut bytes)?;
        self.pad(size, name)?;
        Ok(bytes)
    }
}

/// The manifest of a bundle, to be shown: nothing says that it is genuine.
///
/// # Errors
/// When there is none.
pub fn unverified(source: impl Read) -> Result<Manifest, BundleError> {
    let bytes = Source { inner: source, at: 0 }.small(MANIFEST, manifest::MAX_BYTES)?;
    Ok(Manifest::parse(&bytes).map_err(VerifyError::from)?)
}

/// A bundle whose manifest was verified; its members are still to be read.
pub struct Bundle<R: Read> {
    signed: SignedManifest,
    source: Source<R>,
}

impl<R: Read> Bundle<R> {
    /// Reads and verifies the manifest.
    ///
    /// # Errors
    /// [`BundleError`]; of `source` no more than manifest and signatures were then read.
    pub fn open(source: R, trusted: &[PublicKey], policy: Policy) -> Result<Self, BundleError> {
        let mut source = Source { inner: source, at: 0 };
        let manifest = source.small(MANIFEST, manifest::MAX_BYTES)?;
        let signatures = source.small(SIGNATURE, signature::MAX_BYTES)?;
        let signed = SignedManifest::verify(&manifest, &signatures, trusted, policy)?;
        Ok(Self { signed, source })
    }

    /// The manifest.
    pub fn signed(&self) -> &SignedManifest {
        &self.signed
    }

    /// Reads all of it, and compares each member with what was signed.
    ///
    /// # Errors
    /// The first thing that is not as it has to be.
    pub fn prove(self) -> Result<SignedManifest, BundleError> {
        let signed = self.signed.clone();
        let Members { tree, boot, root } = self.members();
        for mut member in [tree, boot, root] {
            let (kind, wanted) = (member.kind, signed.manifest().member(member.kind));
            let mut hasher = Hasher::default();
            let mut buffer = vec![0; 1 << 20];
            let mut done = 0;
            loop {
                let read = member.read(&mut buffer).map_err(|error| match error.downcast::<BundleError>() {
                    Ok(error) => error,
                    Err(error) => BundleError::Read(error),
                })?;
                done += read as u64;
                if done > wanted.size.bytes() {
                    return Err(BundleError::Member(kind));
                }
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
            }
            if hasher.finish() != (wanted.sha256, wanted.size.bytes()) {
                return Err(BundleError::Member(kind));
            }
        }
        Ok(signed)
    }

    /// The three members as they go on a disk, decoded. They can only be read in their order, each to its end.
    pub fn members(self) -> Members<R> {
        let state = State::Source(self.source);
        let stream = Rc::new(RefCell::new(Stream { state, next: 0 }));
        let [tree, boot, root] =
            MemberKind::ALL.map(|kind| MemberReader { kind, started: false, stream: Rc::clone(&stream) });
        Members { tree, boot, root }
    }
}

/// The members of a bundle.
pub struct Members<R: Read> {
    /// The hash tree.
    pub tree: MemberReader<R>,
    /// The boot image.
    pub boot: MemberReader<R>,
    /// The root image.
    pub root: MemberReader<R>,
}

/// What is being read of a stream that several readers share.
struct Stream<R: Read> {
    state: State<R>,
    /// Index into [`MemberKind::ALL`] of the member whose header comes next.
    next: usize,
}

type Body<R> = io::Take<Source<R>>;

enum State<R: Read> {
    /// Between members.
    Source(Source<R>),
    /// In a member that is stored as it is, of this size.
    Plain(Body<R>, u64),
    /// In a member that is a zstd frame, of this compressed size.
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Body<R>>>>, u64),
    /// An error was returned: where the stream is, is not known.
    Lost,
}

impl<R: Read> Stream<R> {
    fn start(&mut self, kind: MemberKind) -> Result<(), BundleError> {
        let State::Source(mut source) = std::mem::replace(&mut self.state, State::Lost) else {
            return Err(BundleError::Read(io::Error::other(format!("member {} is out of turn", kind.as_str()))));
        };
        if MemberKind::ALL.get(self.next) != Some(&kind) {
            return Err(BundleError::Read(io::Error::other(format!("member {} is out of turn", kind.as_str()))));
        }
        let size = source.member(kind.as_str())?;
        self.next += 1;
        let body = source.take(size);
        self.state = match kind {
            MemberKind::Tree => State::Plain(body, size),
            MemberKind::Boot | MemberKind::Root => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(1 << 17, body))?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                State::Zstd(Box::new(decoder.single_frame()), size)
            }
        };
        Ok(())
    }

    /// Behind a member's last byte: nothing but padding may follow it.
    fn end(&mut self, kind: MemberKind) -> Result<(), BundleError> {
        let name = kind.as_str();
        let (body, size) = match std::mem::replace(&mut self.state, State::Lost) {
            State::Plain(body, size) => (body, size),
            State::Zstd(decoder, size) => {
                let buffered = decoder.finish();
                if !buffered.buffer().is_empty() {
                    let at = buffered.get_ref().get_ref().at;
                    return Err(BundleError::Unexpected { wanted: name, at });
                }
                (buffered.into_inner(), size)
            }
            State::Source(_) | State::Lost => return Ok(()),
        };
        if body.limit() > 0 {
            // The source ended before the body did, or the frame before its member.
            let at = body.get_ref().at;
            return Err(match kind {
                MemberKind::Tree => BundleError::Truncated,
                MemberKind::Boot | MemberKind::Root => BundleError::Unexpected { wanted: name, at },
            });
        }
        let mut source = body.into_inner();
        source.pad(size, name)?;
        if self.next == MemberKind::ALL.len() {
            let at = source.at;
            let mut zeros = [0; 2 * BLOCK as usize];
            source.read_exact(&mut zeros)?;
            // Nothing may follow: what is signed is the whole of it.
            if zeros.iter().any(|byte| *byte != 0) || source.read(&mut zeros)? > 0 {
                return Err(BundleError::Unexpected { wanted: "the end of the bundle", at });
            }
        }
        self.state = State::Source(source);
        Ok(())
    }
}

/// One member, decoded.
///
/// Its errors are [`io::Error`]s around a [`BundleError`] where the bundle is at fault.
pub struct MemberReader<R: Read> {
    kind: MemberKind,
    started: bool,
    stream: Rc<RefCell<Stream<R>>>,
}

impl<R: Read> Read for MemberReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream.borrow_mut();
        if !self.started {
            self.started = true;
            stream.start(self.kind).map_err(io::Error::other)?;
        }
        let read = match &mut stream.state {
            State::Plain(body, _) => body.read(buffer),
            State::Zstd(decoder, _) => decoder.read(buffer),
            State::Source(_) => return Ok(0),
            State::Lost => return Err(io::Error::other("the bundle cannot be read on")),
        };
        match read {
            Ok(0) if !buffer.is_empty() => stream.end(self.kind).map(|()| 0).map_err(io::Error::other),
            Ok(read) => Ok(read),
            Err(error) => {
                stream.state = State::Lost;
                // The kernel's errors are the source's; those without a number are the decoder's, which was given
                // nonsense, or too little.
                Err(match error.kind() {
                    io::ErrorKind::UnexpectedEof => io::Error::other(BundleError::Truncated),
                    _ if error.raw_os_error().is_some() || error.get_ref().is_some_and(|e| e.is::<BundleError>()) => {
                        error
                    }
                    _ if matches!(self.kind, MemberKind::Tree) => error,
                    _ => io::Error::other(BundleError::Member(self.kind)),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
