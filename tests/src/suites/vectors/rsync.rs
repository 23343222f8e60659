//! Vectors to and from a machine that has SSH and rsync, and whose ZFS is not used.

use anyhow::{Context, Result, ensure};

use super::super::{must_contain, standard};
use super::{DISKS, GROUP, SYNC, mounted};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, OTHER, Two, source};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(GROUP, "a dataset goes to a directory of a machine without ZFS, and comes from one", rsync)]
}

/// Where the copy is, and what is fetched: on a disk of the node's own, which persists.
const COPY: &str = "/var/lib/siris/rsync-test/it's a copy";
const LEGACY: &str = "/var/lib/siris/rsync-test/legacy";
/// The asset that is fetched into.
const FETCHED: &str = "7d3d1d3c-1e0e-4c5b-8f0e-6d5a5b1f0a11";

/// A path as one word for the shell.
fn word(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

/// What is in a directory, but for a copy's mark.
fn tree(vm: &Vm<'_>, dir: &str) -> Result<String> {
    vm.guest.ok(&format!(
        "cd {dir} && {{ find . ! -name .siris-vector -printf '%P %y %m %U:%G %s %T@\\n' | grep -v '^ ' | sed 's/\\.[0-9]*$//' | \
         grep -v ' d ' | sort; find . -type f ! -name .siris-vector -print0 | sort -z | xargs -0 sha256sum; }} | sha256sum"
    ))
}

/// What is in the newest point of a dataset.
fn newest(vm: &Vm<'_>, dataset: &str) -> Result<String> {
    vm.guest.ok(&format!(
        "s=$(zfs list -Hpd1 -t snapshot -s createtxg -o name {dataset} | tail -1) && mkdir -p /run/newest && \
         mount -t zfs -o ro $s /run/newest"
    ))?;
    let found = tree(vm, "/run/newest");
    vm.guest.ok("umount /run/newest")?;
    found
}

fn rsync(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, node) = (&two.office, &two.vault);
    node.guest.ok("systemctl stop siris-agent && mkdir -p /var/lib/siris/rsync-test")?;
    let host_key = node.guest.ok("cut -d' ' -f1,2 /var/lib/ssh/ssh_host_ed25519_key.pub")?;
    let said = office.guest.ok(&format!(
        "sirisctl machine add node 127.0.0.1:{OTHER} --server --host-key '{host_key}' --prefix vault/old"
    ))?;
    let key = said.lines().find(|line| line.starts_with("ssh-")).unwrap_or_default();
    node.guest.ok(&format!("echo '{key}' >> /var/lib/siris/peers/authorized_keys"))?;

    let add = |asset: &str, machine: &str, path: &str| {
        format!("sirisctl vector add {asset} {machine} --rsync {}", word(path))
    };
    let refused = office.guest.refused(&add(ASSET, "vault", COPY))?;
    must_contain(&refused, "has an agent", "a directory of a box")?;
    let refused = office.guest.refused(&add(ASSET, "node", "srv/x"))?;
    must_contain(&refused, "vector-refused", "a path that is none")?;
    pushed(office, node, &add(ASSET, "node", COPY))?;
    fetched(office, node, &format!("{} --pull", add(&format!("tank/home/agents/{FETCHED}"), "node", LEGACY)))
}

fn synced(office: &Vm<'_>, number: u32) -> Result<()> {
    let done = office.guest.run_for(SYNC, &format!("sirisctl vector sync {number}"), b"")?;
    ensure!(done.status == Some(0), "a sync of vector {number}: {done}");
    Ok(())
}

fn fails(office: &Vm<'_>, number: u32, code: &str) -> Result<()> {
    let done = office.guest.run_for(SYNC, &format!("sirisctl vector sync {number}"), b"")?;
    ensure!(done.status == Some(1), "a sync of vector {number} that cannot be: {done}");
    must_contain(&done.text, code, "why it cannot be")
}

fn pushed(office: &Vm<'_>, node: &Vm<'_>, add: &str) -> Result<()> {
    let dir = mounted();
    office.guest.ok(&format!(
        "cd {dir} && head -c 3000000 /dev/urandom > disk.img && echo same > \"a  b's\" && ln disk.img linked && \
         ln -s nowhere link && truncate -s 64M sparse.img && chmod 640 disk.img && sirisctl dataset snapshot {ASSET}"
    ))?;
    office.guest.ok(add)?;
    synced(office, 1)?;
    let copy = word(COPY);
    ensure!(newest(office, &source())? == tree(node, &copy)?, "the contents differ");
    node.guest
        .ok(&format!("[ $(du -k {copy}/sparse.img | cut -f1) -lt 1024 ] && [ $(stat -c %h {copy}/disk.img) = 2 ]"))?;
    let shown = office.guest.ok("sirisctl vector show 1")?;
    must_contain(&shown, "mode        rsync", "the vector")?;
    let known =
        format!("sirisctl dataset show {ASSET} | grep -qF \"primary: $(hostname):{} to node:{COPY}\"", source());
    office.guest.eventually(SYNC, &known)?;
    must_contain(&shown, COPY, "the vector")?;
    must_contain(&shown, "behind      not at all", "the vector")?;
    let refused = office.guest.refused("sirisctl vector turn 1")?;
    must_contain(&refused, "rsync-not-turned", "a turn")?;

    // Cut while something large is sent: the copy stays as it is, and the rest comes later.
    let before = tree(node, &copy)?;
    office.guest.ok("sirisctl vector set 1 --limit 1MiB")?;
    let point = office.guest.ok(&format!(
        "dd if=/dev/urandom of={dir}/more.img bs=1M count=24 status=none && sirisctl dataset snapshot {ASSET}"
    ))?;
    let partial = word(&format!("{COPY}.partial"));
    let arrives = format!("[ \"$(stat -c %s {partial}/more.img)\" -ge $((2 << 20)) ]");
    node.guest.eventually(SYNC, &arrives).context("a push that is under way")?;
    office.guest.ok("pkill -KILL -f '^[^ ]*ssh .*peers/node.key'")?;
    ensure!(tree(node, &copy)? == before, "the copy changed while the next one was on its way");
    node.guest.ok(&arrives).context("what has arrived stays")?;
    // A pause stops it, a limit that is taken away lets it go on.
    office.guest.ok("sirisctl vector pause 1")?;
    office.guest.eventually(SYNC, "sirisctl vector list | grep -q paused").context("a push that is paused")?;
    office.guest.ok("sirisctl vector set 1 --limit none && sirisctl vector resume 1")?;
    office
        .guest
        .eventually(SYNC, &format!("sirisctl vector list | tee /dev/stderr | grep -q 'idle *{point}'"))
        .context("a push that goes on")?;
    ensure!(newest(office, &source())? == tree(node, &copy)?, "the contents differ after a cut");
    node.guest.ok(&format!("[ ! -e {partial} ]"))?;

    // What differs is found, though neither its size nor its time says so.
    let verify = || office.guest.run_for(SYNC, "sirisctl vector verify 1", b"");
    let said = verify()?;
    ensure!(said.status == Some(0), "a proof: {said}");
    node.guest.ok(&format!(
        "cd {copy} && touch -r \"a  b's\" /run/time && printf SAME > \"a  b's\" && echo >> \"a  b's\" && \
         touch -r /run/time \"a  b's\""
    ))?;
    let said = verify()?;
    ensure!(said.status == Some(1), "a proof of a copy that was altered: {said}");
    must_contain(&said.text, "replica-differs", "the proof")?;
    must_contain(&said.text, "a  b's", "the altered file")?;
    ensure!(!said.text.contains("disk.img"), "more is named than was altered: {said}");

    let removed = office.guest.ok("sirisctl vector remove 1")?;
    must_contain(&removed, "is left as it is", "what stays there")?;
    office.guest.ok(&format!("[ -z \"$(zfs list -Hd1 -t bookmark -o name {})\" ]", source()))?;
    node.guest.ok(&format!("[ -e {copy}/disk.img ]"))?;
    Ok(())
}

fn fetched(office: &Vm<'_>, node: &Vm<'_>, add: &str) -> Result<()> {
    let dataset = format!("tank/home/agents/{FETCHED}");
    let points = || office.guest.ok(&format!("zfs list -Hd1 -t snapshot -o name {dataset} | wc -l"));
    node.guest
        .ok(&format!("mkdir {LEGACY} && cd {LEGACY} && head -c 2000000 /dev/urandom > disk.img && echo one > note"))?;
    office.guest.ok(add)?;
    fails(office, 2, "target-missing")?;
    office.guest.ok(&format!("zfs create {dataset}"))?;
    synced(office, 2)?;
    ensure!(newest(office, &dataset)? == tree(node, LEGACY)?, "what was fetched differs");
    ensure!(points()? == "1", "there are {} points", points()?);
    synced(office, 2)?;
    ensure!(points()? == "1", "a point was taken of what did not change");
    node.guest.ok(&format!("cd {LEGACY} && rm note && echo two > other"))?;
    synced(office, 2)?;
    ensure!(newest(office, &dataset)? == tree(node, LEGACY)?, "what was fetched the second time differs");
    ensure!(points()? == "2", "there are {} points", points()?);
    must_contain(&office.guest.ok("sirisctl vector show 2")?, "behind      not known", "how far it is behind")?;

    // As when a disk there is not mounted.
    node.guest.ok(&format!("mv {LEGACY} {LEGACY}.aside && mkdir {LEGACY}"))?;
    fails(office, 2, "source-empty")?;
    node.guest.ok(&format!("rmdir {LEGACY}"))?;
    fails(office, 2, "source-missing")?;
    ensure!(points()? == "2", "there are {} points", points()?);
    office.guest.ok(&format!("[ -e $(zfs get -Ho value mountpoint {dataset})/disk.img ]"))?;
    node.guest.ok(&format!("mv {LEGACY}.aside {LEGACY}"))?;
    synced(office, 2)?;
    office.guest.ok("sirisctl vector remove 2")?;
    office.guest.ok(&format!("[ $(zfs get -Ho value org.siris:fetched-by {dataset}) = - ]"))?;
    Ok(())
}
