//! A device in memory that holds only what was written to it.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::device::{RUN, Zeros, write_runs};

const CHUNK: u64 = RUN as u64;

/// Reads as zeros wherever nothing was written.
pub(super) struct Sparse {
    chunks: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    at: u64,
}

impl Sparse {
    pub(super) fn new(len: u64) -> Self {
        Self { chunks: BTreeMap::new(), len, at: 0 }
    }

    /// Copies all of it to `out`, from where that stands.
    pub(super) fn write_to<W: Write + Seek + ?Sized>(&self, out: &mut W, zeros: Zeros) -> io::Result<()> {
        let blank = vec![0; RUN];
        for n in 0..self.len.div_ceil(CHUNK) {
            let bytes = self.chunks.get(&n).map_or(&blank[..], |chunk| &chunk[..]);
            let len = (self.len - n * CHUNK).min(CHUNK) as usize;
            write_runs(out, &bytes[..len], zeros)?;
        }
        out.flush()
    }

    /// Number of the chunk at the present place, where in it, and how many of `wanted` bytes are in it.
    fn place(&self, wanted: usize) -> (u64, usize, usize) {
        let (chunk, from) = (self.at / CHUNK, (self.at % CHUNK) as usize);
        let left = self.len.saturating_sub(self.at).min(CHUNK - from as u64) as usize;
        (chunk, from, left.min(wanted))
    }
}

impl Read for Sparse {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (chunk, from, n) = self.place(buf.len());
        match self.chunks.get(&chunk) {
            Some(bytes) => buf[..n].copy_from_slice(&bytes[from..from + n]),
            None => buf[..n].fill(0),
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Sparse {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (chunk, from, n) = self.place(buf.len());
        if n > 0 {
            let bytes = self.chunks.entry(chunk).or_insert_with(|| vec![0; RUN].into());
            bytes[from..from + n].copy_from_slice(&buf[..n]);
        }
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.len, by),
            SeekFrom::Current(by) => (self.at, by),
        };
        self.at = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
