//! A new system that is no good is left again by the box itself, and the old one says why.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::super::{must_contain, standard};
use super::{GROUP, NEWER, armed, install, restart};
use crate::case::Case;
use crate::lab::Bench;
use crate::machine::Credential;
use crate::slots;
use crate::sources::Sources;
use crate::vm::{BOOT, Machine, Vm};

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::full(GROUP, "a new system in which a pool is worse gives itself up, with its journal", worse_pool),
        Case::full(
            GROUP,
            "a new system on a full state partition gives itself up, and GRUB's environment says why",
            full,
        ),
        Case::full(GROUP, "a new system in which a check of its profile's fails gives itself up", failed_check),
        Case::full(GROUP, "a new system whose kernel panics at each try is left again", panics),
        Case::full(GROUP, "a new system whose agent never answers gives itself up when its time is over", no_answer),
    ]
}

/// How far a boot comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Into the initrd, with the root verified and mounted.
    Initrd,
    /// Into the system itself.
    System,
}

/// What the console says right before the harm.
pub(super) const HARM: &str = "siris-tests: now";

/// Has every boot of slot B run a command at that stage, as an operator could: by a unit handed over as a credential.
pub(super) fn harm(machine: &mut Machine<'_>, stage: Stage, command: &str) {
    // The initrd takes them as well: what is wanted by a unit of only one of the two runs only there.
    let (after, before) = match stage {
        Stage::Initrd => ("sysroot.mount", "siris-root.service"),
        Stage::System => ("basic.target", "multi-user.target"),
    };
    let unit = format!(
        "[Unit]\nDefaultDependencies=no\nConditionKernelCommandLine=siris.slot=b\nAfter={after}\n\
         [Service]\nType=oneshot\nStandardOutput=tty\nTTYPath=/dev/console\n\
         ExecStart=/bin/sh -c 'echo; echo {HARM}; {command}'\n"
    );
    let wanted = "[Unit]\nWants=siris-tests.service\nAfter=siris-tests.service\n";
    let credentials = &mut machine.spec_mut().credentials;
    credentials.push(Credential::new("systemd.extra-unit.siris-tests.service", unit));
    credentials.push(Credential::new(format!("systemd.unit-dropin.{before}"), wanted));
}

/// Sees the new system tried and given up, and the old one come back healthy.
fn left_again(vm: &mut Vm<'_>) -> Result<String> {
    vm.serial.wait("SIRIS: slot b (trial, 3 tries left)", BOOT)?;
    vm.serial.wait("slot b is given up", BOOT).context("the new slot giving itself up")?;
    vm.serial.wait("SIRIS: slot a", BOOT).context("the way back")?;
    vm.wait_healthy()?;
    vm.guest.ok("sirisctl upgrade status")
}

fn worse_pool(bench: &Bench<'_>) -> Result<()> {
    let mut vm = armed(bench)?;
    // The slot that was kept has seen the pool whole, and does not look any more.
    vm.guest.ok("systemctl stop siris-agent && zpool offline tank /dev/disk/by-id/virtio-data1")?;
    restart(&mut vm, "systemctl reboot")?;
    let said = left_again(&mut vm)?;
    must_contain(&said, "slot b (0.9.0) was tried and left again: pool-degraded", "the slots")?;
    let journal = vm.guest.ok("zcat /var/lib/siris/failed-trial.journal.gz | head -5")?;
    must_contain(&journal, "kernel: Linux version", "the failed boot's journal")
}

/// A profile with two checks, of which the second fails.
const CHECKED: &str = "schema = 1\nextends = \"siris\"\nlock = \"siris\"\n[files]\ntrees = [\"checked\"]\n\
    [upgrade]\nchecks = [\"tests-good.service\", \"tests-bad.service\"]\n";

fn failed_check(bench: &Bench<'_>) -> Result<()> {
    let sources = Sources::copy(bench.lab.repository(), bench.dir().join("checkout"))?;
    fs::write(sources.profile("checked"), CHECKED)?;
    let units = sources.dir().join("image-profiles/checked/usr/lib/systemd/system");
    fs::create_dir_all(&units)?;
    for (name, does) in [("good", "true"), ("bad", "false")] {
        let unit = format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo looked; {does}'\n");
        fs::write(units.join(format!("tests-{name}.service")), unit)?;
    }
    let out = bench.dir().join("checked");
    let script = format!("\"$XTASK\" ibu checked --version {NEWER} --out '{}'", out.display());
    sources.shell(&script).log(bench.dir().join("build.log")).run()?;

    let mut vm = standard(bench)?;
    install(&vm, &fs::read(out.join("latest.ibu"))?)?;
    restart(&mut vm, "systemctl reboot")?;
    let said = left_again(&mut vm)?;
    must_contain(&said, "was tried and left again: check-failed: tests-bad.service did not end well", "the slots")?;
    let looked = vm.guest.ok("zcat /var/lib/siris/failed-trial.journal.gz | grep -c 'looked$'")?;
    ensure!(looked == "2", "{looked} of the two checks ran");
    Ok(())
}

fn full(bench: &Bench<'_>) -> Result<()> {
    let mut vm = armed(bench)?;
    // To the last block, what the file system keeps for root too.
    vm.guest.ok("cd /var/lib/siris && for size in 1G 100M 10M 1M 4K; do \
         n=0; while fallocate -l $size fill-$size-$n 2>/dev/null; do n=$((n+1)); done; done; sync; df /state; \
         ! head -c 1M /dev/zero 2>/dev/null > one-more")?;
    restart(&mut vm, "systemctl reboot")?;
    let said = left_again(&mut vm)?;
    must_contain(&said, "slot b (0.9.0) was tried and left again: state-low", "the slots")?;
    let variables = slots::environment(&vm.cut_power()?)?;
    ensure!(variables.get("failed_trial").is_some_and(|why| why == "b:state-low"), "GRUB's environment: {variables:?}");
    Ok(())
}

fn panics(bench: &Bench<'_>) -> Result<()> {
    let mut machine = armed(bench)?.cut_power()?;
    harm(&mut machine, Stage::Initrd, "echo c > /proc/sysrq-trigger");
    let mut vm = machine.start()?;
    for left in [3, 2, 1] {
        vm.serial.wait(&format!("SIRIS: slot b (trial, {left} tries left)"), BOOT)?;
        vm.serial.wait("Kernel panic", BOOT).with_context(|| format!("the try with {left} left"))?;
    }
    vm.serial.wait("SIRIS: slot a", BOOT).context("the way back")?;
    vm.wait_healthy()?;
    let said = vm.guest.ok("sirisctl upgrade status")?;
    must_contain(&said, "slot b (0.9.0) was tried and left again: no-answer", "the slots")
}

fn no_answer(bench: &Bench<'_>) -> Result<()> {
    let mut machine = armed(bench)?.cut_power()?;
    // The time is shortened, and the agent held back, by drop-ins handed over as credentials.
    let held = "[Service]\nTimeoutStartSec=infinity\n\
                ExecStartPre=/bin/sh -c 'if grep -q siris.slot=b /proc/cmdline; then sleep infinity; fi'\n";
    let short = "[Timer]\nOnBootSec=\nOnBootSec=5min\n";
    for (unit, text) in [("siris-agent.service", held), ("siris-trial-failed.timer", short)] {
        machine.spec_mut().credentials.push(Credential::new(format!("systemd.unit-dropin.{unit}"), text));
    }
    let mut vm = machine.start()?;
    let said = left_again(&mut vm)?;
    must_contain(&said, "slot b (0.9.0) was tried and left again: no-answer: the agent did not answer", "the slots")
}
