//! Datasets of assets on a real pool: what the agent shows of them is what ZFS says.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{NEW_POOL, must_contain, standard};
use crate::case::Case;
use crate::lab::Bench;

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

    // Gone and renamed datasets leave and change their objects.
    vm.guest.ok(&format!("zfs destroy -r {name} && zfs create tank/home/agents/{}", ASSET.replace('0', "f")))?;
    let left = format!(
        "! sirisctl dataset list | grep -q {ASSET} && sirisctl dataset list | grep -q {}",
        ASSET.replace('0', "f")
    );
    vm.guest.eventually(Duration::from_secs(60), &left)?;
    Ok(())
}
