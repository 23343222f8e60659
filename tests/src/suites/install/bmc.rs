//! The whole way through a BMC: virtual media over Redfish, boot from it once, installed, booted from the disk.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{INSTALL, answers};
use crate::bmc::Bmc;
use crate::case::Case;
use crate::disk;
use crate::lab::Bench;
use crate::machine::Credential;
use crate::suites::must_contain;
use crate::vm::BOOT;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![Case::full(
        super::GROUP,
        "a BMC inserts the medium over Redfish, boots from it once, and the box is installed",
        installed,
    )]
}

fn installed(bench: &Bench<'_>) -> Result<()> {
    let target = bench.dir().join("os.qcow2");
    disk::blank(bench.lab, &target, 16 * 1024)?;
    let iso = bench.lab.iso()?;
    let answers = answers(bench, "[target]\ndisk = \"auto\"\n")?;
    let credentials = [Credential::new("siris.install", answers).smbios()];
    let images = iso.parent().context("the medium lies in a folder")?;
    let mut bmc = Bmc::new(bench, &target, images, &credentials)?;
    bmc.insert(&iso.file_name().unwrap_or_default().to_string_lossy())?;
    bmc.boot_once("Cd")?;
    let mut serial = bmc.power_on()?;
    serial.wait("executed automatically", Duration::from_secs(180)).context("the medium's menu")?;
    serial.type_text("\r")?;
    serial.wait("proven:", INSTALL).context("install")?;
    bmc.wait_off(Duration::from_secs(240))?;

    bmc.eject()?;
    bmc.boot_once("Hdd")?;
    let mut serial = bmc.power_on()?;
    serial.wait("login:", BOOT).context("the new system")?;
    bmc.guest.connect(Duration::from_secs(120))?;
    let healthy = "systemctl is-active boot-complete.target >/dev/null && sirisctl status";
    let status = bmc.guest.eventually(Duration::from_secs(240), healthy)?;
    must_contain(&status, "node7", "the status")
}
