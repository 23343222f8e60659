//! Installs beside pools whose labels real ZFS wrote (the fixtures of siris-zfs-label).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use siris_zfs_label::{LABEL_BYTES, PoolState};

use super::tests::{install, ready};
use super::*;
use crate::facts::{Content, Health, ZfsRole};
use crate::observe;
use crate::plan::HostId;
use crate::testbox::{self, TestBox, answers};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../zfs-label/tests/fixtures")
}

/// The devices of a case: name, size, and its four label regions.
fn case(name: &str) -> Vec<(String, u64, Vec<u8>)> {
    let index = std::fs::read_to_string(folder().join("INDEX")).unwrap();
    let packed = std::fs::read(folder().join(format!("{name}.labels.zst"))).unwrap();
    let regions = zstd::decode_all(&packed[..]).unwrap();
    let device = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["device", case, device, bytes] if case == name => Some((device.to_owned(), bytes.parse().unwrap())),
        _ => None,
    };
    let devices = index.lines().filter_map(device).zip(regions.chunks(4 * LABEL_BYTES as usize));
    devices.map(|((device, bytes), regions)| (device, bytes, regions.to_vec())).collect()
}

/// Writes the label regions of a device that begins at byte `start` of a disk.
fn put(machine: &TestBox, disk: &str, start: u64, bytes: u64, regions: &[u8]) {
    let mut dev = File::options().write(true).open(machine.path("/dev").join(disk)).unwrap();
    let end = bytes - bytes % LABEL_BYTES;
    for (n, place) in [0, LABEL_BYTES, end - 2 * LABEL_BYTES, end - LABEL_BYTES].into_iter().enumerate() {
        dev.seek(SeekFrom::Start(start + place)).unwrap();
        dev.write_all(&regions[n * LABEL_BYTES as usize..][..LABEL_BYTES as usize]).unwrap();
    }
}

/// Attaches the devices of a case as whole disks, `sdb` the first.
fn attach(machine: &TestBox, name: &str) -> Vec<String> {
    let mut disks = Vec::new();
    for ((_, bytes, regions), letter) in case(name).into_iter().zip('b'..) {
        let disk = format!("sd{letter}");
        machine.disk(&disk, bytes >> 20);
        put(machine, &disk, 0, bytes >> 20 << 20, &regions);
        disks.push(disk);
    }
    disks
}

fn codes(machine: &TestBox, text: &str) -> BTreeSet<&'static str> {
    let parsed = Answers::parse(text.as_bytes()).unwrap();
    match prepare(&machine.host, &parsed, text.as_bytes(), false) {
        Err(InstallError::Refused(refusals)) => refusals.codes().into_iter().collect(),
        Ok(_) => BTreeSet::new(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn no_device_of_a_pool_is_ever_a_target() {
    for name in ["single", "mirror", "active", "raidz1", "raidz2", "draid", "spare-used", "replacing", "detached"] {
        let machine = TestBox::new();
        for disk in attach(&machine, name) {
            let text = answers(&format!("serial:{}", disk.to_uppercase()));
            assert!(codes(&machine, &text).contains("target-in-pool"), "{name}: {disk} could be a target");
        }
    }
    // Of a pool that was destroyed nothing speaks against it but its size.
    let machine = TestBox::new();
    attach(&machine, "destroyed");
    assert_eq!(codes(&machine, &answers("serial:SDB")), ["target-too-small"].into());
}

#[test]
fn roles_and_states_are_as_zfs_has_them() {
    let machine = TestBox::new();
    attach(&machine, "raidz1");
    let facts = observe(&machine.host).unwrap();
    let role = |disk: &Disk| {
        disk.contents().find_map(|(_, content)| match content {
            Content::Zfs(zfs) => Some(zfs.role),
            _ => None,
        })
    };
    let roles: Vec<_> = facts.disks.iter().filter_map(role).collect();
    let data = ZfsRole::Data;
    assert_eq!(roles, [data, data, data, ZfsRole::Log, ZfsRole::Cache, ZfsRole::Spare]);
    let pool = &facts.pools[0];
    assert_eq!((pool.health, pool.state, pool.devices), (Health::Complete, PoolState::Exported, 4));
}

#[test]
fn an_install_beside_a_pool_hands_it_to_the_new_system() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    machine.disk("sda", 2 * 1024);
    let disks = attach(&machine, "hostid");
    let before: Vec<_> = disks.iter().map(|disk| machine.digest(disk)).collect();
    let text = answers("auto");
    let prepared = ready(&machine, &text);
    let pool = prepared.facts.pools[0].clone();
    assert_eq!(prepared.plan.hostid, HostId::Id(pool.hostid.unwrap()));
    assert!(install(&machine, &text).unwrap().proof.holds);
    assert_eq!(disks.iter().map(|disk| machine.digest(disk)).collect::<Vec<_>>(), before);
    let facts = observe(&machine.host).unwrap();
    let start = facts.disks[0].partitions.iter().find(|part| part.number == 7).unwrap().start;
    let cat = |file: &str| observe::cat(&machine.path("/dev/sda"), start, &format!("/persist{file}")).unwrap();
    assert!(cat("/var/lib/siris/pools.toml").contains(&format!("guid = \"{}\"", pool.guid)));
    assert_eq!(cat("/var/lib/siris/hostid").trim(), format!("{:08x}", pool.hostid.unwrap()));

    // With a disk of it missing: refused, and allowed where the answers say so.
    std::fs::remove_dir_all(machine.path("/sys/block/sdb")).unwrap();
    let text = text.replace("disk = \"auto\"", "disk = \"serial:SDA\"");
    assert_eq!(codes(&machine, &text), ["pool-degraded"].into());
    let allowed = format!("{text}[[pools]]\nname = \"{}\"\nallow-degraded = true\n", pool.name);
    assert!(codes(&machine, &allowed).is_empty());
}

#[test]
fn a_second_path_is_no_second_disk_and_a_copy_is_one() {
    let machine = TestBox::new();
    machine.disk("sda", 12 * 1024);
    let text = answers("serial:SDA");
    let (_, bytes, regions) = case("single").remove(0);
    for disk in ["sdb", "sdc"] {
        machine.disk(disk, bytes >> 20);
        put(&machine, disk, 0, bytes, &regions);
    }
    assert_eq!(codes(&machine, &text), ["pool-conflict"].into());
    for disk in ["sdb", "sdc"] {
        machine.put(&format!("/sys/block/{disk}/wwid"), b"naa.5000c500aaaaaaaa\n");
    }
    assert!(codes(&machine, &text).is_empty());
    let facts = observe(&machine.host).unwrap();
    assert_eq!((facts.pools.len(), facts.pools[0].members.len()), (1, 1));
}

#[test]
fn a_pool_on_a_kept_partition_that_ends_with_the_disk_survives() {
    if !testbox::has_mkfs() {
        return;
    }
    use siris_slots::layout::{KeptEntry, Layout, SectorSize, Sizes};
    let machine = TestBox::new();
    // The partition's last label lies where one of the whole disk would.
    let (_, bytes, regions) = case("single").remove(0);
    let mib = 2 * 1024;
    machine.disk("sda", mib);
    let start = ((mib << 20) - LABEL_BYTES - bytes) / 512;
    let mut raw = [3; 128];
    raw[32..40].copy_from_slice(&start.to_le_bytes());
    raw[40..48].copy_from_slice(&((mib << 20) / 512 - 35).to_le_bytes());
    let kept = [KeptEntry::new(5, raw)];
    let sizes = Sizes { slot: siris_ibu::ByteSize::mib(16), ..Sizes::default() };
    let size = siris_ibu::ByteSize::mib(mib);
    let layout =
        Layout::plan_beside(size, SectorSize::S512, &sizes, &siris_slots::guid::GuidSource::Random, &kept).unwrap();
    let mut dev = File::options().read(true).write(true).open(machine.path("/dev/sda")).unwrap();
    siris_slots::gpt::apply_kept(&mut dev, &layout, &kept).unwrap();
    put(&machine, "sda", start * 512, bytes, &regions);

    let text = answers("serial:SDA");
    let facts = observe(&machine.host).unwrap();
    assert!(facts.disks[0].content.is_empty(), "{:?}", facts.disks[0].content);
    let whole = codes(&machine, &text);
    assert_eq!(whole, ["target-in-pool"].into(), "without being kept it is lost");
    let kept = text.replace("slot-size", "keep-partitions = [5]\nslot-size");
    assert!(install(&machine, &kept).unwrap().proof.holds);
    let after = observe(&machine.host).unwrap();
    assert_eq!((&after.pools[0].guid, after.pools[0].health), (&facts.pools[0].guid, Health::Complete));
    assert_eq!(after.pools[0].members, ["sda105"]);
}
