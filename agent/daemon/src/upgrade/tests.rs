use std::fs::File;
use std::os::unix::fs::symlink;

use siris_ibu::keys::SecretKey;
use siris_ibu::manifest::{BuildTime, Member, SCHEMA, Zfs as ZfsSupport};
use siris_ibu::signature::SignatureFile;
use siris_ibu::verity::{self, Salt};
use siris_ibu::{ByteSize, Sha256, SignedManifest, bundle};
use siris_slots::bootenv::{self, BootEnv};
use siris_slots::fat::{self, FatFile, FatSpec};
use siris_slots::guid::GuidSource;
use siris_slots::writer::check_slot;
use siris_slots::{Layout, SectorSize, Sizes, Tries, gpt};
use siris_zfs::Model;

use super::*;

fn key() -> SecretKey {
    SecretKey::from_seed("test", Role::Release, Epoch(1), [1; 32])
}

/// A payload, its manifest changed by the test before it is signed.
struct Sample {
    manifest: Manifest,
    tree: Vec<u8>,
    boot: Vec<u8>,
    root: Vec<u8>,
}

fn sample(version: u64) -> Sample {
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

    fn bundle_by(&self, key: &SecretKey) -> Vec<u8> {
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

    fn bundle(&self) -> Vec<u8> {
        self.bundle_by(&key())
    }
}

fn sizes() -> Sizes {
    let mib = ByteSize::mib;
    Sizes { esp: mib(8), boot: mib(1), slot: mib(3), state_min: mib(8) }
}

fn layout() -> Layout {
    let guids = GuidSource::Seed(Sha256::of(b"seed"));
    Layout::plan(sizes().smallest_disk(), SectorSize::S512, &sizes(), &guids).unwrap()
}

/// A box that runs version 1.1.0 from slot a, committed; slot b is empty.
struct Machine {
    _dir: tempfile::TempDir,
    root: Root,
    zfs: Model,
}

fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    root.write("/proc/cmdline", b"siris.slot=a siris.root=AA\n", 0o644).unwrap();
    for (name, number) in [("vda2", "2\n"), ("vda5", "5\n")] {
        root.write(&format!("/sys/devices/vda/{name}/partition"), number.as_bytes(), 0o644).unwrap();
    }
    root.write("/sys/devices/vda/queue/logical_block_size", b"512\n", 0o644).unwrap();
    fs::create_dir_all(root.path("/sys/class/block")).unwrap();
    symlink("../../devices/vda/vda5", root.path("/sys/class/block/vda5")).unwrap();
    fs::create_dir_all(root.path("/dev/disk/by-partuuid")).unwrap();
    symlink("../../vda5", root.path("/dev/disk/by-partuuid/aa")).unwrap();
    root.write(&format!("{KEYS}/test.toml"), &key().public().to_bytes(), 0o644).unwrap();

    let open =
        |name: &str| File::options().create(true).truncate(true).read(true).write(true).open(root.path(name)).unwrap();
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
    Machine { _dir: dir, root, zfs: Model::new() }
}

impl Machine {
    fn install(&self, bundle: &[u8]) -> Result<Armed, UpgradeError> {
        install(&self.root, &self.zfs, bundle, Allowed::default(), &mut |_| {})
    }

    fn env(&self) -> BootEnv {
        OsDisk::find(&self.root).unwrap().environment().unwrap()
    }

    fn slot_a(&self) -> Vec<u8> {
        let disk = fs::read(self.root.path("/dev/vda")).unwrap();
        let layout = layout();
        let part = |part| &disk[layout.start(part) as usize..][..layout.len(part) as usize];
        [part(siris_slots::Part::Boot(Slot::A)), part(siris_slots::Part::Root(Slot::A))].concat()
    }
}

#[test]
fn a_bundle_comes_into_the_other_slot_which_is_tried_next() {
    let machine = machine();
    let before = machine.slot_a();
    let (new, mut seen) = (sample(2), Vec::new());
    let armed =
        install(&machine.root, &machine.zfs, &new.bundle()[..], Allowed::default(), &mut |told| seen.push(told));
    assert_eq!(armed.unwrap(), Armed { slot: Slot::B, version: Version::new(1, 2, 0) });
    let env = machine.env();
    assert_eq!((env.record(Slot::B).state, env.record(Slot::B).tries), (SlotState::Trial, Tries::FULL));
    assert_eq!((env.order(), env.record(Slot::A).state), ([Slot::B, Slot::A], SlotState::Good));
    assert_eq!(seen.last().map(|told| told.done), seen.last().map(|told| told.total));
    assert!(seen.windows(2).all(|pair| pair[0].done <= pair[1].done));

    let mut disk = File::open(machine.root.path("/dev/vda")).unwrap();
    let SlotInfo::Written(trailer) = read_slot(&mut disk, &layout(), Slot::B).unwrap() else { panic!("no trailer") };
    let policy = Policy { allow_development: false, min_epoch: Epoch(1) };
    let signed = trailer.verify(&[key().public().clone()], policy).unwrap();
    check_slot(&mut disk, &layout(), Slot::B, &signed).unwrap();
    assert_eq!(machine.slot_a(), before, "the booted slot was written to");
}

#[test]
fn what_is_not_for_this_box_is_refused_before_the_first_write() {
    type Change = fn(&mut Sample);
    let cases: [(&str, Change); 6] = [
        ("wrong-product", |s| s.manifest.compatible = vec!["alto".parse().unwrap()]),
        ("downgrade", |s| s.manifest.version = Version::new(1, 1, 0)),
        ("running-too-old", |s| s.manifest.lowest_replaces = Version::new(1, 1, 5)),
        ("slot-too-small", |s| s.manifest.slot_size_min = ByteSize::mib(4)),
        ("pool-features", |s| {
            s.manifest.zfs.features_write.clear();
        }),
        ("pool-features", |s| {
            s.manifest.zfs.features_write.clear();
            s.manifest.zfs.features_read.clear();
        }),
    ];
    let machine = machine();
    let guid = machine.zfs.create(1, "tank");
    machine.zfs.change(guid, |pool| pool.features.push("known".to_owned()));
    let before = (fs::read(machine.root.path("/dev/vda")).unwrap(), fs::read(machine.root.path("/dev/vda2")).unwrap());
    for (code, change) in cases {
        let mut new = sample(2);
        change(&mut new);
        assert_eq!(machine.install(&new.bundle()).unwrap_err().code(), code);
    }
    let keys = [
        ("unknown-key", SecretKey::from_seed("other", Role::Release, Epoch(1), [2; 32])),
        ("unknown-key", SecretKey::from_seed("dev", Role::Development, Epoch(1), [4; 32])),
    ];
    for (code, key) in keys {
        assert_eq!(machine.install(&sample(2).bundle_by(&key)).unwrap_err().code(), code);
    }
    let after = (fs::read(machine.root.path("/dev/vda")).unwrap(), fs::read(machine.root.path("/dev/vda2")).unwrap());
    assert!(before == after, "something was written");
    let mut same = sample(2);
    same.manifest.version = Version::new(1, 0, 0);
    let allowed = Allowed { downgrade: true };
    install(&machine.root, &machine.zfs, &same.bundle()[..], allowed, &mut |_| {}).unwrap();
}

#[test]
fn a_bundle_that_breaks_off_or_was_changed_leaves_the_other_slot_empty_and_the_booted_one_first() {
    let whole = sample(2).bundle();
    let mut changed = whole.clone();
    let at = whole.len() - 1024 - 20_000;
    changed[at] ^= 1;
    let longer = [&whole[..], &[0; 512]].concat();
    let cases = [
        ("bundle-truncated", &whole[..whole.len() / 2]),
        ("member-digest", &changed[..]),
        ("bundle-malformed", &longer[..]),
    ];
    for (code, bytes) in cases {
        let machine = machine();
        let before = machine.slot_a();
        let error = machine.install(bytes).unwrap_err();
        assert!([code, "member-read"].contains(&error.code()), "{code}: {error:?}");
        let env = machine.env();
        assert_eq!((env.record(Slot::B).state, env.order()), (SlotState::Empty, [Slot::A, Slot::B]), "{code}");
        let mut disk = File::open(machine.root.path("/dev/vda")).unwrap();
        assert_eq!(read_slot(&mut disk, &layout(), Slot::B).unwrap(), SlotInfo::Empty);
        assert_eq!(machine.slot_a(), before);
        // And the same again, whole, works.
        machine.install(&whole).unwrap();
    }
}

#[test]
fn a_slot_on_trial_is_not_left_without_the_one_it_could_fall_back_to() {
    let machine = machine();
    let mut env = BootEnv::first(Slot::B);
    env.arm(Slot::A).unwrap();
    OsDisk::find(&machine.root).unwrap().save(&env).unwrap();
    assert_eq!(machine.install(&sample(2).bundle()).unwrap_err().code(), "running-on-trial");
    assert_eq!(machine.env(), env);
}
