//! What a machine is made of, as data, and as QEMU's arguments.
//!
//! Pure: the same specification always gives the same arguments, and names the same snapshot.

use std::path::{Path, PathBuf};

/// What starts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF, without Secure Boot.
    Uefi,
}

/// What the OS disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// AHCI.
    Sata,
    /// NVMe. QEMU cannot save such a machine's state.
    Nvme,
    /// virtio-scsi.
    Scsi,
}

/// What the disks beside the OS disk hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataBus {
    /// virtio-blk: some twenty disks at most.
    Virtio,
    /// One virtio-scsi controller, to which disks can be added while the machine is on.
    Scsi,
}

/// What resets the machine when it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// The chipset's.
    Chipset,
    /// A device on PCI, Intel's 6300ESB, on a board whose chipset has none.
    Pci,
    /// That of a BMC, on a board whose chipset has none.
    Bmc,
}

/// A disk's sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sectors {
    /// 512 bytes.
    S512,
    /// 512 bytes, made of physical ones of 4096: "512e".
    S512e,
    /// 4096 bytes: "4Kn".
    S4096,
}

impl Sectors {
    /// What QEMU's devices are told.
    fn options(self) -> &'static str {
        match self {
            Sectors::S512 => "",
            Sectors::S512e => ",logical_block_size=512,physical_block_size=4096",
            Sectors::S4096 => ",logical_block_size=4096,physical_block_size=4096",
        }
    }
}

/// Who reads the serial console and types on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// The harness, through a socket that QEMU waits to see taken; a second socket controls QEMU.
    Harness,
    /// The person at the terminal, who also has QEMU's monitor there (Ctrl-A C) and its way out (Ctrl-A X).
    Terminal,
}

/// A system credential, handed over in SMBIOS type 11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    name: String,
    value: String,
}

impl Credential {
    /// A credential; its value travels as base64, so it may hold anything.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Credential { name: name.into(), value: value.into() }
    }

    /// What QEMU's `-smbios` takes. A comma ends a value of QEMU's unless it is doubled; base64 has none.
    pub fn smbios(&self) -> String {
        format!("type=11,value=io.systemd.credential.binary:{}={}", self.name, base64(self.value.as_bytes()))
    }
}

/// How a machine sees an installer's medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A CD drive on USB, as a BMC emulates it.
    UsbCd,
    /// A CD drive on AHCI.
    SataCd,
    /// A USB stick.
    UsbDisk,
}

/// An installer's medium in a machine. The machine starts from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// What it looks like.
    pub carrier: Carrier,
    /// The image.
    pub path: PathBuf,
    /// Bytes a second that it is read with at most.
    pub rate: Option<u32>,
}

/// A machine: everything that decides what a guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its firmware.
    pub firmware: Firmware,
    /// Its OS disk's bus.
    pub bus: Bus,
    /// Its memory.
    pub memory_mib: u32,
    /// Its watchdog.
    pub watchdog: Watchdog,
    /// The size its OS disk is grown to, as when an image is written to a larger disk.
    pub disk_gib: u32,
    /// Its OS disk's sectors.
    pub sectors: Sectors,
    /// What is written to its OS disk is recorded, in `os.writes` beside it.
    pub record_os: bool,
    /// Blank disks beside it, in MiB, with the serials `data0`, `data1`, ...
    pub data_disks_mib: Vec<u32>,
    /// What they hang on.
    pub data_bus: DataBus,
    /// What it is told from outside.
    pub credentials: Vec<Credential>,
    /// The medium it starts from, before its OS disk.
    pub medium: Option<Medium>,
    /// A raw image on a USB stick beside a USB medium.
    pub config: Option<PathBuf>,
}

impl Spec {
    /// A machine nobody can log in to: 2 GiB, a 16 GiB disk, no data disks, no credentials.
    pub fn bare(firmware: Firmware, bus: Bus) -> Self {
        Spec {
            firmware,
            bus,
            memory_mib: 2048,
            watchdog: Watchdog::Chipset,
            disk_gib: 16,
            sectors: Sectors::S512,
            record_os: false,
            data_disks_mib: Vec::new(),
            data_bus: DataBus::Virtio,
            credentials: Vec::new(),
            medium: None,
            config: None,
        }
    }

    /// The same machine with one more credential.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.credentials.push(Credential::new(name, value));
        self
    }

    /// The same machine with blank disks.
    #[must_use]
    pub fn with_data_disks(mut self, sizes_mib: &[u32]) -> Self {
        self.data_disks_mib = sizes_mib.to_vec();
        self
    }

    /// The same machine with its other disks on a virtio-scsi controller.
    #[must_use]
    pub fn on_scsi(mut self) -> Self {
        self.data_bus = DataBus::Scsi;
        self
    }

    /// The same machine with a medium in it.
    #[must_use]
    pub fn with_medium(mut self, carrier: Carrier, path: &Path) -> Self {
        self.medium = Some(Medium { carrier, path: path.to_owned(), rate: None });
        self
    }

    /// Whether QEMU can save it while it runs.
    pub fn can_be_saved(&self) -> bool {
        self.bus != Bus::Nvme
    }

    /// QEMU's arguments for everything but the accelerator.
    ///
    /// `dir` holds the disks (`os.qcow2`, `vars.qcow2`, `data0.qcow2`, ...) and logs, `sockets` the sockets;
    /// `ssh_port` of the host's loopback leads to the guest's SSH. The guest's network leads nowhere else.
    pub fn arguments(&self, dir: &Path, sockets: &Path, ssh_port: u16, console: Console) -> Vec<String> {
        let (dir, sockets) = (dir.display(), sockets.display());
        let mut args: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
        match self.watchdog {
            // It must reset the machine, as on a real board.
            Watchdog::Chipset => {
                add("-machine", "q35".into());
                add("-global", "ICH9-LPC.noreboot=off".into());
            }
            Watchdog::Pci => {
                add("-machine", "pc".into());
                add("-device", "i6300esb".into());
                add("-action", "watchdog=reset".into());
            }
            Watchdog::Bmc => {
                add("-machine", "pc".into());
                add("-device", "ipmi-bmc-sim,id=bmc".into());
                add("-device", "isa-ipmi-kcs,bmc=bmc".into());
            }
        }
        add("-smp", "2".into());
        add("-m", self.memory_mib.to_string());
        add("-display", "none".into());
        add("-device", "VGA".into());
        add("-rtc", "base=utc".into());
        add("-device", "virtio-rng-pci".into());
        match console {
            Console::Harness => {
                add("-chardev", format!("socket,id=serial,path={sockets}/serial,server=on,wait=on"));
                add("-qmp", format!("unix:{sockets}/qmp,server=on,wait=off"));
            }
            Console::Terminal => {
                add("-chardev", "stdio,id=serial,mux=on,signal=off".into());
                add("-mon", "chardev=serial".into());
            }
        }
        add("-serial", "chardev:serial".into());
        add("-netdev", format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"));
        add("-device", "virtio-net-pci,netdev=net,romfile=".into());
        if self.firmware == Firmware::Uefi {
            add("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd".into());
            add("-drive", format!("if=pflash,unit=1,format=qcow2,file={dir}/vars.qcow2"));
        }
        // What a guest calls written is safe once QEMU has it: the host does not lose power in these tests.
        let drive = |id: &str| format!("if=none,id={id},format=qcow2,cache=unsafe,discard=unmap,file={dir}/{id}.qcow2");
        match self.record_os {
            false => add("-drive", drive("os")),
            // Flushes have to come through.
            true => add(
                "-drive",
                format!(
                    "if=none,id=os,driver=blklogwrites,cache=writeback,discard=unmap,file.driver=qcow2,\
                     file.file.driver=file,file.file.filename={dir}/os.qcow2,log.driver=file,log.filename={dir}/os.writes"
                ),
            ),
        }
        if self.bus == Bus::Scsi || self.data_bus == DataBus::Scsi {
            add("-device", "virtio-scsi-pci,id=scsi".into());
        }
        let sectors = self.sectors.options();
        let os = match self.bus {
            Bus::Virtio => "virtio-blk-pci,drive=os",
            Bus::Sata => "ide-hd,drive=os,bus=ide.0",
            Bus::Nvme => "nvme,drive=os",
            Bus::Scsi => "scsi-hd,drive=os,bus=scsi.0,scsi-id=0,lun=0",
        };
        add("-device", format!("{os},serial=os,bootindex=1{sectors}"));
        for number in 0..self.data_disks_mib.len() {
            add("-drive", drive(&format!("data{number}")));
            add(
                "-device",
                match self.data_bus {
                    DataBus::Virtio => format!("virtio-blk-pci,drive=data{number},serial=data{number}"),
                    // The OS disk may be unit 0.
                    DataBus::Scsi => format!(
                        "scsi-hd,drive=data{number},bus=scsi.0,scsi-id={},lun=0,serial=data{number}",
                        number + 1
                    ),
                },
            );
        }
        if let Some(Medium { carrier, path, rate }) = &self.medium {
            let kind = if *carrier == Carrier::UsbDisk { "disk" } else { "cdrom" };
            let rate = rate.map(|rate| format!(",throttling.bps-read={rate}")).unwrap_or_default();
            add(
                "-drive",
                format!("if=none,id=medium,media={kind},format=raw,readonly=on,file={}{rate}", path.display()),
            );
            match carrier {
                Carrier::SataCd => add("-device", "ide-cd,drive=medium,bus=ide.1,bootindex=0".into()),
                Carrier::UsbCd | Carrier::UsbDisk => {
                    add("-device", "qemu-xhci,id=usb".into());
                    add("-device", "usb-storage,id=stick,bus=usb.0,drive=medium,bootindex=0".into());
                }
            }
        }
        if let Some(config) = &self.config {
            add("-drive", format!("if=none,id=config,format=raw,readonly=on,file={}", config.display()));
            add("-device", "usb-storage,id=config-stick,bus=usb.0,drive=config".into());
        }
        for credential in &self.credentials {
            add("-smbios", credential.smbios());
        }
        args.extend(["-nodefaults".to_owned(), "-no-user-config".to_owned()]);
        args
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (word >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Bus, Console, Firmware, Spec, base64};

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_credential_with_commas_reaches_qemu_whole() {
        let spec = Spec::bare(Firmware::Bios, Bus::Sata).with("network.network.x", "[Match]\nName=a,b");
        let args = spec.arguments(Path::new("/d"), Path::new("/s"), 1, Console::Harness);
        assert!(
            args.contains(
                &"type=11,value=io.systemd.credential.binary:network.network.x=W01hdGNoXQpOYW1lPWEsYg==".into()
            )
        );
        assert!(args.iter().any(|a| a.starts_with("ide-hd,drive=os")));
        assert!(!args.iter().any(|a| a.contains("pflash")));
    }
}
