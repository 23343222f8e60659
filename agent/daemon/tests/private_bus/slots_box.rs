//! A box that was booted from a slot, in files: its disk, its EFI system partition, what sysfs and udev say of them. And
//! bundles for it. Used by the tests of the engine and of the agent on a bus.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::path::Path;

use siris_ibu::delta::patch::{self, Side};
use siris_ibu::delta::{Shape, blocks};
use siris_ibu::keys::{Epoch, Role, SecretKey};
use siris_ibu::manifest::{BuildTime, Member, SCHEMA, Zfs as ZfsSupport};
use siris_ibu::signature::{Policy, SignatureFile};
use siris_ibu::verity::{self, Salt, Verity};
use siris_ibu::{ByteSize, Manifest, Sha256, SignedManifest, Version, bundle};
use siris_slots::bootenv::{self, BootEnv};
use siris_slots::device::Zeros;
use siris_slots::fat::{self, FatFile, FatSpec};
use siris_slots::guid::GuidSource;
use siris_slots::writer::{Payload, Proof, WriteOptions, write_slot};
use siris_slots::{Layout, SectorSize, Sizes, Slot, gpt};

pub fn key() -> SecretKey {
    SecretKey::from_seed("test", Role::Release, Epoch(1), [1; 32])
}

/// A payload, its manifest changed by the test before it is signed.
pub struct Sample {
    pub manifest: Manifest,
    tree: Vec<u8>,
    boot: Vec<u8>,
    root: Vec<u8>,
}

fn hashed(root: &[u8]) -> (Vec<u8>, Verity) {
    let (uuid, mut tree) = ("11223344-5566-7788-99aa-bbccddeeff00".parse().unwrap(), Vec::new());
    let verity = verity::build(root, root.len() as u64, Salt::from_bytes([3; 32]), uuid, &mut tree).unwrap();
    (tree, verity)
}

pub fn sample(version: u64) -> Sample {
    // It does not compress: a bundle is longer than what is read of one at first.
    let noise = |len: u32| {
        let mut state = version;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8
        };
        (0..len).map(|_| byte()).collect()
    };
    let (root, boot): (Vec<u8>, Vec<u8>) = (noise(100 * 4096), noise(40 * 4096));
    let (tree, verity) = hashed(&root);
    let member = |b: &[u8]| Member { size: ByteSize::from_bytes(b.len() as u64), sha256: Sha256::of(b) };
    let features: std::collections::BTreeSet<String> = ["org.openzfs:known".to_owned()].into();
    let manifest = Manifest {
        schema: SCHEMA,
        product: "siris".parse().unwrap(),
        compatible: vec!["siris".parse().unwrap()],
        version: Version::new(1, version, 0),
        lowest_replaces: Version::new(0, 0, 0),
        built: BuildTime::from_unix(0).unwrap(),
        kernel: "6.12".into(),
        slot_size_min: sizes().slot,
        key_epoch: Epoch(1),
        zfs: ZfsSupport { version: "2.3".into(), features_read: features.clone(), features_write: features },
        tree: member(&tree),
        boot: member(&boot),
        root: member(&root),
        verity,
        next_key: None,
    };
    Sample { manifest, tree, boot, root }
}

impl Sample {
    /// This system as it is in a later version: some blocks in the middle and the end are other ones.
    pub fn changed(mut self, version: u64) -> Sample {
        for block in [30, 31, 60, 99] {
            for (n, byte) in self.root[block * 4096..(block + 1) * 4096].iter_mut().enumerate() {
                *byte = (n * n / 7 + block) as u8;
            }
        }
        self.boot[5 * 4096..6 * 4096].fill(version as u8);
        let (tree, verity) = hashed(&self.root);
        let member = |b: &[u8]| Member { size: ByteSize::from_bytes(b.len() as u64), sha256: Sha256::of(b) };
        (self.manifest.tree, self.manifest.boot, self.manifest.root) =
            (member(&tree), member(&self.boot), member(&self.root));
        (self.manifest.verity, self.manifest.version, self.tree) = (verity, Version::new(1, version, 0), tree);
        self
    }

    fn image(&self) -> (Vec<u8>, Shape) {
        ([&self.boot[..], &self.root].concat(), Shape::of(&self.manifest))
    }

    /// The blocks file that lies beside its bundle.
    pub fn blocks_file(&self) -> Vec<u8> {
        let ((image, shape), mut out, mut scratch) = (self.image(), Vec::new(), Cursor::new(Vec::new()));
        blocks::write(&mut out, &mut scratch, &mut &image[..], shape, &self.manifest.verity, 3).unwrap();
        out
    }

    /// The patch from an older system.
    pub fn patch_from(&self, old: &Sample) -> Vec<u8> {
        let ((old_image, old_shape), (image, shape), mut out) = (old.image(), self.image(), Vec::new());
        let from = Side { blocks: &mut &old_image[..], shape: old_shape, verity: &old.manifest.verity };
        let to = Side { blocks: &mut &image[..], shape, verity: &self.manifest.verity };
        patch::write(&mut out, from, to, 3).unwrap();
        out
    }

    fn signed_by(&self, key: &SecretKey) -> (Vec<u8>, Vec<u8>) {
        let bytes = self.manifest.to_bytes().unwrap();
        let signatures = SignatureFile::new(vec![key.sign(&bytes)]).to_bytes();
        (bytes, signatures)
    }

    pub fn bundle_by(&self, key: &SecretKey) -> Vec<u8> {
        let (bytes, signatures) = self.signed_by(key);
        self.bundle_of(&bytes, &signatures)
    }

    /// A bundle with this manifest and these signatures, whatever they are.
    pub fn bundle_of(&self, bytes: &[u8], signatures: &[u8]) -> Vec<u8> {
        let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
        let (boot, root, mut out) = (frame(&self.boot), frame(&self.root), Vec::new());
        let bodies = bundle::Bodies {
            tree: (self.tree.len() as u64, &mut &self.tree[..]),
            boot: (boot.len() as u64, &mut &boot[..]),
            root: (root.len() as u64, &mut &root[..]),
        };
        bundle::write(&mut out, bytes, signatures, bodies).unwrap();
        out
    }

    pub fn bundle(&self) -> Vec<u8> {
        self.bundle_by(&key())
    }
}

pub fn sizes() -> Sizes {
    let mib = ByteSize::mib;
    Sizes { esp: mib(8), boot: mib(1), slot: mib(3), state_min: mib(8) }
}

pub fn layout() -> Layout {
    let guids = GuidSource::Seed(Sha256::of(b"seed"));
    Layout::plan(sizes().smallest_disk(), SectorSize::S512, &sizes(), &guids).unwrap()
}

/// Makes the box below `root`: it runs version 1.1.0 from slot a, committed; slot b is empty.
pub fn lay(root: &Path) {
    let path = |path: &str| root.join(path.trim_start_matches('/'));
    let write = |file: &str, bytes: &[u8]| {
        fs::create_dir_all(path(file).parent().unwrap()).unwrap();
        fs::write(path(file), bytes).unwrap();
    };
    write("/proc/cmdline", b"siris.slot=a siris.root=AA\n");
    for (name, number) in [("vda2", "2\n"), ("vda5", "5\n")] {
        write(&format!("/sys/devices/vda/{name}/partition"), number.as_bytes());
    }
    write("/sys/devices/vda/queue/logical_block_size", b"512\n");
    fs::create_dir_all(path("/sys/class/block")).unwrap();
    symlink("../../devices/vda/vda5", path("/sys/class/block/vda5")).unwrap();
    fs::create_dir_all(path("/dev/disk/by-partuuid")).unwrap();
    symlink("../../vda5", path("/dev/disk/by-partuuid/aa")).unwrap();
    write("/usr/lib/siris/keys/test.toml", &key().public().to_bytes());

    let open =
        |name: &str| File::options().create(true).truncate(true).read(true).write(true).open(path(name)).unwrap();
    let (mut disk, layout) = (open("/dev/vda"), layout());
    disk.set_len(sizes().smallest_disk().bytes()).unwrap();
    gpt::apply(&mut disk, &layout).unwrap();
    let running = sample(1);
    let (bytes, signatures) = running.signed_by(&key());
    let policy = Policy { allow_development: false, min_epoch: Epoch(1) };
    let signed = SignedManifest::verify(&bytes, &signatures, &[key().public().clone()], policy).unwrap();
    let payload = Payload { tree: &mut &running.tree[..], boot: &mut &running.boot[..], root: &mut &running.root[..] };
    let options = WriteOptions { zeros: Zeros::Skip, proof: Proof::Passing };
    write_slot(&mut disk, &layout, Slot::A, &signed, payload, options, &mut |_| {}).unwrap();
    let block = BootEnv::first(Slot::A).to_block().unwrap();
    let (mut content, mut esp) = (&block[..], open("/dev/vda2"));
    let mut files = [FatFile { path: bootenv::PATH, content: &mut content }];
    let spec = FatSpec { size: sizes().esp, sector: SectorSize::S512, label: "ESP", volume_id: 1 };
    fat::build(&mut esp, &spec, &mut files, Zeros::Skip).unwrap();
}
