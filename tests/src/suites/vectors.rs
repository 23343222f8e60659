//! Vectors between boxes: real ZFS on both, and real SSH between them.

mod added;
mod bad_input;
mod broken;
mod cascade;
mod digest;
mod encrypted;
mod property;
mod relay;
mod rsync;
mod schedule;
mod server;
mod turned;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{must_contain, standard};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, OTHER, Two, source, target};
use crate::vm::Vm;

const GROUP: &str = "vectors";
/// The disks of their pools.
const DISKS: &str = "/dev/disk/by-id/virtio-data0 /dev/disk/by-id/virtio-data1";
/// A sync of some megabytes, between emulated machines.
const SYNC: Duration = Duration::from_secs(180);

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case::quick(
        GROUP,
        "a dataset is replicated to another box, and so is each new recovery point",
        replicated,
    )];
    cases.extend(broken::cases());
    cases.extend(digest::cases());
    cases.extend(turned::cases());
    cases.extend(server::cases());
    cases.extend(bad_input::cases());
    cases.extend(cascade::cases());
    cases.extend(encrypted::cases());
    cases.extend(added::cases());
    cases.extend(property::cases());
    cases.extend(relay::cases());
    cases.extend(rsync::cases());
    cases.extend(schedule::cases());
    cases
}

/// Whether both have the same snapshots, by guid, and the same in the newest.
fn must_be_equal(two: &Two<'_>) -> Result<()> {
    let list = |dataset: &str| format!("zfs list -Hpd1 -t snapshot -s createtxg -o guid {dataset}");
    let (ours, theirs) = (two.office.guest.ok(&list(&source()))?, two.vault.guest.ok(&list(&target()))?);
    ensure!(ours == theirs, "the snapshots differ: {ours} and {theirs}");
    let (ours, theirs) = (digest(&two.office, &source())?, digest(&two.vault, &target())?);
    ensure!(ours == theirs, "the contents differ: {ours} and {theirs}");
    Ok(())
}

/// Where the source is mounted, for the shell.
fn mounted() -> String {
    format!("$(zfs get -Ho value mountpoint {})", source())
}

/// What is in the newest snapshot.
fn digest(vm: &Vm<'_>, dataset: &str) -> Result<String> {
    vm.guest.ok(&format!(
        "s=$(zfs list -Hpd1 -t snapshot -s createtxg -o name {dataset} | tail -1) && d=$(mktemp -d) && \
         mount -t zfs -o ro $s $d && (cd $d && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); \
         umount $d && rmdir $d"
    ))
}

/// Who marks what on a dataset: holds, bookmarks, and what a receive has left.
fn marks(vm: &Vm<'_>, dataset: &str) -> Result<String> {
    vm.guest.ok(&format!(
        "zfs list -Hpd1 -t snapshot -s createtxg -o name {dataset} | xargs zfs holds -H | awk '{{print $1, $2}}' | sed 's/.*@//'; \
         zfs list -Hpd1 -t bookmark -o name {dataset} | sed 's/.*#//'; zfs get -Ho value receive_resume_token {dataset}"
    ))
}

fn replicated(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    // So that a byte that is turned on its disk is found by nobody but who compares.
    vault.guest.ok("zfs set checksum=off vault/home/agents")?;
    let write = |count: u32| {
        format!("dd if=/dev/urandom of={}/sdb.img bs=1M count={count} conv=notrunc status=none", mounted())
    };
    office.guest.ok(&write(12))?;
    let first = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    let id = office.guest.ok(&format!("sirisctl vector add {ASSET} vault"))?;
    let said = office.guest.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    ensure!(said.status == Some(0), "the first sync: {said}");
    must_contain(&said.text, &first, "what was synced")?;
    must_be_equal(&two)?;

    // Each new point goes by itself.
    office.guest.ok(&write(3))?;
    let second = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    office.guest.eventually(SYNC, &format!("sirisctl vector list | tee /dev/stderr | grep -q 'idle *{second}'"))?;
    must_be_equal(&two)?;
    let guid = vault.guest.ok(&format!("zfs get -Hpo value guid {}@{second}", target()))?;
    let expected = format!("{second} siris:vector:{id}\nsiris-vector-{id}-{guid}\n-");
    for (vm, dataset) in [(office, source()), (vault, target())] {
        let found = marks(vm, &dataset)?;
        ensure!(found == expected, "of {dataset} is marked {found}, not {expected}");
    }
    stolen(&two)?;
    obstacles(&two)?;
    proof(&two)?;

    // Forgotten, nothing is left but the replica.
    office.guest.ok("sirisctl vector remove 1")?;
    for (vm, dataset) in [(office, source()), (vault, target())] {
        let found = marks(vm, &dataset)?;
        ensure!(found == "-", "of {dataset} is still marked {found}");
    }
    office.guest.ok("sirisctl machine remove vault && sirisctl machine list | grep -q 'dials no machine'")?;
    vault.guest.ok("sirisctl machine forbid office && [ ! -s /var/lib/siris/peers/authorized_keys ]")?;
    Ok(())
}

/// What somebody with office's key can do on vault: nothing beside.
fn stolen(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let key = "/var/lib/siris/peers/vault.key";
    let ssh = format!(
        "ssh -F none -i {key} -p {OTHER} -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    );
    vault.guest.ok("zfs create vault/other && zfs snapshot vault/other@1 && touch /tmp/untouched")?;
    let before = vault.guest.ok("zfs list -Ht all -o name")?;
    let dataset = target();
    for tried in [
        "id".to_owned(),
        "rm /tmp/untouched".to_owned(),
        format!("zfs destroy -r {dataset}"),
        "{\"look\":{\"dataset\":\"vault/other\"}}".to_owned(),
        "{\"receive\":{\"dataset\":\"vault/elsewhere\"}}".to_owned(),
        "{\"receive\":{\"dataset\":\"vault/home/agents/../../other\"}}".to_owned(),
        format!(
            "{{\"send\":{{\"dataset\":\"{dataset}\",\"stream\":{{\"snapshot\":{{\"snapshot\":\"{dataset}@1\",\"base\":\"nothing\",\"between\":false,\"raw\":false}}}}}}}}"
        ),
    ] {
        let done = office.guest.run(&format!("{ssh} root@127.0.0.1 '{tried}' </dev/null"))?;
        ensure!(done.status == Some(1), "with the key, {tried}: {done}");
        must_contain(&done.text, "peer-", &tried)?;
    }
    // No terminal, no shell, no way through to somewhere else, no file.
    for (what, tried) in [
        ("a shell", format!("{ssh} -tt root@127.0.0.1 </dev/null")),
        ("a forwarded port", format!("{ssh} -o ExitOnForwardFailure=yes -W 127.0.0.1:22 root@127.0.0.1 </dev/null")),
        ("SFTP", format!("{ssh} -s root@127.0.0.1 sftp </dev/null")),
    ] {
        let done = office.guest.run(&tried)?;
        ensure!(done.status != Some(0), "with the key, {what}: {done}");
    }
    let now = vault.guest.ok("ls /tmp/untouched >/dev/null && zfs list -Ht all -o name")?;
    ensure!(now == before, "something changed on the target: {now}");
    // Nobody but the group's members changes what is replicated; everybody may look.
    office.guest.ok("runuser -u nobody -- sirisctl vector list | grep -q vault")?;
    for change in ["vector sync 1", "vector pause 1", "vector remove 1", "machine remove vault", "machine key other"] {
        let refused = office.guest.refused(&format!("runuser -u nobody -- sirisctl {change} </dev/null"))?;
        must_contain(&refused, "not-authorized", change)?;
    }
    Ok(())
}

/// Both ends read for themselves, and one altered file is found by its path.
fn proof(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let said = office.guest.run_for(SYNC, "sirisctl vector verify 1", b"")?;
    ensure!(said.status == Some(0), "a proof: {said}");
    must_contain(&said.text, "is the same on both", "the proof")?;
    let list = "sirisctl vector list --json";
    let proven = office.guest.ok(&format!("{list} | grep proven-to"))?;
    let newest = office.guest.ok(&format!("zfs list -Hpd1 -t snapshot -s createtxg -o name {} | tail -1", source()))?;
    must_contain(&proven, newest.rsplit_once('@').map_or("", |(_, label)| label), "what is proven")?;

    // One byte of the replica is turned on the disk itself, where no checksum sees it: no scrub finds it.
    let marker = "siris-tests-turn-the-byte-behind-this:";
    let file = format!("{}/turned", mounted());
    office.guest.ok(&format!("{{ echo {marker}A; head -c 200000 /dev/urandom; }} > {file}"))?;
    office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    office.guest.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    vault.guest.ok(&format!(
        "zpool export vault && n=0 && for d in /dev/disk/by-id/virtio-data[01]-part1; do \
           for at in $(grep -obUa '{marker}A' $d | cut -d: -f1); do \
             printf B | dd of=$d bs=1 seek=$((at + {})) conv=notrunc status=none; n=$((n + 1)); done; done; \
         sync; zpool import -N -R /srv/pools/vault -o cachefile=none vault; [ $n -ge 1 ]",
        marker.len()
    ))?;
    vault.guest.ok("zpool scrub -w vault && zpool status -x vault | grep -q 'is healthy'")?;
    let said = office.guest.run_for(SYNC, "sirisctl vector verify 1", b"")?;
    ensure!(said.status == Some(1), "a proof of a replica that was altered: {said}");
    must_contain(&said.text, "replica-differs", "the proof")?;
    must_contain(&said.text, ": turned", "the path of the altered file")?;
    ensure!(!said.text.contains("sdb.img"), "more is named than was altered: {said}");
    office.guest.ok(&format!("{list} | grep -q '\"proven-to\": \"\"'"))?;
    Ok(())
}

/// As the vector's own words say: nothing is lost, and it goes on. The target has a snapshot of its own.
fn set_aside(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let told = office.guest.ok("sirisctl vector list")?;
    let command = told.split_once("set them aside there (").and_then(|(_, rest)| rest.split_once(')'));
    let command = command.with_context(|| told.clone())?.0.to_owned();
    vault.guest.refused(&format!("runuser -u nobody -- {command}"))?;
    let before = vault.guest.ok(&format!("zfs get -Hpo value guid {}@own", target()))?;
    let aside = vault.guest.ok(&command)?;
    let kept =
        vault.guest.ok(&format!("zfs get -Hpo value guid {aside}@own && ! zfs list -Ho name {}.back", target()))?;
    ensure!(kept.lines().next() == Some(before.as_str()), "{aside} has {kept}, not {before}");
    office.guest.ok("sirisctl vector sync 1")?;
    must_be_equal(two)?;
    let left = marks(vault, &aside)?;
    ensure!(left == "-", "of {aside} is still marked {left}");
    vault.guest.ok(&format!("zfs destroy -r {aside}")).map(drop)
}

/// What does not fit has a name, and both ends stay as they are.
fn obstacles(two: &Two<'_>) -> Result<()> {
    let (office, vault) = (&two.office, &two.vault);
    let fails = |code: &str| -> Result<()> {
        let done = office.guest.run_for(SYNC, "sirisctl vector sync 1", b"")?;
        ensure!(done.status == Some(1), "a sync that cannot be: {done}");
        must_contain(&done.text, code, "why it cannot be")
    };
    let write = |text: &str| format!("echo {text} > {}/note", mounted());
    // A snapshot of the target's own; away again, and it goes on.
    vault.guest.ok(&format!("zfs snapshot {}@own", target()))?;
    office.guest.ok(&format!("{} && sirisctl dataset snapshot {ASSET}", write("one")))?;
    fails("target-diverged")?;
    set_aside(two)?;

    // Another host key: somebody in between, or a machine that was installed anew.
    let saved = "cp -a /var/lib/ssh /run/ssh-saved && rm /var/lib/ssh/ssh_host_ed25519_key*";
    vault.guest.ok(&format!("{saved} && /usr/libexec/siris/siris-agent ssh-host-keys && systemctl reload ssh"))?;
    fails("host-key-changed")?;
    vault.guest.ok("cp -a /run/ssh-saved/. /var/lib/ssh/ && systemctl reload ssh")?;

    // The key is not taken any more, and is again.
    vault.guest.ok("mv /var/lib/siris/peers/authorized_keys /run/aside")?;
    fails("key-not-allowed")?;
    vault.guest.ok("mv /run/aside /var/lib/siris/peers/authorized_keys")?;

    // Paused, it stays where it is.
    office.guest.ok("sirisctl vector pause 1")?;
    let point = office.guest.ok(&format!("{} && sirisctl dataset snapshot {ASSET}", write("two")))?;
    let refused = office.guest.refused("sirisctl vector sync 1")?;
    must_contain(&refused, "vector-paused", "a sync of what is paused")?;
    vault.guest.refused(&format!("zfs list {}@{point}", target()))?;
    office.guest.ok("sirisctl vector resume 1")?;
    let arrived = format!("sirisctl vector list | grep -q 'idle *{point}'");
    office.guest.eventually(SYNC, &arrived).context("the vector that goes on")?;
    must_be_equal(two)
}
