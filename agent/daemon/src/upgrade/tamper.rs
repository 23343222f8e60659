//! Every way to tamper with a bundle: each is refused with a code of its own, the booted slot is what boots, and the
//! other one boots nothing.

use std::fs::{self, File};

use siris_ibu::keys::{Epoch, Role, SecretKey};
use siris_ibu::signature::SignatureFile;
use siris_ibu::{ByteSize, Version};
use siris_slots::device::Device;
use siris_slots::trailer::{SlotInfo, read_slot};
use siris_slots::{Part, Slot, SlotState};

use super::slots_box::{Sample, key, layout, sample};
use super::tests::{Machine, machine};

const BLOCK: usize = 512;
const NAMES: [&str; 5] = ["manifest.toml", "manifest.sig", "tree", "boot", "root"];

/// A bundle taken apart: every member with its header and padding, then the end.
struct Pieces {
    members: Vec<Vec<u8>>,
    end: Vec<u8>,
}

impl Pieces {
    fn of(bundle: &[u8]) -> Self {
        let (mut members, mut at) = (Vec::new(), 0);
        while bundle[at] != 0 {
            let size = tar::Header::from_byte_slice(&bundle[at..at + BLOCK]).entry_size().unwrap() as usize;
            let end = at + BLOCK + size.next_multiple_of(BLOCK);
            members.push(bundle[at..end].to_vec());
            at = end;
        }
        assert_eq!(members.len(), NAMES.len());
        Self { members, end: bundle[at..].to_vec() }
    }

    fn whole(&self) -> Vec<u8> {
        [self.members.concat(), self.end.clone()].concat()
    }

    /// Where a member begins.
    fn start(&self, member: usize) -> usize {
        self.members[..member].iter().map(Vec::len).sum()
    }

    /// The bundle with its members put in this order.
    fn ordered(&self, order: &[usize]) -> Vec<u8> {
        let members: Vec<Vec<u8>> = order.iter().map(|member| self.members[*member].clone()).collect();
        [members.concat(), self.end.clone()].concat()
    }

    /// The bundle with one header changed, its checksum right.
    fn with_header(&self, member: usize, change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
        let mut members = self.members.clone();
        let mut header = tar::Header::from_byte_slice(&members[member][..BLOCK]).clone();
        change(&mut header);
        header.set_cksum();
        members[member][..BLOCK].copy_from_slice(header.as_bytes());
        [members.concat(), self.end.clone()].concat()
    }
}

fn flipped(bundle: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bundle.to_vec();
    bytes[at] ^= 1;
    bytes
}

type Case = (String, &'static str, Vec<u8>);

/// What happens to the file.
fn files() -> Vec<Case> {
    let pieces = Pieces::of(&sample(2).bundle());
    let whole = pieces.whole();
    let mut cases: Vec<Case> = Vec::new();
    let mut case = |name: String, code: &'static str, bytes: Vec<u8>| cases.push((name, code, bytes));
    for (member, name) in NAMES.into_iter().enumerate() {
        let (start, len) = (pieces.start(member), pieces.members[member].len());
        let content = ["bad-signature", "bad-signature", "member-digest", "member-digest", "member-digest"][member];
        // In the signature file, in the digits of the signature itself.
        let at = if name == "manifest.sig" { find(&whole, b"signature = \"") + 20 } else { start + BLOCK + len / 3 };
        case(format!("a bit of {name}"), content, flipped(&whole, at));
        case(format!("a bit of the header of {name}"), "bundle-malformed", flipped(&whole, start + 100));
        case(format!("cut before {name}"), "bundle-truncated", whole[..start].to_vec());
        case(format!("cut in the header of {name}"), "bundle-truncated", whole[..start + 300].to_vec());
        case(format!("cut in {name}"), "bundle-truncated", whole[..start + BLOCK + 100].to_vec());
        let others: Vec<usize> = (0..NAMES.len()).filter(|other| *other != member).collect();
        case(format!("without {name}"), "bundle-malformed", pieces.ordered(&others));
        let twice: Vec<usize> =
            (0..NAMES.len()).flat_map(|other| if other == member { vec![other; 2] } else { vec![other] }).collect();
        case(format!("{name} twice"), "bundle-malformed", pieces.ordered(&twice));
        for path in ["../tree", "./root", "/etc/shadow", "tree/../root", "root\0/x"] {
            let bytes = pieces.with_header(member, |header| {
                let name = &mut header.as_old_mut().name;
                name.fill(0);
                name[..path.len()].copy_from_slice(path.as_bytes());
            });
            case(format!("{name} called {path:?}"), "bundle-malformed", bytes);
        }
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::XHeader] {
            let bytes = pieces.with_header(member, |header| header.set_entry_type(kind));
            case(format!("{name} as {kind:?}"), "bundle-malformed", bytes);
        }
        let size = tar::Header::from_byte_slice(&pieces.members[member][..BLOCK]).entry_size().unwrap();
        let giant =
            ["bundle-oversized", "bundle-oversized", "bundle-truncated", "bundle-malformed", "bundle-malformed"];
        let longer = if name == "tree" { "member-size" } else { "bundle-malformed" };
        for (what, size, code) in [("a giant", 1 << 40, giant[member]), ("a block more", size + 512, longer)] {
            let bytes = pieces.with_header(member, |header| header.set_size(size));
            case(format!("{name} said to be {what}"), code, bytes);
        }
    }
    for order in [[1, 0, 2, 3, 4], [0, 1, 3, 2, 4], [0, 1, 2, 4, 3], [4, 3, 2, 1, 0]] {
        case(format!("in the order {order:?}"), "bundle-malformed", pieces.ordered(&order));
    }
    let mut extra = tar::Header::new_ustar();
    extra.set_path("extra").unwrap();
    extra.set_size(0);
    extra.set_cksum();
    for at in 0..=NAMES.len() {
        let mut members = pieces.members.clone();
        members.insert(at, extra.as_bytes().to_vec());
        case(
            format!("a member more at place {at}"),
            "bundle-malformed",
            [members.concat(), pieces.end.clone()].concat(),
        );
    }
    for more in [vec![0], vec![0; 512], whole.clone()] {
        case(format!("{} bytes more", more.len()), "bundle-malformed", [&whole[..], &more].concat());
    }
    case("nothing".to_owned(), "bundle-truncated", Vec::new());
    cases
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).unwrap()
}

/// What is signed, and by whom. The box trusts, beside the key of these bundles, a retired one and one for development.
fn signed() -> Vec<Case> {
    let new = sample(2);
    let mut cases: Vec<Case> = Vec::new();
    let by = |name, role, epoch, seed: u8| SecretKey::from_seed(name, role, Epoch(epoch), [seed; 32]);
    let others = [
        ("an unknown release key", "unknown-key", by("other", Role::Release, 1, 2)),
        ("an unknown development key", "unknown-key", by("dev", Role::Development, 1, 4)),
        ("a retired key", "key-epoch", retired()),
        ("a development key", "development-key", development()),
    ];
    cases.extend(others.into_iter().map(|(name, code, key)| (format!("signed by {name}"), code, new.bundle_by(&key))));
    let manifest = new.manifest.to_bytes().unwrap();
    let signatures =
        |keys: &[&SecretKey]| SignatureFile::new(keys.iter().map(|key| key.sign(&manifest)).collect()).to_bytes();
    let nobody = new.bundle_of(&manifest, b"schema = 1\nsignature = []\n");
    cases.push(("signed by nobody".to_owned(), "unknown-key", nobody));
    let twice = new.bundle_of(&manifest, &signatures(&[&key(), &key()]));
    cases.push(("signed twice by one key".to_owned(), "duplicate-key", twice));
    // Who knows a later form of signature files has another program.
    let newer = new.bundle_of(&manifest, b"schema = 2\nsignature = []\n");
    cases.push(("a signature file of another schema".to_owned(), "unknown-schema", newer));

    let text = String::from_utf8(manifest.clone()).unwrap();
    for (name, code, text) in [
        (
            "a newer schema with another field",
            "unknown-schema",
            format!("new = 1\n{}", text.replacen("schema = 1", "schema = 2", 1)),
        ),
        ("an unknown field", "manifest-unreadable", format!("new = 1\n{text}")),
        ("a field twice", "manifest-unreadable", format!("schema = 1\n{text}")),
        ("no TOML", "manifest-unreadable", format!("{text}\0")),
    ] {
        let signatures = SignatureFile::new(vec![key().sign(text.as_bytes())]).to_bytes();
        cases.push((format!("a manifest with {name}"), code, new.bundle_of(text.as_bytes(), &signatures)));
    }

    type Change = fn(&mut Sample);
    let changes: [(&str, &'static str, Change); 6] = [
        ("of another product", "wrong-product", |s| s.manifest.compatible = vec!["alto".parse().unwrap()]),
        ("of an older version", "downgrade", |s| s.manifest.version = Version::new(1, 0, 9)),
        ("of the same version", "downgrade", |s| s.manifest.version = Version::new(1, 1, 0)),
        ("for later versions", "running-too-old", |s| s.manifest.lowest_replaces = Version::new(1, 1, 5)),
        ("for larger slots", "slot-too-small", |s| s.manifest.slot_size_min = ByteSize::mib(4)),
        ("that goes back to an earlier key epoch", "key-epoch-back", |s| s.manifest.key_epoch = Epoch(0)),
    ];
    for (name, code, change) in changes {
        let mut new = sample(2);
        change(&mut new);
        cases.push((format!("a bundle {name}"), code, new.bundle()));
    }
    cases
}

fn retired() -> SecretKey {
    SecretKey::from_seed("retired", Role::Release, Epoch(0), [8; 32])
}

fn development() -> SecretKey {
    SecretKey::from_seed("development", Role::Development, Epoch(1), [9; 32])
}

fn boots_nothing_but_what_it_did(machine: &Machine, before: &[u8], name: &str) {
    let env = machine.env();
    assert_eq!((env.record(Slot::B).state, env.order()[0]), (SlotState::Empty, Slot::A), "{name}");
    let mut disk = File::open(machine.root.path("/dev/vda")).unwrap();
    disk.forget().unwrap();
    assert_eq!(read_slot(&mut disk, &layout(), Slot::B).unwrap(), SlotInfo::Empty, "{name}");
    let disk = fs::read(machine.root.path("/dev/vda")).unwrap();
    let boot = layout().start(Part::Boot(Slot::B)) as usize;
    assert!(disk[boot..boot + 4096].iter().all(|byte| *byte == 0), "{name}: the other slot has a boot sector");
    assert!(machine.slot_a() == before, "{name}: the booted slot was written to");
}

#[test]
fn every_way_to_tamper_is_refused_with_its_own_code_and_boots_nothing() {
    let machine = machine();
    for key in [retired(), development()] {
        let path = machine.root.path(format!("/usr/lib/siris/keys/{}.toml", key.public().name()));
        fs::write(path, key.public().to_bytes()).unwrap();
    }
    let before = machine.slot_a();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (name, code, bytes) in files().into_iter().chain(signed()) {
        count += 1;
        match machine.install(&bytes) {
            Ok(_) => wrong.push(format!("{name}: installed")),
            Err(error) if error.code() != code => wrong.push(format!("{name}: {} and not {code}", error.code())),
            Err(_) => {}
        }
        boots_nothing_but_what_it_did(&machine, &before, &name);
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    machine.install(&sample(2).bundle()).unwrap();
}
