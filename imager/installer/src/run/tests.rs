use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};

use siris_ibu::ByteSize;
use siris_slots::device::Window;
use siris_slots::layout::Part;
use siris_slots::{BootEnv, SectorSize, Slot, bootenv, fat, gpt, writer};

use super::*;
use crate::observe;
use crate::testbox::{self, TestBox, answers};

const GIB: u64 = 1024;

pub(super) fn ready(machine: &TestBox, text: &str) -> Box<Prepared> {
    let answers = Answers::parse(text.as_bytes()).unwrap();
    match prepare(&machine.host, &answers, text.as_bytes(), false).unwrap() {
        Preparation::Ready(prepared) => prepared,
        other => panic!("{other:?}"),
    }
}

pub(super) fn install(machine: &TestBox, text: &str) -> Result<Finished, InstallError> {
    let prepared = ready(machine, text);
    execute(&machine.host, &prepared, &mut Silent, &Stop::default())
}

#[test]
fn an_install_leaves_a_whole_system_and_touches_no_other_disk() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    machine.disk("sda", 2 * GIB);
    // What was on the target: an old table and an old label at both ends.
    let mut old = File::options().write(true).open(machine.disk("sdb", 2 * GIB)).unwrap();
    old.write_all(&[0xaa; 1 << 20]).unwrap();
    old.seek(SeekFrom::End(-(1 << 20))).unwrap();
    old.write_all(&[0xaa; 1 << 20]).unwrap();
    fs::write(machine.path("/dev/sda"), vec![5; 3 << 20]).unwrap();
    File::options().write(true).open(machine.path("/dev/sda")).unwrap().set_len((2 * GIB) << 20).unwrap();
    let before = machine.digest("sda");

    let text = answers("serial:SDB");
    let finished = install(&machine, &text).unwrap();
    assert!(finished.proof.holds, "{:?}", finished.proof.failures);
    assert_eq!(machine.digest("sda"), before);

    let mut dev = File::open(machine.path("/dev/sdb")).unwrap();
    let layout = gpt::read(&mut dev, SectorSize::S512).unwrap();
    let (signed, _) = check::manifest(&machine.host).unwrap();
    writer::check_slot(&mut dev, &layout, Slot::A, &signed).unwrap();
    let mut esp = Window::new(&mut dev, layout.start(Part::Esp), layout.len(Part::Esp));
    let env = BootEnv::parse(&fat::read(&mut esp, bootenv::PATH).unwrap()).unwrap();
    assert_eq!(env.record(Slot::A), BootEnv::first(Slot::A).record(Slot::A));
    assert_eq!(fat::read(&mut esp, "siris/grub.cfg").unwrap(), b"# grub\n");

    // The state partition, as e2fsprogs sees it.
    let cat =
        |file: &str| observe::cat(&machine.path("/dev/sdb"), layout.start(Part::State), &format!("/persist{file}"));
    assert!(cat("/etc/siris/config.toml").unwrap().contains("role = \"cloud\"\nhostname = \"box1\""));
    let receipt = cat(state::RECEIPT).unwrap();
    assert_eq!(
        receipt.trim_end().as_bytes(),
        String::from_utf8(finished.receipt.clone()).unwrap().trim_end().as_bytes()
    );
    let verified = receipt::verify(receipt.as_bytes(), Some(&finished.key)).unwrap();
    assert!(verified.holds);
    assert_eq!(env.other(apply::INSTALL_VARIABLE), Some(verified.install.as_str()));
    assert_eq!(env.other(apply::MEDIUM_VARIABLE).map(str::len), Some(16));

    // The file system is sound after the receipt went in beneath it.
    let part = machine.path("/state.img");
    let mut image = vec![0; 256 << 20];
    dev.seek(SeekFrom::Start(layout.start(Part::State))).unwrap();
    dev.read_exact(&mut image).unwrap();
    fs::write(&part, image).unwrap();
    siris_host::cmd::Cmd::new(siris_host::cmd::Tool::FsckExt4).args(["-fn"]).arg(&part).run().unwrap();

    // The same answers again find the install finished; said so, it is done once more.
    let parsed = Answers::parse(text.as_bytes()).unwrap();
    let again = |again| prepare(&machine.host, &parsed, text.as_bytes(), again).unwrap();
    assert!(matches!(again(false), Preparation::AlreadyThere { disk, .. } if disk.as_str() == "sdb"));
    assert!(matches!(again(true), Preparation::Ready(_)));
}

#[test]
fn what_changes_after_the_plan_stops_it_before_the_first_write() {
    if !testbox::has_mkfs() {
        return;
    }
    type Change = fn(&TestBox);
    let cases: [(&str, Change); 6] = [
        ("machine-changed", |m| drop(m.disk("sdc", GIB))),
        ("machine-changed", |m| m.put("/sys/block/sda/diskseq", b"999\n")),
        ("machine-changed", |m| m.put("/sys/block/sdb/holders/md0", b"")),
        ("image-tampered", |m| flip(m, "root")),
        ("image-tampered", |m| flip(m, "tree")),
        ("image-tampered", |m| flip(m, "boot")),
    ];
    for (code, change) in cases {
        let machine = TestBox::new();
        machine.disk("sda", 2 * GIB);
        machine.disk("sdb", GIB);
        let text = answers("serial:SDA");
        let prepared = ready(&machine, &text);
        change(&machine);
        let error = execute(&machine.host, &prepared, &mut Silent, &Stop::default()).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(matches!(error, InstallError::Refused(_)), "{error}");
        let sectors = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(machine.path("/dev/sda")).unwrap());
        assert_eq!(sectors, 0, "{code}: something was written");
    }
}

fn flip(machine: &TestBox, member: &str) {
    let path = machine.path(siris_live::LIVE).join(member);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10_000] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_manifest_that_nobody_vouches_for_is_refused() {
    let machine = TestBox::new();
    machine.disk("sda", 2 * GIB);
    let answers = Answers::parse(answers("auto").as_bytes()).unwrap();
    let code = || prepare(&machine.host, &answers, b"", false).unwrap_err().code();
    let key = machine.path(siris_live::load::KEYS).join("test.pub");
    let bytes = fs::read(&key).unwrap();
    let other =
        siris_ibu::keys::SecretKey::from_seed("o", siris_ibu::keys::Role::Release, siris_ibu::keys::Epoch(0), [9; 32]);
    fs::write(&key, other.public().to_bytes()).unwrap();
    assert_eq!(code(), "key-unknown");
    fs::write(&key, bytes).unwrap();
    let manifest = machine.path(siris_live::LIVE).join("manifest.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("1.2.3", "9.9.9")).unwrap();
    assert_eq!(code(), "image-tampered");
}

/// Stops once the writing has come half-way.
struct Half(Stop, u64);

impl Progress for Half {
    fn step(&mut self, what: &str, total: u64) {
        self.1 = if what == "writing" { total } else { 0 };
    }
    fn at(&mut self, done: u64) {
        if self.1 > 0 && done > self.1 / 2 {
            self.0.want();
        }
    }
    fn done(&mut self) {}
    fn line(&mut self, _: &str) {}
}

#[test]
fn what_was_carried_over_survives_the_root_it_was_read_from() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    machine.old_system("sda", 2 * GIB);
    machine.put("/sys/class/net/eno1/address", b"00:11:22:33:44:55\n");
    machine.put("/sys/class/net/eno1/device/vendor", b"x");
    let text = format!("{}[network]\nmode = \"carry-over\"\ndns = [\"192.0.2.53\"]\n", answers("serial:SDA"));
    let prepared = ready(&machine, &text);
    assert!(prepared.plan.to_string().contains("192.0.2.7/24 via 192.0.2.1"), "{}", prepared.plan);
    let stop = Stop::default();
    execute(&machine.host, &prepared, &mut Half(stop.clone(), 0), &stop).unwrap_err();

    // Nothing of the old root is left, and it is known all the same.
    let prepared = ready(&machine, &text);
    assert!(prepared.plan.to_string().contains("192.0.2.7/24"), "{}", prepared.plan);
    install(&machine, &text).unwrap();
    let facts = observe(&machine.host).unwrap();
    let start = facts.disks[0].partitions.iter().find(|part| part.number == 7).unwrap().start;
    let port = format!("/persist{}/50-port-001122334455.network", state::NETWORK);
    let kept = observe::cat(&machine.path("/dev/sda"), start, &port).unwrap();
    assert!(kept.contains("Address=192.0.2.7/24"));
    // The next install takes it from the system that is there now.
    let again = Answers::parse(text.as_bytes()).unwrap();
    let Preparation::Ready(prepared) = prepare(&machine.host, &again, b"other", false).unwrap() else { panic!() };
    assert!(prepared.plan.notes[0].contains("the SIRIS OS on /dev/sda"), "{:?}", prepared.plan.notes);
}

#[test]
fn stopped_in_the_middle_it_says_so_and_a_rerun_completes() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    machine.disk("sda", 2 * GIB);
    machine.disk("sdb", GIB);
    let text = answers("serial:SDA");
    let prepared = ready(&machine, &text);
    let stop = Stop::default();
    let error = execute(&machine.host, &prepared, &mut Half(stop.clone(), 0), &stop).unwrap_err();
    assert_eq!(error.code(), "stopped");
    assert!(error.to_string().contains("run the installer again to complete it; every other disk"), "{error}");
    let mut dev = File::open(machine.path("/dev/sda")).unwrap();
    assert!(gpt::read(&mut dev, SectorSize::S512).is_err(), "half a system must not look like one");
    assert!(install(&machine, &text).unwrap().proof.holds);
}

#[test]
fn a_disk_that_is_written_behind_its_fence_fails_the_proof() {
    if !testbox::has_mkfs() {
        return;
    }
    /// Writes to another disk while the target is written.
    struct Culprit<'a>(&'a TestBox);
    impl Progress for Culprit<'_> {
        fn step(&mut self, what: &str, _: u64) {
            if what == "writing" {
                self.0.stat("sdb", 8, 0);
                let mut dev = File::options().write(true).open(self.0.path("/dev/sdb")).unwrap();
                dev.write_all(b"x").unwrap();
            }
        }
        fn at(&mut self, _: u64) {}
        fn done(&mut self) {}
        fn line(&mut self, _: &str) {}
    }
    let machine = TestBox::new();
    machine.disk("sda", 2 * GIB);
    machine.disk("sdb", GIB);
    let text = answers("serial:SDA");
    let prepared = ready(&machine, &text);
    let finished = execute(&machine.host, &prepared, &mut Culprit(&machine), &Stop::default()).unwrap();
    assert!(!finished.proof.holds);
    assert!(finished.proof.failures.iter().any(|f| f.contains("first or last MiB of sdb changed")));
    assert!(!receipt::verify(&finished.receipt, None).unwrap().holds);
}

/// A disk with an old system: a partition that goes, one that stays, and one behind it.
fn old_disk(machine: &TestBox, name: &str) -> (u64, u64) {
    use siris_slots::layout::KeptEntry;
    use siris_slots::{Layout, Sizes, guid::GuidSource};
    let path = machine.disk(name, 3 * GIB);
    let entry = |number: u32, first: u64, last: u64, label: &str| {
        let mut raw = [0x5a; 128];
        raw[32..40].copy_from_slice(&first.to_le_bytes());
        raw[40..48].copy_from_slice(&last.to_le_bytes());
        raw[56..].fill(0);
        label
            .encode_utf16()
            .enumerate()
            .for_each(|(n, unit)| raw[56 + 2 * n..58 + 2 * n].copy_from_slice(&unit.to_le_bytes()));
        KeptEntry::new(number, raw)
    };
    let (first, last) = (2_000_001, 3_000_000);
    let kept =
        [entry(21, 2048, 2_000_000, "root"), entry(4, first, last, "tank"), entry(25, 3_000_001, 4_000_000, "more")];
    let sizes = Sizes { slot: ByteSize::mib(16), ..Sizes::default() };
    let size = ByteSize::mib(3 * GIB);
    let guids = GuidSource::Random;
    let layout = Layout::plan_beside(size, SectorSize::S512, &sizes, &guids, &kept).unwrap();
    let mut dev = File::options().read(true).write(true).open(path).unwrap();
    gpt::apply_kept(&mut dev, &layout, &kept).unwrap();
    for block in (2048..4_100_000u64).step_by(10_000) {
        dev.seek(SeekFrom::Start(block * 512)).unwrap();
        dev.write_all(&[0xaa; 512]).unwrap();
    }
    (first * 512, (last + 1) * 512)
}

#[test]
fn what_is_kept_on_the_target_is_the_same_to_the_byte() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    let (start, end) = old_disk(&machine, "sda");
    let region = |machine: &TestBox| {
        let mut dev = File::open(machine.path("/dev/sda")).unwrap();
        Sha256::of_reader(Window::new(&mut dev, start, end - start)).unwrap()
    };
    let before = region(&machine);
    let text = answers("serial:SDA").replace("slot-size", "keep-partitions = [\"label:tank\"]\nslot-size");
    let finished = install(&machine, &text).unwrap();
    assert!(finished.proof.holds, "{:?}", finished.proof.failures);
    assert_eq!((region(&machine), finished.proof.kept.len()), (before, 1));
    let mut dev = File::open(machine.path("/dev/sda")).unwrap();
    let layout = gpt::read(&mut dev, SectorSize::S512).unwrap();
    let kept = &layout.kept()[0];
    assert_eq!((kept.number(), kept.first_lba() * 512, kept.raw()[10]), (104, start, 0x5a));
    assert_eq!(layout.kept().len(), 1);
    let (signed, _) = check::manifest(&machine.host).unwrap();
    writer::check_slot(&mut dev, &layout, Slot::A, &signed).unwrap();

    // Named by its number, it is found before, in between and after.
    let by_number = text.replace("\"label:tank\"", "4");
    assert!(install(&machine, &by_number).unwrap().proof.holds);
    assert_eq!(region(&machine), before);

    // One that is not there is no reason to go on without it.
    let missing = Answers::parse(text.replace("label:tank", "label:bank").as_bytes()).unwrap();
    assert_eq!(prepare(&machine.host, &missing, b"", false).unwrap_err().code(), "keep-not-found");
}

#[test]
fn two_disks_can_be_given_the_same_system_and_others_lose_theirs() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    for name in ["sda", "sdb"] {
        machine.disk(name, 2 * GIB);
    }
    let mut old = File::options().write(true).open(machine.disk("sdc", GIB)).unwrap();
    let mut sector = [0xeb; 512];
    sector[446..510].fill(0);
    sector[446 + 4] = 0x83;
    sector[446 + 9] = 8;
    sector[446 + 13] = 8;
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    old.write_all(&sector).unwrap();
    let before = machine.digest("sdc");

    let text = answers("serial:SDA").replace("slot-size", "mirror = \"serial:SDB\"\nslot-size");
    let undecided = Answers::parse(text.as_bytes()).unwrap();
    assert_eq!(prepare(&machine.host, &undecided, b"", false).unwrap_err().code(), "other-os-undecided");
    let finished = install(&machine, &format!("{text}[other-os]\ndefault = \"disable\"\n")).unwrap();
    assert!(finished.proof.holds);
    let (mut guids, mut hosts) = (Vec::new(), Vec::new());
    for name in ["sda", "sdb"] {
        let mut dev = File::open(machine.path("/dev").join(name)).unwrap();
        let layout = gpt::read(&mut dev, SectorSize::S512).unwrap();
        let (signed, _) = check::manifest(&machine.host).unwrap();
        writer::check_slot(&mut dev, &layout, Slot::A, &signed).unwrap();
        guids.push(layout.guid());
        let path = machine.path("/dev").join(name);
        hosts.push(observe::cat(&path, layout.start(Part::State), "/persist/var/lib/siris/hostid").unwrap());
    }
    assert_ne!(guids[0], guids[1], "two disks of one machine must be told apart");
    // Whichever disk is left can import what the other one had in use.
    assert_eq!(hosts[0], hosts[1]);
    assert!(u32::from_str_radix(hosts[0].trim(), 16).is_ok_and(|id| id != 0), "{}", hosts[0]);
    assert_ne!(machine.digest("sdc"), before);
    let mut now = [0; 512];
    File::open(machine.path("/dev/sdc")).unwrap().read_exact(&mut now).unwrap();
    assert!(now[..440].iter().all(|byte| *byte == 0) && now[440..] == sector[440..]);
}
