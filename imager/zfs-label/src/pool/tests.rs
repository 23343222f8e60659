//! What real pools do not show: labels that were forged, or that ZFS wrote in other times. Everything else is tested
//! with fixtures, in `tests/pools.rs`.

use super::{Fault, Health, Member, Pool, StaleBecause, auxiliaries, pools};
use crate::bytes::Endian;
use crate::nvlist::tests::Packer;
use crate::nvlist::{List, Value};
use crate::read::tests::{configuration, configure, look};
use crate::support::{Device, REGION, case};
use crate::uberblock::Uberblock;
use crate::uberblock::tests::write;

const RING: usize = 128 * 1024;

fn member(device: &Device) -> Member {
    Member { device: device.name.clone(), labels: look(device) }
}

fn one(devices: &[Device]) -> Pool {
    let mut pools = pools(&devices.iter().map(member).collect::<Vec<_>>());
    assert_eq!(pools.len(), 1);
    pools.remove(0)
}

/// Changes the configuration of all copies.
fn edit(device: &mut Device, change: impl Fn(&mut List)) {
    let mut list = configuration(device);
    change(&mut list);
    (0..4).for_each(|n| configure(device, n, &Packer::Xdr.pack(&list), Endian::Little));
}

fn edit_tree(device: &mut Device, change: impl Fn(&mut List)) {
    edit(device, |list| {
        let Some(Value::List(tree)) = list.find("vdev_tree") else { panic!("no tree") };
        let mut tree = tree.clone();
        change(&mut tree);
        list.set("vdev_tree", Value::List(tree));
    });
}

/// Adds an uberblock that is newer than all others.
fn close(device: &mut Device, change: impl Fn(&mut Uberblock)) {
    let mut newest = look(device).best().and_then(|label| label.uberblock.clone()).unwrap();
    newest.txg += 1;
    change(&mut newest);
    for n in 0..4 {
        let at = device.places()[n] + RING as u64;
        let ring = &mut device.regions[n * REGION + RING..(n + 1) * REGION];
        write(ring, at, 1024, newest.txg as usize % 128, Endian::Little, &newest);
    }
}

fn codes(pool: &Pool) -> Vec<&'static str> {
    pool.health.why().iter().map(Fault::code).collect()
}

#[test]
fn vdevs_that_the_newest_uberblock_does_not_know_are_not_believed() {
    let mut device = case("single").device("a");
    close(&mut device, |_| {});
    assert_eq!(one(&[device.clone()]).health, Health::Complete);
    close(&mut device, |uberblock| uberblock.guid_sum += 1);
    let pool = one(&[device]);
    assert_eq!(codes(&pool), ["pool-other-vdevs"]);
    assert!(matches!(pool.health, Health::Incomplete { .. }));
}

#[test]
fn pools_too_old_to_count_their_vdevs_are_not_complete_without_one() {
    let case = case("striped");
    let mut devices = case.devices;
    devices.iter_mut().for_each(|device| edit(device, |list| list.unset("vdev_children")));
    assert_eq!(one(&devices).health, Health::Complete);
    let pool = one(&devices[..2]);
    assert_eq!((codes(&pool), pool.children), (vec!["pool-other-vdevs"], None));
    assert!(matches!(pool.health, Health::Incomplete { .. }));
}

#[test]
fn a_forged_parity_does_not_make_up_for_devices() {
    let mut device = case("raidz1").device("a");
    edit_tree(&mut device, |tree| tree.set("nparity", Value::Number(u64::MAX)));
    assert!(codes(&one(&[device])).contains(&"pool-tops-unseen"));
    let mut device = case("raidz3").device("a");
    edit_tree(&mut device, |tree| tree.set("nparity", Value::Number(17)));
    assert!(codes(&one(&[device])).contains(&"pool-too-few"));
    // Not even three of three.
    let case = case("raidz1");
    let mut devices: Vec<_> = ["a", "b", "c", "log"].map(|name| case.device(name)).into();
    devices[..3].iter_mut().for_each(|device| {
        edit_tree(device, |tree| {
            tree.set("nparity", Value::Number(3));
            let Some(Value::Lists(children)) = tree.find("children") else { panic!("no children") };
            let mut children = children.clone();
            children.iter_mut().for_each(|child| child.set("faulted", Value::Number(1)));
            tree.set("children", Value::Lists(children));
        });
    });
    assert!(codes(&one(&devices)).contains(&"pool-too-few"));
}

#[test]
fn groups_of_unknown_kinds_do_without_nothing() {
    let mut devices = case("mirror").devices;
    devices.iter_mut().for_each(|device| edit_tree(device, |tree| tree.set("type", Value::Text("anyraid".to_owned()))));
    assert_eq!(one(&devices).health, Health::Complete);
    assert_eq!(codes(&one(&devices[..1])), ["pool-device-missing", "pool-too-few"]);
}

#[test]
fn a_device_that_is_not_in_its_own_tree_is_no_member() {
    let mut device = case("mirror").device("a");
    edit(&mut device, |list| list.set("guid", Value::Number(1)));
    let pool = one(&[device]);
    assert!(pool.is_hearsay());
    assert_eq!(pool.stale[0].why, StaleBecause::Replaced);
    assert!(codes(&pool).contains(&"pool-no-member"));
}

#[test]
fn of_two_vdevs_of_one_number_the_older_is_gone() {
    // A log was removed while a device of it was away, and its number was given to another vdev.
    let case = case("hole");
    let mut new = case.device("b");
    let mut old = case.device("a");
    close(&mut new, |uberblock| uberblock.txg += 100);
    edit(&mut new, |list| list.unset("hole_array"));
    edit_tree(&mut new, |tree| tree.set("id", Value::Number(0)));
    edit(&mut old, |list| list.set("txg", Value::Number(5)));
    for devices in [[old.clone(), new.clone()], [new, old]] {
        let pool = one(&devices);
        assert_eq!(pool.members.iter().map(|member| &*member.device).collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            pool.stale.iter().map(|s| (&*s.device, s.why)).collect::<Vec<_>>(),
            [("a", StaleBecause::TopRemoved)]
        );
        assert!(matches!(pool.health, Health::Incomplete { .. }));
    }
}

#[test]
fn a_vdev_whose_number_is_a_hole_or_beyond_the_last_is_gone() {
    let case = case("hole");
    for id in [1, 3] {
        let mut away = case.device("b");
        edit(&mut away, |list| list.set("txg", Value::Number(5)));
        edit_tree(&mut away, |tree| tree.set("id", Value::Number(id)));
        is_gone(&case.device("a"), away);
    }
}

fn is_gone(head: &Device, away: Device) {
    let pool = one(&[head.clone(), away]);
    assert_eq!(pool.stale.iter().map(|s| (&*s.device, s.why)).collect::<Vec<_>>(), [("b", StaleBecause::TopRemoved)]);
}

/// Sets a number on the second device of the pool, in what both devices say.
fn mark_second(name: &str) -> Pool {
    let mut devices = case("mirror").devices;
    devices.iter_mut().for_each(|device| {
        edit_tree(device, |tree| {
            let Some(Value::Lists(children)) = tree.find("children") else { panic!("no children") };
            let mut children = children.clone();
            children[1].set(name, Value::Number(1));
            tree.set("children", Value::Lists(children));
        });
    });
    one(&devices)
}

#[test]
fn what_zfs_says_of_a_device_is_told() {
    let codes = |name: &str| codes(&mark_second(name));
    for name in ["offline", "removed", "faulted", "not_present"] {
        assert_eq!(codes(name), ["pool-device-out-of-use"], "{name}");
    }
    for name in ["resilver_txg", "rebuild_txg"] {
        assert_eq!(codes(name), ["pool-device-resilvering"], "{name}");
    }
    assert_eq!(codes("degraded"), ["pool-device-errors"]);
    assert!(matches!(mark_second("degraded").health, Health::Degraded { .. }));
    assert_eq!(codes("is_spare"), [""; 0]);
}

#[test]
fn a_log_that_was_left_behind_is_missed() {
    // As after `zpool import -m` and `zpool export`: the log has an older label than the rest of an exported pool.
    let case = case("raidz1");
    let mut devices: Vec<_> = ["a", "b", "c", "log"].map(|name| case.device(name)).into();
    assert_eq!(one(&devices).health, Health::Complete);
    edit(&mut devices[3], |list| list.set("txg", Value::Number(4)));
    let pool = one(&devices);
    assert_eq!(codes(&pool), ["pool-top-behind"]);
    assert!(matches!(pool.health, Health::Incomplete { .. }));
    // While a pool is in use, its parts are not written all at once.
    devices.iter_mut().for_each(|device| edit(device, |list| list.set("state", Value::Number(0))));
    assert_eq!(one(&devices).health, Health::Complete);
}

#[test]
fn a_device_with_an_older_label_is_behind_even_if_its_uberblocks_are_not() {
    let case = case("mirror");
    let mut old = case.device("b");
    edit(&mut old, |list| list.set("txg", Value::Number(4)));
    assert_eq!(codes(&one(&[case.device("a"), old])), ["pool-device-behind"]);
}

#[test]
fn a_spare_is_no_device_of_a_pool_whatever_else_its_label_says() {
    let case = case("mirror");
    let mut spare = case.device("b");
    edit(&mut spare, |list| list.set("state", Value::Number(3)));
    let pool = one(&[case.device("a"), spare.clone()]);
    assert_eq!((pool.members.len(), pool.missing.len()), (1, 1));
    assert_eq!(auxiliaries(&[member(&spare)]).len(), 1);
}

#[test]
fn the_name_of_a_destroyed_pool_is_free() {
    let mut devices = case("destroyed").devices;
    let name = one(&case("mirror").devices).name;
    devices.iter_mut().for_each(|device| edit(device, |list| list.set("name", Value::Text(name.clone()))));
    devices.iter_mut().for_each(|device| device.name.push_str("-destroyed"));
    let members: Vec<_> = devices.iter().chain(&case("mirror").devices).map(member).collect();
    let pools = pools(&members);
    assert_eq!((&pools[0].name, pools.len()), (&pools[1].name, 2));
    assert!(pools.iter().all(|pool| pool.conflicts.is_empty()));
}

#[test]
fn messages_say_what_is_wrong_and_where() {
    let pool = one(&case("faulted").devices);
    let Health::Degraded { why } = &pool.health else { panic!("{:?}", pool.health) };
    let guid = pool.members[1].vdev;
    let path = pool.tops[0].children[1].path.as_ref().unwrap();
    assert_eq!(why[0].to_string(), format!("device {guid} (last at {path}) is faulted"));
}
