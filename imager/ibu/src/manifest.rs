//! The manifest: what a payload is, for which boxes, and the size and digest of each of its members.
//!
//! Its exact bytes are what is signed, so they are kept wherever a manifest goes (see `SignedManifest`);
//! [`Manifest::to_bytes`] is for the builder that makes one. Parsing proves that the manifest is sound in itself,
//! never that it may be installed on some box.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::keys::{Epoch, PublicKey};
use crate::verity::{self, Verity};
use crate::{ByteSize, Class, Sha256, Version, text_serde};

/// The schema this program writes and reads.
pub const SCHEMA: u32 = 1;
/// The end of a slot's root partition that holds the manifest and not the root image.
pub const TRAILER: ByteSize = ByteSize::mib(1);
/// A manifest larger than this is not parsed.
pub const MAX_BYTES: usize = 256 * 1024;

/// A product: the operating system of one kind of box. Lower-case letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Product(String);

/// A text that is not a product name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a product name: lower-case letters, digits and dashes, starting with a letter, at most 32")]
pub struct ParseProductError(String);

impl Product {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Product {
    type Err = ParseProductError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
        match starts && text.len() <= 32 && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(ParseProductError(text.to_owned())),
        }
    }
}

text_serde!(Product);

/// When a payload was built, in whole seconds. Text form: RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuildTime(OffsetDateTime);

/// A text or number that is not a build time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: RFC 3339 in UTC and whole seconds is wanted, such as `2026-01-31T12:00:00Z`")]
pub struct ParseBuildTimeError(String);

impl BuildTime {
    /// The time `seconds` after the Unix epoch (`SOURCE_DATE_EPOCH`).
    pub fn from_unix(seconds: i64) -> Result<Self, ParseBuildTimeError> {
        OffsetDateTime::from_unix_timestamp(seconds).map(Self).map_err(|_| ParseBuildTimeError(seconds.to_string()))
    }

    /// Seconds since the Unix epoch.
    pub fn unix(self) -> i64 {
        self.0.unix_timestamp()
    }
}

impl fmt::Display for BuildTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for BuildTime {
    type Err = ParseBuildTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || ParseBuildTimeError(text.to_owned());
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| fault())?;
        match time.offset().is_utc() && time.nanosecond() == 0 {
            true => Ok(Self(time)),
            false => Err(fault()),
        }
    }
}

text_serde!(BuildTime);

/// A member of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberKind {
    /// The hash tree.
    Tree,
    /// The boot partition's image.
    Boot,
    /// The root image.
    Root,
}

impl MemberKind {
    /// All, in the order in which a bundle carries them.
    pub const ALL: [MemberKind; 3] = [MemberKind::Tree, MemberKind::Boot, MemberKind::Root];

    /// Its name in a bundle.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberKind::Tree => "tree",
            MemberKind::Boot => "boot",
            MemberKind::Root => "root",
        }
    }
}

/// Size and digest of one member of the payload, uncompressed: what ends up on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Member {
    /// Exact size.
    pub size: ByteSize,
    /// Digest of all its bytes.
    pub sha256: Sha256,
}

/// What the image's OpenZFS is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Zfs {
    /// Version of the kernel module, as `modinfo` prints it.
    pub version: String,
    /// Pool features (`org.openzfs:…`) whose presence still lets the image import a pool to read.
    pub features_read: BTreeSet<String>,
    /// Pool features whose presence still lets the image import a pool to write.
    pub features_write: BTreeSet<String>,
}

impl Zfs {
    /// Those of a pool's active features without which the image cannot read it. A feature is known by what follows
    /// the colon: `zpool get` leaves the domain out, labels have it.
    pub fn cannot_read<'a>(&self, features: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
        unknown(&self.features_read, features)
    }

    /// Those of a pool's active features without which the image cannot write it.
    pub fn cannot_write<'a>(&self, features: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
        unknown(&self.features_write, features)
    }
}

fn unknown<'a>(known: &BTreeSet<String>, features: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
    fn short(feature: &str) -> &str {
        feature.rsplit(':').next().unwrap_or_default()
    }
    let known: BTreeSet<&str> = known.iter().map(|feature| short(feature)).collect();
    features.into_iter().map(String::as_str).filter(|feature| !known.contains(short(feature))).collect()
}

/// What a payload is. Field order is file order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What this is.
    pub product: Product,
    /// Products it may replace.
    pub compatible: Vec<Product>,
    /// Which one it is.
    pub version: Version,
    /// The oldest version it may replace.
    pub lowest_replaces: Version,
    /// When it was built.
    pub built: BuildTime,
    /// Release of its kernel, as `uname -r` prints it.
    pub kernel: String,
    /// A slot smaller than this cannot hold it.
    pub slot_size_min: ByteSize,
    /// Keys of an earlier epoch are no longer trusted by a box that runs this.
    pub key_epoch: Epoch,
    /// Its ZFS.
    pub zfs: Zfs,
    /// The hash tree, superblock included.
    pub tree: Member,
    /// The boot partition's image, as far as the file system in it is in use.
    pub boot: Member,
    /// The root image.
    pub root: Member,
    /// How the root image is verified when it is mounted.
    pub verity: Verity,
    /// A key that is trusted from now on (rotation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_key: Option<PublicKey>,
}

/// One thing wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// TOML path of the value.
    pub path: &'static str,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// Why some bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More than [`MAX_BYTES`].
    #[error("{0} bytes are too many for a manifest (at most {MAX_BYTES})")]
    TooLarge(usize),
    /// Not UTF-8.
    #[error("the manifest is not text")]
    NotText(#[source] std::str::Utf8Error),
    /// Not TOML, or a value is missing, unknown or not of its type.
    #[error("the manifest cannot be read")]
    Parse(#[source] toml::de::Error),
    /// Written by a builder of another age.
    #[error("the manifest has schema {0}, this program reads schema {SCHEMA}")]
    Schema(i64),
    /// Values that contradict each other or the format.
    #[error("the manifest is not sound: {}", list(.0))]
    Faults(Vec<Fault>),
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}

impl ManifestError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "manifest-too-large",
            Self::NotText(_) | Self::Parse(_) => "manifest-unreadable",
            Self::Schema(_) => "unknown-schema",
            Self::Faults(_) => "manifest-faults",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        Class::Input
    }
}

impl Manifest {
    /// Reads a manifest and proves it sound in itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            schema: i64,
        }
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(ManifestError::NotText)?;
        // The schema comes first: a newer one may well have fields this program does not know.
        let head: Head = toml::from_str(text).map_err(ManifestError::Parse)?;
        if head.schema != i64::from(SCHEMA) {
            return Err(ManifestError::Schema(head.schema));
        }
        let manifest: Self = toml::from_str(text).map_err(ManifestError::Parse)?;
        match manifest.faults() {
            faults if faults.is_empty() => Ok(manifest),
            faults => Err(ManifestError::Faults(faults)),
        }
    }

    /// What it says of one member.
    pub fn member(&self, kind: MemberKind) -> &Member {
        match kind {
            MemberKind::Tree => &self.tree,
            MemberKind::Boot => &self.boot,
            MemberKind::Root => &self.root,
        }
    }

    /// The bytes to sign: always the same for the same manifest. Unsound ones are refused here already.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        match self.faults() {
            // All fields are strings, integers, lists and tables of those, which TOML can always hold.
            faults if faults.is_empty() => Ok(toml::to_string(self).expect("a manifest is TOML").into_bytes()),
            faults => Err(ManifestError::Faults(faults)),
        }
    }

    /// All that is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, path: &'static str, what: &dyn Fn() -> String| {
            if !ok {
                faults.push(Fault { path, what: what() });
            }
        };
        let (root, tree, verity) = (self.root.size.bytes(), self.tree.size.bytes(), &self.verity);
        check(self.schema == SCHEMA, "schema", &|| format!("{} is not {SCHEMA}", self.schema));
        check(!self.compatible.is_empty(), "compatible", &|| "names no product".into());
        check(self.lowest_replaces <= self.version, "lowest-replaces", &|| {
            format!("{} is newer than the version itself, {}", self.lowest_replaces, self.version)
        });
        let release = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
        let kernel_ok = !self.kernel.is_empty() && self.kernel.bytes().all(release);
        check(kernel_ok, "kernel", &|| format!("`{}` is not a kernel release", self.kernel));
        check(self.zfs.features_write.is_subset(&self.zfs.features_read), "zfs.features-write", &|| {
            "lists a feature that features-read lacks".into()
        });
        // Beyond this, sums and block counts would have to be checked for overflow everywhere.
        let limit = 1 << 46;
        let boot = self.boot.size.bytes();
        for (path, size) in [("root.size", root), ("tree.size", tree), ("boot.size", boot)] {
            check(size > 0 && size < limit, path, &|| format!("{size} is out of range"));
        }
        check(boot.is_multiple_of(4096), "boot.size", &|| format!("{boot} is not a multiple of 4096"));
        if root < limit && tree < limit {
            check(verity.data_blocks.checked_mul(verity::BLOCK) == Some(root), "verity.data-blocks", &|| {
                format!("{} blocks of {} bytes are not root.size, {root}", verity.data_blocks, verity::BLOCK)
            });
            let wanted = verity::tree_len(root.div_ceil(verity::BLOCK));
            check(tree == wanted, "tree.size", &|| format!("{tree} bytes, but the tree of root has {wanted}"));
            let needed = ByteSize::from_bytes(root + tree + TRAILER.bytes());
            check(self.slot_size_min >= needed, "slot-size-min", &|| {
                format!("{} is less than root, tree and trailer: {needed}", self.slot_size_min)
            });
        }
        faults
    }
}

#[cfg(test)]
pub(crate) mod tests;
