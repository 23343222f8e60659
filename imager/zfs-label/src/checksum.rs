//! The checksum that blocks of a label carry in themselves.
//!
//! The last 40 bytes of such a block are a magic number and a SHA-256 as four 64-bit words, all in the byte order of
//! the writer. The digest is that of the whole block with the block's offset on the device in the place of the first
//! word and zeros in the other three: a block that was moved to another place fails. Source: OpenZFS
//! `zio_checksum.c` (`zio_checksum_label_verifier`), `zio.h` (`zio_eck_t`).

use siris_ibu::digest::Hasher;

use crate::bytes::{Endian, word};

/// Bytes of the trailer: the magic number and the digest.
pub(crate) const TRAILER: usize = 40;
const DIGEST: usize = 32;
const MAGIC: u64 = 0x0210_da7a_b10c_7a11;

/// Why a block is not what ZFS wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has no trailer.
    NoMagic,
    /// Its digest is another one.
    Digest,
}

/// The byte order of the trailer of `block`, if there is one.
pub(crate) fn trailer(block: &[u8]) -> Option<Endian> {
    let bytes = word(block, block.len().checked_sub(TRAILER)?)?;
    [Endian::Little, Endian::Big].into_iter().find(|endian| endian.u64(bytes) == MAGIC)
}

/// Checks `block`, which lies at `offset` of its device, and says in which byte order it was written.
pub(crate) fn verify(block: &[u8], offset: u64) -> Result<Endian, Fault> {
    let endian = trailer(block).ok_or(Fault::NoMagic)?;
    let (covered, digest) = block.split_at(block.len() - DIGEST);
    if digest == stored(covered, offset, endian) { Ok(endian) } else { Err(Fault::Digest) }
}

/// The digest as it is stored behind `covered`.
fn stored(covered: &[u8], offset: u64, endian: Endian) -> [u8; DIGEST] {
    let mut hasher = Hasher::default();
    hasher.update(covered);
    hasher.update(&endian.bytes(offset));
    hasher.update(&[0; DIGEST - 8]);
    let mut digest = *hasher.finish().0.as_bytes();
    let (words, _) = digest.as_chunks_mut();
    for word in words {
        *word = endian.bytes(u64::from_be_bytes(*word));
    }
    digest
}

/// Writes the trailer that makes `block` one that ZFS could have written at `offset`.
#[cfg(test)]
pub(crate) fn seal(block: &mut [u8], offset: u64, endian: Endian) {
    let at = block.len() - TRAILER;
    block[at..at + 8].copy_from_slice(&endian.bytes(MAGIC));
    let at = block.len() - DIGEST;
    let digest = stored(&block[..at], offset, endian);
    block[at..].copy_from_slice(&digest);
}

#[cfg(test)]
mod tests {
    use super::{Fault, seal, verify};
    use crate::bytes::Endian;

    #[test]
    fn a_block_holds_only_in_its_place_and_unchanged() {
        for endian in [Endian::Little, Endian::Big] {
            let mut block = vec![7; 1024];
            seal(&mut block, 16384, endian);
            assert_eq!(verify(&block, 16384), Ok(endian));
            assert_eq!(
                verify(&block, 16384 + 262_144),
                Err(Fault::Digest),
                "a copy of another label would be believed"
            );
            for at in [0, 500, 983, 992, 1023] {
                let mut changed = block.clone();
                changed[at] ^= 1;
                assert_eq!(verify(&changed, 16384), Err(Fault::Digest), "a flipped bit in byte {at} would go unseen");
            }
            block[984] ^= 1;
            assert_eq!(verify(&block, 16384), Err(Fault::NoMagic));
        }
        assert_eq!(verify(&[0; 39], 0), Err(Fault::NoMagic));
        assert_eq!(verify(&[], 0), Err(Fault::NoMagic));
    }
}
