use std::io::{Cursor, Seek, Write};

use siris_ibu::keys::{Epoch, Role, SecretKey};
use siris_ibu::manifest::{BuildTime, SCHEMA, Zfs};
use siris_ibu::signature::{Policy, SignatureFile, VerifyError};
use siris_ibu::verity::Salt;
use siris_ibu::{Manifest, Version};

use super::*;
use crate::guid::GuidSource;
use crate::layout::{SectorSize, Sizes};
use crate::trailer::{SlotInfo, Trailer, read_slot};

/// A small payload, signed.
pub(crate) struct Sample {
    pub(crate) signed: SignedManifest,
    pub(crate) tree: Vec<u8>,
    pub(crate) boot: Vec<u8>,
    pub(crate) root: Vec<u8>,
    key: SecretKey,
}

const POLICY: Policy = Policy { allow_development: true, min_epoch: Epoch(0) };

impl Sample {
    pub(crate) fn new(seed: u8) -> Self {
        let noise = |len: u32| (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect();
        let (root, boot): (Vec<u8>, Vec<u8>) = (noise(300 * 4096), noise(65 * 4096));
        let mut tree = Vec::new();
        let salt = Salt::from_bytes([seed; 32]);
        let uuid = "11223344-5566-7788-99aa-bbccddeeff00".parse().unwrap();
        let verity = verity::build(&root[..], root.len() as u64, salt, uuid, &mut tree).unwrap();
        let member = |b: &[u8]| Member { size: ByteSize::from_bytes(b.len() as u64), sha256: Sha256::of(b) };
        let manifest = Manifest {
            schema: SCHEMA,
            product: "siris".parse().unwrap(),
            compatible: vec!["siris".parse().unwrap()],
            version: Version::new(1, 0, seed.into()),
            lowest_replaces: Version::new(0, 0, 0),
            built: BuildTime::from_unix(0).unwrap(),
            kernel: "6.12".into(),
            slot_size_min: sizes().slot,
            key_epoch: Epoch(0),
            zfs: Zfs { version: "2.3".into(), features_read: [].into(), features_write: [].into() },
            tree: member(&tree),
            boot: member(&boot),
            root: member(&root),
            verity,
            next_key: None,
        };
        let key = SecretKey::from_seed("test", Role::Development, Epoch(0), [1; 32]);
        let bytes = manifest.to_bytes().unwrap();
        let sig = SignatureFile::new(vec![key.sign(&bytes)]).to_bytes();
        let signed = SignedManifest::verify(&bytes, &sig, &[key.public().clone()], POLICY).unwrap();
        Self { signed, tree, boot, root, key }
    }

    pub(crate) fn verify(&self, trailer: &Trailer) -> Result<SignedManifest, VerifyError> {
        trailer.verify(&[self.key.public().clone()], POLICY)
    }

    fn write(&self, dev: &mut dyn Device, slot: Slot, proof: Proof) -> Result<(), WriteError> {
        let (mut tree, mut boot, mut root) = (&self.tree[..], &self.boot[..], &self.root[..]);
        let payload = Payload { tree: &mut tree, boot: &mut boot, root: &mut root };
        let options = WriteOptions { zeros: Zeros::Write, proof };
        write_slot(dev, &layout(), slot, &self.signed, payload, options, &mut |_| {})
    }
}

pub(crate) fn sizes() -> Sizes {
    let mib = ByteSize::mib;
    Sizes { esp: mib(2), boot: mib(1), slot: mib(3), state_min: mib(8) }
}

fn layout() -> Layout {
    let guids = GuidSource::Seed(Sha256::of(b"seed"));
    Layout::plan(sizes().smallest_disk(), SectorSize::S512, &sizes(), &guids).unwrap()
}

/// A disk that remembers what was written to it, and when that was flushed.
pub(crate) struct Recorder {
    pub(crate) disk: Cursor<Vec<u8>>,
    /// Writes between two syncs.
    epochs: Vec<Vec<(u64, Vec<u8>)>>,
}

impl Read for Recorder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.read(buf)
    }
}

impl Write for Recorder {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Small enough that most writes are cut in several places.
        let (at, buf) = (self.disk.position(), &buf[..buf.len().min(64 << 10)]);
        self.epochs.last_mut().unwrap().push((at, buf.to_vec()));
        self.disk.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Recorder {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.disk.seek(to)
    }
}

impl Device for Recorder {
    fn sync(&mut self) -> io::Result<()> {
        self.epochs.push(Vec::new());
        Ok(())
    }
}

impl Recorder {
    pub(crate) fn new(disk: Vec<u8>) -> Self {
        Self { disk: Cursor::new(disk), epochs: vec![Vec::new()] }
    }

    /// Every disk that a power cut can leave: after each write, with the last one torn, and, as nothing is ordered
    /// between two syncs, with any single write of the last epoch missing.
    pub(crate) fn cuts(&self, before: &[u8], mut each: impl FnMut(&mut Cursor<Vec<u8>>)) {
        let apply = |disk: &mut [u8], at: u64, bytes: &[u8]| {
            disk[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        };
        let mut synced = before.to_vec();
        for epoch in &self.epochs {
            let mut disk = synced.clone();
            for (at, bytes) in epoch {
                let mut torn = disk.clone();
                apply(&mut torn, *at, &bytes[..bytes.len() / 2]);
                each(&mut Cursor::new(torn));
                apply(&mut disk, *at, bytes);
                each(&mut Cursor::new(disk.clone()));
            }
            for missing in 0..epoch.len() {
                let mut disk = synced.clone();
                let others = epoch.iter().enumerate().filter(|(n, _)| *n != missing);
                others.for_each(|(_, (at, bytes))| apply(&mut disk, *at, bytes));
                each(&mut Cursor::new(disk));
            }
            synced = disk;
        }
    }
}

fn disk(fill: u8) -> Cursor<Vec<u8>> {
    Cursor::new(vec![fill; sizes().smallest_disk().bytes() as usize])
}

/// The boot sector of `slot`, which decides whether GRUB finds a file system there.
fn boot_head(disk: &[u8], slot: Slot) -> &[u8] {
    let at = layout().start(Part::Boot(slot)) as usize;
    &disk[at..at + HEAD as usize]
}

#[test]
fn a_written_slot_verifies_and_the_rest_is_untouched() {
    let sample = Sample::new(1);
    let mut dev = disk(0xaa);
    sample.write(&mut dev, Slot::B, Proof::Both).unwrap();
    let SlotInfo::Written(trailer) = read_slot(&mut dev, &layout(), Slot::B).unwrap() else { panic!() };
    assert_eq!(sample.verify(&trailer).unwrap(), sample.signed);
    assert_eq!(trailer.unverified().as_ref(), Some(sample.signed.manifest()));
    check_slot(&mut dev, &layout(), Slot::B, &sample.signed).unwrap();
    assert_eq!(read_slot(&mut dev, &layout(), Slot::A).unwrap(), SlotInfo::Empty);
    let layout = layout();
    for part in Part::ALL {
        if !matches!(part, Part::Boot(Slot::B) | Part::Root(Slot::B)) {
            let (start, len) = (layout.start(part) as usize, layout.len(part) as usize);
            assert!(dev.get_ref()[start..start + len].iter().all(|b| *b == 0xaa), "{part:?} was touched");
        }
    }
}

#[test]
fn damage_is_found_wherever_it_is() {
    let sample = Sample::new(1);
    let mut dev = disk(0);
    sample.write(&mut dev, Slot::A, Proof::Passing).unwrap();
    let (root, boot) = (layout().start(Part::Root(Slot::A)) as usize, layout().start(Part::Boot(Slot::A)) as usize);
    for at in [root, root + 299 * 4096, root + sample.root.len(), root + sample.root.len() + 5000, boot, boot + 260_000]
    {
        dev.get_mut()[at] ^= 1;
        check_slot(&mut dev, &layout(), Slot::A, &sample.signed).unwrap_err();
        dev.get_mut()[at] ^= 1;
    }
    check_slot(&mut dev, &layout(), Slot::A, &sample.signed).unwrap();
    dev.get_mut()[trailer::offset(&layout(), Slot::A) as usize + 10] = 0xff;
    assert_eq!(read_slot(&mut dev, &layout(), Slot::A).unwrap(), SlotInfo::Damaged);
}

#[test]
fn what_is_not_as_signed_leaves_the_slot_empty() {
    type Change = fn(&mut Sample);
    let cases: [(&str, Change); 6] = [
        ("member-digest", |s| s.root[1_000_000] ^= 1),
        ("member-digest", |s| s.tree[4096] ^= 1),
        ("member-digest", |s| s.boot[0] ^= 1),
        ("member-size", |s| s.boot.push(0)),
        ("member-size", |s| s.root.truncate(4096)),
        ("member-size", |s| s.tree.clear()),
    ];
    for (code, change) in cases {
        let mut dev = disk(0);
        Sample::new(1).write(&mut dev, Slot::A, Proof::Passing).unwrap();
        let mut sample = Sample::new(2);
        change(&mut sample);
        assert_eq!(sample.write(&mut dev, Slot::A, Proof::Both).unwrap_err().code(), code);
        assert_eq!(read_slot(&mut dev, &layout(), Slot::A).unwrap(), SlotInfo::Empty);
        assert!(boot_head(dev.get_ref(), Slot::A).iter().all(|b| *b == 0), "{code}: still bootable");
    }
}

#[test]
fn a_source_that_was_proven_is_proven_again_on_the_medium() {
    let changes: [fn(&mut Sample); 3] = [|s| s.root[1_000_000] ^= 1, |s| s.tree[4096] ^= 1, |s| s.boot[5000] ^= 1];
    for change in changes {
        let (mut dev, mut sample) = (disk(0), Sample::new(1));
        sample.write(&mut dev, Slot::A, Proof::Medium).unwrap();
        change(&mut sample);
        assert_eq!(sample.write(&mut dev, Slot::A, Proof::Medium).unwrap_err().code(), "slot-read-back");
        assert_eq!(read_slot(&mut dev, &layout(), Slot::A).unwrap(), SlotInfo::Empty);
        assert!(boot_head(dev.get_ref(), Slot::A).iter().all(|b| *b == 0), "still bootable");
    }
}

#[test]
fn a_member_left_out_is_noticed() {
    let (sample, layout) = (Sample::new(1), layout());
    let (mut dev, mut ignore) = (disk(0), |_| {});
    let options = WriteOptions { zeros: Zeros::Write, proof: Proof::Passing };
    let mut writer = SlotWriter::begin(&mut dev, &layout, Slot::A, &sample.signed, options, &mut ignore).unwrap();
    writer.member(MemberKind::Root, &mut &sample.root[..]).unwrap();
    writer.member(MemberKind::Tree, &mut &sample.tree[..]).unwrap();
    assert_eq!(writer.finish().unwrap_err().code(), "member-missing");
    assert_eq!(read_slot(&mut dev, &layout, Slot::A).unwrap(), SlotInfo::Empty);
}

#[test]
fn a_slot_that_is_too_small_is_not_emptied() {
    let sample = Sample::new(1);
    let small = Sizes { slot: ByteSize::mib(2), ..sizes() };
    let layout = Layout::plan(sizes().smallest_disk(), SectorSize::S512, &small, &GuidSource::Random).unwrap();
    let (mut dev, mut ignore) = (disk(7), |_| {});
    let options = WriteOptions { zeros: Zeros::Write, proof: Proof::Passing };
    let begun = SlotWriter::begin(&mut dev, &layout, Slot::A, &sample.signed, options, &mut ignore);
    assert_eq!(begun.err().unwrap().code(), "slot-too-small");
    assert!(dev.get_ref().iter().all(|b| *b == 7));
}

#[test]
fn power_lost_at_any_write_leaves_old_or_none_or_new() {
    let (old, new) = (Sample::new(1), Sample::new(2));
    let mut before = disk(0);
    old.write(&mut before, Slot::B, Proof::Passing).unwrap();
    let before = before.into_inner();
    let mut dev = Recorder::new(before.clone());
    new.write(&mut dev, Slot::B, Proof::Passing).unwrap();

    let mut outcomes = [0; 3];
    dev.cuts(&before, |disk| {
        // A trailer that verifies means that all of that payload is there.
        let verified = match read_slot(disk, &layout(), Slot::B).unwrap() {
            SlotInfo::Written(trailer) => new.verify(&trailer).ok(),
            _ => None,
        };
        if let Some(signed) = verified {
            check_slot(disk, &layout(), Slot::B, &signed).unwrap();
            outcomes[if signed == old.signed { 0 } else { 2 }] += 1;
            return;
        }
        outcomes[1] += 1;
        // So does a boot sector: the old one as long as nothing else is gone, the new one when every member is there.
        for sample in [&old, &new] {
            if boot_head(disk.get_ref(), Slot::B) == &sample.boot[..HEAD as usize] {
                check_slot(disk, &layout(), Slot::B, &sample.signed).unwrap();
            }
        }
    });
    assert!(outcomes.iter().all(|n| *n > 0), "{outcomes:?}");
}
