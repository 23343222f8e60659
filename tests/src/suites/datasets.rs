//! Datasets of assets on a real pool: what the agent shows of them is what ZFS says.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{NEW_POOL, must_contain, standard};
use crate::case::Case;
use crate::lab::Bench;
use crate::vm::Vm;

const GROUP: &str = "datasets";
const ASSET: &str = "0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::quick(GROUP, "those of assets are shown as ZFS has them, and recovery points taken", shown_and_taken)]
}

fn shown_and_taken(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    let disk = "/dev/disk/by-id/virtio-data";
    let name = format!("tank/home/agents/{ASSET}");
    vm.guest.ok(&format!(
        "{NEW_POOL}new_pool tank mirror {disk}0 {disk}1 && zfs create -p {name}/below && zfs create tank/other && \
         zfs snapshot {name}@by-hand:1"
    ))?;
    // ZFS's event has it seen without being asked.
    vm.guest
        .eventually(Duration::from_secs(60), &format!("sirisctl dataset list | grep -q '{name} .* 1  *by-hand:1'"))?;
    let listed = vm.guest.ok("sirisctl dataset list")?;
    ensure!(!listed.contains("other") && !listed.contains("below"), "more than the assets' datasets: {listed}");

    let point = vm.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    let second = vm.guest.ok(&format!("sirisctl dataset snapshot {name}"))?;
    let now: u64 = vm.guest.ok("date +%s")?.parse()?;
    let (first, second): (u64, u64) = (point.parse()?, second.parse()?);
    ensure!(first < second && now - 120 < first && second < now + 10, "the points {first} and {second} at {now}");
    // Of all that lies in it, of one instant.
    let txg = |dataset: &str| vm.guest.ok(&format!("zfs get -Hpo value createtxg {dataset}@{first}"));
    ensure!(txg(&name)? == txg(&format!("{name}/below"))?, "the point is not of one instant");

    let json = vm.guest.ok(&format!("sirisctl dataset points {ASSET} --json"))?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json)?;
    let text = |row: &serde_json::Value| {
        format!("{} {} {}", row["name"].as_str().unwrap_or_default(), row["guid"], row["createtxg"])
    };
    let ours: Vec<String> = rows.iter().map(text).collect();
    let theirs = vm.guest.ok(&format!(
        "zfs list -Hpd1 -t snapshot -s createtxg -o name,guid,createtxg {name} | sed 's/^[^@]*@//; s/\\t/ /g'"
    ))?;
    ensure!(ours == theirs.lines().collect::<Vec<_>>() && ours.len() == 3, "the agent says {ours:?}, ZFS {theirs}");

    // Those of all assets in one list, and of nothing else.
    vm.guest.ok("zfs snapshot tank/other@1568402268")?;
    let json = vm.guest.ok("runuser -u nobody -- sirisctl dataset points --json")?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&json)?;
    let all: Vec<String> =
        all.iter().map(|row| format!("{} {}", row["dataset"].as_str().unwrap_or_default(), text(row))).collect();
    let expected: Vec<String> = ours.iter().map(|row| format!("{name} {row}")).collect();
    ensure!(all == expected, "the points of all assets are {all:?}, and not {expected:?}");

    let missing = vm.guest.refused("sirisctl dataset points tank/other")?;
    must_contain(&missing, "dataset-not-found", "a dataset of no asset")?;
    let refused = vm.guest.refused(&format!("runuser -u nobody -- sirisctl dataset snapshot {ASSET} </dev/null"))?;
    must_contain(&refused, "not-authorized", "a recovery point by nobody")?;
    vm.guest.ok(&format!("runuser -u nobody -- sirisctl dataset points {ASSET} | grep -q {first}"))?;

    // Retention: a dry run says what would become of each point, and only what goes is gone.
    let unset = vm.guest.refused(&format!("sirisctl dataset prune {ASSET} --dry-run"))?;
    must_contain(&unset, "no-retention", "a dataset without a policy")?;
    let none = vm.guest.ok(&format!("sirisctl dataset retention {ASSET}"))?;
    must_contain(&none, "everything stays", "no policy")?;
    let set = vm
        .guest
        .ok(&format!("zfs set org.siris:retention=all=1h tank/home/agents; sirisctl dataset retention {ASSET}"))?;
    ensure!(set == "all=1h", "an inherited policy: {set}");
    vm.guest.ok(&format!(
        "zfs snapshot -r {name}@1568402268 && zfs snapshot -r {name}@1568405868 && zfs hold keep {name}@1568402268"
    ))?;
    // A newer one: the newest stays in any case.
    let third = vm.guest.ok(&format!("t=$(date +%s) && zfs snapshot -r {name}@$t && echo $t"))?;
    let dry = vm.guest.ok(&format!("runuser -u nobody -- sirisctl dataset prune {ASSET} --dry-run"))?;
    must_contain(&dry, "held by keep", "why a point stays")?;
    must_contain(&dry, "would go", "a dry run")?;
    vm.guest.ok(&format!("zfs list {name}@1568405868 && systemctl start siris-retention.service"))?;
    let left = vm.guest.ok(&format!("zfs list -Hrt snapshot -o name {name} | sed 's/.*@//' | sort -u | xargs"))?;
    ensure!(left == format!("1568402268 {first} {second} {third} by-hand:1"), "left is {left}");
    let refused = vm.guest.refused(&format!("runuser -u nobody -- sirisctl dataset prune {ASSET} </dev/null"))?;
    must_contain(&refused, "not-authorized", "pruning by nobody")?;
    vm.guest.ok(&format!("zfs release keep {name}@1568402268"))?;

    held_cloned_and_destroyed(&vm, &name, first)?;

    // Gone and renamed datasets leave and change their objects.
    vm.guest.ok(&format!("zfs destroy -r {name} && zfs create tank/home/agents/{}", ASSET.replace('0', "f")))?;
    let left = format!(
        "! sirisctl dataset list | grep -q {ASSET} && sirisctl dataset list | grep -q {}",
        ASSET.replace('0', "f")
    );
    vm.guest.eventually(Duration::from_secs(60), &left)?;
    Ok(())
}

/// One point at a time: of `name`, with the points 1568402268, `first` and newer ones, and `below` in it.
fn held_cloned_and_destroyed(vm: &Vm<'_>, name: &str, first: u64) -> Result<()> {
    let vector = "siris:vector:0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55_1";
    let (old, date) = (format!("{name}@1568402268"), format!("{name}@2019-09-13T21:17:48+02:00"));
    let refused = |command: &str, code: &str| -> Result<()> {
        must_contain(&vm.guest.refused(&format!("sirisctl dataset {command}"))?, code, command)
    };
    // Holds: ours, seen beside a vector's, which stays the vector's.
    let held = vm.guest.ok(&format!("sirisctl dataset hold {date} && sirisctl dataset hold {old} --tag audit"))?;
    ensure!(held == "1568402268\n1568402268", "held is {held}");
    vm.guest.ok(&format!("zfs hold {vector} {name}@{first}"))?;
    let holds = vm.guest.ok(&format!("zfs holds -H {old} | cut -f2 | sort | xargs"))?;
    ensure!(holds == "audit siris-operator", "ZFS has the holds {holds}");
    let points = vm.guest.ok(&format!("runuser -u nobody -- sirisctl dataset points {name}"))?;
    for wanted in ["1568402268", "2019-09-13T19:17:48Z", "audit, siris-operator", &vector["siris:vector:".len()..]] {
        must_contain(&points, wanted, "the points and who holds them")?;
    }
    refused(&format!("hold {name}@1 --tag audit"), "point-not-found")?;
    refused(&format!("hold {old} --tag {vector}"), "hold-tag")?;
    refused(&format!("release {name}@{first} --tag {vector}"), "hold-tag")?;
    refused(&format!("release {name}@{first}"), "hold-not-found")?;
    refused(&format!("destroy {name}@{first} --yes"), "point-needed")?;
    refused(&format!("destroy {old} --yes"), "held by audit; it is held by siris-operator")?;
    vm.guest.ok(&format!("sirisctl dataset release {old} && sirisctl dataset release {date} --tag audit"))?;
    vm.guest.ok(&format!("zfs release {vector} {name}@{first} && test -z \"$(zfs holds -H {old} {name}@{first})\""))?;

    // A clone: marked by the command that makes it, mountable, and in the way of its point.
    vm.guest.ok(&format!("sirisctl dataset clone {date} tank/look"))?;
    let marked = "zfs get -Hpo value org.siris:clone-of,origin,mounted,canmount tank/look | xargs";
    let expected = format!("echo $(zfs get -Hpo value guid {old}) {old} no noauto");
    ensure!(vm.guest.ok(marked)? == vm.guest.ok(&expected)?, "the clone is {}", vm.guest.ok(marked)?);
    for (target, code) in [
        ("tank/look".to_owned(), "target-exists"),
        ("other/look".to_owned(), "other-pool"),
        (format!("{name}/look"), "in-asset-dataset"),
        (name.replace('0', "f"), "like-asset-dataset"),
        ("tank/none/look".to_owned(), "no-parent"),
    ] {
        refused(&format!("clone {old} {target}"), code)?;
    }
    refused(&format!("destroy {old} --yes"), "tank/look is a clone of it")?;
    vm.guest.ok(&format!("zfs clone {old} tank/by-hand && zfs mount tank/look && zfs create tank/look/inner"))?;
    for dataset in ["tank/by-hand", "tank/other", "tank/look/inner", name] {
        refused(&format!("destroy {dataset} --yes"), "not-made-here")?;
    }
    refused("destroy tank/look --yes", "in-use")?;
    vm.guest.ok("zfs destroy tank/look/inner && zfs snapshot tank/look@own")?;
    refused("destroy tank/look --yes", "in-use")?;
    vm.guest.ok("zfs destroy tank/look@own && zfs destroy tank/by-hand")?;
    let shown = vm.guest.refused("sirisctl dataset destroy tank/look")?;
    must_contain(&shown, "tank/look would go", "what is only asked about")?;
    // Mounted, and open: it stays. Then it goes, mounted as it is.
    vm.guest.ok("zfs mount | grep -q '^tank/look ' && \
         systemd-run -qu look-open -p WorkingDirectory=$(zfs get -Hpo value mountpoint tank/look) sleep 600")?;
    refused("destroy tank/look --yes", "point-failed")?;
    vm.guest.ok("zfs mount | grep -q '^tank/look ' && systemctl stop look-open")?;
    vm.guest.ok("sirisctl dataset destroy tank/look --yes && ! zfs list tank/look")?;

    // A point: with what lies in it; never the newest, nor what is no recovery point.
    let newest = vm.guest.ok(&format!("zfs list -Hd1 -t snapshot -S createtxg -o name {name} | head -1"))?;
    refused(&format!("destroy {newest} --yes"), "it is the newest one")?;
    refused(&format!("destroy {name}@by-hand:1 --yes"), "point-kind")?;
    let shown = vm.guest.refused(&format!("runuser -u nobody -- sirisctl dataset destroy {old}"))?;
    must_contain(&shown, &format!("{name}/below@1568402268 would go\n{old} would go"), "what would go")?;
    let denied = vm.guest.refused(&format!("runuser -u nobody -- sirisctl dataset destroy {old} --yes </dev/null"))?;
    must_contain(&denied, "not-authorized", "destroying by nobody")?;
    vm.guest.ok(&format!("zfs list {old} && sirisctl dataset destroy {date} --yes"))?;
    let left = vm.guest.ok(&format!("zfs list -Hrt snapshot -o name {name} | grep -c 1568402268; true"))?;
    ensure!(left == "0", "of the point that was destroyed {left} snapshots are left");
    Ok(())
}
