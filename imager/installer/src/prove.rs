//! Proof that no other disk was written: taken from the disks themselves and from the kernel's counters.
//!
//! For each fenced disk, before the first write and after the last: the digests of the first and the last MiB of the
//! disk and of each of its partitions (partition tables, and all four ZFS labels with their uberblocks, lie in there),
//! and the kernel's counts of sectors written and discarded since boot, which have to be 0. A disk that vanished, came
//! back or is another one fails the proof.

use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use siris_ibu::{ByteSize, Sha256};
use siris_slots::device::Device;

use crate::facts::{Disk, DiskName, Facts};
use crate::host::{Host, HostError};
use crate::observe::{self, partition_name};

mod kept;

pub use kept::{KeptDigest, kept};

const EDGE: u64 = 1 << 20;

/// What is known of one disk at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Evidence {
    /// The disk.
    pub disk: DiskName,
    /// Its serial number, or what else it is known by.
    pub identity: String,
    /// Size.
    pub size: ByteSize,
    /// Its number among all that the kernel has seen.
    pub diskseq: Option<u64>,
    /// Sectors of 512 bytes written since boot.
    pub written: u64,
    /// Sectors of 512 bytes discarded since boot.
    pub discarded: u64,
    /// The kernel refuses writes from programs.
    pub read_only: bool,
    /// Digests of its edges and of those of its partitions.
    pub edges: Vec<Edges>,
}

/// Digests of the first and the last MiB of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Edges {
    /// The device.
    pub device: String,
    /// First byte on the disk.
    pub start: u64,
    /// Its length.
    pub size: ByteSize,
    /// Digest of the first MiB, or why it cannot be read.
    pub first: String,
    /// Digest of the last MiB, or why it cannot be read.
    pub last: String,
}

/// Takes the evidence of one disk.
///
/// # Errors
/// When the disk is gone, or the kernel's counters cannot be read. What cannot be read of it is evidence too.
pub fn evidence(host: &Host, disk: &Disk) -> Result<Evidence, HostError> {
    let (written, discarded) = observe::counters(host, &disk.name)?;
    let mut dev = host.open(disk.name.as_str())?;
    // Only a hint, and only of use where it is heeded: what was read before is then read again from the disk.
    let _ = dev.forget();
    let whole = [(disk.name.to_string(), 0, disk.size)];
    let parts = disk.partitions.iter().map(|part| (partition_name(&disk.name, part.number), part.start, part.size));
    let mut edges = Vec::new();
    for (device, start, size) in whole.into_iter().chain(parts) {
        let len = size.bytes().min(EDGE);
        let mut digest = |at: u64| match read(&mut dev, at, len) {
            Ok(bytes) => Sha256::of(&bytes).to_string(),
            Err(error) => format!("unreadable: {error}"),
        };
        let (first, last) = (digest(start), digest(start + size.bytes() - len));
        edges.push(Edges { device, start, size, first, last });
    }
    Ok(Evidence {
        disk: disk.name.clone(),
        identity: disk.identity().to_owned(),
        size: disk.size,
        diskseq: disk.diskseq,
        written,
        discarded,
        read_only: disk.read_only,
        edges,
    })
}

fn read(dev: &mut (impl Read + Seek), at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    dev.seek(SeekFrom::Start(at))?;
    dev.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Takes the evidence of every disk that `is_fenced` says is one.
///
/// # Errors
/// When one of them cannot be got at.
pub fn all(host: &Host, facts: &Facts, is_fenced: &dyn Fn(&Disk) -> bool) -> Result<Vec<Evidence>, HostError> {
    facts.disks.iter().filter(|disk| is_fenced(disk)).map(|disk| evidence(host, disk)).collect()
}

/// What the evidence says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proof {
    /// Nothing speaks against it.
    pub holds: bool,
    /// What speaks against it, a line each.
    pub failures: Vec<String>,
    /// Disks that were there before and are the same after.
    pub disks: Vec<Evidence>,
    /// Disks that came meanwhile: nothing is known of them before.
    pub appeared: Vec<Evidence>,
    /// Partitions of written disks that stayed.
    pub kept: Vec<KeptDigest>,
}

impl Proof {
    /// Adds what is known of partitions that stayed.
    pub fn with_kept(mut self, before: &[KeptDigest], after: Vec<KeptDigest>) -> Self {
        if before.len() != after.len() {
            self.failures.push("partitions that were to stay are gone".to_owned());
        }
        for (old, new) in before.iter().zip(&after).filter(|(old, new)| old != new) {
            let (disk, start) = (&new.disk, old.start);
            self.failures.push(format!("/dev/{disk}: what was to stay at byte {start} changed"));
        }
        (self.holds, self.kept) = (self.failures.is_empty(), after);
        self
    }
}

/// Compares what was before with what is after.
pub fn compare(before: &[Evidence], after: &[Evidence], live: bool) -> Proof {
    let mut failures = Vec::new();
    for old in before {
        let Some(new) = after.iter().find(|new| new.disk == old.disk) else {
            failures.push(format!("/dev/{} ({}) is gone", old.disk, old.identity));
            continue;
        };
        let name = format!("/dev/{} ({})", new.disk, new.identity);
        if (new.diskseq, &new.identity, new.size) != (old.diskseq, &old.identity, old.size) {
            failures.push(format!("{name} came back, or is another disk"));
        }
        for edges in &old.edges {
            match new.edges.iter().find(|other| other.device == edges.device) {
                Some(other) if other == edges => {}
                _ => failures.push(format!("{name}: the first or last MiB of {} changed", edges.device)),
            }
        }
        if new.edges.len() != old.edges.len() {
            failures.push(format!("{name}: its partitions changed"));
        }
        if (new.written, new.discarded) != (old.written, old.discarded) {
            failures.push(format!("{name} was written to"));
        }
    }
    for new in after.iter().filter(|_| live) {
        if (new.written, new.discarded) != (0, 0) {
            let (written, discarded) = (new.written, new.discarded);
            failures.push(format!("/dev/{}: {written} sectors written, {discarded} discarded since boot", new.disk));
        }
        if !new.read_only {
            failures.push(format!("/dev/{} is not read-only", new.disk));
        }
    }
    let (disks, appeared) = after.iter().cloned().partition(|new| before.iter().any(|old| old.disk == new.disk));
    Proof { holds: failures.is_empty(), failures, disks, appeared, kept: Vec::new() }
}

#[cfg(test)]
mod tests;
