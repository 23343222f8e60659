//! Vectors that sync by schedule, not with each recovery point.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::{must_contain, standard};
use super::broken::VECTOR;
use super::{DISKS, GROUP, SYNC, mounted, must_be_equal};
use crate::case::Case;
use crate::lab::Bench;
use crate::two::{ASSET, Two, target};
use crate::vm::Vm;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(
        GROUP,
        "a vector with a schedule syncs at its time, also at one that passed while the box was off",
        scheduled,
    )]
}

/// Until a time three minutes ahead has come, the agent has looked at its clock, and the points have passed.
const COMES: Duration = Duration::from_secs(360);

/// Takes a point of what was not there before.
fn point(office: &Vm<'_>) -> Result<String> {
    let dir = mounted();
    office.guest.ok(&format!("head -c 300000 /dev/urandom > {dir}/new && sirisctl dataset snapshot {ASSET}"))
}

/// Sets the time of day in so many minutes, seconds cut off, by the box's own clock. When that is, in seconds since 1970.
fn set(office: &Vm<'_>, minutes: u32) -> Result<u64> {
    let set = format!("t=$(date -d '{minutes} minutes' +%H:%M) && sirisctl vector set 1 --when $t && echo $t");
    let time = office.guest.ok(&set)?;
    let shown = office.guest.ok("sirisctl vector show 1")?;
    must_contain(&shown, &format!("when        {time}"), "the schedule")?;
    must_contain(&shown, &format!("T{time}:00Z"), "the next time")?;
    office.guest.ok(&format!("{VECTOR}v next-at"))?.parse().context("the next time")
}

/// Waits until that time has come.
fn until(office: &Vm<'_>, due: u64) -> Result<()> {
    let done = office.guest.run_for(COMES, &format!("until [ $(date +%s) -ge {due} ]; do sleep 1; done"), b"")?;
    ensure!(done.status == Some(0), "waiting for {due}: {done}");
    Ok(())
}

/// Until the target has that point and the vector is done.
fn arrives(office: &Vm<'_>, point: &str) -> Result<()> {
    let arrived = format!("sirisctl vector list | tee /dev/stderr | grep -q 'idle *{point}'");
    office.guest.eventually(COMES, &arrived).map(drop).with_context(|| format!("the sync of {point}"))
}

/// It ended after that time, and a minute later no further one has begun.
fn must_be_once(office: &Vm<'_>, due: u64, before: u64) -> Result<()> {
    let synced: u64 = office.guest.ok(&format!("{VECTOR}v synced-at"))?.parse()?;
    ensure!(synced >= due, "synced at {synced}, which is before {due}");
    office.guest.ok("sleep 70")?;
    let syncs = begun(office)?;
    ensure!(syncs == before + 1, "{} syncs for one time", syncs - before);
    Ok(())
}

/// How many syncs have begun since the box was started: each has its line in the journal.
fn begun(office: &Vm<'_>) -> Result<u64> {
    let count = "journalctl -b -o cat _PID=1 | grep -c '^Started .*Sync vector 1' || :";
    office.guest.ok(count)?.parse().context("the number of syncs")
}

fn scheduled(bench: &Bench<'_>) -> Result<()> {
    let mut two = Two::new(standard(bench)?, standard(bench)?, DISKS)?;
    let office = &two.office;
    let first = point(office)?;
    office.guest.ok(&format!("sirisctl vector add {ASSET} vault"))?;
    arrives(office, &first)?;
    let refused = office.guest.refused("sirisctl vector set 1 --when noon")?;
    must_contain(&refused, "is no schedule", "a schedule that is none")?;
    must_contain(&office.guest.ok("sirisctl vector show 1")?, "when        points", "a vector as it was made")?;

    // Not with a point, nor when the agent starts, and at its time.
    let before = begun(office)?;
    ensure!(before > 0, "the journal tells of no sync");
    let due = set(office, 3)?;
    let second = point(office)?;
    office.guest.ok("systemctl restart siris-agent")?;
    office.guest.eventually(SYNC, "sirisctl vector list | grep -q vault")?;
    ensure!(begun(office)? == before, "a sync has begun before its time");
    two.vault.guest.refused(&format!("zfs list {}@{second}", target()))?;
    arrives(office, &second)?;
    must_be_once(office, due, before)?;
    must_be_equal(&two)?;

    // By hand at any time, and with each point again.
    let third = point(office)?;
    let said = office.guest.run_for(SYNC, "sirisctl vector sync 1", b"")?;
    ensure!(said.status == Some(0), "a sync by hand: {said}");
    must_contain(&said.text, &third, "what was synced")?;
    let fourth = point(office)?;
    two.vault.guest.refused(&format!("zfs list {}@{fourth}", target()))?;
    office.guest.ok("sirisctl vector set 1 --when points")?;
    arrives(office, &fourth)?;
    let fifth = point(office)?;
    arrives(office, &fifth)?;

    // At a time at which the limit lets nothing pass it waits.
    office.guest.ok("sirisctl vector set 1 --limit stop")?;
    set(office, 2)?;
    let sixth = point(office)?;
    office.guest.eventually(COMES, &format!("{VECTOR}[ \"$(v state)\" = waiting ]"))?;
    two.vault.guest.refused(&format!("zfs list {}@{sixth}", target()))?;
    office.guest.ok("sirisctl vector set 1 --limit none")?;
    arrives(office, &sixth)?;
    must_be_equal(&two)?;
    rebooted(&mut two)
}

/// A time passes while the box is off.
fn rebooted(two: &mut Two<'_>) -> Result<()> {
    let due = set(&two.office, 3)?;
    let point = point(&two.office)?;
    // Until the way to the other box is there again.
    two.office.guest.ok("sirisctl vector set 1 --limit stop && systemctl stop siris-agent")?;
    until(&two.office, due)?;
    two.office.reboot()?;
    two.import()?;
    two.office.guest.eventually(COMES, &format!("{VECTOR}[ \"$(v state)\" = waiting ]")).context("what was missed")?;
    two.office.guest.ok("sirisctl vector set 1 --limit none")?;
    arrives(&two.office, &point)?;
    must_be_once(&two.office, due, 0)?;
    must_be_equal(two)
}
