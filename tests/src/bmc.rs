//! A machine behind a BMC: libvirt runs it, and sushy-tools' Redfish service is what an operator talks to.
//!
//! Owns: both services, each in a root of its own with nothing of the host's. Dropped, the machine is switched off,
//! and they are killed. Requests are made with curl, as README tells people to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use siris_build::Progress;
use siris_host::cmd::{Cmd, Root, Running, Tool};

use crate::accel::Accel;
use crate::deadline;
use crate::guest::Guest;
use crate::lab::Bench;
use crate::serial::Serial;
use crate::vm::free_port;

/// The Redfish service, from the Python package index.
const SUSHY: &str = "sushy-tools==2.2.0";
/// The machine's name and its id with the BMC.
const NAME: &str = "node";
const ID: &str = "3f2c1d0e-9a8b-4c7d-8e6f-5a4b3c2d1e0f";

/// A machine and its BMC.
pub struct Bmc<'a> {
    /// A shell on the machine.
    pub guest: Guest<'a>,
    redfish: Running,
    web: Running,
    libvirt: Running,
    root: Root,
    dir: PathBuf,
    sockets: PathBuf,
    base: String,
    images: String,
}

impl<'a> Bmc<'a> {
    /// A machine with this OS disk (qcow2), off, with 4 GiB and one port; `credentials` as QEMU's `-smbios` takes them.
    /// What lies in `images` can be inserted.
    ///
    /// # Errors
    /// When a service does not come up.
    pub fn new(bench: &Bench<'a>, disk: &Path, images: &Path, credentials: &[String]) -> Result<Self> {
        let lab = bench.lab;
        let (dir, sockets) = bench.place()?;
        let mut root = siris_build::bmc(lab.repository(), &Progress::new())?.bind("/etc/ssl/certs", "/etc/ssl/certs");
        // What they keep is this case's.
        for (name, to) in [
            ("run", "/run"),
            ("lib", "/var/lib/libvirt"),
            ("cache", "/var/cache/libvirt"),
            ("log", "/var/log/libvirt"),
            ("tmp", "/tmp"),
            ("etc", "/etc/libvirt"),
        ] {
            let from = dir.join(name);
            fs::create_dir_all(&from)?;
            root = root.bind(from, to);
        }
        for shared in lab.shared()? {
            root = root.bind(&shared, &shared);
        }
        root = root.bind(images, "/srv/images");
        fs::create_dir_all(dir.join("lib/images"))?;
        fs::write(dir.join("etc/qemu.conf"), QEMU_CONF)?;
        fs::write(dir.join("etc/libvirtd.conf"), "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n")?;

        let python = lab.cache().join("sushy");
        if !python.exists() {
            let half = python.with_extension("half");
            let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
            Cmd::new(Tool::Python).in_root(&root).args(pip).arg(&half).arg(SUSHY).log(dir.join("pip.log")).run()?;
            fs::rename(half, &python)?;
        }
        let log = |name: &str| dir.join(format!("{name}.log"));
        let libvirt = Cmd::new(Tool::Libvirtd).in_root(&root).log(log("libvirt")).spawn()?;
        let virsh = |args: &[&str]| Cmd::new(Tool::Virsh).in_root(&root).args(["-c", "qemu:///system"]).args(args);
        deadline::until(Duration::from_secs(60), "libvirt", || Ok(virsh(&["list"]).run().ok()))?;
        for args in [
            &["pool-define-as", "default", "dir", "--target", "/var/lib/libvirt/images"][..],
            &["pool-start", "default"],
        ] {
            virsh(args).run()?;
        }
        let port = free_port()?;
        fs::write(dir.join("node.xml"), domain(lab.accel(), disk, &sockets.join("serial"), port, credentials))?;
        virsh(&["define", &dir.join("node.xml").to_string_lossy()]).run()?;

        let (api, web_port) = (free_port()?, free_port()?);
        let config = dir.join("sushy.conf");
        fs::write(
            &config,
            format!(
                "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {api}\nSUSHY_EMULATOR_LIBVIRT_URI = 'qemu:///system'\n"
            ),
        )?;
        let redfish = Cmd::new(Tool::Python)
            .in_root(&root)
            .env("PYTHONPATH", &python)
            .args(["-m", "sushy_tools.emulator.main", "--config"])
            .arg(&config)
            .log(log("redfish"))
            .spawn()?;
        let serve = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", "/srv/images"];
        let web =
            Cmd::new(Tool::Python).in_root(&root).args(serve).arg(web_port.to_string()).log(log("web")).spawn()?;
        let guest = Guest::new(lab, port, sockets.join("ssh"), dir.join("ssh.log"));
        let base = format!("http://127.0.0.1:{api}/redfish/v1");
        let images = format!("http://127.0.0.1:{web_port}");
        let bmc = Bmc { guest, redfish, web, libvirt, root, dir, sockets, base, images };
        deadline::until(Duration::from_secs(60), "the BMC", || Ok(bmc.get(&format!("Systems/{ID}")).ok()))?;
        Ok(bmc)
    }

    /// Asks the BMC.
    ///
    /// # Errors
    /// When it does not answer well.
    pub fn get(&self, path: &str) -> Result<Value> {
        let text = self.curl(&[]).arg(format!("{}/{path}", self.base)).text()?;
        Ok(serde_json::from_str(&text)?)
    }

    fn curl(&self, args: &[&str]) -> Cmd {
        Cmd::new(Tool::Curl)
            .in_root(&self.root)
            .args(["-sS", "--fail-with-body", "-H", "Content-Type: application/json"])
            .args(args)
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<()> {
        let curl = self.curl(&["-X", method, "-d", body]).arg(format!("{}/{path}", self.base));
        curl.text().map(drop).with_context(|| format!("{method} {path} {body}: {}", self.said()))
    }

    /// The last words of the services behind it.
    fn said(&self) -> String {
        let tail = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{}:\n{}", path.display(), lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n"))
        };
        let machine = format!("log/qemu/{NAME}.log");
        [&machine, "redfish.log", "libvirt.log"].map(|name| tail(self.dir.join(name))).join("\n")
    }

    /// Inserts an image as virtual CD.
    ///
    /// # Errors
    /// When the BMC refuses.
    pub fn insert(&self, image: &str) -> Result<()> {
        let body = format!("{{\"Image\": \"{}/{image}\"}}", self.images);
        self.send("POST", &format!("Systems/{ID}/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia"), &body)
    }

    /// Takes it out.
    ///
    /// # Errors
    /// When the BMC refuses.
    pub fn eject(&self) -> Result<()> {
        self.send("POST", &format!("Systems/{ID}/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia"), "{}")
    }

    /// What the next start is from: `Cd` or `Hdd`.
    ///
    /// # Errors
    /// When the BMC refuses.
    pub fn boot_once(&self, target: &str) -> Result<()> {
        let body = format!(
            "{{\"Boot\": {{\"BootSourceOverrideTarget\": \"{target}\", \"BootSourceOverrideEnabled\": \"Once\"}}}}"
        );
        self.send("PATCH", &format!("Systems/{ID}"), &body)
    }

    /// Switches the machine on, and returns its serial console.
    ///
    /// # Errors
    /// When it does not start.
    pub fn power_on(&self) -> Result<Serial> {
        self.send("POST", &format!("Systems/{ID}/Actions/ComputerSystem.Reset"), "{\"ResetType\": \"On\"}")?;
        Serial::connect(&self.sockets.join("serial"), self.dir.join("serial.log"))
    }

    /// Waits until the machine has switched itself off.
    ///
    /// # Errors
    /// When it does not within the limit.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        self.guest.disconnect();
        deadline::until(limit, "the machine to switch off", || {
            let services =
                [(&mut self.libvirt, "libvirt"), (&mut self.redfish, "the BMC"), (&mut self.web, "the web server")];
            for (service, name) in services {
                ensure!(service.try_wait()?.is_none(), "{name} ended");
            }
            std::thread::sleep(Duration::from_secs(2));
            Ok((self.get(&format!("Systems/{ID}"))?["PowerState"] == "Off").then_some(()))
        })
    }
}

impl Drop for Bmc<'_> {
    fn drop(&mut self) {
        // QEMU is not libvirt's child: it would outlive it. Off already, it cannot be switched off.
        let off = Cmd::new(Tool::Virsh).in_root(&self.root).args(["-c", "qemu:///system", "destroy", NAME]);
        let _ = off.run();
    }
}

/// Lines of each service's log that an error quotes.
const LAST_WORDS: usize = 12;

/// No other user, no security module, no control groups: there is but this one machine.
const QEMU_CONF: &str = "stdio_handler = \"file\"\nuser = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = \"none\"\n\
    cgroup_controllers = []\nnamespaces = []\nclear_emulator_capabilities = 0\n";

fn domain(accel: Accel, disk: &Path, serial: &Path, port: u16, credentials: &[String]) -> String {
    let kind = if accel.name() == "kvm" { "kvm" } else { "qemu" };
    let mut args: Vec<String> = vec![
        "-netdev".into(),
        format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        "-device".into(),
        "virtio-net-pci,netdev=net,romfile=,bus=pcie.0,addr=0x10".into(),
    ];
    args.extend(credentials.iter().flat_map(|text| ["-smbios".to_owned(), text.clone()]));
    let args: String = args.iter().map(|arg| format!("<qemu:arg value='{arg}'/>")).collect();
    format!(
        "<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{NAME}</name><uuid>{ID}</uuid>\
         <memory unit='MiB'>4096</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>\
         <features><acpi/></features><cpu mode='maximum'/><clock offset='utc'/>\
         <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><devices>\
         <emulator>/usr/bin/qemu-system-x86_64</emulator>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='unsafe'/><source file='{disk}'/>\
         <target dev='sda' bus='sata'/><serial>os</serial></disk>\
         <serial type='unix'><source mode='bind' path='{serial}'/></serial><memballoon model='none'/></devices>\
         <qemu:commandline>{args}</qemu:commandline></domain>",
        disk = disk.display(),
        serial = serial.display(),
    )
}
