//! Corruption: wrong data is never returned, and what prevents health falls back to the other slot, or halts with a
//! clear word. Each piece of slot A is damaged in turn, with a good slot B and with none.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::must_contain;
use crate::case::{Case, Tier};
use crate::deadline;
use crate::lab::Bench;
use crate::machine::{Bus, Firmware, Spec};
use crate::slots::{self, COLD_FILE, Piece};
use crate::vm::{BOOT, KERNEL_STARTED, Machine, NOTHING_BOOTS, Vm};

const GROUP: &str = "corrupt";

const HALTED: &str = "Halted: switch the power off and on";

/// Pieces without which slot A cannot become healthy, and what the cases call them.
const VITAL: &[(Piece, &str)] = &[
    (Piece::VeritySuperblock, "the hash tree's superblock"),
    (Piece::ErofsSuperblock, "the file system's superblock"),
    (Piece::TreeLevel(0), "the top of the hash tree"),
    (Piece::TreeLevel(1), "the middle of the hash tree"),
    (Piece::TreeLevel(2), "the leaves of the hash tree"),
    (Piece::Init, "the init program"),
    (Piece::Kernel, "the kernel"),
    (Piece::Initrd, "the initrd"),
];

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::full(GROUP, "a damaged block that is read late never comes back as data", cold_block),
        Case::full(GROUP, "three power flaps during boot leave a one-slot box bootable", power_flaps),
    ];
    for &(piece, name) in VITAL {
        let tier = if piece == Piece::Init { Tier::Quick } else { Tier::Full };
        let title = format!("damage to {name} falls back to slot B");
        cases.push(Case::quick(GROUP, title, move |bench| falls_back(bench, piece)).in_tier(tier));
        let tier = if piece == Piece::Kernel { Tier::Quick } else { Tier::Full };
        let title = format!("damage to {name} of the only slot halts with a clear word");
        cases.push(Case::quick(GROUP, title, move |bench| halts(bench, piece)).in_tier(tier));
    }
    cases
}

fn spec(bench: &Bench<'_>) -> Result<Spec> {
    Ok(Spec::bare(Firmware::Bios, Bus::Virtio).with("ssh.authorized_keys.root", &bench.lab.public_key()?))
}

/// A machine with both slots written and committed. Slot A has one try, so that one failed boot is enough.
fn two_slots<'a>(bench: &Bench<'a>) -> Result<Machine<'a>> {
    let machine = Machine::over(bench, spec(bench)?, &slots::two_slots(bench.lab)?)?;
    let changes = [("order", "a b"), ("a_tries", "1"), ("b_state", "good"), ("b_tries", "3")];
    slots::set_environment(&machine, &changes)?;
    Ok(machine)
}

fn booted_slot(vm: &Vm<'_>) -> Result<String> {
    vm.guest.ok("tr ' ' '\\n' < /proc/cmdline | sed -n 's/^siris.slot=//p'")
}

fn falls_back(bench: &Bench<'_>, piece: Piece) -> Result<()> {
    let machine = two_slots(bench)?;
    machine.flip(slots::locate(bench.lab, piece)?)?;
    let mut vm = machine.start()?;
    vm.serial.wait("SIRIS: slot a", BOOT)?;
    vm.serial.wait("SIRIS: slot b", BOOT).context("the boot loader's turn to slot B")?;
    vm.wait_healthy()?;
    let slot = booted_slot(&vm)?;
    ensure!(slot == "b", "it is healthy in slot {slot}");
    Ok(())
}

fn halts(bench: &Bench<'_>, piece: Piece) -> Result<()> {
    let machine = Machine::new(bench, spec(bench)?)?;
    slots::set_environment(&machine, &[("a_tries", "1")])?;
    machine.flip(slots::locate(bench.lab, piece)?)?;
    let mut vm = machine.start()?;
    vm.serial.wait("SIRIS: slot a", BOOT)?;
    stays_halted(&mut vm)?;
    // The power-on after that tries again, with all the tries a committed slot has.
    vm.reset()?;
    vm.serial.wait("SIRIS: slot a (good, 3 tries left)", BOOT).context("the next power-on")
}

/// Sees the boot loader give up and stay there, whatever is typed.
fn stays_halted(vm: &mut Vm<'_>) -> Result<()> {
    vm.serial.wait(NOTHING_BOOTS, BOOT)?;
    vm.serial.wait(HALTED, Duration::from_secs(30))?;
    vm.serial.forget();
    for _ in 0..8 {
        vm.serial.type_text("\u{1b}c e\u{3}\n")?;
    }
    let rest = deadline::until(Duration::from_secs(20), "anything after the halt", || {
        let said = vm.serial.since_mark();
        let signs = ["SIRIS", "grub>"].iter().chain(KERNEL_STARTED).any(|sign| said.contains(sign));
        Ok(signs.then_some(said))
    });
    match rest {
        Ok(said) => bail!("it went on after the halt: {said}"),
        Err(error) if deadline::interrupted() => Err(error),
        Err(_) => Ok(()),
    }
}

fn cold_block(bench: &Bench<'_>) -> Result<()> {
    let machine = Machine::new(bench, spec(bench)?)?;
    machine.flip(slots::locate(bench.lab, Piece::Cold)?)?;
    let mut vm = machine.start()?;
    vm.wait_healthy()?;
    vm.serial.forget();
    let done = vm.guest.run(&format!("sha256sum {COLD_FILE}"))?;
    ensure!(done.status != Some(0), "the damaged file was read: {done}");
    if done.status.is_none() {
        // A panic is an answer too; the slot is committed, so the box comes back.
        vm.guest.disconnect();
        vm.wait_healthy().context("after the panic")?;
    }
    let health = vm.guest.ok("sirisctl status")?;
    must_contain(&health, "healthy", "sirisctl status")
}

fn power_flaps(bench: &Bench<'_>) -> Result<()> {
    let mut vm = Machine::new(bench, spec(bench)?)?.start()?;
    for flap in 1..=3 {
        vm.serial.wait_any(KERNEL_STARTED, BOOT).with_context(|| format!("boot {flap}"))?;
        vm.reset()?;
    }
    // It may have given up once; the next power-on must then do.
    let signs: Vec<&str> = [HALTED].iter().chain(KERNEL_STARTED).copied().collect();
    if vm.serial.wait_any(&signs, BOOT)? == 0 {
        vm.reset()?;
    }
    vm.wait_healthy()
}
