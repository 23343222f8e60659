//! What is written to: a disk, a disk image, a part of either.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;

use direct::Direct;

mod direct;

/// A disk or something like it. Its length is fixed.
pub trait Device: Read + Write + Seek {
    /// Puts everything written so far on stable storage.
    fn sync(&mut self) -> io::Result<()>;

    /// Forgets what is cached, so that what is read next comes from the medium. Only a hint.
    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Lets the medium begin to take the `len` bytes at `at`, and does not wait for it: what [`Device::sync`] waits for
    /// later is less then. Only a hint.
    fn settle(&mut self, at: u64, len: u64) -> io::Result<()> {
        let _ = (at, len);
        Ok(())
    }

    /// The `len` bytes at `at`, as they are on the medium: past what the kernel remembers of it, where the device can do
    /// that, and otherwise after [`Device::forget`].
    fn medium(&mut self, at: u64, len: u64) -> io::Result<Box<dyn Read + '_>> {
        self.forget()?;
        Ok(Box::new(Window::new(self, at, len)))
    }
}

impl Device for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn forget(&mut self) -> io::Result<()> {
        rustix::fs::fadvise(&*self, 0, None, rustix::fs::Advice::DontNeed).map_err(io::Error::from)
    }

    fn settle(&mut self, at: u64, len: u64) -> io::Result<()> {
        // Pages that are not written yet are not forgotten: they are sent on their way.
        let Some(len) = NonZeroU64::new(len) else { return Ok(()) };
        rustix::fs::fadvise(&*self, at, Some(len), rustix::fs::Advice::DontNeed).map_err(io::Error::from)
    }

    fn medium(&mut self, at: u64, len: u64) -> io::Result<Box<dyn Read + '_>> {
        match Direct::open(self, at, len)? {
            Some(direct) => Ok(Box::new(direct)),
            None => {
                self.forget()?;
                Ok(Box::new(Window::new(self, at, len)))
            }
        }
    }
}

impl Device for Cursor<Vec<u8>> {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What to do with long runs of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeros {
    /// Write them: the device holds something else.
    Write,
    /// Leave them out: the device is a new file that reads as zeros.
    Skip,
}

/// Runs shorter than this are always written.
pub const RUN: usize = 64 * 1024;

/// Writes `bytes` where the device stands and moves on, leaving whole runs of zeros out where that is allowed.
pub(crate) fn write_runs<W: Write + Seek + ?Sized>(dev: &mut W, bytes: &[u8], zeros: Zeros) -> io::Result<()> {
    if zeros == Zeros::Write {
        return dev.write_all(bytes);
    }
    for run in bytes.chunks(RUN) {
        if run.len() == RUN && is_zero(run) {
            dev.seek(SeekFrom::Current(RUN as i64))?;
        } else {
            dev.write_all(run)?;
        }
    }
    Ok(())
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Eight bytes at a time: this looks at every byte of every image.
    let (words, tail) = bytes.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && tail.iter().all(|byte| *byte == 0)
}

/// A part of a device, as a device of its own. Nothing outside of it can be read or written through it.
pub struct Window<'a, D: ?Sized> {
    inner: &'a mut D,
    start: u64,
    len: u64,
    at: u64,
}

impl<'a, D: Seek + ?Sized> Window<'a, D> {
    /// The `len` bytes of `inner` from `start` on.
    pub fn new(inner: &'a mut D, start: u64, len: u64) -> Self {
        Self { inner, start, len, at: 0 }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of `wanted` bytes are left, with the device put where they are.
    fn place(&mut self, wanted: usize) -> io::Result<usize> {
        self.inner.seek(SeekFrom::Start(self.start + self.at))?;
        Ok(usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX).min(wanted))
    }
}

impl<D: Read + Seek + ?Sized> Read for Window<'_, D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.place(buf.len())?;
        let n = self.inner.read(&mut buf[..n])?;
        self.at += n as u64;
        Ok(n)
    }
}

impl<D: Write + Seek + ?Sized> Write for Window<'_, D> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.place(buf.len())?;
        let n = self.inner.write(&buf[..n])?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<D: Seek + ?Sized> Seek for Window<'_, D> {
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

impl<D: Device + ?Sized> Device for Window<'_, D> {
    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()
    }

    fn forget(&mut self) -> io::Result<()> {
        self.inner.forget()
    }

    fn settle(&mut self, at: u64, len: u64) -> io::Result<()> {
        self.inner.settle(self.start + at, len)
    }

    fn medium(&mut self, at: u64, len: u64) -> io::Result<Box<dyn Read + '_>> {
        self.inner.medium(self.start + at, len.min(self.len.saturating_sub(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_a_window_is_touched() {
        let mut disk = Cursor::new(vec![7; 10]);
        let mut window = Window::new(&mut disk, 3, 4);
        window.seek(SeekFrom::End(-1)).unwrap();
        assert_eq!(window.write_all(&[1, 2]).unwrap_err().kind(), io::ErrorKind::WriteZero);
        window.seek(SeekFrom::Start(0)).unwrap();
        let mut all = Vec::new();
        window.read_to_end(&mut all).unwrap();
        assert_eq!(all, [7, 7, 7, 1]);
        assert_eq!(disk.into_inner(), [7, 7, 7, 7, 7, 7, 1, 7, 7, 7]);
    }

    #[test]
    fn zeros_are_left_out_only_where_allowed() {
        let bytes = [vec![0; RUN], vec![1; 10], vec![0; RUN]].concat();
        for (zeros, first) in [(Zeros::Write, 0), (Zeros::Skip, 9)] {
            let mut disk = Cursor::new(vec![9; 3 * RUN]);
            write_runs(&mut disk, &bytes, zeros).unwrap();
            assert_eq!(disk.position(), bytes.len() as u64);
            assert_eq!((disk.get_ref()[0], disk.get_ref()[RUN]), (first, 1));
        }
        assert!(is_zero(&[]) && is_zero(&[0; 9]) && !is_zero(&[0, 0, 0, 0, 0, 0, 0, 0, 1]));
    }
}
