//! A box that was booted from a slot, in files: its disk, its EFI system partition, what sysfs and udev say of them. And
//! bundles for it. Used by the tests of the engine and of the agent on a bus.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use siris_ibu::keys::{Epoch, Role, SecretKey};
use siris_ibu::manifest::{BuildTime, Member, SCHEMA, Zfs as ZfsSupport};
use siris_ibu::signature::{Policy, SignatureFile};
use siris_ibu::verity::{self, Salt};
use siris_ibu::{ByteSize, Manifest, Sha256, SignedManifest, Version, bundle};
use siris_slots::bootenv::{self, BootEnv};
use siris_slots::device::Zeros;
use siris_slots::fat::{self, FatFile, FatSpec};
use siris_slots::guid::GuidSource;
use siris_slots::writer::{Payload, WriteOptions, write_slot};
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

pub fn sample(version: u64) -> Sample {
    let noise = |len: u32| (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ version as u8).collect();
    let (root, boot, mut tree): (Vec<u8>, Vec<u8>, _) = (noise(100 * 4096), noise(40 * 4096), Vec::new());
    let uuid = "11223344-5566-7788-99aa-bbccddeeff00".parse().unwrap();
    let verity = verity::build(&root[..], root.len() as u64, Salt::from_bytes([3; 32]), uuid, &mut tree).unwrap();
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
    fn signed_by(&self, key: &SecretKey) -> (Vec<u8>, Vec<u8>) {
        let bytes = self.manifest.to_bytes().unwrap();
        let signatures = SignatureFile::new(vec![key.sign(&bytes)]).to_bytes();
        (bytes, signatures)
    }

    pub fn bundle_by(&self, key: &SecretKey) -> Vec<u8> {
        let (bytes, signatures) = self.signed_by(key);
        let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
        let (boot, root, mut out) = (frame(&self.boot), frame(&self.root), Vec::new());
        let bodies = bundle::Bodies {
            tree: (self.tree.len() as u64, &mut &self.tree[..]),
            boot: (boot.len() as u64, &mut &boot[..]),
            root: (root.len() as u64, &mut &root[..]),
        };
        bundle::write(&mut out, &bytes, &signatures, bodies).unwrap();
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
    let options = WriteOptions { zeros: Zeros::Skip, read_back: false };
    write_slot(&mut disk, &layout, Slot::A, &signed, payload, options, &mut |_| {}).unwrap();
    let block = BootEnv::first(Slot::A).to_block().unwrap();
    let (mut content, mut esp) = (&block[..], open("/dev/vda2"));
    let mut files = [FatFile { path: bootenv::PATH, content: &mut content }];
    let spec = FatSpec { size: sizes().esp, sector: SectorSize::S512, label: "ESP", volume_id: 1 };
    fat::build(&mut esp, &spec, &mut files, Zeros::Skip).unwrap();
}
