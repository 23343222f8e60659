use super::*;
use crate::answers::Answers;
use crate::testbox;

const NODE: &str = include_str!("golden/node.toml");
const ANSWERS: &str = r#"
schema = 1
[target]
disk = "serial:OS-1"
[[pools]]
name = "tank"
guid = "10641064106410641064"
members = 3
[other-os]
default = "keep"
[identity]
role = "cloud"
hostname = "node7"
[access]
ssh-keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA0123456789 me"]
password-hash = "$y$j9T$abcdefgh$ijklmnop"
[network]
mode = "static"
dns = ["192.0.2.1"]
[[network.bonds]]
name = "bond0"
mode = "802.3ad"
members = ["00:11:22:33:44:55", "00:11:22:33:44:56"]
[[network.vlans]]
name = "bond0.7"
id = 7
on = "bond0"
addresses = ["192.0.2.7/24"]
gateways = ["192.0.2.254"]
"#;

fn image() -> Image {
    let manifest = testbox::manifest(&vec![1; 8192], &mut Vec::new(), &vec![2; 4096]);
    Image { manifest, digest: Sha256::of(b"manifest") }
}

fn decide(facts: &Facts, answers: &str) -> Result<Plan, Refusals> {
    let answers = Answers::parse(answers.as_bytes()).unwrap();
    let id = "install-1".parse().unwrap();
    plan(facts, &answers, &Purpose { image: &image(), id, seed: Sha256::of(b"seed") })
}

fn node() -> Facts {
    toml::from_str(NODE).unwrap()
}

#[test]
fn facts_survive_being_written_down() {
    let text = toml::to_string(&node()).unwrap();
    assert_eq!(toml::from_str::<Facts>(&text).unwrap(), node());
}

#[test]
fn the_plan_of_a_storage_node_is_this() {
    let plan = decide(&node(), ANSWERS).unwrap();
    let text = format!("{plan}\n{}\n", serde_json::to_string_pretty(&plan).unwrap());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/golden/node.txt"), &text).unwrap();
    }
    assert_eq!(text, include_str!("golden/node.txt"));
    for line in plan.to_string().lines() {
        assert!(line.chars().count() <= 80, "does not fit a screen: {line}");
    }
}

#[test]
fn every_reason_has_its_code() {
    type Change = fn(&mut Facts);
    fn disk<'a>(facts: &'a mut Facts, name: &str) -> &'a mut Disk {
        facts.disks.iter_mut().find(|disk| disk.name.as_str() == name).unwrap()
    }
    fn tank(facts: &mut Facts) -> &mut crate::facts::Pool {
        facts.pools.iter_mut().find(|pool| pool.name == "tank").unwrap()
    }
    fn features(read: &[&str], write: &[&str]) -> Opened {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Opened::Features { read: owned(read), write: owned(write) }
    }
    use crate::facts::{Firmware, Health, Opened};
    type Case = (&'static str, Change, &'static [(&'static str, &'static str)]);
    let cases: &[Case] = &[
        ("target-in-pool", |_| {}, &[("serial:OS-1", "serial:DATA-1")]),
        ("target-in-pool", |_| {}, &[("serial:OS-1", "serial:DATA-3")]),
        ("target-in-pool", |_| {}, &[("serial:OS-1", "serial:LOG-1")]),
        ("target-not-found", |_| {}, &[("serial:OS-1", "serial:OS-9")]),
        ("target-ambiguous", |_| {}, &[("serial:OS-1", "auto")]),
        ("target-ambiguous", |f| disk(f, "sdb").serial = Some("OS-1".into()), &[]),
        ("target-too-small", |f| disk(f, "sda").size = ByteSize::mib(9000), &[]),
        ("target-sector-size", |f| disk(f, "sda").sector = 520, &[]),
        ("target-mounted", |f| disk(f, "sda").used_as.push("/mnt".into()), &[]),
        ("target-has-holders", |f| disk(f, "sda").holders.push("md127".into()), &[]),
        ("target-unreadable", |f| disk(f, "sda").unreadable = Some("I/O error".into()), &[]),
        ("target-is-medium", |f| f.medium = Some("sda".parse().unwrap()), &[]),
        ("target-multipath", |f| disk(f, "sdf").path_of = Some("sda".parse().unwrap()), &[]),
        ("fenced-disk-has-holders", |f| disk(f, "sdd").holders.push("dm-0".into()), &[]),
        ("fenced-disk-in-use", |f| disk(f, "sdd").used_as.push("swap".into()), &[]),
        ("fenced-disk-written", |f| disk(f, "sdd").written = 8, &[]),
        ("fenced-disk-written", |f| disk(f, "sdd").discarded = 8, &[]),
        ("disk-not-fenced", |f| disk(f, "sdd").read_only = false, &[]),
        ("not-live", |f| f.live = false, &[]),
        ("other-os-undecided", |_| {}, &[("default = \"keep\"", "")]),
        ("pool-unknown", |_| {}, &[("name = \"tank\"", "name = \"bank\"")]),
        ("pool-unknown", |_| {}, &[("guid = \"10641064106410641064\"", "guid = \"7\"")]),
        ("pool-members", |_| {}, &[("members = 3", "members = 4")]),
        ("pool-degraded", |f| tank(f).health = Health::Degraded, &[]),
        ("pool-incomplete", |f| tank(f).health = Health::Incomplete, &[]),
        ("pool-conflict", |f| tank(f).conflicts.push("two of one".into()), &[]),
        ("pool-features", |f| tank(f).features.push("org.example:new".into()), &[]),
        ("pool-features", |f| tank(f).opened = Some(features(&["org.example:new"], &[])), &[]),
        ("pool-features", |f| tank(f).opened = Some(features(&[], &["org.example:new"])), &[]),
        ("pool-features", |f| tank(f).opened = Some(Opened::Unsupported), &[]),
        ("pool-unreadable", |f| tank(f).opened = Some(Opened::Failed("no".into())), &[]),
        ("pool-features", |f| tank(f).version = 4000, &[]),
        ("destroy-unknown", |_| {}, &[("[other-os]", "[[destroy]]\nname = \"tank\"\nguid = \"1\"\n[other-os]")]),
    ];
    for (code, change, edits) in cases {
        let mut facts = node();
        change(&mut facts);
        let mut answers = ANSWERS.to_owned();
        for (from, to) in *edits {
            assert!(answers.contains(from));
            answers = answers.replacen(from, to, 1);
        }
        let refusals = decide(&facts, &answers).unwrap_err();
        assert!(refusals.0.iter().all(|refusal| refusal.code == *code), "{code}: {refusals}");
    }
    // Sectors of 4096 bytes: under UEFI only.
    let mut facts = node();
    disk(&mut facts, "sda").sector = 4096;
    assert!(!decide(&facts, ANSWERS).unwrap().targets[0].bios);
    facts.firmware = Firmware::Bios;
    assert_eq!(decide(&facts, ANSWERS).unwrap_err().codes(), ["target-sector-size"]);
}

#[test]
fn all_reasons_are_told_at_once() {
    let mut facts = node();
    facts.live = false;
    facts.pools[1].health = crate::facts::Health::Incomplete;
    let answers = ANSWERS.replace("default = \"keep\"", "").replace("serial:OS-1", "serial:DATA-2");
    let codes = decide(&facts, &answers).unwrap_err().codes();
    assert_eq!(
        codes,
        ["target-in-pool", "other-os-undecided", "other-os-undecided", "not-live", "pool-incomplete"],
        "an OS on both halves of a mirror counts as two"
    );
}

#[test]
fn auto_takes_the_only_disk_that_can_be_it() {
    let mut facts = node();
    facts.disks.retain(|disk| !["sda", "sdb"].contains(&disk.name.as_str()));
    let answers = ANSWERS.replace("serial:OS-1", "auto");
    assert_eq!(decide(&facts, &answers).unwrap().targets[0].disk.as_str(), "sdf");
    // A stick is nobody's OS disk, unless it is named.
    let last = facts.disks.len() - 1;
    facts.disks[last].transport = Some("usb".into());
    assert_eq!(decide(&facts, &answers).unwrap_err().codes(), ["target-not-found"]);
}

#[test]
fn a_degraded_pool_may_be_allowed_and_a_given_up_one_no_longer_counts() {
    let mut facts = node();
    let pool = &mut facts.pools[1];
    pool.health = crate::facts::Health::Degraded;
    pool.members.pop();
    let allowed = ANSWERS.replace("members = 3", "members = 3\nallow-degraded = true");
    decide(&facts, &allowed).unwrap();

    let given_up = ANSWERS
        .replace("serial:OS-1", "serial:DATA-2")
        .replace("[other-os]", "[[destroy]]\nname = \"tank\"\nguid = \"10641064106410641064\"\n[other-os]");
    let start = given_up.find("[[pools]]").unwrap();
    let end = given_up.find("[[destroy]]").unwrap();
    let given_up = format!("{}{}", &given_up[..start], &given_up[end..]);
    let plan = decide(&node(), &given_up).unwrap();
    assert!(plan.targets[0].lost.iter().any(|lost| lost.contains("tank")), "{:?}", plan.targets[0].lost);
    assert!(plan.to_string().contains("GIVEN UP"));
    assert_eq!(plan.hostid, HostId::New);
}

#[test]
fn the_host_id_is_the_pools() {
    let hostid = |facts: &Facts, answers: &str| decide(facts, answers).map(|plan| plan.hostid);
    let mut facts = node();
    assert_eq!(hostid(&facts, ANSWERS).unwrap(), HostId::Id(0xdead_beef));
    facts.pools[1].hostid = None;
    assert_eq!(hostid(&facts, ANSWERS).unwrap(), HostId::None, "a host without an id imports it, no other");
    facts.pools[1].state = siris_zfs_label::PoolState::Exported;
    assert_eq!(hostid(&facts, ANSWERS).unwrap(), HostId::New);

    // Two pools of two hosts cannot both be imported without force.
    let mut facts = node();
    let mut other = facts.pools[1].clone();
    (other.name, other.guid, other.hostid) = ("second".into(), siris_zfs_label::PoolGuid::new(5), Some(1));
    facts.pools.push(other);
    let both = ANSWERS.replace("[other-os]", "[[pools]]\nname = \"second\"\n[other-os]");
    assert_eq!(hostid(&facts, &both).unwrap_err().codes(), ["hostid-conflict"]);
    let decided = both.replace("role =", "hostid = \"0000abcd\"\nrole =");
    assert_eq!(hostid(&facts, &decided).unwrap(), HostId::Id(0xabcd));
    // The second pool is nobody's concern where the answers do not name it.
    assert_eq!(hostid(&facts, ANSWERS).unwrap(), HostId::Id(0xdead_beef));
}

const FULL: &str = r#"
schema = 1
mode = "full"
[target]
disk = "serial:OS-1"
[other-os]
default = "disable"
[identity]
role = "local"
[pool]
name = "homePool"
layout = "mirror"
disks = ["serial:NEW-1", "serial:DATA-1"]
spares = ["serial:DATA-2"]
"#;

#[test]
fn a_full_install_makes_a_pool_of_disks_that_are_free_or_given_up() {
    let refusals = decide(&node(), FULL).unwrap_err();
    assert!(refusals.codes().iter().all(|code| *code == "target-in-pool") && refusals.0.len() == 2, "{refusals}");
    let given_up = format!("{FULL}[[destroy]]\nname = \"tank\"\nguid = \"10641064106410641064\"\n");
    let plan = decide(&node(), &given_up).unwrap();
    let opened: Vec<&str> = plan.opened().map(DiskName::as_str).collect();
    assert_eq!(opened, ["sda", "sdb", "sdf", "sdc", "sdd"]);
    assert!(plan.fenced.iter().all(|fenced| !opened.contains(&fenced.disk.as_str())));
    let text = plan.to_string();
    assert!(
        text.contains("MAKES pool \"homePool\": mirror of 2") && text.contains("MADE UNBOOTABLE /dev/sdb"),
        "{text}"
    );
    // The name alone is not enough.
    let wrong = given_up.replace("10641064106410641064", "1");
    assert!(decide(&node(), &wrong).unwrap_err().codes().contains(&"destroy-unknown"));
    let twice = given_up.replace("serial:DATA-2", "serial:OS-1");
    assert_eq!(decide(&node(), &twice).unwrap_err().codes(), ["pool-disk-twice"]);
}

#[test]
fn what_an_earlier_try_left_is_no_reason_against_the_next() {
    let mut facts = node();
    let tank = facts.pools.iter_mut().find(|pool| pool.name == "tank").unwrap();
    (tank.name, tank.comment) = ("homePool".into(), Some("siris-install install-1".into()));
    let plan = decide(&facts, FULL).unwrap();
    assert!(!plan.pools.iter().any(PoolPlan::is_imported));
    let tank = facts.pools.iter_mut().find(|pool| pool.name == "homePool").unwrap();
    tank.comment = Some("siris-install another".into());
    assert!(decide(&facts, FULL).unwrap_err().codes().contains(&"pool-name-taken"));
}

#[test]
fn a_disk_that_holds_a_pool_is_not_opened_to_disable_its_os() {
    let mut facts = node();
    let disk = facts.disks.iter_mut().find(|disk| disk.name.as_str() == "sdd").unwrap();
    (disk.boot_code, disk.table) = (true, crate::facts::TableKind::Mbr);
    let answers = ANSWERS.replace("default = \"keep\"", "default = \"disable\"");
    assert_eq!(decide(&facts, &answers).unwrap_err().codes(), ["other-os-disable"]);
}

#[test]
fn what_boots_nothing_needs_no_decision() {
    let undecided = ANSWERS.replace("default = \"keep\"", "disks.\"serial:OS-2\" = \"keep\"");
    let disk = |facts: &mut Facts, change: fn(&mut Disk)| {
        change(facts.disks.iter_mut().find(|disk| disk.name.as_str() == "sdd").unwrap());
    };
    // An old system's code before a pool that took the whole disk; a stick with answers.
    let mut facts = node();
    disk(&mut facts, |disk| disk.boot_code = true);
    decide(&facts, &undecided).unwrap();
    // The medium itself, back under another name.
    let mut facts = node();
    disk(&mut facts, |disk| {
        (disk.boot_code, disk.table, disk.content) = (true, crate::facts::TableKind::Mbr, Vec::new());
    });
    assert_eq!(decide(&facts, &undecided).unwrap_err().codes(), ["other-os-undecided"]);
    disk(&mut facts, |disk| {
        let (kind, label) = ("iso9660".to_owned(), Some("SIRIS_INSTALL".to_owned()));
        disk.content.push(crate::facts::Content::FileSystem(crate::facts::FileSystem { kind, label, dirty: false }));
    });
    decide(&facts, &undecided).unwrap();
}
