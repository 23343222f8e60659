//! `cargo xtask vm` and `image --boot`: the built image, booted.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use siris_build::Progress;
use siris_tests::case::Tier;
use siris_tests::lab::{Bench, Lab, LabOptions};
use siris_tests::machine::{Bus, Firmware, Spec};
use siris_tests::vm::Machine;

/// What starts a machine.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FirmwareArg {
    /// SeaBIOS
    Bios,
    /// OVMF
    Uefi,
}

impl From<FirmwareArg> for Firmware {
    fn from(arg: FirmwareArg) -> Self {
        match arg {
            FirmwareArg::Bios => Firmware::Bios,
            FirmwareArg::Uefi => Firmware::Uefi,
        }
    }
}

fn lab(image: &Path, progress: &Progress) -> anyhow::Result<Lab> {
    let checkout = crate::checkout();
    let tools = siris_build::tools(&checkout, progress)?;
    Lab::open(LabOptions { tools, image: image.to_owned(), iso: None, repository: checkout, tier: Tier::Quick })
}

/// Boots the image, waits until the agent says it is healthy, prints its status and powers it off.
///
/// # Errors
/// When it does not become healthy, or does not power off.
pub fn prove_boot(image: &Path, progress: &Progress) -> anyhow::Result<()> {
    siris_tests::deadline::catch_interrupts()?;
    let lab = lab(image, progress)?;
    let bench = Bench::new(&lab)?;
    let step = progress.step(&format!("booting under UEFI ({})", lab.accel().name()));
    let spec = Spec::bare(Firmware::Uefi, Bus::Virtio).with("ssh.authorized_keys.root", &lab.public_key()?);
    let mut vm = Machine::new(&bench, spec)?.start()?;
    let serial = bench.dir().to_owned();
    vm.wait_healthy()
        .with_context(|| format!("the image did not boot to health (serial console: {})", serial.display()))?;
    step.done("healthy");
    println!("{}", vm.guest.ok("sirisctl status")?.trim_end());
    let step = progress.step("powering off");
    vm.power_off()?;
    step.done("off");
    Ok(())
}

/// Boots the image with its serial console on this terminal. Nothing it writes reaches the image.
///
/// # Errors
/// When QEMU cannot be started or fails.
pub fn interactive(image: &Path, firmware: FirmwareArg, progress: &Progress) -> anyhow::Result<()> {
    const PASSWORD: &str = "siris";
    let lab = lab(image, progress)?;
    let bench = Bench::new(&lab)?;
    // SHA-512 crypt of PASSWORD; handed to this machine from outside, the image itself has none.
    let hash = "$6$sirisos$RCQc2ImoQYF0iSbX.uca/Mq17Wn2/cq.VowgPlOGng6driGnQn9XqZhar.k1zMQIy2Xzfi8OWNjlmlbWaM8iO1";
    let spec = Spec::bare(firmware.into(), Bus::Virtio)
        .with("passwd.hashed-password.root", hash)
        .with("ssh.authorized_keys.root", &lab.public_key()?);
    let machine = Machine::new(&bench, spec)?;
    let port = siris_tests::vm::free_port()?;
    eprintln!("Log in as root with the password `{PASSWORD}`, or from another terminal:");
    eprintln!(
        "  ssh -i {} -p {port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1",
        lab.key().display()
    );
    eprintln!("Leave with `poweroff`, or at once with Ctrl-A X. Nothing is kept.\n");
    machine.on_terminal(port)
}
