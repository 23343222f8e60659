//! Digests of partitions that stay on a disk that is written.

use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use siris_ibu::digest::Hasher;
use siris_ibu::{ByteSize, Sha256};
use siris_slots::device::Device;

use crate::facts::DiskName;
use crate::host::Host;
use crate::plan::Plan;
use crate::run::{Progress, Stop};

/// Up to this size the whole partition is read, twice. Beyond, hours would go by: its edges are read.
const WHOLE: u64 = 64 << 30;
const EDGE: u64 = 256 << 20;
const BUFFER: u64 = 1 << 20;

/// What is known of one such partition at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeptDigest {
    /// The disk.
    pub disk: DiskName,
    /// First byte on it.
    pub start: u64,
    /// Length.
    pub size: ByteSize,
    /// What of it was read.
    pub covers: Covers,
    /// Digest of what was read.
    pub sha256: Sha256,
}

/// What of a partition was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Covers {
    /// Every byte.
    All,
    /// The first and the last 256 MiB.
    Edges,
}

/// Reads every partition that the plan keeps.
///
/// # Errors
/// When a disk cannot be read, or a person stops it.
pub fn kept(host: &Host, plan: &Plan, progress: &mut dyn Progress, stop: &Stop) -> io::Result<Vec<KeptDigest>> {
    let mut digests = Vec::new();
    for target in &plan.targets {
        for kept in &target.kept {
            let size = kept.size.bytes();
            let (covers, ranges) = match size <= WHOLE {
                true => (Covers::All, vec![(kept.start, size)]),
                false => (Covers::Edges, vec![(kept.start, EDGE), (kept.start + size - EDGE, EDGE)]),
            };
            let mut dev = host.open(target.disk.as_str()).map_err(io::Error::other)?;
            // Only a hint; where it is heeded, what was read before comes from the disk again.
            let _ = dev.forget();
            let what = format!("reading what stays, partition {} of /dev/{}", kept.was, target.disk);
            progress.step(&what, ranges.iter().map(|(_, len)| len).sum());
            let sha256 = digest(&mut dev, &ranges, progress, stop)?;
            progress.done();
            digests.push(KeptDigest { disk: target.disk.clone(), start: kept.start, size: kept.size, covers, sha256 });
        }
    }
    Ok(digests)
}

fn digest(
    dev: &mut (impl Read + Seek),
    ranges: &[(u64, u64)],
    progress: &mut dyn Progress,
    stop: &Stop,
) -> io::Result<Sha256> {
    let (mut hasher, mut buffer, mut done) = (Hasher::default(), vec![0; BUFFER as usize], 0);
    for (start, len) in ranges {
        dev.seek(SeekFrom::Start(*start))?;
        let mut left = *len;
        while left > 0 {
            if stop.wanted() {
                return Err(io::Error::other("stopped"));
            }
            let now = &mut buffer[..left.min(BUFFER) as usize];
            dev.read_exact(now)?;
            hasher.update(now);
            left -= now.len() as u64;
            done += now.len() as u64;
            progress.at(done);
        }
    }
    Ok(hasher.finish().0)
}
