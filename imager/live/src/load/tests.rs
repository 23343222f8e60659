use std::str::FromStr;

use siris_ibu::bundle::{self, Bodies};
use siris_ibu::keys::{Role, SecretKey};
use siris_ibu::manifest::Member;
use siris_ibu::signature::SignatureFile;
use siris_ibu::{Manifest, Sha256, verity};

use super::*;

const GOLDEN: &str = include_str!("../../../ibu/src/manifest/golden.toml");

/// Members that are sound in themselves: a root of 100 blocks with its tree, and a boot image that is mostly zeros.
struct Sample {
    key: SecretKey,
    manifest: Vec<u8>,
    tree: Vec<u8>,
    boot: Vec<u8>,
    root: Vec<u8>,
}

impl Sample {
    fn new() -> Self {
        let key = SecretKey::from_seed("test", Role::Release, Epoch(1), [7; 32]);
        let mut manifest = Manifest::parse(GOLDEN.as_bytes()).unwrap();
        let root: Vec<u8> = (0..100 * 4096u32).map(|at| (at / 5) as u8).collect();
        let mut tree = Vec::new();
        let salt = verity::Salt::from_bytes([1; 32]);
        let uuid = FromStr::from_str("0e1a9a1c-7d0c-4c1e-9a43-1f6f5d0b7f11").unwrap();
        manifest.verity = verity::build(&root[..], root.len() as u64, salt, uuid, &mut tree).unwrap();
        let mut boot = vec![0; 1 << 20];
        boot[5000..9000].fill(9);
        let of = |bytes: &[u8]| Member { size: ByteSize::from_bytes(bytes.len() as u64), sha256: Sha256::of(bytes) };
        (manifest.root, manifest.tree, manifest.boot) = (of(&root), of(&tree), of(&boot));
        let manifest = manifest.to_bytes().unwrap();
        Sample { key, manifest, tree, boot, root }
    }

    fn bundle(&self) -> Vec<u8> {
        let signatures = SignatureFile::new(vec![self.key.sign(&self.manifest)]).to_bytes();
        let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
        let (boot, root) = (frame(&self.boot), frame(&self.root));
        let mut out = Vec::new();
        let bodies = Bodies {
            tree: (self.tree.len() as u64, &mut &self.tree[..]),
            boot: (boot.len() as u64, &mut &boot[..]),
            root: (root.len() as u64, &mut &root[..]),
        };
        bundle::write(&mut out, &self.manifest, &signatures, bodies).unwrap();
        out
    }

    fn load(&self, bytes: impl Read, booted: Option<Sha256>, to: &Path) -> Result<SignedManifest, LoadError> {
        unpack(open(bytes, &[self.key.public().clone()], booted)?, to)
    }
}

#[test]
fn what_was_signed_is_in_memory_afterwards() {
    let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
    let booted = Some(Sha256::of(&sample.manifest));
    sample.load(&sample.bundle()[..], booted, dir.path()).unwrap();
    for (name, bytes) in
        [("manifest.toml", &sample.manifest), ("tree", &sample.tree), ("boot", &sample.boot), ("root", &sample.root)]
    {
        assert!(fs::read(dir.path().join(name)).unwrap() == *bytes, "{name} differs");
    }
}

#[test]
fn another_member_than_the_signed_one_is_refused() {
    for which in 0..3 {
        let (mut sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
        let member = match which {
            0 => &mut sample.tree,
            1 => &mut sample.boot,
            _ => &mut sample.root,
        };
        member[4097] ^= 1;
        let error = sample.load(&sample.bundle()[..], None, dir.path()).unwrap_err();
        assert_eq!(error.code(), "image-tampered");
        assert!(!error.is_worth_another_try());
        match which {
            0 => sample.tree.push(0),
            1 => sample.boot.push(0),
            _ => drop(sample.root.pop()),
        }
        assert_eq!(sample.load(&sample.bundle()[..], None, dir.path()).unwrap_err().code(), "image-tampered");
    }
}

#[test]
fn another_medium_than_the_booted_one_is_passed_over() {
    let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
    let error = sample.load(&sample.bundle()[..], Some(Sha256::of(b"another")), dir.path()).unwrap_err();
    assert_eq!(error.code(), "other-medium");
    assert!(error.is_worth_another_try());
}

/// A medium that is pulled after so many bytes.
struct Pulled<'a>(&'a [u8], usize);

impl Read for Pulled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(self.1);
        if wanted == 0 {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.1 -= wanted;
        self.0.read(&mut buffer[..wanted])
    }
}

#[test]
fn a_medium_pulled_anywhere_is_asked_for_again() {
    let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
    let bytes = sample.bundle();
    for at in (0..bytes.len()).step_by(1009) {
        let error = sample.load(Pulled(&bytes, at), None, dir.path()).unwrap_err();
        assert!(error.is_worth_another_try(), "at {at}: {error:?}");
    }
}

#[test]
fn a_box_with_little_memory_is_told_how_much_is_needed() {
    let sample = Sample::new();
    let signed = open(&sample.bundle()[..], &[sample.key.public().clone()], None).unwrap().signed().clone();
    assert_eq!(check_memory(ByteSize::mib(512), &signed).unwrap_err().code(), "too-little-memory");
    check_memory(ByteSize::mib(4096), &signed).unwrap();
}
