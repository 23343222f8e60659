//! It boots: on each firmware, from each kind of disk, into a sealed system that only lets in whom it was told to.

use anyhow::Result;

use crate::case::{Case, Tier};
use crate::lab::Bench;
use crate::machine::{Bus, Firmware, Spec};
use crate::vm::Machine;

const GROUP: &str = "boot";

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (firmware, firmware_name) in [(Firmware::Bios, "BIOS"), (Firmware::Uefi, "UEFI")] {
        for (bus, bus_name) in [(Bus::Virtio, "virtio"), (Bus::Sata, "SATA"), (Bus::Nvme, "NVMe")] {
            let tier = match (firmware, bus) {
                (Firmware::Bios, Bus::Sata) | (Firmware::Uefi, Bus::Nvme) => Tier::Quick,
                _ => Tier::Full,
            };
            let name = format!("boots under {firmware_name} from a {bus_name} disk and is healthy");
            cases.push(Case::quick(GROUP, name, move |bench| boots(bench, firmware, bus)).in_tier(tier));
        }
    }
    cases
}

fn boots(bench: &Bench<'_>, firmware: Firmware, bus: Bus) -> Result<()> {
    let spec = Spec::bare(firmware, bus).with("ssh.authorized_keys.root", &bench.lab.public_key()?);
    let mut vm = Machine::new(bench, spec)?.start()?;
    vm.wait_healthy()?;
    drop(vm.power_off()?);
    Ok(())
}
