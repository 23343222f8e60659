//! Receiving without the tool: one call of libzfs_core for each snapshot in a stream.
//!
//! Owns: what of a stream is taken. `zfs receive` also follows what a package of streams says beside its snapshots: properties,
//! what lies below, what is to be renamed (`zfs send -p`, `-R`). A key that may have streams received has no say in any of
//! that: here a package is its snapshots in a row, and one that brings more is refused before anything of it is kept.
//! In: a stream. Out: what ZFS says, told from its error numbers. Source: `lib/libzfs/libzfs_sendrecv.c`, `sys/zfs_ioctl.h`
//! and `sys/fs/zfs.h` of OpenZFS 2.3.

use std::io::{self, BufReader, PipeReader, Read};
use std::thread;

use nix::errno::Errno;

use super::record::{EMBEDDED, END, FILE_SYSTEM, OF_CLONE, ONE, Order, PACKAGE, RAW, RECORD, Record, VOLUME};
use super::refusal::Refusal;
use super::types::{Label, SnapshotName};
use crate::ZfsError;
use crate::types::DatasetName;

/// Bytes of a stream that are on their way at once.
const BUFFER: usize = 256 << 10;
/// Bytes of a snapshot's name, its dataset's included (zfsconcepts(7): below 256).
const NAME_MAX: usize = 255;

/// The header of a snapshot in a stream.
#[derive(Debug, Clone)]
#[repr(C, align(8))]
pub(crate) struct Header([u8; RECORD]);

impl Header {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut header = Header([0; RECORD]);
        from.read_exact(&mut header.0)?;
        Ok(header)
    }

    /// Its fields, as this machine's own numbers: ZFS itself is given it as it came.
    fn record(&self) -> Record<'_> {
        Record::new(&self.0, Order::OWN)
    }

    /// What it leads in; `None` where it is no header of this machine's byte order.
    fn leads_in(&self) -> Option<u64> {
        Record::header(&self.0).filter(|header| header.order() == Order::OWN).map(|header| header.leads_in())
    }

    fn has(&self, feature: u64) -> bool {
        self.record().features() & feature != 0
    }

    /// The blocks are as they lie on the sender's disks.
    pub(crate) fn is_raw(&self) -> bool {
        self.has(RAW)
    }

    /// Its base is the origin of its dataset.
    fn is_of_clone(&self) -> bool {
        self.record().flags() & OF_CLONE != 0
    }

    fn is_full(&self) -> bool {
        self.record().from() == 0
    }

    /// What the snapshot is called, behind the sender's dataset.
    fn label(&self) -> Option<Label> {
        std::str::from_utf8(self.record().name()).ok()?.split_once('@')?.1.parse().ok()
    }

    /// As it came: in the form of `dmu_replay_record_t`.
    #[cfg(feature = "libzetta")]
    pub(crate) fn as_bytes(&self) -> &[u8; RECORD] {
        &self.0
    }
}

/// Receives one snapshot, whose header was read, from the pipe; an error is a number of the system's or of ZFS's.
pub(crate) type Take<'a> = dyn Fn(&SnapshotName, &Header, &PipeReader) -> Result<(), i32> + Sync + 'a;

/// Receives each snapshot of a stream into the dataset.
pub(crate) fn receive(dataset: &DatasetName, stream: &mut dyn Read, take: &Take<'_>) -> Result<(), ZfsError> {
    let (pipe, mut mouth) = io::pipe().map_err(ZfsError::Stream)?;
    let (received, copied) = thread::scope(|scope| {
        // The pipe is closed when it ends: who goes on feeding it is told.
        let receiving = scope.spawn(move || each(dataset, pipe, take));
        let copied = io::copy(&mut BufReader::with_capacity(BUFFER, stream), &mut mouth);
        drop(mouth);
        let received = receiving.join();
        (received.unwrap_or_else(|_| Err(ZfsError::Stream(io::Error::other("panicked")))), copied)
    });
    // What ZFS says goes before the pipe that was closed; a source that broke off leaves it content, at times.
    received?;
    copied.map(drop).map_err(ZfsError::Stream)
}

fn each(dataset: &DatasetName, mut pipe: PipeReader, take: &Take<'_>) -> Result<(), ZfsError> {
    let not = |why: Refusal, what: &str| ZfsError::NotReceived { dataset: dataset.clone(), why, what: what.to_owned() };
    let broke_off = |_| not(Refusal::Incomplete, "the stream broke off");
    let one = |header: &Header, pipe: &PipeReader| {
        let known = header.leads_in() == Some(ONE) && [FILE_SYSTEM, VOLUME].contains(&header.record().of());
        let Some(label) = header.label().filter(|_| known) else { return Err(not(Refusal::Corrupt, NO_STREAM)) };
        let snapshot = SnapshotName::new(dataset.clone(), label);
        if snapshot.to_string().len() > NAME_MAX {
            return Err(not(Refusal::NameTooLong, "the name of a snapshot in it is too long"));
        }
        take(&snapshot, header, pipe).map_err(|number| {
            let (why, what) = means(number, header);
            not(why, &what)
        })
    };
    let first = Header::read(&mut pipe).map_err(broke_off)?;
    match first.leads_in() {
        Some(ONE) => one(&first, &pipe),
        Some(PACKAGE) if first.record().payload() > 0 => {
            Err(not(Refusal::Other, "the stream brings properties or more than one dataset (zfs send -p, -R)"))
        }
        Some(PACKAGE) if Header::read(&mut pipe).map_err(broke_off)?.record().kind() == END => loop {
            let next = Header::read(&mut pipe).map_err(broke_off)?;
            if next.record().kind() == END {
                return Ok(());
            }
            one(&next, &pipe)?;
        },
        _ => Err(not(Refusal::Corrupt, NO_STREAM)),
    }
}

const NO_STREAM: &str = "this is no stream of ZFS, or it is damaged";

/// Numbers that ZFS adds to the system's (`zfs_errno_t`).
const FROM_IVSET_MISSING: i32 = 1034;
const FROM_IVSET_MISMATCH: i32 = 1035;
const UNKNOWN_FEATURE: i32 = 1037;
const TRUNCATED: i32 = 1040;
const LARGE_BLOCKS: i32 = 1041;

/// Why a snapshot is not received, and in words.
fn means(number: i32, header: &Header) -> (Refusal, String) {
    let (why, what) = match (Errno::from_raw(number), number) {
        (Errno::ENODEV, _) => (Refusal::NotTheBase, "its newest snapshot is not the one that the stream begins from"),
        (Errno::ETXTBSY, _) => (Refusal::Modified, "it has been modified since its newest snapshot"),
        (Errno::EEXIST, _) if header.is_full() => {
            (Refusal::NotTheBase, "it is there, and the stream is that of a new one")
        }
        (Errno::EEXIST, _) => (Refusal::Exists, "it has a snapshot of that name"),
        (Errno::ENOENT, _) => (Refusal::Missing, "it, or what it is to lie in, does not exist"),
        (Errno::EBUSY, _) => (Refusal::Busy, "it is busy, or another stream has not been received to its end"),
        (Errno::ENOSPC, _) => (Refusal::NoSpace, "out of space"),
        (Errno::EDQUOT, _) => (Refusal::NoSpace, "its quota is exceeded"),
        (Errno::ENAMETOOLONG, _) => (Refusal::NameTooLong, "the name is too long"),
        (_, TRUNCATED) => (Refusal::Incomplete, "the stream broke off"),
        // What ZFS calls ECKSUM.
        (Errno::EBADE, _) => (Refusal::Corrupt, "the stream is damaged: its checksum does not match"),
        (Errno::EINVAL, _) if header.is_of_clone() => {
            (Refusal::NotTheBase, "the stream is that of a clone, which goes into nothing that is there")
        }
        (Errno::EINVAL, _) if header.is_raw() => (Refusal::Other, "it is not encrypted as the stream's dataset is"),
        (Errno::EINVAL, _) if header.has(EMBEDDED) => (
            Refusal::Other,
            "the stream has embedded blocks (zfs send -e), which no encrypted dataset takes, or is damaged",
        ),
        (Errno::EINVAL | Errno::ERANGE, _) => (Refusal::Corrupt, NO_STREAM),
        (Errno::EACCES, _) => (Refusal::Other, "the key of what it lies in is not loaded, or is another one"),
        (Errno::ENOTSUP, _) | (_, UNKNOWN_FEATURE) => {
            (Refusal::Other, "the stream has a feature that its pool, or this version of ZFS, does not have")
        }
        (_, LARGE_BLOCKS) => {
            (Refusal::Other, "it was received with large blocks, and the stream has none (zfs send -L)")
        }
        (_, FROM_IVSET_MISSING | FROM_IVSET_MISMATCH) => {
            (Refusal::Other, "it was not received raw (zfs send -w), and the stream is: their keys do not fit")
        }
        _ => return (Refusal::Other, format!("{} (number {number})", io::Error::from_raw_os_error(number))),
    };
    (why, what.to_owned())
}

#[cfg(test)]
mod tests;
