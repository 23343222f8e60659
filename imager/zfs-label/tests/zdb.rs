//! Every fixture against what ZFS's own `zdb -luuuu` said of the same bytes.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use siris_zfs_label::{Copy, Label, Labels, PoolState, Vdev, read};
use support::{Device, case, index};

/// One configuration or uberblock as `zdb` prints it: values by their path, and the copies that hold it.
#[derive(Debug, Default)]
struct Block {
    copies: Vec<usize>,
    values: BTreeMap<String, String>,
}

/// What `zdb -luuuu` prints: configurations, and uberblocks.
fn parse(text: &str) -> (Vec<Block>, Vec<Block>) {
    let (mut configs, mut uberblocks) = (Vec::new(), Vec::new());
    let mut block = Block::default();
    let mut is_uberblock = false;
    let mut path: Vec<String> = Vec::new();
    // Behind the labels of a cache, `zdb` goes on about the cache.
    for line in text.lines().take_while(|line| !line.starts_with("L2ARC")) {
        let words = line.trim();
        if line.starts_with("---") || line.starts_with("LABEL") || line.starts_with("failed") || words.is_empty() {
            continue;
        }
        if let Some(copies) = words.strip_prefix("labels = ") {
            block.copies = copies.split(' ').map(|n| n.parse().unwrap()).collect();
            let done = std::mem::take(&mut block);
            if is_uberblock {
                uberblocks.push(done)
            } else {
                configs.push(done)
            }
            is_uberblock = false;
        } else if words.starts_with("Uberblock[") {
            is_uberblock = true;
        } else if is_uberblock {
            let Some((key, value)) = words.split_once(" = ") else { continue };
            block.values.insert(key.to_owned(), value.split(' ').next().unwrap().to_owned());
        } else {
            path.truncate((line.len() - line.trim_start().len()) / 4 - 1);
            let (key, value) = match words.split_once(": ") {
                Some((key, value)) => (key, value.trim_matches('\'')),
                None => (words.trim_end_matches(':'), ""),
            };
            let full = [&path[..], &[key.to_owned()]].concat().join("/");
            if words.ends_with(':') {
                path.push(key.to_owned());
            }
            block.values.insert(full, value.to_owned());
        }
    }
    (configs, uberblocks)
}

fn look(device: &Device) -> Labels {
    read(&mut device.clone(), device.bytes).unwrap()
}

fn all_devices() -> impl Iterator<Item = (String, Device)> {
    index().into_iter().flat_map(|(name, _)| {
        let devices = case(&name).devices;
        devices.into_iter().map(move |device| (format!("{name}/{}", device.name), device))
    })
}

/// Puts what we read in the words of `zdb`.
fn words(label: &Label) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    let mut say = |key: &str, value: Option<String>| words.extend(value.map(|value| (key.to_owned(), value)));
    say("version", Some(label.version.to_string()));
    say("name", label.name.clone());
    let states = [PoolState::Active, PoolState::Exported, PoolState::Destroyed, PoolState::Spare, PoolState::L2Cache];
    say("state", states.iter().position(|state| *state == label.state).map(|n| n.to_string()));
    say("txg", label.txg.map(|txg| txg.to_string()));
    say("create_txg", label.create_txg.map(|txg| txg.to_string()));
    say("pool_guid", label.pool.map(|guid| guid.to_string()));
    say("hostid", label.hostid.map(|id| id.to_string()));
    say("hostname", label.hostname.clone());
    say("top_guid", label.top.map(|guid| guid.to_string()));
    say("guid", Some(label.vdev.to_string()));
    say("vdev_children", label.children.map(|n| n.to_string()));
    say("path", label.path.clone());
    say("devid", label.devid.clone());
    say("split_guid", label.split_from.map(|guid| guid.to_string()));
    say("comment", label.comment.clone());
    say("compatibility", label.compatibility.clone());
    say("is_log", label.is_log.then(|| "1".to_owned()));
    for (n, hole) in label.holes.iter().enumerate() {
        say(&format!("hole_array[{n}]"), Some(hole.to_string()));
    }
    say("features_for_read", label.tree.is_some().then(String::new));
    for feature in &label.features_for_read {
        say(&format!("features_for_read/{feature}"), Some(String::new()));
    }
    if let Some(tree) = &label.tree {
        vdev_words(tree, "vdev_tree", true, &mut words);
    }
    words
}

fn vdev_words(vdev: &Vdev, at: &str, is_top: bool, words: &mut BTreeMap<String, String>) {
    words.insert(at.to_owned(), String::new());
    let mut say = |key: &str, value: Option<String>| words.extend(value.map(|value| (format!("{at}/{key}"), value)));
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let flag = |is: bool| is.then(|| "1".to_owned());
    say("type", Some(vdev.kind.clone()));
    say("guid", Some(vdev.guid.to_string()));
    say("id", Some(vdev.id.to_string()));
    say("path", vdev.path.clone());
    say("devid", vdev.devid.clone());
    say("phys_path", vdev.phys_path.clone());
    say("nparity", number(vdev.nparity));
    say("ashift", number(vdev.ashift));
    say("asize", number(vdev.asize));
    say("whole_disk", vdev.whole_disk.map(|is| u64::from(is).to_string()));
    say("is_log", is_top.then(|| u64::from(vdev.is_log).to_string()));
    say("is_spare", flag(vdev.is_spare));
    say("offline", flag(vdev.offline));
    say("removed", flag(vdev.removed));
    say("faulted", flag(vdev.faulted));
    say("degraded", flag(vdev.degraded));
    say("not_present", flag(vdev.not_present));
    say("raidz_expanding", vdev.expanding.then(String::new));
    for (n, child) in vdev.children.iter().enumerate() {
        vdev_words(child, &format!("{at}/children[{n}]"), false, words);
    }
}

/// Values that labels have and that we do not read.
const UNREAD: &[&str] = &[
    "DTL",
    "aux_state",
    "draid_ndata",
    "draid_ngroups",
    "draid_nspares",
    "errata",
    "expansion_time",
    "max_alloc",
    "metaslab_array",
    "metaslab_shift",
    "min_alloc",
    "non_allocating",
    "orig_guid",
    "spareid",
    "unspare",
];

/// Is it a value that we read, and in these words?
fn is_read(key: &str) -> bool {
    let (group, last) = key.rsplit_once('/').unwrap_or(("", key));
    if group.starts_with("features_for_read") {
        return true;
    }
    let of_vdev = matches!(last, "create_txg" | "top_guid") || last.ends_with("silver_txg") || last == "rebuild_txg";
    let of_label = matches!(last, "is_spare" | "ashift");
    let array = last.starts_with("raidz_expand_txgs") || last.starts_with("com.delphix:");
    let other = UNREAD.contains(&last) || array || if group.is_empty() { of_label } else { of_vdev };
    !other
}

#[test]
fn every_value_of_every_label_is_the_one_that_zdb_reads() {
    let mut seen = 0;
    for (at, device) in all_devices() {
        let labels = look(&device);
        let sound: BTreeMap<_, _> = labels.found().collect();
        for config in parse(&device.zdb).0 {
            let resilvering = |key: &String| key.ends_with("/resilver_txg") || key.ends_with("/rebuild_txg");
            let resilvering = config.values.keys().any(resilvering);
            let theirs: BTreeSet<_> = config.values.into_iter().filter(|(key, _)| is_read(key)).collect();
            for copy in config.copies {
                let label = sound.get(&copy).unwrap_or_else(|| panic!("{at}: zdb reads copy {copy}, we do not"));
                let ours: BTreeSet<_> = words(label).into_iter().collect();
                let (more, less): (Vec<_>, Vec<_>) =
                    (ours.difference(&theirs).collect(), theirs.difference(&ours).collect());
                assert!(more.is_empty() && less.is_empty(), "{at}, copy {copy}: we read {more:?}, zdb {less:?}");
                let tree = label.tree.as_ref();
                let ours = tree.is_some_and(|tree| tree.leaves().iter().any(|leaf| leaf.resilvering));
                assert_eq!(ours, resilvering, "{at}");
                seen += 1;
            }
        }
    }
    assert!(seen > 400, "only {seen} labels were compared");
}

#[test]
fn the_copies_are_found_that_zdb_finds() {
    for (at, device) in all_devices() {
        let ours: BTreeSet<_> = look(&device).found().map(|(n, _)| n).collect();
        let (configs, _) = parse(&device.zdb);
        let mut theirs: BTreeSet<_> = configs.into_iter().flat_map(|config| config.copies).collect();
        // zdb reads a label with a wrong checksum, says so, and shows it all the same.
        theirs.retain(|n| !device.zdb.contains(&format!("LABEL {n} (Bad label cksum)")));
        assert_eq!(ours, theirs, "{at}");
    }
}

#[test]
fn the_newest_uberblock_is_the_one_that_zdb_knows() {
    let mut seen = 0;
    for (at, device) in all_devices() {
        let (_, uberblocks) = parse(&device.zdb);
        for (n, label) in look(&device).found() {
            let field = |block: &Block, key: &str| block.values.get(key).map_or(0, |value| value.parse().unwrap());
            let age = |block: &&Block| (field(block, "txg"), field(block, "timestamp"), field(block, "mmp_seq"));
            // zdb shows what is left of the making of a label, which ZFS itself would not read: transaction group 0.
            let there = uberblocks.iter().filter(|block| block.copies.contains(&n) && field(block, "txg") != 0);
            let theirs = there.max_by_key(age).map(|block| {
                let sequence = (field(block, "mmp_valid") & 2 != 0).then(|| field(block, "mmp_seq"));
                let txgs = (field(block, "txg"), field(block, "checkpoint_txg"));
                (field(block, "version"), txgs, field(block, "guid_sum"), field(block, "timestamp"), sequence)
            });
            let ours = label.uberblock.as_ref().map(|u| {
                (u.version, (u.txg, u.checkpoint_txg), u.guid_sum, u.timestamp, u.mmp_sequence.map(u64::from))
            });
            assert_eq!(ours, theirs, "{at}, copy {n}");
            seen += usize::from(ours.is_some());
        }
    }
    assert!(seen > 400, "only {seen} uberblocks were compared");
}

#[test]
fn what_is_no_label_is_absent_or_damaged() {
    let copies = |case_name: &str, device: &str| {
        let labels = look(&case(case_name).device(device));
        let say = |copy: &Copy| match copy {
            Copy::Absent => "absent",
            Copy::Damaged(damage) => damage.code(),
            Copy::Found(_) => "found",
        };
        labels.copies.each_ref().map(say)
    };
    let absent = ["absent"; 4];
    assert_eq!(copies("empty", "a"), absent);
    assert_eq!(copies("empty", "b"), absent);
    assert_eq!(copies("cleared", "b"), absent, "a disk that was cleared on purpose would be refused");
    assert_eq!(copies("partition", "disk1"), absent, "the label of a partition would be taken for one of its disk");
    assert_eq!(copies("whole-disk", "disk1"), absent);
    assert_eq!(copies("grown", "a"), ["found", "found", "absent", "absent"]);
    assert_eq!(copies("overwritten", "b"), ["label-checksum", "found", "found", "found"]);
}
