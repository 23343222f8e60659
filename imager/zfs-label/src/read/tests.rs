use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::{CONFIG, CONFIG_END, Copy, Labels, REGION, read};
use crate::bytes::Endian;
use crate::checksum::seal;
use crate::damage::{Damage, NvlistError};
use crate::label::PoolState;
use crate::nvlist::tests::{PACKERS, Packer, by_libnvpair};
use crate::nvlist::{List, Value};
use crate::pool::{Member, auxiliaries, pools};
use crate::support::{Device, case};
use crate::uberblock::tests::{uberblock, write};

pub(crate) fn look(device: &Device) -> Labels {
    read(&mut device.clone(), device.bytes).unwrap()
}

fn codes(labels: &Labels) -> [&'static str; 4] {
    labels.copies.each_ref().map(|copy| match copy {
        Copy::Absent => "absent",
        Copy::Damaged(damage) => damage.code(),
        Copy::Found(_) => "found",
    })
}

/// Writes another configuration into a label copy, as ZFS would.
pub(crate) fn configure(device: &mut Device, n: usize, packed: &[u8], endian: Endian) {
    let at = device.places()[n] + CONFIG as u64;
    let config = &mut device.regions[n * REGION..][CONFIG..CONFIG_END];
    config.fill(0);
    config[..packed.len()].copy_from_slice(packed);
    seal(config, at, endian);
}

/// The configuration in the first copy.
pub(crate) fn configuration(device: &Device) -> List {
    List::unpack(&device.regions[CONFIG..CONFIG_END]).unwrap()
}

/// A device all of whose copies have this configuration.
fn device_with(list: &List) -> Device {
    let mut device = case("mirror").device("a");
    (0..4).for_each(|n| configure(&mut device, n, &Packer::Xdr.pack(list), Endian::Little));
    device
}

#[test]
fn damage_to_one_copy_costs_that_copy_only() {
    let whole = case("mirror").device("a");
    let before = look(&whole);
    assert_eq!(codes(&before), ["found"; 4]);
    let magic = CONFIG_END - 40;
    for n in 0..4 {
        let spots = [
            (CONFIG, "label-checksum"),
            (CONFIG + 300, "label-checksum"),
            (magic - 1, "label-checksum"),
            (magic, "label-no-checksum"),
            (magic + 7, "label-no-checksum"),
            (magic + 8, "label-checksum"),
            (CONFIG_END - 1, "label-checksum"),
        ];
        for (at, code) in spots {
            let mut device = whole.clone();
            device.regions[n * REGION + at] ^= 0x10;
            let after = look(&device);
            let mut wanted = ["found"; 4];
            wanted[n] = code;
            assert_eq!(codes(&after), wanted, "byte {at} of copy {n}");
            assert_eq!(after.best().map(|label| label.vdev), before.best().map(|label| label.vdev));
            assert_ne!(after.fingerprint(), before.fingerprint());
        }
        // Neither the first 16 KiB nor a single uberblock make a label invalid; but a change is a change.
        for at in [0, 100, 8192, CONFIG - 1, CONFIG_END, REGION - 1] {
            let mut device = whole.clone();
            device.regions[n * REGION + at] ^= 0x10;
            let after = look(&device);
            assert_eq!(codes(&after), ["found"; 4]);
            assert_ne!(after.fingerprint(), before.fingerprint(), "a changed byte {at} of copy {n} would go unproven");
        }
    }
}

#[test]
fn a_copy_does_not_hold_in_the_place_of_another() {
    let mut device = case("mirror").device("a");
    let (first, second) = device.regions[..2 * REGION].split_at_mut(REGION);
    first.swap_with_slice(second);
    assert_eq!(codes(&look(&device)), ["label-checksum", "label-checksum", "found", "found"]);
}

#[test]
fn the_last_copies_are_found_on_devices_of_odd_sizes_only_if_the_size_is_right() {
    let device = case("ashift9").device("a");
    assert_ne!(device.bytes % REGION as u64, 0);
    assert_eq!(codes(&look(&device)), ["found"; 4]);
    let resized = Device::new("a", device.bytes + REGION as u64, device.regions.clone());
    assert_eq!(codes(&look(&resized)), ["found", "found", "label-checksum", "label-checksum"]);
}

#[test]
fn devices_without_room_for_four_copies_are_not_read() {
    struct Unread;
    impl Read for Unread {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("read")
        }
    }
    impl Seek for Unread {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            panic!("sought")
        }
    }
    for bytes in [0, 1, 512, REGION as u64, 4 * REGION as u64 - 1] {
        assert!(read(&mut Unread, bytes).unwrap().is_empty());
    }
    let mut least = io::Cursor::new(vec![0; 4 * REGION]);
    assert!(read(&mut least, 4 * REGION as u64).unwrap().is_empty());
}

/// A device whose bytes from `from` to `to` cannot be read.
struct Bad<'a>(&'a mut Device, u64, u64, u64);

impl Read for Bad<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if (self.1..self.2).contains(&self.3) {
            return Err(io::Error::other("medium error"));
        }
        self.0.read(buf)
    }
}

impl Seek for Bad<'_> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.3 = self.0.seek(pos)?;
        Ok(self.3)
    }
}

#[test]
fn a_bad_sector_costs_one_copy_and_a_dead_disk_is_an_error() {
    let mut device = case("mirror").device("a");
    let bytes = device.bytes;
    let whole = look(&device);
    let places = device.places();
    for n in 0..4 {
        let labels = read(&mut Bad(&mut device, places[n], places[n] + 1, 0), bytes).unwrap();
        let mut wanted = ["found"; 4];
        wanted[n] = "label-unreadable";
        assert_eq!(codes(&labels), wanted);
        assert_ne!(labels.fingerprint(), whole.fingerprint());
    }
    // Where nothing but zeros can be read, it still shows which place cannot.
    let mut zeros = Device::new("a", bytes, vec![0; 4 * REGION]);
    let fingerprint = |n: usize| read(&mut Bad(&mut zeros, places[n], places[n] + 1, 0), bytes).unwrap().fingerprint();
    let fingerprints: BTreeSet<_> = (0..4).map(fingerprint).collect();
    assert_eq!(fingerprints.len(), 4);
    assert_eq!(read(&mut Bad(&mut device, 0, u64::MAX, 0), bytes).unwrap_err().to_string(), "medium error");
    // A device that is shorter than it was said to be.
    let mut short = io::Cursor::new(device.regions[..2 * REGION].to_vec());
    let labels = read(&mut short, bytes).unwrap();
    assert_eq!(codes(&labels), ["found", "found", "label-unreadable", "label-unreadable"]);
}

#[test]
fn the_best_copy_is_the_newest_and_of_several_the_first() {
    let mut device = case("mirror").device("a");
    let txg = look(&device).best().unwrap().txg.unwrap();
    let mut list = configuration(&device);
    for (n, txg, path) in [(1, txg + 1, "one"), (2, txg + 1, "two"), (3, txg - 1, "three")] {
        list.set("txg", Value::Number(txg));
        list.set("comment", Value::Text(path.to_owned()));
        configure(&mut device, n, &Packer::Xdr.pack(&list), Endian::Little);
    }
    assert_eq!(look(&device).best().unwrap().comment.as_deref(), Some("one"));
}

#[test]
fn labels_in_the_native_encoding_are_labels() {
    for (n, (xdr, native)) in by_libnvpair().into_iter().take(4).enumerate() {
        let mut device = case("spare-used").devices.remove(n);
        let before = look(&device);
        assert_eq!(List::unpack(&xdr).unwrap(), configuration(&device));
        (0..4).for_each(|n| configure(&mut device, n, &native, Endian::Little));
        assert_eq!(look(&device).copies, before.copies);
    }
}

#[test]
fn labels_of_big_endian_hosts_are_labels() {
    let mut device = case("raidz1").device("b");
    let before = look(&device);
    let list = configuration(&device);
    let newest = before.best().unwrap().uberblock.clone().unwrap();
    for packer in PACKERS {
        for n in 0..4 {
            configure(&mut device, n, &packer.pack(&list), Endian::Big);
            let at = device.places()[n] + CONFIG_END as u64;
            let ring = &mut device.regions[n * REGION + CONFIG_END..(n + 1) * REGION];
            ring.fill(0);
            write(ring, at, 4096, 7, Endian::Big, &newest);
        }
        assert_eq!(look(&device).copies, before.copies, "{packer:?}");
    }
}

#[test]
fn what_zfs_left_is_not_taken_for_nothing() {
    let empty = Device::new("a", 64 << 20, vec![0; 4 * REGION]);
    assert!(look(&empty).is_empty());
    let full = case("mirror").device("a");
    let parts = [("the first sector of its configuration", CONFIG..CONFIG + 512), ("an uberblock", CONFIG_END..REGION)];
    for (what, range) in parts {
        let mut device = empty.clone();
        device.regions[range.clone()].copy_from_slice(&full.regions[range]);
        let labels = look(&device);
        assert_eq!(codes(&labels), ["label-no-checksum", "absent", "absent", "absent"], "{what}");
        assert!(!labels.is_empty(), "a disk with {what} would pass for an empty one");
    }
}

#[test]
fn labels_that_lack_what_a_label_has_are_damaged() {
    let whole = configuration(&case("mirror").device("a"));
    let field = |list: &List| match look(&device_with(list)).copies {
        [Copy::Damaged(Damage::Content { field }), ..] => field,
        [copy, ..] => panic!("{copy:?}"),
    };
    for name in ["version", "state", "guid", "name", "pool_guid", "txg", "vdev_tree", "top_guid"] {
        let mut list = whole.clone();
        list.unset(name);
        assert_eq!(field(&list), name);
        for value in [Value::Flag, Value::Other, Value::Lists(Vec::new())] {
            let mut list = whole.clone();
            list.set(name, value);
            assert_eq!(field(&list), name);
        }
    }
    let mut list = whole.clone();
    list.set("hostid", Value::Number(1 << 32));
    assert_eq!(field(&list), "hostid");
    let mut list = whole.clone();
    list.set("top_guid", Value::Number(1));
    assert_eq!(field(&list), "top_guid", "a tree that is not the device's top-level vdev would be believed");
    for name in ["type", "guid", "id"] {
        let mut list = whole.clone();
        let Some(Value::List(tree)) = whole.find("vdev_tree") else { panic!("no tree") };
        let mut tree = tree.clone();
        tree.unset(name);
        list.set("vdev_tree", Value::List(tree));
        assert_eq!(field(&list), name);
    }
}

#[test]
fn states_are_what_they_are() {
    for (number, state) in
        [(0, PoolState::Active), (1, PoolState::Exported), (2, PoolState::Destroyed), (9, PoolState::Other(9))]
    {
        let mut list = configuration(&case("mirror").device("a"));
        list.set("state", Value::Number(number));
        assert_eq!(look(&device_with(&list)).best().unwrap().state, state);
        assert_eq!(state.to_string().parse(), Ok(state));
    }
    assert!("state-2".parse::<PoolState>().is_err(), "one state would have two texts");
}

#[test]
fn a_list_that_is_none_is_damage_even_under_a_valid_checksum() {
    let mut device = case("mirror").device("a");
    for n in 0..4 {
        configure(&mut device, n, &[2, 1, 0, 0], Endian::Little);
    }
    let damage = Copy::Damaged(Damage::Nvlist { source: NvlistError::Encoding });
    assert_eq!(look(&device).copies, [0; 4].map(|_| damage.clone()));
}

#[test]
fn numbers_without_sense_do_no_harm() {
    let mut device = case("hole").device("a");
    let mut list = configuration(&device);
    list.set("vdev_children", Value::Number(u64::MAX));
    list.set("hole_array", Value::Numbers((0..10_000).map(|n| u64::MAX - n).collect()));
    list.set("txg", Value::Number(u64::MAX));
    for n in 0..4 {
        configure(&mut device, n, &Packer::Xdr.pack(&list), Endian::Little);
        let at = device.places()[n] + CONFIG_END as u64;
        let ring = &mut device.regions[n * REGION + CONFIG_END..(n + 1) * REGION];
        write(ring, at, 1024, 0, Endian::Little, &uberblock(u64::MAX, u64::MAX));
    }
    let member = Member { device: "a".to_owned(), labels: look(&device) };
    assert_eq!(pools(&[member]).len(), 1);
}

/// A change to a configuration.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, Vec<u8>)>> {
    let small = prop::collection::vec(prop_oneof![Just(0_u8), 0_u8..32, any::<u8>()], 1..9);
    prop::collection::vec((any::<prop::sample::Index>(), small), 1..8)
}

proptest! {
    // Each of them hashes megabytes.
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn labels_forged_under_valid_checksums_do_no_harm(edits in edits(), native in any::<bool>(), twice in any::<bool>()) {
        let lists = by_libnvpair();
        let mut members = Vec::new();
        for (n, device) in case("spare-used").devices.iter().enumerate() {
            let mut device = device.clone();
            let (xdr, packed_native) = &lists[n];
            let mut packed = if native { packed_native.clone() } else { xdr.clone() };
            for (at, bytes) in &edits {
                let at = at.index(packed.len() - bytes.len());
                packed[at..at + bytes.len()].copy_from_slice(bytes);
            }
            configure(&mut device, n % 4, &packed, Endian::Little);
            if twice {
                configure(&mut device, (n + 1) % 4, &packed, Endian::Little);
            }
            members.push(Member { device: device.name.clone(), labels: look(&device) });
        }
        for pool in pools(&members) {
            assert!(pool.tops.iter().map(|top| top.leaves().len()).sum::<usize>() < 1000);
        }
        auxiliaries(&members);
    }

    #[test]
    fn damaged_devices_do_no_harm(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1_usize..5000), 0..12)) {
        let mut device = case("raidz1").device("a");
        for (at, byte, length) in &damage {
            let at = at.index(device.regions.len() - length);
            device.regions[at..at + length].fill(*byte);
        }
        let labels = look(&device);
        let sound = case("raidz1").device("a");
        for (n, label) in labels.found() {
            let Copy::Found(before) = &look(&sound).copies[n] else { panic!() };
            assert_eq!((label.txg, &label.tree), (before.txg, &before.tree), "damage made a label say something else");
        }
        pools(&[Member { device: device.name, labels }]);
    }
}
