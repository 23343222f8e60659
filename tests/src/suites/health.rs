//! Health is real: what goes wrong changes it, is named, is told on the bus, and is taken back when it is over.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{NEW_POOL, health_is, must_contain, standard};
use crate::case::Case;
use crate::lab::Bench;
use crate::vm::Vm;

const GROUP: &str = "health";
/// How long the agent may take to see something. Generous: what is tested is that it does.
const NOTICE: Duration = Duration::from_secs(150);

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::quick(GROUP, "a stopped unit of the list makes it unhealthy until it runs again", stopped_unit),
        Case::quick(GROUP, "an offline disk of a pool makes it unhealthy until it is back", offline_vdev),
        Case::quick(GROUP, "a full state partition makes it unhealthy until there is room", full_state),
    ]
}

/// Does `harm`, sees the health change with a reason that names `culprit`, does `mend`, sees it healthy again; and
/// that the bus was told of both.
fn harm_and_mend(vm: &Vm<'_>, harm: &str, culprit: &str, mend: &str) -> Result<()> {
    vm.guest.eventually(NOTICE, &health_is("healthy")).context("before any harm")?;
    vm.guest.ok("systemd-run -q --unit siris-tests-monitor -p StandardOutput=file:/run/siris-tests-monitor \
         busctl monitor org.siris.Agent1 && sleep 2")?;
    vm.guest.ok(harm)?;
    let unhealthy = format!("! {{ {}; }}", health_is("healthy"));
    vm.guest.eventually(NOTICE, &unhealthy).context("nothing noticed the harm")?;
    // A reason may come in a moment after a first, more general one.
    vm.guest
        .eventually(
            NOTICE,
            &format!(
                "busctl get-property org.siris.Agent1 /org/siris/Agent1 org.siris.Agent1.Manager HealthReasons | \
                 tee /dev/stderr | grep -qF '{culprit}'"
            ),
        )
        .with_context(|| format!("no reason names {culprit}"))?;
    let status = vm.guest.run("sirisctl status")?;
    must_contain(&status.text, culprit, "sirisctl status")?;
    let told = told(vm)?;
    ensure!(told.contains("PropertiesChanged") && told.contains("HealthReasons"), "the bus was not told: {told}");

    vm.guest.ok("systemctl restart siris-tests-monitor; sleep 2")?;
    vm.guest.ok(mend)?;
    vm.guest.eventually(NOTICE, &health_is("healthy")).context("after mending")?;
    ensure!(self::told(vm)?.contains("\"healthy\""), "the bus was not told of the recovery");
    Ok(())
}

fn told(vm: &Vm<'_>) -> Result<String> {
    vm.guest.ok("cat /run/siris-tests-monitor")
}

fn stopped_unit(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    let unit = "systemd-timesyncd.service";
    let listed = vm.guest.ok("cat /usr/lib/siris/agent.toml")?;
    must_contain(&listed, unit, "the list of units")?;
    harm_and_mend(&vm, &format!("systemctl stop {unit}"), unit, &format!("systemctl start {unit}"))
}

fn offline_vdev(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    let disk = "/dev/disk/by-id/virtio-data";
    vm.guest.ok(&format!("{NEW_POOL}new_pool tank mirror {disk}0 {disk}1"))?;
    harm_and_mend(&vm, &format!("zpool offline tank {disk}1"), "tank", &format!("zpool online tank {disk}1"))
}

fn full_state(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    // All that is free to root but for 1%.
    let fill = "size=$(($(findmnt -bno AVAIL /state) - $(findmnt -bno SIZE /state) / 100)); \
                fallocate -l $size /var/lib/siris/siris-tests-fill";
    harm_and_mend(&vm, fill, "/state", "rm /var/lib/siris/siris-tests-fill")
}
