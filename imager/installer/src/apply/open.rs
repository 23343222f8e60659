//! A disk whose fence is open, and the ranges of it that are closed all the same.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use siris_slots::device::Device;

use crate::facts::DiskName;
use crate::host::{Host, HostError};

/// A disk of which some ranges cannot be written.
pub(super) struct Guarded {
    file: File,
    kept: Vec<Range<u64>>,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for Guarded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = self.file.stream_position()?;
        let end = at.saturating_add(bytes.len() as u64);
        if self.kept.iter().any(|kept| at < kept.end && kept.start < end) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a partition that stays lies there"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Guarded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Device for Guarded {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn forget(&mut self) -> io::Result<()> {
        self.file.forget()
    }

    fn settle(&mut self, at: u64, len: u64) -> io::Result<()> {
        self.file.settle(at, len)
    }

    fn medium(&mut self, at: u64, len: u64) -> io::Result<Box<dyn Read + '_>> {
        self.file.medium(at, len)
    }
}

/// A disk whose fence is open; closed again when dropped.
pub(super) struct Open<'a> {
    host: &'a Host,
    disk: DiskName,
    dev: Option<Guarded>,
    released: bool,
}

impl<'a> Open<'a> {
    /// Opens the fence around one disk, and the disk, of which `kept` cannot be written.
    pub(super) fn new(
        host: &'a Host,
        disk: &DiskName,
        diskseq: Option<u64>,
        kept: Vec<Range<u64>>,
    ) -> Result<Self, HostError> {
        // By its number first: not even the fence of another disk is opened.
        let seq = host.text(format!("/sys/block/{disk}/diskseq")).and_then(|seq| seq.parse().ok());
        if seq != diskseq {
            return Err(HostError::OtherDisk { disk: disk.clone() });
        }
        let mut open = Self { host, disk: disk.clone(), dev: None, released: true };
        host.set_writable(disk, true)?;
        open.dev = Some(Guarded { file: host.open_target(disk, diskseq)?, kept });
        Ok(open)
    }

    pub(super) fn dev(&mut self) -> &mut Guarded {
        // Given in `new`, and taken by `close` and `drop` only, which nothing comes after.
        self.dev.as_mut().expect("an open disk has a device")
    }

    pub(super) fn close(mut self) -> Result<(), HostError> {
        drop(self.dev.take());
        self.released = false;
        self.host.set_writable(&self.disk, false)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        drop(self.dev.take());
        if self.released {
            // On the way of another error, which is the one to tell.
            let _ = self.host.set_writable(&self.disk, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_cannot_be_written_whatever_the_plan() {
        let mut dev = Guarded { file: tempfile::tempfile().unwrap(), kept: vec![100..200, 300..400] };
        dev.write_all(&[1; 100]).unwrap();
        for (at, len, fits) in [(99, 2, false), (199, 1, false), (200, 100, true), (299, 2, false), (400, 9, true)] {
            dev.seek(SeekFrom::Start(at)).unwrap();
            assert_eq!(dev.write_all(&vec![2; len]).is_ok(), fits, "{len} bytes at {at}");
        }
        dev.seek(SeekFrom::Start(100)).unwrap();
        let mut kept = [9; 100];
        dev.read_exact(&mut kept).unwrap();
        assert_eq!(kept, [0; 100]);
    }
}
