//! Proofs that read only what was written since the last one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{must_contain, standard};
use super::{GROUP, mounted};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, Two, source, target};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(
        GROUP,
        "a proof reads what was written since the last one, and says what one of all says",
        incremental,
    )]
}

/// Room for an image of 256 MiB and what is changed of it.
const DISKS: &str = "/dev/disk/by-id/virtio-data0 /dev/disk/by-id/virtio-data1 /dev/disk/by-id/virtio-data2 \
                     /dev/disk/by-id/virtio-data3";
/// Whatever takes hundreds of megabytes, between emulated machines.
const LONG: Duration = Duration::from_secs(900);
const MIB: u64 = 1 << 20;
/// Two texts in the image, each with a byte behind it that is turned on the replica's disks.
const MARKERS: [&str; 2] =
    ["siris-tests-a-byte-that-nobody-writes-again:", "siris-tests-a-byte-that-was-just-written:"];

/// What a proof said.
#[derive(Debug)]
struct Said {
    differing: Vec<String>,
    /// Bytes that were read, of how many, by office and by vault.
    here: (u64, u64),
    there: (u64, u64),
}

/// Asks the agent on office, as any program does.
fn verify(two: &Two<'_>, id: &str, whole: bool) -> Result<Said> {
    let path = format!("/org/siris/Agent1/vectors/{}", id.replace('-', "_"));
    let options = if whole { "1 whole b true" } else { "0" };
    // A sync that was asked for twice may still have its second turn.
    let call = format!(
        "for try in 1 2 3 4 5 6; do \
           said=$(busctl --timeout={} --json=short call org.siris.Agent1 {path} org.siris.Agent1.Vector Verify \
             'a{{sv}}' {options} 2>&1) && break; case $said in *vector-busy*) sleep 5 ;; *) break ;; esac; done; \
         echo \"$said\"",
        LONG.as_secs()
    );
    let text = two.office.guest.run_for(LONG, &call, b"")?.text;
    let said: Value = serde_json::from_str(&text).with_context(|| format!("what the agent said: {text}"))?;
    let (data, amounts) = (&said["data"], &said["data"][3]);
    let amount = |name: &str| amounts[name].as_u64().with_context(|| format!("{name} in {text}"));
    let differing = data[2].as_array().with_context(|| format!("what differs, in {text}"))?;
    Ok(Said {
        differing: differing.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        here: (amount("here-read")?, amount("here-data")?),
        there: (amount("there-read")?, amount("there-data")?),
    })
}

/// The digest of the whole tree, as office has it.
fn digest(office: &Vm<'_>, whole: bool) -> Result<String> {
    let flag = if whole { "--whole" } else { "" };
    // The same worker as the agent's: only it says the digest itself.
    let worker = format!("/usr/libexec/siris/siris-agent verify-worker {flag} 1 2>/dev/null");
    let text = office.guest.run_for(LONG, &worker, b"")?.text;
    let said: Value = serde_json::from_str(text.trim()).with_context(|| format!("what the worker said: {text}"))?;
    ensure!(said["differing"].as_array().is_some_and(Vec::is_empty), "the two differ: {text}");
    said["digest"].as_str().map(str::to_owned).with_context(|| format!("a digest in {text}"))
}

/// Does something to the source, takes a point, and waits until vault has it.
fn change(two: &Two<'_>, script: &str) -> Result<String> {
    let office = &two.office;
    let done = office.guest.run_for(LONG, &format!("set -e; cd {}; {script}", mounted()), b"")?;
    ensure!(done.status == Some(0), "`{script}`: {done}");
    let point = office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    let done = office.guest.run_for(LONG, "sirisctl vector sync 1", b"")?;
    ensure!(done.status == Some(0), "a sync after `{script}`: {done}");
    Ok(point)
}

/// A change of which at most so much is read on either end, and the digests of which are those of who reads all.
fn changed(two: &Two<'_>, id: &str, what: &str, most: u64, script: &str) -> Result<()> {
    change(two, script)?;
    let said = verify(two, id, false).context(what.to_owned())?;
    println!("       {what}: read {} and {} of {}", said.here.0, said.there.0, said.here.1);
    ensure!(said.differing.is_empty(), "{what}: {said:?}");
    ensure!(said.here.0 <= most && said.there.0 <= most, "{what}: more than {most} bytes are read: {said:?}");
    // Both ends could be wrong in the same way: what is known of each chunk is compared with what is there.
    let (known, read) = (digest(&two.office, false)?, digest(&two.office, true)?);
    ensure!(known == read, "{what}: the digest by what changed is {known}, that of all is {read}");
    Ok(())
}

/// Writes a marker into the image, among bytes that do not compress.
fn marked(marker: &str, mib: u64) -> String {
    format!("printf %s '{marker}A' | dd of=image bs=1M seek={mib} conv=notrunc status=none")
}

/// Turns the byte behind a marker on the replica's disks, where no checksum sees it.
fn turn(vault: &Vm<'_>, marker: &str) -> Result<()> {
    let script = format!(
        "zpool export vault && n=0 && for d in /dev/disk/by-id/virtio-data[0-3]-part1; do \
           for at in $(grep -obUa '{marker}A' $d | cut -d: -f1); do \
             printf B | dd of=$d bs=1 seek=$((at + {})) conv=notrunc status=none; n=$((n + 1)); done; done; \
         sync; zpool import -N -R /srv/pools/vault -o cachefile=none vault; [ $n -ge 1 ]",
        marker.len()
    );
    let done = vault.guest.run_for(LONG, &script, b"")?;
    ensure!(done.status == Some(0), "turning a byte: {done}");
    Ok(())
}

fn incremental(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    vault.guest.ok("zfs set checksum=off vault/home/agents")?;
    let made = format!(
        "set -e; cd {}; dd if=/dev/urandom of=image bs=1M count=256 status=none; {}; \
         for n in 1 2 3 4 5 6 7 8 9; do head -c $((n * 1000)) /dev/urandom > small$n; done; \
         head -c 3145728 /dev/urandom > reused",
        mounted(),
        marked(MARKERS[0], 100)
    );
    let done = office.guest.run_for(LONG, &made, b"")?;
    ensure!(done.status == Some(0), "making what is replicated: {done}");
    office.guest.ok(&format!("sirisctl dataset snapshot {ASSET}"))?;
    let id = office.guest.ok(&format!("sirisctl vector add {ASSET} vault"))?;
    let done = office.guest.run_for(LONG, "sirisctl vector sync 1", b"")?;
    ensure!(done.status == Some(0), "the first sync: {done}");

    // Nothing is known at first; then all is.
    let first = verify(&two, &id, false)?;
    ensure!(first.differing.is_empty() && first.here == first.there, "the first proof: {first:?}");
    ensure!(first.here.0 == first.here.1 && first.here.0 >= 259 * MIB, "the first proof reads all: {first:?}");
    for vm in [office, vault] {
        vm.guest.ok("ls /var/lib/siris/digests | tee /dev/stderr | grep -c '' | grep -qx 1")?;
    }
    let again = verify(&two, &id, false)?;
    ensure!((again.here, again.there) == ((0, first.here.1), (0, first.here.1)), "the same point again: {again:?}");
    let text = office.guest.run_for(LONG, "sirisctl vector verify 1", b"")?.text;
    must_contain(&text, "is the same on both", "the proof for people")?;
    must_contain(&text, "read 0 B of", "the proof for people")?;

    changes(&two, &id)?;
    doubts(&two, &id, first.here.1)?;
    altered(&two, &id)
}

/// What may happen to files between two points.
fn changes(two: &Two<'_>, id: &str) -> Result<()> {
    // Time of change put back: it is nothing to go by.
    let five = "touch -r image /run/time; dd if=/dev/urandom of=image bs=1M seek=64 count=5 conv=notrunc status=none; \
                touch -r /run/time image";
    changed(two, id, "5 MiB of 256", 6 * MIB, five)?;
    changed(two, id, "cut and grown again", 2 * MIB, "truncate -s 209715205 image; truncate -s 256M image")?;
    changed(two, id, "renamed and linked", 2 * MIB, "mv image other; ln other image; mv small1 small0; rm small2")?;
    // Holes of whole blocks, and of less than one.
    let holes = "rm other; fallocate -p -o $((20 << 20)) -l $((3 << 20)) image; \
                 fallocate -p -o $(((40 << 20) + 4096)) -l 8192 image";
    changed(two, id, "holes made", 3 * MIB, holes)?;
    changed(two, id, "written into holes", 3 * MIB, "printf x | dd of=image bs=1M seek=21 conv=notrunc status=none")?;

    // Another file that gets the number of one that is gone, of the same length, with holes where that had data. ZFS hands
    // numbers out in ascending order, and begins again below when the file system is mounted anew.
    let dataset = source();
    let reused = format!(
        "old=$(stat -c %i reused); cd /; rm {0}/reused; zpool sync tank; zfs unmount {dataset}; zfs mount {dataset}; cd {0}; \
         n=0; new=; while [ \"$new\" != $old ] && [ $n -lt 1000 ]; do \
           n=$((n + 1)); truncate -s 3145728 new$n; new=$(stat -c %i new$n); done; \
         [ \"$new\" = $old ]; mv new$n reused; rm -f new*; printf B | dd of=reused bs=1M seek=2 conv=notrunc status=none",
        mounted()
    );
    changed(two, id, "a number used again", 3 * MIB, &reused)
}

/// Where something is in doubt, that end reads all, and says so; the other one does not.
fn doubts(two: &Two<'_>, id: &str, data: u64) -> Result<()> {
    let little = |amount: (u64, u64)| amount.0 <= 4 * MIB && amount.1 > data / 2;
    let all = |amount: (u64, u64)| amount.0 == amount.1 && amount.1 > data / 2;
    // What office has kept is torn.
    two.office.guest.ok("truncate -s -1 /var/lib/siris/digests/*")?;
    let before = change(two, "echo torn > note")?;
    let said = verify(two, id, false)?;
    ensure!(said.differing.is_empty() && all(said.here) && little(said.there), "torn: {said:?}");
    // The snapshot that office has read last is gone.
    change(two, "echo gone > note")?;
    two.office.guest.ok(&format!("zfs destroy {}@{before}", source()))?;
    let said = verify(two, id, false)?;
    ensure!(said.differing.is_empty() && all(said.here) && little(said.there), "gone: {said:?}");
    // All is read where that is wanted.
    let said = verify(two, id, true)?;
    ensure!(said.differing.is_empty() && all(said.here) && all(said.there), "all: {said:?}");
    Ok(())
}

/// A byte of the replica that is other than it should be.
fn altered(two: &Two<'_>, id: &str) -> Result<()> {
    let vault = &two.vault;
    // Among what was written, it is found by what changed.
    change(two, &marked(MARKERS[1], 150))?;
    turn(vault, MARKERS[1])?;
    let said = verify(two, id, false)?;
    ensure!(said.differing == ["image"], "a byte of what was written was turned: {said:?}");
    ensure!(said.here.0 <= 4 * MIB && said.there.0 <= 4 * MIB, "it is found by little: {said:?}");
    // Written anew, all is well.
    change(two, "printf mended | dd of=image bs=1M seek=150 conv=notrunc status=none")?;
    let said = verify(two, id, false)?;
    ensure!(said.differing.is_empty(), "what was written anew: {said:?}");

    // Among what was not, only reading all finds it; from then on it is known.
    turn(vault, MARKERS[0])?;
    change(two, "echo more > note")?;
    let said = verify(two, id, false)?;
    ensure!(said.differing.is_empty(), "nobody has read what was turned: {said:?}");
    let text = two.office.guest.run_for(LONG, "sirisctl vector verify 1 --whole", b"")?;
    ensure!(text.status == Some(1), "a proof of a replica that was altered: {text}");
    must_contain(&text.text, "replica-differs", "the proof")?;
    must_contain(&text.text, ": image (", "the path of the altered file")?;
    let said = verify(two, id, false)?;
    ensure!(said.differing == ["image"] && said.there.0 == 0, "what is known to differ: {said:?}");
    // The replica itself is left as it is.
    vault.guest.ok(&format!("zfs list -t snapshot {} >/dev/null", target())).map(drop)
}
