//! What a receive that broke off left to go on from, as the property `receive_resume_token` shows it.
//!
//! `1-CHECKSUM-LENGTH-HEX`: a packed list, deflated (zlib), in hexadecimal digits; LENGTH is that of the list. Source:
//! OpenZFS `dsl_dataset.c` (`get_receive_resume_token_impl`), `zfs_send.c`. The checksum is not compared: zlib has one of
//! its own, and ZFS compares both when the token is used.

use std::io::Read;
use std::str::FromStr;

use flate2::read::ZlibDecoder;

use crate::nvlist::{List, Value};

/// The only version there is.
const VERSION: &str = "1";
/// Longest list that is unpacked, in bytes. That of OpenZFS 2.3 has some 500, with a name of 255 bytes in it.
const MAX: u64 = 64 * 1024;

/// A text that is no such token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no resume token of ZFS, or one of a version that is not known")]
pub struct ResumeTokenError;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken {
    /// Guid of the snapshot that was being received.
    pub to: u64,
    /// Guid of the snapshot that the stream began from.
    pub from: Option<u64>,
    /// Bytes of the stream that came before.
    pub bytes: u64,
    /// The rest of the stream has its blocks as they lie on the sender's disks.
    pub raw: bool,
    /// It is not a snapshot that it asks for, but what was received of one, in the dataset that it names (`zfs send --saved`).
    pub saved: bool,
}

impl FromStr for ResumeToken {
    type Err = ResumeTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).ok_or(ResumeTokenError)
    }
}

fn read(text: &str) -> Option<ResumeToken> {
    let mut parts = text.splitn(4, '-');
    let (version, _checksum, length, digits) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let length = u64::from_str_radix(length, 16).ok().filter(|length| version == VERSION && *length <= MAX)?;
    let packed = bytes(digits)?;
    let mut list = Vec::new();
    ZlibDecoder::new(&packed[..]).take(length + 1).read_to_end(&mut list).ok()?;
    let list = List::unpack(&list).ok().filter(|_| list.len() as u64 == length)?;
    let number = |name: &str| match list.find(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    // Whatever stands beside these names: ZFS only asks whether they are there.
    let has = |name: &str| list.find(name).is_some();
    Some(ResumeToken {
        to: number("toguid")?,
        from: number("fromguid"),
        bytes: number("bytes")?,
        raw: has("rawok"),
        saved: has("savedok"),
    })
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}
