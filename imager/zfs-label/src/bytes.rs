//! Numbers out of bytes that may end at any point.

use crate::damage::NvlistError;

/// Byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endian {
    Little,
    Big,
}

impl Endian {
    /// The number in these eight bytes.
    pub(crate) fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }

    /// The eight bytes of a number.
    pub(crate) fn bytes(self, number: u64) -> [u8; 8] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }
}

/// The eight bytes at `at`, if there are as many.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<[u8; 8]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Reads from front to back, and fails where the bytes end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    endian: Endian,
}

impl<'a> Cursor<'a> {
    /// Over all of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, endian: Endian::Big }
    }

    /// The same, in that byte order.
    pub(crate) fn with(self, endian: Endian) -> Self {
        Self { endian, ..self }
    }

    /// How many bytes are left.
    pub(crate) fn rest(&self) -> usize {
        self.rest.len()
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], NvlistError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(NvlistError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// A cursor over the next `n` bytes.
    pub(crate) fn part(&mut self, n: usize) -> Result<Self, NvlistError> {
        Ok(Self { rest: self.take(n)?, endian: self.endian })
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], NvlistError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(NvlistError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next number of 16 bits.
    pub(crate) fn u16(&mut self) -> Result<u16, NvlistError> {
        let bytes = self.array()?;
        Ok(match self.endian {
            Endian::Little => u16::from_le_bytes(bytes),
            Endian::Big => u16::from_be_bytes(bytes),
        })
    }

    /// The next number of 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32, NvlistError> {
        let bytes = self.array()?;
        Ok(match self.endian {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        })
    }

    /// The next number of 64 bits.
    pub(crate) fn u64(&mut self) -> Result<u64, NvlistError> {
        Ok(self.endian.u64(self.array()?))
    }

    /// The next `count` numbers of 64 bits. Allocates no more than there are bytes left.
    pub(crate) fn numbers(&mut self, count: usize) -> Result<Vec<u64>, NvlistError> {
        let bytes = self.take(count.checked_mul(8).ok_or(NvlistError::Length)?)?;
        let (words, _) = bytes.as_chunks();
        Ok(words.iter().map(|word| self.endian.u64(*word)).collect())
    }
}
