//! A machine with its disks, on or off.
//!
//! Owns: its QEMU process (killed when dropped), its overlays, its console, its way in. In: a [`Spec`]. The image
//! under test is only ever a backing file.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use siris_host::cmd::{Running, Tool};

use crate::deadline;
use crate::disk;
use crate::guest::Guest;
use crate::lab::{Bench, Lab};
use crate::machine::{Console, Firmware, Spec};
use crate::qmp::Qmp;
use crate::serial::Serial;

/// How long a boot may take before it counts as hung: some ten times of what it takes.
pub const BOOT: Duration = Duration::from_secs(420);

/// What the boot loader says when it gives up.
pub const NOTHING_BOOTS: &str = "SIRIS: no slot of this disk can be booted";

/// What a kernel says first on the console, and what its init does where the kernel is told to be quiet.
pub const KERNEL_STARTED: &[&str] = &["Linux version", "Created slice", "Expecting device", "Reached target"];

/// A port of the loopback that nothing listens on now.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A machine that is off.
#[derive(Debug)]
pub struct Machine<'a> {
    lab: &'a Lab,
    spec: Spec,
    dir: PathBuf,
    sockets: PathBuf,
}

impl<'a> Machine<'a> {
    /// A machine whose OS disk is the image under test, never booted before.
    ///
    /// # Errors
    /// When its disks cannot be made.
    pub fn new(bench: &Bench<'a>, spec: Spec) -> Result<Self> {
        let image = bench.lab.image().path().to_owned();
        Machine::over(bench, spec, &image)
    }

    /// A machine whose OS disk is blank.
    ///
    /// # Errors
    /// When its disks cannot be made.
    pub fn blank(bench: &Bench<'a>, spec: Spec) -> Result<Self> {
        let machine = Machine::placed(bench, spec)?;
        disk::blank(machine.lab, &machine.disk("os"), machine.spec.disk_gib * 1024)?;
        machine.with_other_disks()
    }

    /// A machine whose OS disk is another raw image.
    ///
    /// # Errors
    /// When its disks cannot be made.
    pub fn over(bench: &Bench<'a>, spec: Spec, image: &Path) -> Result<Self> {
        let machine = Machine::placed(bench, spec)?;
        disk::overlay(machine.lab, image, "raw", &machine.disk("os"), Some(machine.spec.disk_gib))?;
        machine.with_other_disks()
    }

    /// Makes the disks beside the OS disk.
    fn with_other_disks(self) -> Result<Self> {
        for (number, &size) in self.spec.data_disks_mib.iter().enumerate() {
            disk::blank(self.lab, &self.disk(&format!("data{number}")), size)?;
        }
        if self.spec.firmware == Firmware::Uefi {
            disk::uefi_variables(self.lab, &self.disk("vars"))?;
        }
        Ok(self)
    }

    /// A machine whose disks continue those in `saved`.
    pub(crate) fn continuing(bench: &Bench<'a>, spec: Spec, saved: &Path) -> Result<Self> {
        let machine = Machine::placed(bench, spec)?;
        for name in machine.disk_names() {
            disk::overlay(machine.lab, &saved.join(format!("{name}.qcow2")), "qcow2", &machine.disk(&name), None)?;
        }
        Ok(machine)
    }

    fn placed(bench: &Bench<'a>, spec: Spec) -> Result<Self> {
        let (dir, sockets) = bench.place()?;
        Ok(Machine { lab: bench.lab, spec, dir, sockets })
    }

    /// Its disks' names.
    pub(crate) fn disk_names(&self) -> Vec<String> {
        let mut names = vec!["os".to_owned()];
        names.extend((0..self.spec.data_disks_mib.len()).map(|number| format!("data{number}")));
        if self.spec.firmware == Firmware::Uefi {
            names.push("vars".to_owned());
        }
        names
    }

    /// The qcow2 file of a disk: `os`, `data0`, ...
    pub fn disk(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.qcow2"))
    }

    /// What was written to its OS disk, where that is recorded.
    pub fn writes(&self) -> PathBuf {
        self.dir.join("os.writes")
    }

    /// The run it belongs to.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Its specification.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its specification, to be changed while it is off.
    pub fn spec_mut(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// Flips every bit of one byte of its OS disk.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn flip(&self, offset: u64) -> Result<()> {
        disk::flip(self.lab, &self.disk("os"), offset)
    }

    /// Switches it on.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(self) -> Result<Vm<'a>> {
        self.launch(&[])
    }

    /// Switches it on with its serial console on this terminal, and waits until it is off.
    ///
    /// # Errors
    /// When QEMU does not start or fails.
    pub fn on_terminal(&self, ssh_port: u16) -> Result<()> {
        let status = self
            .lab
            .tool(Tool::Qemu)
            .args(self.lab.accel().arguments())
            .args(self.spec.arguments(&self.dir, &self.sockets, ssh_port, Console::Terminal))
            .interactive()?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }

    /// Switches it on in a saved state.
    pub(crate) fn resume(self, state: &Path) -> Result<Vm<'a>> {
        let mut vm = self.launch(&["-incoming", "defer"])?;
        vm.qmp.load_state(state)?;
        Ok(vm)
    }

    fn launch(self, extra: &[&str]) -> Result<Vm<'a>> {
        let mut failure = None;
        // Between choosing a free port and QEMU's taking it, another process may have got it.
        for _ in 0..3 {
            match self.try_launch(extra) {
                Ok((qemu, qmp, serial, guest)) => return Ok(Vm { guest, qmp, serial, qemu, machine: self }),
                Err(error) if deadline::interrupted() => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("QEMU was not tried")?)
    }

    fn try_launch(&self, extra: &[&str]) -> Result<(Running, Qmp, Serial, Guest<'a>)> {
        let port = free_port()?;
        let log = self.dir.join("qemu.log");
        if self.spec.record_os {
            File::create(self.writes())?;
        }
        let mut qemu = self
            .lab
            .tool(Tool::Qemu)
            .args(self.lab.accel().arguments())
            .args(self.spec.arguments(&self.dir, &self.sockets, port, Console::Harness))
            .args(extra)
            .log(&log)
            .spawn()?;
        let serial = Serial::connect(&self.sockets.join("serial"), self.dir.join("serial.log"));
        let both = serial.and_then(|serial| Ok((serial, Qmp::connect(&self.sockets.join("qmp"))?)));
        let (serial, qmp) = match both {
            Ok(both) => both,
            Err(error) => {
                let ended = qemu.try_wait()?;
                drop(qemu);
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(error.context(format!("QEMU ({ended:?}) said: {said}")));
            }
        };
        let guest = Guest::new(self.lab, port, self.sockets.join("ssh"), self.dir.join("ssh.log"));
        Ok((qemu, qmp, serial, guest))
    }
}

/// A machine that is on.
pub struct Vm<'a> {
    // Dropped in this order: the connection before the machine it leads to.
    /// A shell on it.
    pub guest: Guest<'a>,
    /// QEMU's control socket.
    pub qmp: Qmp,
    /// Its console.
    pub serial: Serial,
    qemu: Running,
    machine: Machine<'a>,
}

impl<'a> Vm<'a> {
    /// Waits until it lets us in over SSH with the run's key, and says it booted well.
    ///
    /// # Errors
    /// When it does not; with what it says about its health.
    pub fn wait_healthy(&mut self) -> Result<()> {
        if self.serial.wait_any(&["login:", NOTHING_BOOTS], BOOT).context("boot")? == 1 {
            bail!("the boot loader found nothing to boot");
        }
        self.guest.connect(Duration::from_secs(90))?;
        let limit = Duration::from_secs(180);
        let healthy =
            self.guest.eventually(limit, "systemctl is-active boot-complete.target >/dev/null && sirisctl status");
        if healthy.is_err() {
            let why = self.guest.run(
                "systemctl --failed --no-pager; sirisctl status; journalctl -b -p warning --no-pager | tail -40",
            )?;
            return healthy.map(drop).context(why.to_string());
        }
        Ok(())
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn reset(&mut self) -> Result<()> {
        self.guest.disconnect();
        self.serial.forget();
        self.qmp.execute("system_reset", json!({})).map(drop)
    }

    /// Reboots it from inside and waits until it is healthy again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reboot(&mut self) -> Result<()> {
        self.serial.forget();
        // The connection may break before the command's status comes back.
        self.guest.run("systemctl reboot")?;
        self.guest.disconnect();
        self.wait_healthy()
    }

    /// Plugs a disk into its virtio-scsi controller while it runs: a qcow2 file, seen with this serial number.
    ///
    /// # Errors
    /// When QEMU does not take it.
    pub fn plug(&mut self, serial: &str, disk: &Path, unit: u32) -> Result<()> {
        let file = json!({ "driver": "file", "filename": disk });
        self.qmp.execute("blockdev-add", json!({ "driver": "qcow2", "node-name": serial, "file": file }))?;
        let device =
            json!({ "driver": "scsi-hd", "drive": serial, "bus": "scsi.0", "scsi-id": unit, "serial": serial });
        self.qmp.execute("device_add", device).map(drop)
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// When QEMU does not end.
    pub fn cut_power(mut self) -> Result<Machine<'a>> {
        self.guest.disconnect();
        // QEMU may be gone before it answers.
        let _ = self.qmp.execute("quit", json!({}));
        self.ended(Duration::from_secs(30))
    }

    /// Presses the power button and waits until it is off.
    ///
    /// # Errors
    /// When it does not switch itself off.
    pub fn power_off(mut self) -> Result<Machine<'a>> {
        self.guest.disconnect();
        self.qmp.execute("system_powerdown", json!({}))?;
        self.ended(Duration::from_secs(180))
    }

    /// Waits until it has switched itself off.
    ///
    /// # Errors
    /// When it does not within the limit.
    pub fn switched_off(mut self, limit: Duration) -> Result<Machine<'a>> {
        self.guest.disconnect();
        self.ended(limit)
    }

    fn ended(self, limit: Duration) -> Result<Machine<'a>> {
        let Vm { mut qemu, machine, .. } = self;
        let status = deadline::until(limit, "the machine to switch off", || Ok(qemu.try_wait()?))?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(machine)
    }

    /// Its disks and specification.
    pub fn machine(&self) -> &Machine<'a> {
        &self.machine
    }

    /// Saves a picture of its screen.
    ///
    /// # Errors
    /// When QEMU cannot.
    pub fn screenshot(&mut self, png: &Path) -> Result<()> {
        self.qmp.execute("screendump", json!({ "filename": png, "format": "png" })).map(drop)
    }

    /// Whether QEMU still runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn is_on(&mut self) -> Result<bool> {
        Ok(self.qemu.try_wait()?.is_none())
    }
}
