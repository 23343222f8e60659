use std::collections::HashMap;
use std::fs::File;
use std::time::Duration;

use siris_ibu::ByteSize;
use siris_ibu::keys::SecretKey;
use siris_slots::Tries;
use siris_slots::bootenv::BootEnv;
use siris_slots::writer::check_slot;
use siris_zfs::Model;

use super::http::Patience;
use super::http::served::{Manner, Server};
use super::*;

use super::slots_box::{Sample, key, layout, sample};

pub(super) struct Machine {
    _dir: tempfile::TempDir,
    pub(super) root: Root,
    zfs: Model,
}

pub(super) fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    slots_box::lay(dir.path());
    Machine { root: Root::new(dir.path()), _dir: dir, zfs: Model::new() }
}

impl Machine {
    pub(super) fn install(&self, bundle: &[u8]) -> Result<Armed, UpgradeError> {
        install(&self.root, &self.zfs, bundle, Allowed::default(), &mut |_| {})
    }

    pub(super) fn env(&self) -> BootEnv {
        OsDisk::find(&self.root).unwrap().environment().unwrap()
    }

    pub(super) fn slot_a(&self) -> Vec<u8> {
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
    assert_eq!(armed.unwrap(), Armed { slot: Slot::B, version: Version::new(1, 2, 0), fetched: None });
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

/// What lies beside a bundle on a server.
fn served(new: &Sample, what: &[&str]) -> HashMap<String, Vec<u8>> {
    let old = sample(1);
    let files = [
        ("siris.ibu", new.bundle()),
        ("siris.blocks", new.blocks_file()),
        ("siris.from-1.1.0.patch", new.patch_from(&old)),
    ];
    files.into_iter().filter(|(name, _)| what.contains(name)).map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn install_served(machine: &Machine, manner: Manner, files: HashMap<String, Vec<u8>>) -> Result<Armed, UpgradeError> {
    let server = Server::start(manner, files);
    let client = Client::new(Patience { tries: 3, wait: Duration::from_millis(1) });
    let (url, allowed) = (server.url("siris.ibu"), Allowed::default());
    install_from(&machine.root, &machine.zfs, &client, &url, allowed, &mut |_| {})
}

/// The slot holds the whole of `new`, and its booted neighbour was not touched.
fn holds(machine: &Machine, armed: &Armed, before: &[u8]) {
    assert_eq!((armed.slot, &armed.version), (Slot::B, &Version::new(1, 2, 0)));
    assert_eq!(machine.env().record(Slot::B).state, SlotState::Trial);
    let mut disk = File::open(machine.root.path("/dev/vda")).unwrap();
    let SlotInfo::Written(trailer) = read_slot(&mut disk, &layout(), Slot::B).unwrap() else { panic!("no trailer") };
    let policy = Policy { allow_development: false, min_epoch: Epoch(1) };
    let signed = trailer.verify(&[key().public().clone()], policy).unwrap();
    check_slot(&mut disk, &layout(), Slot::B, &signed).unwrap();
    assert!(machine.slot_a() == before, "the booted slot was written to");
}

#[test]
fn over_the_network_the_cheapest_way_that_there_is_gives_the_same_slot() {
    let new = sample(1).changed(2);
    let all = ["siris.ibu", "siris.blocks", "siris.from-1.1.0.patch"];
    let whole = new.bundle().len() as u64;
    let mut received = Vec::new();
    for (what, manner, way) in [
        (&all[..], Manner::Ranges, Way::Patch),
        (&all[..2], Manner::Ranges, Way::Blocks),
        (&all[..1], Manner::Ranges, Way::Whole),
        (&all[..], Manner::Breaks(5_000), Way::Patch),
        (&all[..], Manner::Whole, Way::Whole),
    ] {
        let machine = machine();
        let before = machine.slot_a();
        let armed = install_served(&machine, manner, served(&new, what)).unwrap();
        holds(&machine, &armed, &before);
        let fetched = armed.fetched.unwrap();
        assert_eq!(fetched.way, way, "{what:?} {manner:?}");
        received.push(fetched.received);
    }
    // The beginning of the bundle, where its manifest is, comes in each time; it is most of so small a bundle.
    assert!(received[0] < received[1] && received[1] < received[2] && received[2] == whole, "{received:?} of {whole}");
}

#[test]
fn a_delta_that_lies_costs_time_and_nothing_else() {
    let new = sample(1).changed(2);
    let cases: [(&str, Way); 2] = [("siris.from-1.1.0.patch", Way::Blocks), ("siris.blocks", Way::Whole)];
    let mut files = served(&new, &["siris.ibu", "siris.blocks", "siris.from-1.1.0.patch"]);
    for (name, way) in cases {
        let file = files.get_mut(name).unwrap();
        // Its last frame.
        let at = file.len() - 20;
        file[at] ^= 0x55;
        let machine = machine();
        let before = machine.slot_a();
        let armed = install_served(&machine, Manner::Ranges, files.clone()).unwrap();
        holds(&machine, &armed, &before);
        assert_eq!(armed.fetched.unwrap().way, way, "{name}");
    }
}

#[test]
fn an_install_that_broke_off_goes_on_from_what_is_there() {
    let new = sample(1).changed(2);
    let (machine, reference) = (machine(), machine());
    let before = machine.slot_a();
    let files = served(&new, &["siris.ibu", "siris.blocks"]);
    // A whole bundle that ends early leaves what came.
    let bundle = new.bundle();
    machine.install(&bundle[..bundle.len() - 60_000]).unwrap_err();
    let armed = install_served(&machine, Manner::Ranges, files.clone()).unwrap();
    holds(&machine, &armed, &before);
    let anew = install_served(&reference, Manner::Ranges, files).unwrap();
    let (again, anew) = (armed.fetched.unwrap(), anew.fetched.unwrap());
    assert!(again.received < anew.received && again.reused > anew.reused, "{again:?} {anew:?}");
}

#[test]
fn a_bundle_on_the_network_is_refused_as_any_other_and_costs_its_beginning_only() {
    let mut new = sample(1).changed(2);
    new.manifest.version = Version::new(1, 1, 0);
    let machine = machine();
    let error = install_served(&machine, Manner::Ranges, served(&new, &["siris.ibu", "siris.blocks"])).unwrap_err();
    assert_eq!(error.code(), "downgrade");
    let error = install_served(&machine, Manner::Ranges, HashMap::new()).unwrap_err();
    assert_eq!(error.code(), "bundle-not-found");
}
