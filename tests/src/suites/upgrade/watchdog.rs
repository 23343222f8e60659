//! A new system that hangs is ended by the machine's watchdog, which is armed from the initrd on.
//!
//! What hangs is process 1, frozen: nothing of the system itself can notice that, only hardware can.

use anyhow::{Context, Result, ensure};

use super::super::must_contain;
use super::trial::{HARM, Stage, harm};
use super::{GROUP, armed};
use crate::case::Case;
use crate::lab::Bench;
use crate::machine::{Bus, Watchdog};
use crate::slots;
use crate::vm::BOOT;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let watchdogs = [
        (Watchdog::Chipset, "the chipset's watchdog"),
        (Watchdog::Pci, "a watchdog on PCI (i6300esb)"),
        (Watchdog::Bmc, "the BMC's watchdog"),
    ];
    let mut cases = Vec::new();
    for (watchdog, watchdog_name) in watchdogs {
        for (stage, stage_name) in [(Stage::Initrd, "in the initrd"), (Stage::System, "after the initrd")] {
            let name = format!("a new system that hangs {stage_name} is ended by {watchdog_name}, and left again");
            cases.push(Case::full(GROUP, name, move |bench| ended(bench, watchdog, stage)));
        }
    }
    cases
}

fn ended(bench: &Bench<'_>, watchdog: Watchdog, stage: Stage) -> Result<()> {
    let mut machine = armed(bench)?.cut_power()?;
    // One try has to do: the boot loader's counting is seen elsewhere.
    slots::set_environment(&machine, &[("b_tries", "1")])?;
    machine.spec_mut().watchdog = watchdog;
    // The boot loader reads an IDE disk word by word.
    machine.spec_mut().bus = Bus::Virtio;
    harm(&mut machine, stage, "echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze");
    let mut vm = machine.start()?;
    vm.serial.wait("SIRIS: slot b (trial, 1 tries left)", BOOT)?;
    vm.serial.wait(HARM, BOOT).context("the new system's coming so far")?;
    vm.serial.wait("SIRIS: slot a", BOOT).context("the watchdog's reset")?;
    vm.wait_healthy()?;
    let said = vm.guest.ok("sirisctl upgrade status")?;
    must_contain(&said, "slot b (0.9.0) was tried and left again: no-answer", "the slots")?;
    let armed =
        vm.guest.ok("journalctl -b -o cat _PID=1 | grep -i 'hardware watchdog'; systemctl show -P WatchdogDevice")?;
    ensure!(armed.contains("/dev/watchdog"), "the old system's watchdog: {armed}");
    Ok(())
}
