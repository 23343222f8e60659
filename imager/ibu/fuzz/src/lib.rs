//! A small system in two versions, in every form that a box reads from outside.

use std::io::{self, Cursor, Read};
use std::ops::Range;

use siris_ibu::bundle::{self, Bodies};
use siris_ibu::delta::patch::{self, Side};
use siris_ibu::delta::{Remote, Shape, blocks};
use siris_ibu::keys::{Epoch, Role, SecretKey};
use siris_ibu::manifest::{BuildTime, Manifest, Member, SCHEMA, TRAILER, Zfs};
use siris_ibu::signature::{Policy, SignatureFile};
use siris_ibu::verity::{self, Salt};
use siris_ibu::{ByteSize, Sha256, Version};

const BLOCK: usize = 4096;

/// What the readers are told to believe.
pub const POLICY: Policy = Policy { allow_development: false, min_epoch: Epoch(1) };

/// Who signed.
pub fn key() -> SecretKey {
    SecretKey::from_seed("fuzz", Role::Release, Epoch(1), [3; 32])
}

/// A system.
pub struct System {
    /// Its manifest.
    pub manifest: Manifest,
    /// Boot image and root image.
    pub image: Vec<u8>,
    tree: Vec<u8>,
}

impl System {
    /// One of two that differ in some blocks.
    pub fn new(version: u64) -> Self {
        let block = |n: usize| vec![(n * 7) as u8; BLOCK];
        let boot: Vec<u8> = (0..2).flat_map(block).collect();
        let root: Vec<u8> = (2..40).flat_map(|n| block(if n == 20 { n + version as usize } else { n })).collect();
        let mut tree = Vec::new();
        let uuid = uuid::Uuid::nil();
        // Both are memory.
        let verity =
            verity::build(&root[..], root.len() as u64, Salt::from_bytes([1; 32]), uuid, &mut tree).expect("a tree");
        let member = |b: &[u8]| Member { size: ByteSize::from_bytes(b.len() as u64), sha256: Sha256::of(b) };
        let manifest = Manifest {
            schema: SCHEMA,
            product: "siris".parse().expect("a name"),
            compatible: vec!["siris".parse().expect("a name")],
            version: Version::new(1, version, 0),
            lowest_replaces: Version::new(0, 0, 0),
            built: BuildTime::from_unix(0).expect("a time"),
            kernel: "6.12".into(),
            slot_size_min: ByteSize::from_bytes((root.len() + tree.len()) as u64 + TRAILER.bytes()),
            key_epoch: Epoch(1),
            zfs: Zfs { version: "2.3".into(), features_read: [].into(), features_write: [].into() },
            tree: member(&tree),
            boot: member(&boot),
            root: member(&root),
            verity,
            next_key: None,
        };
        Self { manifest, image: [boot, root].concat(), tree }
    }

    /// How many blocks it has.
    pub fn shape(&self) -> Shape {
        Shape::of(&self.manifest)
    }

    /// Its bundle.
    pub fn bundle(&self) -> Vec<u8> {
        let manifest = self.manifest.to_bytes().expect("sound");
        let signatures = SignatureFile::new(vec![key().sign(&manifest)]).to_bytes();
        let (boot, root) = self.image.split_at(self.manifest.boot.size.bytes() as usize);
        let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).expect("memory");
        let (boot, root, mut out) = (frame(boot), frame(root), Vec::new());
        let bodies = Bodies {
            tree: (self.tree.len() as u64, &mut &self.tree[..]),
            boot: (boot.len() as u64, &mut &boot[..]),
            root: (root.len() as u64, &mut &root[..]),
        };
        bundle::write(&mut out, &manifest, &signatures, bodies).expect("memory");
        out
    }

    /// Its blocks file.
    pub fn blocks(&self) -> Vec<u8> {
        let (mut out, mut scratch) = (Vec::new(), Cursor::new(Vec::new()));
        let verity = &self.manifest.verity;
        blocks::write(&mut out, &mut scratch, &mut &self.image[..], self.shape(), verity, 3).expect("memory");
        out
    }

    /// The patch that makes it of an older one.
    pub fn patch_from(&self, old: &System) -> Vec<u8> {
        let mut out = Vec::new();
        let from = Side { blocks: &mut &old.image[..], shape: old.shape(), verity: &old.manifest.verity };
        let to = Side { blocks: &mut &self.image[..], shape: self.shape(), verity: &self.manifest.verity };
        patch::write(&mut out, from, to, 3).expect("memory");
        out
    }
}

/// A file as a server may give it: whatever is asked for, and no more than there is.
pub struct Served<'a>(pub &'a [u8]);

impl Remote for Served<'_> {
    fn parts(&self, parts: &[Range<u64>]) -> io::Result<Box<dyn Read>> {
        let mut all = Vec::new();
        for part in parts {
            let clamped = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.0.len());
            all.extend_from_slice(&self.0[clamped(part.start)..clamped(part.end.max(part.start))]);
        }
        Ok(Box::new(Cursor::new(all)))
    }
}
