use super::*;
use crate::vectors::limit::Limits;
use crate::vectors::record::stand_in;
use crate::vectors::schedule::Schedule;

pub(super) fn root() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    std::fs::create_dir_all(root.path("/var/lib/siris")).unwrap();
    (dir, root)
}

pub(super) fn machine(name: &str) -> Machine {
    let host_key = "ssh-ed25519 AAAA".to_owned();
    Machine {
        name: name.parse().unwrap(),
        kind: MachineKind::Device,
        device: Some(Uuid::from_u128(7)),
        address: Address { host: "box.example".to_owned(), port: 2222, host_key },
        prefix: "tank/home/agents".parse().unwrap(),
    }
}

pub(crate) fn vector(machine: &str, dataset: &str) -> Vector {
    Vector {
        number: 0,
        machine: machine.parse().unwrap(),
        direction: Direction::Push,
        source: format!("a/{dataset}").parse().unwrap(),
        target: format!("b/{dataset}").parse().unwrap(),
        path: None,
        from: None,
        tier: Tier::Primary,
        priority: Priority::default(),
        limits: Limits::default(),
        schedule: Schedule::Points,
        counted: None,
        paused: false,
        proven: String::new(),
    }
}

#[test]
fn what_is_kept_is_there_after_it_was_opened_anew() {
    let (_dir, root) = root();
    assert!(Store::read(&root).unwrap().is_none());
    let store = Store::open(&root).unwrap();
    store.add_machine(&machine("cloud-1")).unwrap();
    let rights = Rights {
        device: Uuid::from_u128(9),
        prefix: "tank/home/agents".parse().unwrap(),
        may_receive: true,
        may_send: false,
    };
    let peer = Peer { name: "office".parse().unwrap(), key: "ssh-ed25519 BBBB".to_owned(), rights };
    store.add_peer(&peer).unwrap();
    let number = store.add_vector(&vector("cloud-1", "x")).unwrap();
    store.pause(number, true).unwrap();
    let (priority, limits) = (Priority::try_from(1).unwrap(), "mon-fri/08:00-18:00=2MiB none".parse().unwrap());
    let set = Vector { number, priority, limits, schedule: "mon-fri/22:30".parse().unwrap(), ..vector("cloud-1", "x") };
    store.configure(&set).unwrap();
    store.count(number, Some(1_568_402_268)).unwrap();
    assert_eq!(store.at_once().unwrap(), None);
    store.set_at_once(2).unwrap();
    store.set_at_once(7).unwrap();
    drop(store);
    let store = Store::read(&root).unwrap().unwrap();
    assert_eq!(store.machine("cloud-1").unwrap(), machine("cloud-1"));
    assert_eq!(store.peers().unwrap(), [peer]);
    let expected = Vector { paused: true, counted: Some(1_568_402_268), ..set };
    assert_eq!(store.vectors().unwrap(), std::slice::from_ref(&expected));
    let written = Store::open(&root).unwrap();
    written.turn(number).unwrap();
    let turned = store.vector(number).unwrap();
    assert_eq!((&turned.source, &turned.target), (&expected.target, &expected.source));
    assert_eq!(turned.direction, Direction::Pull);
    written.turn(number).unwrap();
    assert_eq!(store.vectors().unwrap(), [expected]);
    assert_eq!(store.at_once().unwrap(), Some(7));
}

#[test]
fn a_relay_keeps_both_machines_and_turns_between_them() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    for name in ["office", "vault"] {
        store.add_machine(&machine(name)).unwrap();
    }
    let from = Some("office".parse().unwrap());
    let number = store.add_vector(&Vector { direction: Direction::Relay, from, ..vector("vault", "x") }).unwrap();
    let before = store.vector(number).unwrap();
    assert_eq!((before.direction, before.from.as_ref().map(Name::as_str)), (Direction::Relay, Some("office")));
    assert!(matches!(store.remove_machine("office"), Err(StoreError::InUse(_))));
    store.turn(number).unwrap();
    let turned = store.vector(number).unwrap();
    assert_eq!((turned.machine.as_str(), turned.from.as_ref().map(Name::as_str)), ("office", Some("vault")));
    assert_eq!((&turned.source, &turned.target), (&before.target, &before.source));
    store.turn(number).unwrap();
    assert_eq!(store.vector(number).unwrap(), before);
}

#[test]
fn records_of_the_version_before_are_brought_further() {
    let (_dir, root) = root();
    let old = Connection::open(root.path(STORE)).unwrap();
    old.execute_batch(STEPS[0]).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1; INSERT INTO machines VALUES ('m', 'device', NULL, 'h', 22, 'k', 'p/x'); \
         INSERT INTO vectors (machine, direction, source, target, tier) VALUES ('m', 'push', 'a/x', 'b/x', 'primary')",
    )
    .unwrap();
    drop(old);
    let vectors = Store::open(&root).unwrap().vectors().unwrap();
    assert_eq!(vectors, [Vector { number: 1, ..vector("m", "x") }]);
}

#[test]
fn a_directory_of_another_machine_is_kept_with_what_carries_the_data() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    store.add_machine(&machine("m")).unwrap();
    let path: FarPath = "/srv/backups/a b".parse().unwrap();
    let mut kept = Vector { target: stand_in(&path), path: Some(path), ..vector("m", "x") };
    kept.number = store.add_vector(&kept).unwrap();
    assert_eq!(store.vector(kept.number).unwrap(), kept);
    let other = Vector { source: "a/y".parse().unwrap(), ..kept.clone() };
    assert!(matches!(store.add_vector(&other), Err(StoreError::Exists(_))), "two into one directory");
    for unknown in ["mode = 'carrier-pigeon'", "path = 'nowhere'"] {
        store.connection.execute(&format!("UPDATE vectors SET {unknown}"), []).unwrap();
        assert!(matches!(store.vectors(), Err(StoreError::Row(_))), "{unknown}");
        store.connection.execute("UPDATE vectors SET mode = 'rsync'", []).unwrap();
    }
}

#[test]
fn records_of_this_version_are_read_by_the_one_before() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    store.add_machine(&machine("m")).unwrap();
    let path: FarPath = "/srv/x".parse().unwrap();
    store.add_vector(&Vector { target: stand_in(&path), path: Some(path), ..vector("m", "x") }).unwrap();
    // What it asks for, and takes for the name of a dataset.
    let sql = "SELECT target FROM vectors";
    let target: String = store.connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(target.parse::<DatasetName>().is_ok(), "{target}");
}

#[test]
fn what_the_release_before_knows_of_a_vector_it_finds_and_may_write() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    store.add_machine(&machine("m")).unwrap();
    let number = store.add_vector(&vector("m", "x")).unwrap();
    let schedule: Schedule = "6h".parse().unwrap();
    store.configure(&Vector { number, schedule: schedule.clone(), counted: Some(5), ..vector("m", "x") }).unwrap();
    // Its words, from before there were schedules.
    let before = &store.connection;
    let read = "SELECT number, machine, direction, source, target, tier, paused, proven, priority, limits, mode, path, \
                from_machine FROM vectors ORDER BY number";
    assert_eq!(before.query_row(read, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    before.execute("UPDATE vectors SET priority = 1, limits = 'stop' WHERE number = 1", []).unwrap();
    before
        .execute(
            "INSERT INTO vectors (machine, direction, source, target, tier, paused, mode, path, from_machine) \
             VALUES ('m', 'push', 'a/y', 'b/y', 'primary', 0, 'zfs', '', '')",
            [],
        )
        .unwrap();
    let [scheduled, added] = &store.vectors().unwrap()[..] else { panic!("two are on record") };
    assert_eq!((&scheduled.schedule, scheduled.counted), (&schedule, Some(5)));
    assert_eq!(added, &Vector { number: 2, ..vector("m", "y") });
    store.connection.execute("UPDATE vectors SET schedule = 'when the moon is full'", []).unwrap();
    assert!(matches!(store.vectors(), Err(StoreError::Row(_))), "what nobody understands is not taken for another");
}

#[test]
fn a_number_is_given_once_and_nothing_hangs_in_the_air() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    store.add_machine(&machine("m")).unwrap();
    assert!(matches!(store.add_machine(&machine("m")), Err(StoreError::Exists(_))));
    let first = store.add_vector(&vector("m", "x")).unwrap();
    assert!(matches!(store.add_vector(&vector("m", "x")), Err(StoreError::Exists(_))));
    assert!(store.add_vector(&vector("other", "y")).is_err(), "to a machine that there is none of");
    assert!(matches!(store.remove_machine("m"), Err(StoreError::InUse(_))));
    store.remove_vector(first).unwrap();
    assert!(matches!(store.remove_vector(first), Err(StoreError::Missing(_))));
    assert!(store.add_vector(&vector("m", "x")).unwrap() > first);
}

#[test]
fn what_was_installed_anew_takes_its_own_place_and_no_others() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    assert!(matches!(store.replace_machine(&machine("m")), Err(StoreError::Missing(_))));
    store.add_machine(&machine("m")).unwrap();
    store.add_vector(&vector("m", "x")).unwrap();
    let mut anew = machine("m");
    anew.address = Address { host: "192.0.2.7".to_owned(), port: 22, host_key: "ssh-ed25519 CCCC".to_owned() };
    store.replace_machine(&anew).unwrap();
    let other = Machine { device: Some(Uuid::from_u128(8)), ..anew.clone() };
    let server = Machine { kind: MachineKind::Server, device: None, ..anew.clone() };
    for another in [other, server] {
        assert!(matches!(store.replace_machine(&another), Err(StoreError::Another(_))));
    }
    assert_eq!((store.machines().unwrap(), store.vectors().unwrap().len()), (vec![anew], 1));

    let peer = |name: &str, device: u128, key: &str, may_send: bool| {
        let prefix = "tank/home/agents".parse().unwrap();
        let rights = Rights { device: Uuid::from_u128(device), prefix, may_receive: true, may_send };
        Peer { name: name.parse().unwrap(), key: key.to_owned(), rights }
    };
    assert!(matches!(store.replace_peer(&peer("a", 1, "ssh-ed25519 A", false)), Err(StoreError::Missing(_))));
    store.add_peer(&peer("a", 1, "ssh-ed25519 A", false)).unwrap();
    store.add_peer(&peer("b", 2, "ssh-ed25519 B", false)).unwrap();
    let anew = peer("a", 1, "ssh-ed25519 C", true);
    store.replace_peer(&anew).unwrap();
    assert!(matches!(store.replace_peer(&peer("a", 3, "ssh-ed25519 D", true)), Err(StoreError::Another(_))));
    assert!(matches!(store.replace_peer(&peer("a", 1, "ssh-ed25519 B", true)), Err(StoreError::Exists(_))));
    assert_eq!(store.peers().unwrap(), [anew, peer("b", 2, "ssh-ed25519 B", false)]);
}

#[test]
fn a_row_of_another_version_is_an_error_and_columns_it_has_more_are_none() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    store.connection.execute_batch("ALTER TABLE machines ADD COLUMN more TEXT; PRAGMA user_version = 9").unwrap();
    drop(store);
    let store = Store::open(&root).unwrap();
    store.add_machine(&machine("m")).unwrap();
    assert_eq!(store.machines().unwrap().len(), 1);
    store.connection.execute("UPDATE machines SET kind = 'satellite'", []).unwrap();
    assert!(matches!(store.machines(), Err(StoreError::Row(_))));
}
