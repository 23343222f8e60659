//! It boots: on each firmware, from each kind of disk, into a sealed system that only lets in whom it was told to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{EXTRA_ADDRESS, PASSWORD, manager_property, must_contain, standard};
use crate::case::{Case, Tier};
use crate::disk::Partitions;
use crate::lab::Bench;
use crate::machine::{Bus, Firmware, Spec};
use crate::slots;
use crate::vm::{BOOT, KERNEL_STARTED, Machine, Vm};

const GROUP: &str = "boot";

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::quick(GROUP, "without credentials nobody gets in, and it is healthy all the same", nobody_gets_in),
        Case::quick(GROUP, "keys pressed at the boot loader open neither editor nor shell", boot_loader_is_locked),
        Case::quick(GROUP, "a hashed password given as a credential opens the console", password_opens_console),
        Case::quick(GROUP, "a network given as a credential is set up", network_credential),
        Case::quick(GROUP, "the state partition grows to the disk at first boot", state_grows),
        Case::quick(GROUP, "what would not last cannot be written, and what is listed lasts", sealed),
    ];
    for (firmware, firmware_name) in [(Firmware::Bios, "BIOS"), (Firmware::Uefi, "UEFI")] {
        for (bus, bus_name) in [(Bus::Virtio, "virtio"), (Bus::Sata, "SATA"), (Bus::Nvme, "NVMe")] {
            // The quick sample sees the other firmware and the other buses: the standard machine is BIOS and SATA,
            // the one nobody gets in to is BIOS and virtio.
            let sampled = (firmware, bus) == (Firmware::Uefi, Bus::Nvme);
            let tier = if sampled { Tier::Quick } else { Tier::Full };
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
    let health = manager_property(&vm, "Health")?;
    ensure!(health == "s \"healthy\"", "health is {health}");
    let verified =
        vm.guest.ok("cat /proc/cmdline; findmnt -no SOURCE,FSTYPE,OPTIONS /; dmsetup status --target verity")?;
    must_contain(&verified, "erofs", "the root")?;
    must_contain(&verified, " verity V", "the root's device")?;
    drop(vm.power_off()?);
    Ok(())
}

fn nobody_gets_in(bench: &Bench<'_>) -> Result<()> {
    let mut vm = Machine::new(bench, Spec::bare(Firmware::Bios, Bus::Virtio))?.start()?;
    vm.serial.wait("login:", BOOT)?;
    for password in ["", "root", "siris", PASSWORD] {
        ensure!(!console_login(&mut vm, "root", password)?, "the console let root in with the password \"{password}\"");
    }
    let denial = vm.guest.denial("root")?;
    must_contain(&denial, "Permission denied (publickey)", "SSH's refusal")?;
    // Being healthy shows on the disk: the try that the boot has spent is given back.
    slots::power_off_blessed(vm, "a").map(drop)
}

/// Whether the console, which shows its prompt, gives a shell to that user and password. If not, it shows its prompt
/// again.
fn console_login(vm: &mut Vm<'_>, user: &str, password: &str) -> Result<bool> {
    vm.serial.forget();
    vm.serial.type_text(&format!("{user}\n"))?;
    let asked = vm.serial.wait_any(&["assword:", "ncorrect"], Duration::from_secs(60))?;
    if asked == 0 {
        vm.serial.type_text(&format!("{password}\n"))?;
    }
    // Only a shell works this out.
    let prompt = vm.serial.wait_any(&["ncorrect", "#"], Duration::from_secs(60))?;
    if prompt == 0 {
        vm.serial.wait("login:", Duration::from_secs(60)).context("the console's next prompt")?;
        return Ok(false);
    }
    vm.serial.type_text("echo $((6*7))yes\n")?;
    Ok(vm.serial.wait("42yes", Duration::from_secs(60)).is_ok())
}

fn boot_loader_is_locked(bench: &Bench<'_>) -> Result<()> {
    let mut vm = Machine::new(bench, Spec::bare(Firmware::Bios, Bus::Virtio))?.start()?;
    vm.serial.wait("SIRIS: slot a", BOOT)?;
    for _ in 0..10 {
        vm.serial.type_text("ec\u{1b}e\u{3}c\n")?;
    }
    vm.serial.wait_any(KERNEL_STARTED, BOOT).context("the kernel's start after the keys")?;
    let said = vm.serial.text();
    ensure!(!said.contains("grub>"), "the boot loader's shell opened");
    ensure!(!said.contains("linux /") && !said.contains("Minimum Emacs"), "the boot loader's editor opened");
    Ok(())
}

fn password_opens_console(bench: &Bench<'_>) -> Result<()> {
    let mut vm = standard(bench)?;
    ensure!(console_login(&mut vm, "root", PASSWORD)?, "the console did not let root in");
    Ok(())
}

fn network_credential(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    let addresses = vm.guest.ok("ip -brief address")?;
    must_contain(&addresses, EXTRA_ADDRESS, "the machine")?;
    must_contain(&addresses, "10.0.2.15", "the machine (DHCP's address)")
}

fn state_grows(bench: &Bench<'_>) -> Result<()> {
    const MIB: u64 = 1 << 20;
    let vm = standard(bench)?;
    let start = Partitions::of(bench.lab.image().path())?.range("siris-state")?.start;
    let whole = "/dev/$(lsblk -ndo PKNAME /dev/disk/by-partlabel/siris-state)";
    let disk: u64 = vm.guest.ok(&format!("blockdev --getsize64 {whole}"))?.parse()?;
    let partition: u64 = vm.guest.ok("blockdev --getsize64 /dev/disk/by-partlabel/siris-state")?.parse()?;
    ensure!(partition + start + 4 * MIB > disk, "the partition has {partition} bytes from {start} on a disk of {disk}");
    let file_system: u64 = vm.guest.ok("findmnt -bno SIZE /state")?.parse()?;
    // ext4 counts its own tables out.
    ensure!(file_system > partition / 10 * 9, "the file system has {file_system} bytes in a partition of {partition}");
    Ok(())
}

fn sealed(bench: &Bench<'_>) -> Result<()> {
    let mut vm = standard(bench)?;
    for dir in ["/etc", "/root", "/var", "/usr", "/usr/lib/siris", "/srv", "/", "/var/lib", "/opt"] {
        let said = vm.guest.refused(&format!("touch {dir}/siris-tests"))?;
        must_contain(&said, "Read-only file system", &format!("writing to {dir}"))?;
    }
    let list = vm.guest.ok("cat /usr/lib/siris/state")?;
    let listed = |kind: &str| -> Vec<String> {
        list.lines().filter_map(|line| line.strip_prefix(kind)).map(|dir| dir.trim().to_owned()).collect()
    };
    let (persisted, volatile) = (listed("persist "), listed("volatile "));
    ensure!(!persisted.is_empty() && !volatile.is_empty(), "no list of what persists: {list}");
    for dir in persisted.iter().chain(&volatile) {
        vm.guest.ok(&format!("echo kept > {dir}/siris-tests"))?;
    }
    let identity = "cat /etc/machine-id /var/lib/siris/device-id /var/lib/siris/hostid; cat /var/lib/ssh/*.pub";
    let before = vm.guest.ok(identity)?;
    vm.reboot()?;
    ensure!(vm.guest.ok(identity)? == before, "the machine's identity changed over a reboot from {before}");
    let device_id = before.lines().nth(1).unwrap_or_default();
    must_contain(&manager_property(&vm, "DeviceId")?, device_id, "the agent's DeviceId")?;
    for dir in &persisted {
        vm.guest.ok(&format!("grep -qx kept {dir}/siris-tests")).with_context(|| format!("{dir} lost a file"))?;
    }
    for dir in &volatile {
        vm.guest.ok(&format!("test ! -e {dir}/siris-tests")).with_context(|| format!("{dir} kept a file"))?;
    }
    Ok(())
}
