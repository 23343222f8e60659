//! The one slot writer.
//!
//! The order of its writes is what an interrupted one leaves behind: first the trailer and then the head of
//! the boot image are cleared and synced, so the slot boots nothing; then the members are streamed, each hashed on the way;
//! when all are there, as signed and synced, the head of the boot image follows, and the trailer last. An error or a
//! power cut at any point leaves a slot that is empty, never one that is half of something. The other slot, the boot
//! environment and the partition table are not touched: whether a slot may be overwritten is for the caller to say.

use std::io::{self, Read, SeekFrom};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use siris_ibu::digest::Hasher;
use siris_ibu::manifest::{Member, MemberKind, TRAILER};
use siris_ibu::verity::{self, VerityError};
use siris_ibu::{ByteSize, Class, Sha256, SignedManifest};

use crate::device::{Device, Zeros, write_runs};
use crate::layout::{Layout, Part};
use crate::slot::Slot;
use crate::trailer;

/// Bytes of the boot image that are written last: its boot sector, whatever the sector size.
const HEAD: u64 = 4096;
const BUFFER: usize = 1 << 20;

/// Why a slot was not written. It is empty then.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The payload needs a larger slot.
    #[error("{what} of {needed} does not fit {room}")]
    TooSmall {
        /// What does not fit.
        what: &'static str,
        /// Its size.
        needed: ByteSize,
        /// The room for it.
        room: ByteSize,
    },
    /// The source of a member failed.
    #[error("reading member {}", .0.as_str())]
    ReadMember(MemberKind, #[source] io::Error),
    /// A member has more or fewer bytes than signed.
    #[error("member {} is not {} long, as signed", .kind.as_str(), .size)]
    MemberSize {
        /// The member.
        kind: MemberKind,
        /// Its size as signed.
        size: ByteSize,
    },
    /// A member is not what was signed.
    #[error("member {} has digest {}, not as signed {}", .kind.as_str(), .actual, .signed)]
    MemberDigest {
        /// The member.
        kind: MemberKind,
        /// Its digest.
        actual: Sha256,
        /// The digest as signed.
        signed: Sha256,
    },
    /// The device failed.
    #[error("writing slot {0}")]
    Device(Slot, #[source] io::Error),
    /// What was written does not read back.
    #[error("slot {0} does not read back as it was written")]
    ReadBack(Slot, #[source] Box<CheckError>),
    /// A member was not given.
    #[error("member {} is missing", .0.as_str())]
    MissingMember(MemberKind),
}

impl WriteError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooSmall { .. } => "slot-too-small",
            Self::ReadMember(..) => "member-read",
            Self::MemberSize { .. } => "member-size",
            Self::MemberDigest { .. } => "member-digest",
            Self::Device(..) => "slot-write",
            Self::ReadBack(..) => "slot-read-back",
            Self::MissingMember(_) => "member-missing",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::TooSmall { .. } | Self::MemberSize { .. } | Self::MemberDigest { .. } => Class::Input,
            Self::ReadMember(..) => Class::Environment,
            Self::Device(..) | Self::ReadBack(..) => Class::Host,
            Self::MissingMember(_) => Class::Bug,
        }
    }
}

/// What is wrong with a slot.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The device failed.
    #[error("reading it")]
    Device(#[source] io::Error),
    /// Root image or hash tree.
    #[error(transparent)]
    Verity(#[from] VerityError),
    /// The boot image.
    #[error("its boot image has digest {actual}, not as signed {signed}")]
    Boot {
        /// The digest.
        actual: Sha256,
        /// As signed.
        signed: Sha256,
    },
}

/// Where a slot's content is compared with what was signed, before the slot is made bootable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// As it passes: the device is a file, whose maker looks at it again.
    Passing,
    /// As it passes, where a fault of the source shows as one, and on the medium.
    Both,
    /// On the medium: the source was proven already.
    Medium,
}

/// How a slot is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// What to do with long runs of zeros.
    pub zeros: Zeros,
    /// Where it is proven.
    pub proof: Proof,
}

/// How far the writing of a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub kind: MemberKind,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A slot being written, one member at a time in any order.
pub struct SlotWriter<'a> {
    dev: &'a mut dyn Device,
    layout: &'a Layout,
    slot: Slot,
    signed: &'a SignedManifest,
    options: WriteOptions,
    progress: &'a mut dyn FnMut(Progress),
    boot_head: Vec<u8>,
    written: Vec<MemberKind>,
}

impl<'a> SlotWriter<'a> {
    /// Checks that the payload fits, and empties `slot`.
    pub fn begin(
        dev: &'a mut dyn Device,
        layout: &'a Layout,
        slot: Slot,
        signed: &'a SignedManifest,
        options: WriteOptions,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, WriteError> {
        let manifest = signed.manifest();
        let needed = manifest.root.size.bytes() + manifest.tree.size.bytes() + TRAILER.bytes();
        let needed = ByteSize::from_bytes(needed).max(manifest.slot_size_min);
        for (what, needed, part) in
            [("root image", needed, Part::Root(slot)), ("boot image", manifest.boot.size, Part::Boot(slot))]
        {
            let room = ByteSize::from_bytes(layout.len(part));
            if needed > room {
                return Err(WriteError::TooSmall { what, needed, room });
            }
        }
        let (boot_head, written) = (Vec::new(), Vec::new());
        let mut writer = Self { dev, layout, slot, signed, options, progress, boot_head, written };
        if options.zeros == Zeros::Write {
            writer.put(trailer::offset(layout, slot), &vec![0; TRAILER.bytes() as usize])?;
            // Synced in between: a trailer must never vouch for a boot image that has lost its head.
            writer.sync()?;
            writer.put(layout.start(Part::Boot(slot)), &[0; HEAD as usize])?;
            writer.sync()?;
        }
        Ok(writer)
    }

    /// Streams one member to its place. It must be exactly what was signed, and nothing more.
    pub fn member(&mut self, kind: MemberKind, source: &mut dyn Read) -> Result<(), WriteError> {
        let manifest = self.signed.manifest();
        let root = self.layout.start(Part::Root(self.slot));
        let (Member { size, sha256 }, at) = match kind {
            MemberKind::Root => (manifest.root.clone(), root),
            MemberKind::Tree => (manifest.tree.clone(), root + manifest.root.size.bytes()),
            MemberKind::Boot => (manifest.boot.clone(), self.layout.start(Part::Boot(self.slot))),
        };
        let (mut done, total) = (0, size.bytes());
        self.seek(at)?;
        let hashed = self.options.proof != Proof::Medium;
        let settles = self.options.zeros == Zeros::Write;
        // What is written is hashed meanwhile, by a thread of its own.
        let (actual, _) = thread::scope(|scope| {
            let (to, from) = sync_channel::<Arc<Vec<u8>>>(1);
            let hashing = scope.spawn(move || {
                let mut hasher = Hasher::default();
                from.into_iter().for_each(|buffer| hasher.update(&buffer));
                hasher.finish()
            });
            let mut buffers = Buffers::default();
            loop {
                let buffer = buffers.fill(source).map_err(|error| WriteError::ReadMember(kind, error))?;
                let n = buffer.len();
                if n == 0 && done == total {
                    break;
                }
                if n == 0 || n as u64 > total - done {
                    return Err(WriteError::MemberSize { kind, size });
                }
                if hashed {
                    // The thread ends when this does, or panics, which is told below.
                    let _ = to.send(buffer.clone());
                }
                let mut rest = &buffer[..];
                if kind == MemberKind::Boot && done == 0 {
                    let head = n.min(HEAD as usize);
                    self.boot_head = rest[..head].to_vec();
                    rest = &rest[head..];
                    self.dev.write_all(&vec![0; head]).map_err(|e| WriteError::Device(self.slot, e))?;
                }
                let put = write_runs(self.dev, rest, self.options.zeros);
                let begun = |()| if settles { self.dev.settle(at + done, n as u64) } else { Ok(()) };
                put.and_then(begun).map_err(|error| WriteError::Device(self.slot, error))?;
                done += n as u64;
                (self.progress)(Progress { kind, done, total });
            }
            drop(to);
            Ok(hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        if hashed && actual != sha256 {
            return Err(WriteError::MemberDigest { kind, actual, signed: sha256 });
        }
        self.written.push(kind);
        Ok(())
    }

    /// Makes the slot complete: everything is on the medium before the head of the boot image, and that before the
    /// trailer.
    pub fn finish(mut self) -> Result<(), WriteError> {
        if let Some(missing) = MemberKind::ALL.into_iter().find(|kind| !self.written.contains(kind)) {
            return Err(WriteError::MissingMember(missing));
        }
        self.sync()?;
        let head = std::mem::take(&mut self.boot_head);
        if self.options.proof != Proof::Passing {
            check(self.dev, self.layout, self.slot, self.signed, Some(&head))
                .map_err(|error| WriteError::ReadBack(self.slot, Box::new(error)))?;
        }
        self.put(self.layout.start(Part::Boot(self.slot)), &head)?;
        self.sync()?;
        let bytes = trailer::encode(self.signed);
        self.seek(trailer::offset(self.layout, self.slot))?;
        write_runs(self.dev, &bytes, self.options.zeros).map_err(|error| WriteError::Device(self.slot, error))?;
        self.sync()
    }

    fn seek(&mut self, at: u64) -> Result<(), WriteError> {
        self.dev.seek(SeekFrom::Start(at)).map(drop).map_err(|error| WriteError::Device(self.slot, error))
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.seek(at)?;
        self.dev.write_all(bytes).map_err(|error| WriteError::Device(self.slot, error))
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.dev.flush().and_then(|()| self.dev.sync()).map_err(|error| WriteError::Device(self.slot, error))
    }
}

/// Buffers that are written and hashed at once: one of them is always free by the time it is wanted.
#[derive(Default)]
struct Buffers {
    all: [Arc<Vec<u8>>; 3],
    next: usize,
}

impl Buffers {
    /// The next bytes of the source; none at its end.
    fn fill(&mut self, source: &mut dyn Read) -> io::Result<Arc<Vec<u8>>> {
        let slot = &mut self.all[self.next];
        self.next = (self.next + 1) % 3;
        // Whoever else has it gets a copy: it is still being hashed only where the hashing hangs.
        let buffer = Arc::make_mut(slot);
        buffer.resize(BUFFER, 0);
        let n = fill(source, buffer)?;
        buffer.truncate(n);
        Ok(slot.clone())
    }
}

/// Reads until the buffer is full or the source ends.
pub(crate) fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match source.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

/// The sources of a payload's members.
pub struct Payload<'a> {
    /// The hash tree.
    pub tree: &'a mut dyn Read,
    /// The boot partition's image.
    pub boot: &'a mut dyn Read,
    /// The root image.
    pub root: &'a mut dyn Read,
}

/// Writes a whole slot.
pub fn write_slot(
    dev: &mut dyn Device,
    layout: &Layout,
    slot: Slot,
    signed: &SignedManifest,
    payload: Payload<'_>,
    options: WriteOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), WriteError> {
    let mut writer = SlotWriter::begin(dev, layout, slot, signed, options, progress)?;
    writer.member(MemberKind::Tree, payload.tree)?;
    writer.member(MemberKind::Boot, payload.boot)?;
    writer.member(MemberKind::Root, payload.root)?;
    writer.finish()
}

/// Proves that `slot` holds what `signed` says, by reading all of it.
pub fn check_slot(
    dev: &mut dyn Device,
    layout: &Layout,
    slot: Slot,
    signed: &SignedManifest,
) -> Result<(), CheckError> {
    check(dev, layout, slot, signed, None)
}

/// As [`check_slot`], with `head` in the place of the head of the boot image while that is not written yet.
fn check(
    dev: &mut dyn Device,
    layout: &Layout,
    slot: Slot,
    signed: &SignedManifest,
    head: Option<&[u8]>,
) -> Result<(), CheckError> {
    let manifest = signed.manifest();
    let (root, root_len) = (layout.start(Part::Root(slot)), manifest.root.size.bytes());
    let tree = dev.medium(root + root_len, manifest.tree.size.bytes()).map_err(CheckError::Device)?;
    let leaves = verity::check_tree(&manifest.verity, io::BufReader::new(tree))?;
    verity::check_data(&manifest.verity, dev.medium(root, root_len).map_err(CheckError::Device)?, &leaves)?;
    let skip = head.map_or(0, |head| head.len() as u64);
    let (start, len) = (layout.start(Part::Boot(slot)) + skip, manifest.boot.size.bytes().saturating_sub(skip));
    let boot = dev.medium(start, len).map_err(CheckError::Device)?;
    let whole = head.unwrap_or_default().chain(io::BufReader::with_capacity(BUFFER, boot));
    let (actual, signed) = (Sha256::of_reader(whole).map_err(CheckError::Device)?, manifest.boot.sha256);
    match actual == signed {
        true => Ok(()),
        false => Err(CheckError::Boot { actual, signed }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
