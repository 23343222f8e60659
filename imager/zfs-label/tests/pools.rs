//! Every fixture's devices put together, against what was done to the pool and what `zpool` said of it.

mod support;

use std::collections::BTreeSet;

use siris_zfs_label::{
    Auxiliary, Conflict, Health, Member, Pool, PoolState, Role, StaleBecause, Vdev, auxiliaries, pools, read,
};
use support::{Case, Device, case, index};

fn member(device: &Device) -> Member {
    Member { device: device.name.clone(), labels: read(&mut device.clone(), device.bytes).unwrap() }
}

/// All devices of a case.
fn members(case: &Case) -> Vec<Member> {
    case.devices.iter().map(member).collect()
}

/// These devices of a case only.
fn only(name: &str, devices: &str) -> Vec<Member> {
    let case = case(name);
    devices.split_whitespace().map(|device| member(&case.device(device))).collect()
}

/// The one pool that these devices make up.
fn one(members: &[Member]) -> Pool {
    let mut pools = pools(members);
    assert_eq!(pools.len(), 1, "{pools:#?}");
    pools.remove(0)
}

fn whole(name: &str) -> Pool {
    one(&members(&case(name)))
}

/// `complete`, or what is wrong by codes: `degraded: code code`.
fn health(pool: &Pool) -> String {
    let word = match pool.health {
        Health::Complete => return "complete".to_owned(),
        Health::Degraded { .. } => "degraded:",
        Health::Incomplete { .. } => "incomplete:",
    };
    [word].into_iter().chain(pool.health.why().iter().map(|fault| fault.code())).collect::<Vec<_>>().join(" ")
}

fn devices(pool: &Pool) -> String {
    pool.members.iter().map(|member| &*member.device).collect::<Vec<_>>().join(" ")
}

fn stale(pool: &Pool) -> Vec<(&str, StaleBecause)> {
    pool.stale.iter().map(|stale| (&*stale.device, stale.why)).collect()
}

fn missing(pool: &Pool) -> Vec<&str> {
    pool.missing.iter().map(|vdev| vdev.path.as_deref().unwrap().rsplit('/').next().unwrap()).collect()
}

/// The value behind `key` in the `zpool list` line of a case.
fn zpool_list(case: &Case) -> Vec<Vec<String>> {
    let lines = case.zpool.split("# zpool list ").skip(1).filter_map(|part| part.lines().nth(1));
    lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Paths of devices in the order in which `zpool status -P` lists them, spares and caches aside.
fn zpool_devices(case: &Case) -> Vec<String> {
    let Some(status) = case.zpool.split("# zpool status ").last() else { return Vec::new() };
    let config = status.split("NAME ").nth(1).unwrap_or("").split("errors:").next().unwrap_or("");
    let mut paths = Vec::new();
    let mut auxiliary = false;
    for line in config.lines().skip(1) {
        match line.trim() {
            "cache" | "spares" => auxiliary = true,
            "logs" | "special" | "dedup" => auxiliary = false,
            words if !auxiliary => {
                paths.extend(words.split_whitespace().find(|w| w.starts_with('/')).map(str::to_owned))
            }
            _ => {}
        }
    }
    paths
}

#[test]
fn names_and_guids_are_those_of_zpool_list() {
    let mut seen = 0;
    for (name, _) in index() {
        let case = case(&name);
        let ours: Vec<_> = pools(&members(&case)).into_iter().map(|pool| (pool.name, pool.guid.to_string())).collect();
        let Some(last) = zpool_list(&case).pop() else { continue };
        let theirs = (last[0].clone(), last[1].clone());
        assert!(ours.contains(&theirs), "{name}: {theirs:?} is not among {ours:?}");
        seen += 1;
    }
    assert!(seen > 40, "only {seen} cases were compared");
}

#[test]
fn devices_are_those_of_zpool_status_in_its_order() {
    // zpool lists vdevs by class, and `away-split`, `split` and `two-pools` were looked at before they became what they are.
    let others = ["classes", "away-split", "split", "two-pools"];
    let mut seen = 0;
    for (name, _) in index().into_iter().filter(|(name, _)| !others.contains(&&**name)) {
        let case = case(&name);
        let theirs = zpool_devices(&case);
        if theirs.is_empty() {
            continue;
        }
        let pool = whole(&name);
        let path = |leaf: &&Vdev| leaf.path.clone().filter(|path| path.starts_with('/'));
        let ours: Vec<_> = pool.tops.iter().flat_map(Vdev::leaves).filter_map(|leaf| path(&leaf)).collect();
        let mut theirs_sorted = theirs.clone();
        let mut ours_sorted = ours.clone();
        theirs_sorted.sort();
        ours_sorted.sort();
        assert_eq!(ours_sorted, theirs_sorted, "{name}");
        seen += 1;
    }
    assert!(seen > 35, "only {seen} cases were compared");
}

#[test]
fn every_case_is_as_healthy_as_it_is() {
    let expected = [
        ("single", "complete"),
        ("mirror", "complete"),
        ("active", "complete"),
        ("raidz1", "complete"),
        ("raidz2", "complete"),
        ("raidz3", "complete"),
        ("draid", "complete"),
        ("draid-spare", "degraded: pool-device-out-of-use pool-replacing"),
        ("striped", "complete"),
        ("stripe5", "complete"),
        ("classes", "complete"),
        ("destroyed", "complete"),
        ("encrypted", "complete"),
        ("offline", "degraded: pool-device-out-of-use"),
        ("faulted", "degraded: pool-device-out-of-use"),
        ("away", "degraded: pool-device-out-of-use"),
        ("away-split", "degraded: pool-device-out-of-use"),
        ("replaced", "complete"),
        ("detached", "complete"),
        ("spare-used", "degraded: pool-device-out-of-use pool-replacing"),
        ("replacing", "degraded: pool-device-resilvering pool-replacing"),
        ("attaching", "degraded: pool-device-resilvering"),
        ("hostid", "complete"),
        ("multihost", "complete"),
        ("ashift9", "complete"),
        ("ashift12", "complete"),
        ("ashift13", "complete"),
        ("ashift14", "complete"),
        ("renamed", "complete"),
        ("reguid", "complete"),
        ("checkpoint", "complete"),
        ("version28", "complete"),
        ("comment", "complete"),
        ("hole", "complete"),
        ("indirect", "complete"),
        ("cache-gone", "complete"),
        ("cleared", "degraded: pool-device-missing"),
        ("grown", "degraded: pool-label-copies"),
        ("overwritten", "degraded: pool-label-copies"),
        ("clone", "complete"),
        ("expanded", "complete"),
        ("expanding", "complete"),
        ("partition", "complete"),
        ("whole-disk", "complete"),
    ];
    let wrong: Vec<_> = expected.iter().map(|(name, wanted)| (name, health(&whole(name)), wanted)).collect();
    let wrong: Vec<_> = wrong.iter().filter(|(_, is, wanted)| is != *wanted).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let apart = ["split", "two-pools", "empty"];
    let covered: BTreeSet<_> = expected.iter().map(|(name, _)| *name).chain(apart).collect();
    let all = index();
    assert_eq!(covered, all.iter().map(|(name, _)| &**name).collect(), "cases without an expectation");
}

#[test]
fn pools_say_who_they_are() {
    let pool = whole("active");
    assert_eq!((pool.state, pool.version, pool.children), (PoolState::Active, 5000, Some(1)));
    assert!(pool.hostid.is_some() && pool.hostname.is_some() && pool.txg > 0);
    assert!(pool.uberblock.as_ref().is_some_and(|uberblock| uberblock.txg >= pool.txg));
    assert_eq!(whole("mirror").state, PoolState::Exported);
    assert_eq!(whole("destroyed").state, PoolState::Destroyed);
    assert_eq!(whole("hostid").hostid, Some(0x1234_abcd), "the host of another box would go unnoticed");
    assert_ne!(whole("mirror").hostid, Some(0x1234_abcd));
    assert_eq!(whole("renamed").name, "zlnew");
    assert_eq!(whole("multihost").uberblock.unwrap().mmp_sequence.map(|_| ()), Some(()));
    let old = whole("version28");
    assert_eq!((old.version, old.features_for_read.len()), (28, 0));
    let has = |name: &str, feature: &str| whole(name).features_for_read.contains(feature);
    assert!(has("indirect", "com.delphix:device_removal"));
    assert!(has("draid", "org.openzfs:draid"));
    assert!(!has("mirror", "org.openzfs:draid"));
    let comment = members(&case("comment"));
    let label = comment[0].labels.best().unwrap();
    assert_eq!(label.comment.as_deref(), Some("rack 4, shelf 2"));
    assert_eq!(label.compatibility.as_deref(), Some("openzfs-2.1-linux"));
    let wholedisk = whole("whole-disk");
    assert!(wholedisk.tops[0].leaves().iter().all(|leaf| leaf.whole_disk == Some(true)));
    assert_eq!(devices(&wholedisk), "disk1-part1 disk2-part1");
    assert_eq!(devices(&whole("partition")), "disk1-part2 disk2-part2");
    for (name, ashift) in [("ashift9", 9), ("ashift12", 12), ("ashift13", 13), ("ashift14", 14)] {
        assert_eq!(whole(name).tops[0].ashift, Some(ashift));
    }
}

#[test]
fn two_guids_of_a_pool_that_was_given_a_new_one_are_one_pool() {
    let case = case("reguid");
    let lists = zpool_list(&case);
    assert_ne!(lists[0][1], lists[1][1]);
    assert_eq!(one(&members(&case)).guid.to_string(), lists[1][1]);
}

#[test]
fn halves_of_a_split_mirror_are_two_pools() {
    let members = members(&case("split"));
    let pools = pools(&members);
    let mut names: Vec<_> = pools.iter().map(|pool| (&*pool.name, devices(pool), health(pool))).collect();
    names.sort();
    let complete = || "complete".to_owned();
    assert_eq!(names, [("zlhalf", "b".to_owned(), complete()), ("zlsplit", "a".to_owned(), complete())]);
}

#[test]
fn devices_do_in_the_pool_what_they_do() {
    let roles = |name: &str| {
        let pool = whole(name);
        pool.members.iter().map(|member| (member.device.clone(), member.role)).collect::<Vec<_>>()
    };
    let is = |roles: &[(String, Role)], device: &str, role| roles.contains(&(device.to_owned(), role));
    let raidz1 = roles("raidz1");
    assert_eq!(raidz1.len(), 4, "a spare or cache would count as a device of the pool: {raidz1:?}");
    assert!(is(&raidz1, "log", Role::Log) && is(&raidz1, "a", Role::Data));
    let spare = roles("spare-used");
    assert!(is(&spare, "s", Role::Spare) && is(&spare, "c", Role::Data), "{spare:?}");
    let classes = roles("classes");
    assert!(is(&classes, "l", Role::Log) && is(&classes, "s", Role::Data) && is(&classes, "u", Role::Data));
}

#[test]
fn spares_and_caches_are_told_from_empty_disks_and_tied_to_their_pool() {
    let members = members(&case("raidz1"));
    let pool = one(&members);
    let auxiliaries = auxiliaries(&members);
    let said: Vec<_> = auxiliaries.iter().map(|Auxiliary { device, state, .. }| (&**device, *state)).collect();
    assert_eq!(said, [("cache", PoolState::L2Cache), ("spare", PoolState::Spare)]);
    for auxiliary in &auxiliaries {
        assert_eq!(auxiliary.pools, [pool.guid], "{}", auxiliary.device);
        assert!(auxiliary.path.as_ref().is_some_and(|path| path.ends_with(&auxiliary.device)));
    }
    // In use, a spare is a device of the pool.
    assert!(siris_zfs_label::auxiliaries(&self::members(&case("spare-used"))).is_empty());
    // Taken out of a pool, it goes on saying that it is a spare: no one knows of how many pools.
    let gone = siris_zfs_label::auxiliaries(&self::members(&case("cache-gone")));
    assert_eq!(gone.iter().map(|gone| &*gone.device).collect::<Vec<_>>(), ["cache", "spare"]);
}

/// All choices of some of the devices of a case, as bits.
fn choices(case: &Case) -> impl Iterator<Item = (u32, Vec<Member>)> {
    let members = members(case);
    (1..1_u32 << members.len()).map(move |bits| {
        let chosen = members.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
        (bits, chosen.map(|(_, member)| member.clone()).collect())
    })
}

fn word(pool: &Pool) -> &'static str {
    match pool.health {
        Health::Complete => "complete",
        Health::Degraded { .. } => "degraded",
        Health::Incomplete { .. } => "incomplete",
    }
}

#[test]
fn a_group_does_without_as_many_devices_as_it_can_and_no_more() {
    for (name, count, spare) in [("mirror", 2, 1), ("raidz2", 5, 2), ("draid", 6, 1), ("expanded", 4, 1)] {
        for (bits, members) in choices(&case(name)) {
            let pool = one(&members);
            let lost = count - bits.count_ones();
            let wanted = if lost == 0 {
                "complete"
            } else if lost <= spare {
                "degraded"
            } else {
                "incomplete"
            };
            assert_eq!(word(&pool), wanted, "{name} without {lost}: {:?}", pool.health);
            assert_eq!(pool.missing.len(), lost as usize);
            assert_eq!(pool.members.len(), members.len());
        }
    }
}

#[test]
fn a_pool_without_one_of_its_groups_is_incomplete() {
    for (bits, members) in choices(&case("striped")) {
        let wanted = match (bits & 3, bits >> 2) {
            (3, 3) => "complete",
            (0, _) | (_, 0) => "incomplete",
            _ => "degraded",
        };
        assert_eq!(word(&one(&members)), wanted, "{bits:b}");
    }
    let all: Vec<_> = case("classes").devices.iter().map(|device| device.name.clone()).collect();
    for group in ["a b", "l m", "s t", "u v"] {
        let rest: Vec<_> = all.iter().filter(|name| !group.contains(&***name)).map(String::as_str).collect();
        assert_eq!(health(&one(&only("classes", &rest.join(" ")))), "incomplete: pool-tops-unseen", "without {group}");
    }
    let alone = one(&only("raidz1", "a b c"));
    assert_eq!(health(&alone), "incomplete: pool-tops-unseen", "a pool without its log would pass for complete");
}

#[test]
fn a_spare_that_stands_in_counts_and_one_that_is_being_filled_does_not() {
    let raidz1 = |name: &str, devices: &str| word(&one(&only(name, devices)));
    assert_eq!(raidz1("spare-used", "a b s"), "degraded", "the spare holds all that c held");
    assert_eq!(raidz1("spare-used", "a c s"), "degraded");
    assert_eq!(raidz1("spare-used", "a b c"), "degraded", "the group does without the whole of spare-2");
    assert_eq!(raidz1("spare-used", "a c"), "incomplete", "c was given up, b is gone");
    assert_eq!(raidz1("replacing", "a b c"), "degraded");
    assert_eq!(raidz1("replacing", "a c d"), "degraded");
    assert_eq!(raidz1("replacing", "a b d"), "degraded");
    assert_eq!(raidz1("replacing", "a b"), "degraded");
    assert_eq!(raidz1("replacing", "a d"), "incomplete", "d is not filled yet");
    assert_eq!(raidz1("attaching", "a"), "degraded");
    assert_eq!(raidz1("attaching", "b"), "incomplete", "b is not filled yet");
    // A draid's own spare lies on its other devices, and replaces the one that was lost.
    assert_eq!(raidz1("draid-spare", "a b c d e"), "degraded");
    assert_eq!(raidz1("draid-spare", "a b c d"), "degraded");
    assert_eq!(raidz1("draid-spare", "a b c"), "incomplete");
}

#[test]
fn devices_that_missed_writes_do_not_count() {
    assert_eq!(word(&one(&only("offline", "a"))), "degraded");
    // Alone, the device that was taken out knows nothing of it.
    assert_eq!(health(&one(&only("away", "c"))), "incomplete: pool-device-missing pool-device-missing pool-too-few");
    assert_eq!(
        health(&one(&only("away", "a c"))),
        "incomplete: pool-device-missing pool-device-out-of-use pool-too-few"
    );
    assert_eq!(health(&one(&only("clone", "a b-copy"))), "degraded: pool-device-behind");
    assert_eq!(missing(&one(&only("away", "a b"))), ["c"]);
}

#[test]
fn what_no_longer_belongs_to_the_pool_is_stale() {
    assert_eq!(stale(&whole("replaced")), [("c", StaleBecause::Replaced)]);
    assert_eq!(devices(&whole("replaced")), "a b d");
    assert_eq!(stale(&whole("detached")), [("c", StaleBecause::Detached)]);
    assert_eq!(stale(&whole("hole")), [("log", StaleBecause::Detached)]);
    assert_eq!(stale(&whole("indirect")), [("b", StaleBecause::Detached)]);
    for (name, _) in index() {
        if !["replaced", "detached", "hole", "indirect"].contains(&&*name) {
            for pool in pools(&members(&case(&name))) {
                assert_eq!(stale(&pool), [], "{name}");
            }
        }
    }
    // Alone, a device that was replaced while it was away still believes in its pool: all others are missing.
    let old = one(&only("replaced", "c"));
    assert_eq!((word(&old), missing(&old)), ("incomplete", vec!["a", "b"]));
    // One that was detached knows.
    let left = one(&only("detached", "c"));
    assert!(left.is_hearsay());
    assert_eq!(health(&left), "incomplete: pool-no-member pool-tops-unseen");
    assert_eq!(left.name, "zldetached");
}

#[test]
fn a_removed_vdev_is_known_by_what_is_left_of_its_devices_only() {
    assert_eq!(health(&one(&only("indirect", "a c"))), "incomplete: pool-tops-unseen");
    let why = one(&only("indirect", "a c")).health.why()[0].to_string();
    assert!(why.contains("may have been removed"), "{why}");
    assert_eq!(health(&one(&only("hole", "a b"))), "complete");
}

#[test]
fn one_vdev_on_two_devices_is_a_conflict() {
    let conflict = |members: &[Member]| match &one(members).conflicts[..] {
        [Conflict::SameVdev { devices, identical, .. }] => (devices.join(" "), *identical),
        other => panic!("{other:?}"),
    };
    assert_eq!(conflict(&members(&case("clone"))), ("b b-copy".to_owned(), false));
    let mut twice = members(&case("mirror"));
    twice.push(Member { device: "b-again".to_owned(), ..twice[1].clone() });
    assert_eq!(conflict(&twice), ("b b-again".to_owned(), true));
    let pool = one(&twice);
    assert_eq!((devices(&pool), word(&pool)), ("a b b-again".to_owned(), "complete"));
    // Twice the same device does not make up for another.
    let mut two = only("raidz2", "a b");
    two.push(Member { device: "b-again".to_owned(), ..two[1].clone() });
    assert_eq!(word(&one(&two)), "incomplete");
}

#[test]
fn copies_of_two_pools_on_one_device_are_a_conflict_of_both() {
    let members = members(&case("two-pools"));
    let pools = pools(&members);
    let mut names: Vec<_> = pools.iter().map(|pool| (&*pool.name, health(pool))).collect();
    names.sort();
    let torn = || "degraded: pool-label-copies".to_owned();
    assert_eq!(names, [("zlfirst", torn()), ("zlsecond", torn())]);
    for pool in &pools {
        let [Conflict::TwoVdevs { device, vdevs }] = &pool.conflicts[..] else { panic!("{:?}", pool.conflicts) };
        assert_eq!((&**device, vdevs.len()), ("a", 2));
    }
}

#[test]
fn two_histories_of_one_pool_are_a_conflict() {
    let [Conflict::TwoHistories { device, .. }] = &whole("away-split").conflicts[..] else {
        panic!("one of two histories would be thrown away: {:?}", whole("away-split").conflicts)
    };
    assert_eq!(device, "a");
    for name in ["away", "offline", "faulted", "multihost", "replacing"] {
        assert_eq!(whole(name).conflicts, [], "{name}: an older state of the same history is no other history");
    }
}

#[test]
fn pools_of_one_name_know_of_each_other() {
    let mut all = only("ashift9", "a");
    all.extend(only("ashift12", "a").into_iter().map(|member| Member { device: "b".to_owned(), ..member }));
    let pools = pools(&all);
    assert_eq!(pools[0].conflicts, [Conflict::SameName { other: pools[1].guid }]);
    assert_eq!(pools[1].conflicts, [Conflict::SameName { other: pools[0].guid }]);
    assert_eq!(pools[0].conflicts[0].code(), "pool-same-name");
}

/// Where the configuration and the ring of uberblocks lie in a label region.
const CONFIG: std::ops::Range<usize> = 16 << 10..128 << 10;
const RING: std::ops::Range<usize> = 128 << 10..256 << 10;

/// Forgets the newest uberblocks of a device whose slots have 1 KiB, as if it had not been there for them.
fn forget(device: &mut Device, count: usize) {
    for region in device.regions.chunks_exact_mut(support::REGION) {
        for _ in 0..count {
            let txg = |slot: &&mut [u8]| u64::from_le_bytes(slot[16..24].try_into().unwrap());
            region[RING].chunks_exact_mut(1024).max_by_key(txg).unwrap().fill(0);
        }
    }
}

#[test]
fn a_power_cut_between_labels_and_uberblocks_leaves_the_older_configuration() {
    // Copies 0 and 2 were written for a transaction group that no uberblock closed.
    let case = case("clone");
    let (new, old) = (case.device("b"), case.device("b-copy"));
    let mut torn = old.clone();
    for n in [0, 2] {
        let config = n * support::REGION + CONFIG.start..n * support::REGION + CONFIG.end;
        torn.regions[config.clone()].copy_from_slice(&new.regions[config]);
    }
    let txg = |device: &Device| member(device).labels.best().unwrap().txg.unwrap();
    assert_eq!(txg(&torn), txg(&new));
    assert_eq!(one(&[member(&torn)]).txg, txg(&old), "what was never committed would be believed");
}

#[test]
fn one_uberblock_less_is_a_power_cut_and_two_are_a_device_that_was_away() {
    let case = case("active");
    let a = case.device("a");
    for (count, wanted) in [(0, "complete"), (1, "complete"), (2, "degraded: pool-device-behind")] {
        let mut b = case.device("b");
        forget(&mut b, count);
        assert_eq!(health(&one(&[member(&a), member(&b)])), wanted, "{count} uberblocks less");
    }
}

#[test]
fn a_whole_group_of_another_time_is_not_complete() {
    let case = case("hole");
    let a = case.device("a");
    for (count, wanted) in [(0, "complete"), (1, "complete"), (2, "incomplete: pool-top-behind")] {
        let mut b = case.device("b");
        forget(&mut b, count);
        assert_eq!(health(&one(&[member(&a), member(&b)])), wanted, "{count} uberblocks less");
    }
    // A pool of many groups writes an uberblock to some of them only.
    let mut many = support::case("stripe5").devices;
    many.iter_mut().skip(2).for_each(|device| forget(device, 3));
    assert_eq!(health(&one(&many.iter().map(member).collect::<Vec<_>>())), "complete");
}

#[test]
fn the_order_of_the_devices_does_not_matter() {
    for (name, _) in index() {
        let mut members = members(&case(&name));
        let forward = pools(&members);
        members.reverse();
        let backward = pools(&members);
        let facts = |pool: &Pool| (pool.guid, pool.txg, pool.tops.clone(), health(pool), pool.missing.clone());
        let all = |pools: &[Pool]| pools.iter().map(facts).collect::<Vec<_>>();
        assert_eq!(all(&forward), all(&backward), "{name}");
    }
}

#[test]
fn facts_survive_being_written_down() {
    for (name, _) in index() {
        let members = members(&case(&name));
        let text = serde_json::to_string(&members).unwrap();
        let again: Vec<Member> = serde_json::from_str(&text).unwrap();
        assert_eq!(again, members, "{name}");
        let pools = pools(&members);
        let text = serde_json::to_string(&pools).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Pool>>(&text).unwrap(), pools, "{name}");
        assert_eq!(siris_zfs_label::pools(&again), pools, "{name}: facts would say less than the devices");
    }
}
