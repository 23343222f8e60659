use std::collections::BTreeSet;

use siris_zfs::Model;

use super::*;
use crate::pools::memory::{Memory, reconcile};
use crate::root::PASSWORD_HASH;
use crate::vectors::peer::Rights;

struct Machine {
    _dir: tempfile::TempDir,
    root: Root,
}

/// A box with these pools of the model.
fn machine(zfs: &Model, id: &str) -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    let (memory, _) = reconcile(&Memory::new(), None, &zfs.pools().unwrap(), &BTreeSet::new(), true);
    memory::store(&root, &memory).unwrap();
    root.write(DEVICE_ID, format!("{id}\n").as_bytes(), 0o644).unwrap();
    Machine { _dir: dir, root }
}

const A: &str = "6a7e0f0e-4f5c-4a55-9f51-0d7e60a3a1b2";
const B: &str = "11111111-4f5c-4a55-9f51-0d7e60a3a1b2";
const C: &str = "22222222-4f5c-4a55-9f51-0d7e60a3a1b2";

/// A box with a configuration, a network and a receipt, whose record is on its pool.
fn kept(zfs: &Model) -> Machine {
    let a = machine(zfs, A);
    a.root
        .write(CONFIG, b"schema = 1\nrole = \"cloud\"\nhostname = \"node7\"\n[dns]\nservers = [\"192.0.2.1\"]\n", 0o644)
        .unwrap();
    a.root.write(&format!("{NETWORK}/10-a.network"), b"[Match]\n", 0o644).unwrap();
    a.root.write(RECEIPT, b"{\"receipt\": {\"install\": \"batch-7\"}}", 0o644).unwrap();
    a.root.write(PASSWORD_HASH, b"$y$secret\n", 0o600).unwrap();
    let records = Store::open(&a.root).unwrap();
    let rights =
        Rights { device: Uuid::nil(), prefix: "tank/home/agents".parse().unwrap(), may_receive: true, may_send: false };
    let peer = Peer { name: "office".parse().unwrap(), key: "ssh-ed25519 AAAA".to_owned(), rights };
    records.add_peer(&peer).unwrap();
    drop(records);
    assert_eq!(store(&a.root, zfs).unwrap(), 1);
    a
}

#[test]
fn a_box_installed_anew_is_itself_again() {
    let zfs = Model::new();
    zfs.create(1, "tank");
    let a = kept(&zfs);
    assert_eq!(store(&a.root, &zfs).unwrap(), 0, "nothing changed");

    let b = machine(&zfs, B);
    b.root.write(CONFIG, b"schema = 1\nrole = \"local\"\n[dns]\nservers = [\"192.0.2.9\"]\n", 0o644).unwrap();
    b.root.write(PENDING, b"schema = 1\nnetwork = true\n", 0o644).unwrap();
    assert_eq!(restore(&b.root, &zfs).unwrap(), Restored::Again(A.parse().unwrap()));
    assert_eq!(b.root.read(DEVICE_ID).unwrap().unwrap().trim(), A);
    let (config, faults) = BoxConfig::load(&b.root).unwrap();
    assert!(faults.is_empty());
    // What the install decided stays; what it did not comes back.
    assert_eq!((config.role(), config.text(Key::Hostname)), ("local", Some("node7")));
    assert_eq!(config.list(Key::DnsServers), ["192.0.2.9"]);
    assert_eq!(b.root.read(&format!("{NETWORK}/10-a.network")).unwrap().unwrap(), "[Match]\n");
    assert!(b.root.read(&format!("{RECEIPTS}/install-batch-7.json")).unwrap().is_some());
    // Who may dial it still may.
    assert_eq!(Store::read(&b.root).unwrap().unwrap().peers().unwrap()[0].name.as_str(), "office");
    assert!(b.root.read(keys::AUTHORIZED).unwrap().unwrap().contains("siris-peer:office"));
    assert_eq!(restore(&b.root, &zfs).unwrap(), Restored::Nothing, "once");
}

#[test]
fn no_secret_is_kept() {
    let zfs = Model::new();
    let guid = zfs.create(1, "tank");
    kept(&zfs);
    let mut seen = String::new();
    zfs.change(guid, |pool| {
        for properties in pool.datasets.values() {
            seen += &decode(properties).map(|record| format!("{record:?}")).unwrap_or_default();
        }
    });
    assert!(seen.contains("node7") && !seen.contains("secret"), "{seen}");
}

#[test]
fn another_boxs_record_stays_and_the_last_one_counts() {
    let zfs = Model::new();
    zfs.create(1, "tank");
    kept(&zfs);
    // The pool moved to a living box, which keeps its own record there.
    let b = machine(&zfs, B);
    assert_eq!(restore(&b.root, &zfs).unwrap(), Restored::Nothing, "nobody asked for it");
    store(&b.root, &zfs).unwrap();
    let name: PoolName = "tank".parse().unwrap();
    assert_eq!(read(&name, &zfs).unwrap().device_id.to_string(), B);
    assert!(zfs.user_properties(&of(&name, A.parse().unwrap()).unwrap()).unwrap().is_some());
}

#[test]
fn pools_that_disagree_decide_nothing() {
    let zfs = Model::new();
    let one = zfs.create(1, "one");
    kept(&zfs);
    zfs.change(one, |pool| pool.imported = false);
    zfs.create(2, "two");
    store(&machine(&zfs, B).root, &zfs).unwrap();
    zfs.change(one, |pool| pool.imported = true);
    let c = machine(&zfs, C);
    c.root.write(PENDING, b"schema = 1\n", 0o644).unwrap();
    assert_eq!(restore(&c.root, &zfs).unwrap_err().code(), "escrow-ambiguous");
    assert_eq!(c.root.read(DEVICE_ID).unwrap().unwrap().trim(), C);
    assert!(c.root.read(PENDING).unwrap().is_some());
}

#[test]
fn a_pool_that_is_late_is_waited_for() {
    let zfs = Model::new();
    let guid = zfs.create(1, "tank");
    kept(&zfs);
    let b = machine(&zfs, B);
    b.root.write(PENDING, b"schema = 1\n", 0o644).unwrap();
    zfs.change(guid, |pool| pool.imported = false);
    assert_eq!(restore(&b.root, &zfs).unwrap(), Restored::Later);
    zfs.change(guid, |pool| pool.imported = true);
    assert_eq!(restore(&b.root, &zfs).unwrap(), Restored::Again(A.parse().unwrap()));
}

#[test]
fn a_long_record_comes_back_whole_and_a_damaged_one_is_said() {
    let mut seed = 1u64;
    let mut letter = || {
        // Xorshift: nothing for gzip to find.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        char::from(b'a' + (seed >> 32) as u8 % 26)
    };
    let noise: String = (0..60_000).map(|_| letter()).collect();
    let record = Record {
        schema: 1,
        device_id: A.parse().unwrap(),
        config: String::new(),
        network: BTreeMap::new(),
        receipts: BTreeMap::from([("install-1.json".to_owned(), noise)]),
        records: Dump::new(),
    };
    let mut parts = encode(&record).unwrap();
    assert!(parts.len() > 2 && parts.values().all(|part| part.len() <= USER_PROPERTY_MAX));
    assert_eq!(decode(&parts).unwrap(), record);
    parts.pop_last();
    assert!(decode(&parts).is_err());
}
