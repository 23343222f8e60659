//! Names in FAT directories: the short one every file has, and the long one it may have beside it.

use std::collections::BTreeSet;

use super::FatError;

/// Letters of a long name in one entry.
const PER_ENTRY: usize = 13;

/// The name of a file or directory.
pub(super) struct Name {
    /// As given; empty when the short name says it all.
    long: String,
    /// 8.3, padded with spaces.
    pub(super) short: [u8; 11],
}

impl Name {
    pub(super) fn root() -> Self {
        Self { long: String::new(), short: [b' '; 11] }
    }

    /// The name for `text` beside `siblings`, or `None` when FAT cannot hold it. Only ASCII: what case and which
    /// code page other letters have depends on who reads.
    pub(super) fn new(text: &str, siblings: &BTreeSet<[u8; 11]>) -> Option<Self> {
        let allowed = |c: char| (' '..='~').contains(&c) && !"\"*/:<>?\\|".contains(c);
        if text.is_empty() || text.len() > 255 || text.ends_with(['.', ' ']) || !text.chars().all(allowed) {
            return None;
        }
        let upper = text.to_ascii_uppercase();
        if let Some(short) = fitting(&upper).filter(|short| !siblings.contains(short)) {
            let long = if upper == text { String::new() } else { text.to_owned() };
            return Some(Self { long, short });
        }
        let (base, extension) = upper.trim_start_matches('.').rsplit_once('.').unwrap_or((upper.as_str(), ""));
        let kept = |text: &str, most: usize| -> String { text.chars().filter(|c| is_short(*c)).take(most).collect() };
        let (base, extension) = (kept(base, 6), kept(extension, 3));
        (1..=9)
            .find_map(|n| fitting(&format!("{base}~{n}.{extension}")).filter(|short| !siblings.contains(short)))
            .map(|short| Self { long: text.to_owned(), short })
    }

    /// Whether this is the name `text`, whatever the case.
    pub(super) fn is(&self, text: &str) -> bool {
        match self.long.as_str() {
            "" => fitting(&text.to_ascii_uppercase()) == Some(self.short),
            long => long.eq_ignore_ascii_case(text),
        }
    }

    /// Number of directory entries it takes.
    pub(super) fn entries(&self) -> u64 {
        1 + self.long.len().div_ceil(PER_ENTRY) as u64
    }

    /// The entries of the long name, which go before the entry of the file.
    pub(super) fn long_entries(&self) -> Vec<u8> {
        let checksum = self.short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let mut units: Vec<u16> = self.long.encode_utf16().collect();
        if !units.len().is_multiple_of(PER_ENTRY) {
            units.push(0);
            units.resize(units.len().next_multiple_of(PER_ENTRY), 0xffff);
        }
        let mut bytes = Vec::new();
        let parts = units.len() / PER_ENTRY;
        for (n, part) in units.chunks(PER_ENTRY).enumerate().rev() {
            let mut entry = [0; 32];
            // Numbered from 1, the last one (which comes first) marked. At most 20.
            entry[0] = (n + 1) as u8 | if n + 1 == parts { 0x40 } else { 0 };
            entry[11] = 0x0f;
            entry[13] = checksum;
            let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
            for (at, unit) in places.zip(part) {
                entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            bytes.extend(entry);
        }
        bytes
    }
}

fn is_short(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || "!#$%&'()-@^_`{}~".contains(c)
}

/// `upper` as 8.3, if that loses nothing.
fn fitting(upper: &str) -> Option<[u8; 11]> {
    let (base, extension) = upper.split_once('.').unwrap_or((upper, ""));
    let fits = |text: &str, most: usize| text.len() <= most && text.chars().all(is_short);
    if base.is_empty() || !fits(base, 8) || !fits(extension, 3) {
        return None;
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    Some(short)
}

/// A volume label, padded.
pub(super) fn label(text: &str) -> Result<[u8; 11], FatError> {
    let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_-".contains(&b);
    let mut label = [b' '; 11];
    if text.is_empty() || text.len() > label.len() || !text.bytes().all(allowed) {
        return Err(FatError::Label(text.to_owned()));
    }
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok(label)
}
