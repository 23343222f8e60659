//! Reading past the page cache: what comes is what is on the medium.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::OFlags;

/// What offsets, lengths and memory are multiples of: the largest sector there is.
const ALIGN: usize = 4096;
/// What says that a file is not read like that (errno(3)).
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// A part of a device, read with `O_DIRECT` (open(2)).
pub(super) struct Direct {
    file: File,
    /// One aligned buffer lies somewhere in it.
    memory: Vec<u8>,
    /// Where what is next lies in the device, and where the part ends.
    at: u64,
    end: u64,
    /// Where the buffer's content begins in the device, and how much there is.
    held: u64,
    len: usize,
}

impl Direct {
    /// Opens `file` once more, to read `len` bytes at `at`; nothing where the system does not read it like that.
    ///
    /// # Errors
    /// When it can be read like that, and reading fails.
    pub(super) fn open(file: &File, at: u64, len: u64) -> io::Result<Option<Self>> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // The flag is one bit of an int in the kernel's interface too.
        let flags = OFlags::DIRECT.bits().cast_signed();
        let cannot = |error: &io::Error| matches!(error.raw_os_error(), Some(EINVAL | EOPNOTSUPP));
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Err(error) if cannot(&error) => return Ok(None),
            file => file?,
        };
        let mut direct = Self { file, memory: vec![0; BUFFER + ALIGN], at, end: at + len, held: at, len: 0 };
        // Some file systems open such a file and then do not read it.
        match direct.fill() {
            Err(error) if cannot(&error) => Ok(None),
            filled => filled.map(|()| Some(direct)),
        }
    }

    fn aligned(&mut self) -> &mut [u8] {
        let skip = self.memory.as_ptr().align_offset(ALIGN);
        &mut self.memory[skip..skip + BUFFER]
    }

    /// Reads what lies at `at`, and what is behind it.
    fn fill(&mut self) -> io::Result<()> {
        let align = ALIGN as u64;
        self.held = self.at / align * align;
        let wanted = (self.end - self.held).next_multiple_of(align).min(BUFFER as u64) as usize;
        self.len = 0;
        let (file, held) = (self.file.try_clone()?, self.held);
        self.len = file.read_at(&mut self.aligned()[..wanted], held)?;
        Ok(())
    }
}

impl Read for Direct {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end || buffer.is_empty() {
            return Ok(0);
        }
        if self.at >= self.held + self.len as u64 {
            self.fill()?;
        }
        let skip = (self.at - self.held) as usize;
        let there = self.len.saturating_sub(skip).min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let n = there.min(buffer.len());
        buffer[..n].copy_from_slice(&self.aligned()[skip..skip + n]);
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn every_part_of_a_file_is_read_as_it_is() {
        // On a disk: memory's file systems do not read like that.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes: Vec<u8> = (0..3 * BUFFER as u32 + 5000).map(|n| (n % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        for (at, len) in [(0, bytes.len()), (1, 1), (4095, 2), (4096, BUFFER), (5000, 2 * BUFFER + 1), (bytes.len(), 0)]
        {
            let Some(mut direct) = Direct::open(&file, at as u64, len as u64).unwrap() else {
                eprintln!("SKIPPED: the file system of the checkout does not read past the page cache");
                return;
            };
            let mut found = Vec::new();
            direct.read_to_end(&mut found).unwrap();
            assert!(found == bytes[at..at + len], "{len} bytes at {at}");
        }
        let mut short = Direct::open(&file, bytes.len() as u64 - 10, 20).unwrap().unwrap();
        let mut found = Vec::new();
        short.read_to_end(&mut found).unwrap();
        assert_eq!(found, bytes[bytes.len() - 10..], "a file that ends early");
    }
}
