//! Syncs that break off: cut links, machines that go away, processes that die, and limits, while a dataset is sent.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::{must_contain, standard};
use super::{DISKS, GROUP, SYNC, marks, mounted, must_be_equal};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, Two, source, target};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::full(GROUP, "a link that is cut twenty times during one send costs at most 8 MiB each time", cut),
        Case::full(GROUP, "a target and a source that lose power during a send go on by themselves", rebooted),
        Case::full(GROUP, "a limit is kept to, and changed while a dataset is sent", limited),
        Case::full(GROUP, "whatever dies at whatever stage of a sync, a rerun completes and leaves nothing", killed),
    ]
}

const CUTS: u64 = 20;
/// What is sent.
const CONTENT_MIB: u64 = 176;
/// What may be sent again for a cut.
const AGAIN_MAX: u64 = 8 << 20;
/// From one cut to the next.
const STRIDE: u64 = 6 << 20;
/// A property of vector 1, as a bare number or text.
pub(super) const VECTOR: &str =
    "v() { sirisctl vector list --json | sed -n \"s/.*\\\"$1\\\": *\\\"*\\([^\\\",]*\\).*/\\1/p\"; }\n";
/// What carries the stream: the SSH program of the worker.
pub(super) const LINK: &str = "pkill -KILL -f '^[^ ]*ssh .*peers/vault.key'";

/// Writes `mib` MiB that do not compress, and takes a point.
fn write(office: &Vm<'_>, file: &str, mib: u64) -> Result<String> {
    let put = format!("dd if=/dev/urandom of={}/{file} bs=1M count={mib} status=none", mounted());
    let point = office.guest.run_for(SYNC, &format!("{put} && sirisctl dataset snapshot {ASSET}"), b"")?;
    ensure!(point.status == Some(0), "writing what is sent: {point}");
    Ok(point.text.trim().to_owned())
}

/// The state in which a sync of `point` leaves both ends: it is there, and marked once on either.
fn must_be_settled(two: &Two<'_>, point: &str) -> Result<()> {
    let arrived = format!("sirisctl vector list | tee /dev/stderr | grep -q 'idle *{point}'");
    two.office.guest.eventually(SYNC, &arrived).with_context(|| format!("the sync of {point}"))?;
    must_be_equal(two)?;
    let guid = two.vault.guest.ok(&format!("zfs get -Hpo value guid {}@{point}", target()))?;
    for (vm, dataset) in [(&two.office, source()), (&two.vault, target())] {
        let found = marks(vm, &dataset)?;
        let lines: Vec<&str> = found.lines().collect();
        let as_expected = matches!(lines[..], [hold, bookmark, "-"]
            if hold.starts_with(&format!("{point} siris:vector:")) && bookmark.ends_with(&format!("-{guid}")));
        ensure!(as_expected, "of {dataset} is marked {found}");
    }
    Ok(())
}

fn cut(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let office = &two.office;
    let point = write(office, "big.img", CONTENT_MIB)?;
    let size = office.guest.ok(&format!("zfs send -nPLc {}@{point} | sed -n 's/^size\\t//p'", source()))?;
    let size: u64 = size.parse().with_context(|| format!("the size of the stream: {size}"))?;
    office.guest.ok(&format!("sirisctl vector add {ASSET} vault"))?;
    // It begins by itself. A cut whenever so much more has left, counted where it leaves.
    let script = format!(
        "{VECTOR}cuts=0; next={STRIDE}\n\
         while [ \"$(v state)\" != idle ] || [ \"$(v sent)\" = 0 ]; do\n\
           sent=$(v sent)\n\
           if [ $cuts -lt {CUTS} ] && [ \"$sent\" -ge $next ] && {LINK}; then\n\
             cuts=$((cuts + 1)); next=$((sent + {STRIDE})); fi\n\
           sleep 0.1\n\
         done\n\
         echo \"CUTS $cuts SENT $(v sent)\""
    );
    let said = office.guest.run_for(Duration::from_secs(900), &script, b"")?;
    let told = said.text.lines().find_map(|line| line.strip_prefix("CUTS ")?.split_once(" SENT "));
    let (cuts, sent) = told.with_context(|| format!("the sync that was cut: {said}"))?;
    let (cuts, sent): (u64, u64) = (cuts.parse()?, sent.trim().parse()?);
    let again = sent.saturating_sub(size);
    println!("       {cuts} cuts, {size} bytes to send, {again} of them sent again");
    ensure!(cuts == CUTS, "the link was cut {cuts} times only, of {size} bytes {sent} were sent");
    ensure!(again <= CUTS * AGAIN_MAX, "{again} bytes were sent again for {CUTS} cuts");
    must_be_settled(&two, &point)
}

fn limited(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let office = &two.office;
    office
        .guest
        .ok(&format!("sirisctl vector add {ASSET} vault && sirisctl vector set 1 --limit 2MiB --priority 1"))?;
    let refused = office.guest.refused("sirisctl vector set 1 --limit fast")?;
    must_contain(&refused, "is no limit", "a limit that is none")?;
    let point = write(office, "big.img", 96)?;
    let sent = |what: &str| -> Result<u64> {
        office.guest.ok(&format!("{VECTOR}v sent"))?.parse().with_context(|| format!("what is sent {what}"))
    };
    office.guest.eventually(SYNC, &format!("{VECTOR}[ \"$(v sent)\" -ge $((4 << 20)) ]"))?;
    let shown = office.guest.ok("sirisctl vector show 1")?;
    for said in ["priority    1", "limit       2MiB", "state       syncing", "behind      1 point", "iB/s, ", " left: "]
    {
        must_contain(&shown, said, "a sync under way")?;
    }
    // Ten seconds by the box's own clock, and what is told is a second or two old.
    let (before, took) =
        (sent("at first")?, "a=$(cut -d. -f1 /proc/uptime); sleep 10; echo $(($(cut -d. -f1 /proc/uptime) - a))");
    let seconds: u64 = office.guest.ok(took)?.parse()?;
    let passed = sent("ten seconds later")? - before;
    println!("       with a limit of 2 MiB a second: {passed} bytes in {seconds} s");
    ensure!(passed <= (seconds + 3) * (2 << 20), "{passed} bytes passed in {seconds} s");
    ensure!(passed >= (seconds - 3) * (1 << 20), "{passed} bytes only passed in {seconds} s");

    // Nothing at this hour: it waits, and what was sent stays.
    office.guest.ok("sirisctl vector set 1 --limit stop")?;
    office.guest.eventually(SYNC, &format!("{VECTOR}[ \"$(v state)\" = waiting ]"))?;
    let token = two.vault.guest.ok(&format!("zfs get -Ho value receive_resume_token {}", target()))?;
    ensure!(token.len() > 20, "of a stream that is held back nothing stays: {token}");
    must_contain(&office.guest.ok("sirisctl vector show 1")?, "behind      1 point", "a vector that is held back")?;
    two.vault.guest.refused(&format!("zfs list {}@{point}", target()))?;

    office.guest.ok("sirisctl vector set 1 --limit none")?;
    must_be_settled(&two, &point)?;
    must_contain(&office.guest.ok("sirisctl vector show 1")?, "behind      not at all", "a vector that is done")?;
    office.guest.ok("sirisctl vector at-once 2 && [ $(sirisctl vector at-once) = 2 ]")?;
    let denied = office.guest.refused("runuser -u nobody -- sirisctl vector set 1 --priority 5 </dev/null")?;
    must_contain(&denied, "not-authorized", "a change by a stranger")
}

/// Waits until a good part of what is sent has left.
fn under_way(office: &Vm<'_>) -> Result<()> {
    office
        .guest
        .eventually(SYNC, &format!("{VECTOR}[ \"$(v sent)\" -ge $((32 << 20)) ]"))
        .map(drop)
        .context("a send that is under way")
}

fn rebooted(bench: &Bench<'_>) -> Result<()> {
    let mut two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let point = write(&two.office, "big.img", CONTENT_MIB)?;
    two.office.guest.ok(&format!("sirisctl vector add {ASSET} vault"))?;
    under_way(&two.office)?;
    // The target's power goes.
    two.vault.reset()?;
    two.vault.wait_healthy()?;
    two.import()?;
    // Tried while the pool was not back, it may have failed, and would be tried again much later.
    two.office.guest.eventually(SYNC, "sirisctl vector sync 1")?;
    must_be_settled(&two, &point)?;

    let point = write(&two.office, "more.img", 64)?;
    under_way(&two.office)?;
    two.office.reset()?;
    two.office.wait_healthy()?;
    two.import()?;
    // Tried while the pool was not back, it may have failed, and would be tried again much later.
    two.office.guest.eventually(SYNC, "sirisctl vector sync 1")?;
    must_be_settled(&two, &point)
}

fn killed(bench: &Bench<'_>) -> Result<()> {
    let two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let (office, vault) = (&two.office, &two.vault);
    office.guest.ok(&format!("sirisctl vector add {ASSET} vault"))?;
    let (mut point, mut hits, agent) = (String::new(), 0, "systemctl kill --signal=KILL siris-agent");
    // At each of these moments after the sync's start: the worker, its link, what serves on the other side, both agents.
    for (round, wait) in ["0.0", "0.1", "0.3", "0.6", "1.0", "1.5", "2.5"].iter().enumerate() {
        for (harm, on_vault) in [
            ("pkill -KILL -f '[s]iris-agent sync-worker'", false),
            (LINK, false),
            ("pkill -KILL -f '[s]iris-agent peer'", true),
            (agent, false),
            (agent, true),
        ] {
            point = write(office, "some.img", 6)?;
            office.guest.ok(&format!("sleep {wait}"))?;
            let vm = if on_vault { vault } else { office };
            // Nothing may be there to be hit at that moment.
            if vm.guest.run(harm)?.status == Some(0) {
                hits += 1;
            }
            // An agent that was killed is not there for a moment.
            let rerun = "for try in $(seq 20); do sirisctl vector sync 1 && exit 0; sleep 2; done; exit 1";
            let done = office.guest.run_for(SYNC, rerun, b"")?;
            ensure!(done.status == Some(0), "round {round}, {wait} s, {harm}: {done}");
        }
        must_be_settled(&two, &point).with_context(|| format!("round {round}"))?;
    }
    // The agents are always there.
    println!("       {hits} of 35 found something to kill");
    ensure!(hits >= 20, "only {hits} of 35 found something to kill");
    Ok(())
}
