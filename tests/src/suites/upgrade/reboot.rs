//! A reboot is asked for: at once, or at a time; and taken back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::{must_contain, standard};
use super::{GROUP, restart};
use crate::case::Case;
use crate::lab::Bench;
use crate::vm::BOOT;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    Vec::from([Case::full(GROUP, "a reboot comes at once, or at its time, and is taken back before", asked)])
}

/// What logind is going to do.
const SCHEDULED: &str = "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager ScheduledShutdown";

fn asked(bench: &Bench<'_>) -> Result<()> {
    let mut vm = standard(bench)?;
    let nothing = vm.guest.ok(SCHEDULED)?;
    for (when, said) in [("$(date -u -d '+2 hours' +%H:%M)", "rebooting at"), ("idle", "rebooting as soon as")] {
        vm.guest.ok(
            "systemd-inhibit --list >/dev/null; systemd-run --quiet --unit hold systemd-inhibit --what=shutdown \
             --mode=block --why='a restore' sleep infinity",
        )?;
        vm.guest.eventually(Duration::from_secs(30), "systemd-inhibit --list | grep -q 'a restore'")?;
        must_contain(&vm.guest.ok(&format!("sirisctl upgrade reboot {when}"))?, said, "the request")?;
        if when != "idle" {
            vm.guest.ok("systemctl is-active siris-reboot-when-idle.timer && systemctl list-timers siris-reboot-when-idle.timer")?;
        }
        must_contain(&vm.guest.ok("sirisctl upgrade reboot cancel")?, "the reboot is taken back", "the cancel")?;
        ensure!(vm.guest.ok(SCHEDULED)? == nothing, "logind means to reboot after {when}");
        vm.guest
            .ok("systemctl stop hold; ! systemctl is-active siris-reboot-when-idle siris-reboot-when-idle.timer")?;
    }
    must_contain(&vm.guest.ok("sirisctl upgrade reboot cancel")?, "there was no reboot", "the second cancel")?;
    let late = vm.guest.refused("sirisctl upgrade reboot 2020-01-01T00:00:00Z")?;
    must_contain(&late, "no time to reboot", "a time that has passed")?;
    ensure!(vm.is_on()?, "it went down");

    restart(&mut vm, "sirisctl upgrade reboot $(date -u -d '+20 seconds' +%Y-%m-%dT%H:%M:%SZ)")?;
    vm.serial.wait("SIRIS: slot a", BOOT).context("the reboot at its time")?;
    drop(vm);
    let mut vm = standard(bench)?;
    restart(&mut vm, "sirisctl upgrade reboot now")?;
    vm.serial.wait("SIRIS: slot a", BOOT).context("the reboot at once")
}
