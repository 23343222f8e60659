//! The four label copies of a device.
//!
//! A copy is 256 KiB: 16 KiB that say nothing of the pool, 112 KiB of configuration, 128 KiB of uberblocks. Two are at
//! the start of the device and two at its end, after its size was rounded down to a multiple of 256 KiB. Source:
//! OpenZFS `vdev_impl.h` (`vdev_label_t`), `vdev_label_offset`.

use std::cmp::Ordering;
use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use siris_ibu::Sha256;
use siris_ibu::digest::Hasher;

use crate::checksum;
use crate::damage::Damage;
use crate::label::Label;
use crate::nvlist::List;
use crate::uberblock::{self, Uberblock};

/// Bytes of one label copy.
pub const LABEL_BYTES: u64 = 256 * 1024;
const REGION: usize = LABEL_BYTES as usize;
/// Where the configuration begins and ends in a copy; uberblocks follow.
const CONFIG: usize = 16 * 1024;
const CONFIG_END: usize = REGION - uberblock::RING;

/// What there is in the place of one label copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Copy {
    /// Nothing that ZFS wrote.
    Absent,
    /// Something that ZFS wrote, which cannot be trusted.
    Damaged(Damage),
    /// A label.
    Found(Box<Label>),
}

/// An uberblock in the history of a device, by its transaction group and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment(pub(crate) u64, pub(crate) u64);

/// What the four copies of a device's label say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Labels {
    /// Two at the start of the device, two at its end.
    pub copies: [Copy; 4],
    /// Of each copy: all valid uberblocks in its ring, oldest first.
    history: [Vec<Moment>; 4],
    fingerprint: Sha256,
}

/// Reads the labels of a device of `bytes` bytes. Disks and partitions each have their own: a pool on a partition is
/// not seen on its disk.
///
/// Whoever reads a block device of a running system makes sure that the kernel holds no older pages of it (`blockdev
/// --flushbufs`): ZFS writes past them.
///
/// # Errors
/// When none of the four places can be read. A place that cannot be read while another can is [`Damage::Unreadable`].
pub fn read(dev: &mut (impl Read + Seek + ?Sized), bytes: u64) -> io::Result<Labels> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; REGION];
    let mut failure = None;
    let mut readable = false;
    let mut one = |at: Option<u64>| {
        let Some(at) = at else { return (Copy::Absent, Vec::new()) };
        match dev.seek(SeekFrom::Start(at)).and_then(|_| dev.read_exact(&mut buffer)) {
            Ok(()) => {
                readable = true;
                hasher.update(&buffer);
                copy(&buffer, at)
            }
            Err(error) => {
                // Not the digest of any 256 KiB: a place that becomes readable is a change.
                hasher.update(b"unreadable");
                let reason = error.to_string();
                failure.get_or_insert(error);
                (Copy::Damaged(Damage::Unreadable { reason }), Vec::new())
            }
        }
    };
    let read = places(bytes).map(&mut one);
    match failure {
        Some(error) if !readable => Err(error),
        _ => {
            let [a, b, c, d] = read;
            let copies = [a.0, b.0, c.0, d.0];
            Ok(Labels { copies, history: [a.1, b.1, c.1, d.1], fingerprint: hasher.finish().0 })
        }
    }
}

/// Where the copies begin. A device that has no room for four is too small for ZFS by far.
fn places(bytes: u64) -> [Option<u64>; 4] {
    let end = bytes - bytes % LABEL_BYTES;
    if end < 4 * LABEL_BYTES {
        return [None; 4];
    }
    [Some(0), Some(LABEL_BYTES), Some(end - 2 * LABEL_BYTES), Some(end - LABEL_BYTES)]
}

/// Reads the copy that lies at `at` of its device.
fn copy(region: &[u8], at: u64) -> (Copy, Vec<Moment>) {
    let config = &region[CONFIG..CONFIG_END];
    let ring = &region[CONFIG_END..];
    let mut uberblocks = uberblock::ring(ring, at + CONFIG_END as u64);
    uberblocks.sort_by(Uberblock::by_age);
    let mut history: Vec<_> = uberblocks.iter().map(|u| Moment(u.txg, u.timestamp)).collect();
    history.dedup();
    let copy = match label(config, at + CONFIG as u64) {
        Ok(label) => Copy::Found(Box::new(Label { uberblock: uberblocks.pop(), ..label })),
        Err(Damage::NoChecksum) if !uberblock::traces(ring) && !traces(config) => Copy::Absent,
        Err(damage) => Copy::Damaged(damage),
    };
    (copy, history)
}

fn label(config: &[u8], offset: u64) -> Result<Label, Damage> {
    checksum::verify(config, offset).map_err(|fault| match fault {
        checksum::Fault::NoMagic => Damage::NoChecksum,
        checksum::Fault::Digest => Damage::Checksum,
    })?;
    let list = &config[..config.len() - checksum::TRAILER];
    Label::from_list(&List::unpack(list).map_err(|source| Damage::Nvlist { source })?)
}

/// Does it begin like a configuration: encoding, byte order, two zeros, version 0, flags that are not 0?
fn traces(config: &[u8]) -> bool {
    matches!(config, [0 | 1, 0 | 1, 0, 0, 0, 0, 0, 0, flags @ ..] if flags[..4] != [0; 4])
}

impl Labels {
    /// Did ZFS leave nothing here at all? Damaged copies count as something.
    pub fn is_empty(&self) -> bool {
        self.copies.iter().all(|copy| matches!(copy, Copy::Absent))
    }

    /// The copies that are labels, with their numbers.
    pub fn found(&self) -> impl Iterator<Item = (usize, &Label)> {
        self.copies.iter().enumerate().filter_map(|(n, copy)| match copy {
            Copy::Found(label) => Some((n, &**label)),
            Copy::Absent | Copy::Damaged(_) => None,
        })
    }

    /// The copy of the highest transaction group; of several, the first.
    pub fn best(&self) -> Option<&Label> {
        self.found().map(|(_, label)| label).reduce(|best, label| match label.txg.cmp(&best.txg) {
            Ordering::Greater => label,
            Ordering::Less | Ordering::Equal => best,
        })
    }

    /// SHA-256 of the four regions, one after another, as they lie on the device. Equal as long as no label changes.
    /// Of a device without room for four: of nothing.
    pub fn fingerprint(&self) -> Sha256 {
        self.fingerprint
    }

    /// All valid uberblocks in the ring of that copy, oldest first.
    pub(crate) fn history(&self, copy: usize) -> &[Moment] {
        &self.history[copy]
    }
}

#[cfg(test)]
pub(crate) mod tests;
