//! How QEMU runs a guest: KVM where a probe proves it usable, else its own translator (TCG).
//!
//! On some hosts `/dev/kvm` opens and every guest then hangs, so only a guest that spoke counts. The verdict is
//! kept until the host boots again.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use siris_host::cmd::{Cmd, Root, Tool};

use crate::deadline::Deadline;

/// An accelerator of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The host's processor runs the guest.
    Kvm,
    /// QEMU translates.
    Tcg,
}

/// The variable that decides instead of the probe.
const VARIABLE: &str = "SIRIS_ACCEL";

impl Accel {
    /// What `SIRIS_ACCEL` (`kvm` or `tcg`) says, or what was found since the host booted, or what a probe finds.
    ///
    /// # Errors
    /// When the variable says something else.
    pub fn find(tools: &Root, cache: &Path) -> Result<Self> {
        if let Ok(wanted) = std::env::var(VARIABLE) {
            return Accel::parse(&wanted).with_context(|| format!("{VARIABLE}={wanted}: say kvm or tcg"));
        }
        if !Path::new("/dev/kvm").exists() {
            return Ok(Accel::Tcg);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let verdict = cache.join(format!("accel-{}", boot.trim()));
        if let Some(accel) = fs::read_to_string(&verdict).ok().and_then(|text| Accel::parse(text.trim())) {
            return Ok(accel);
        }
        let accel = if kvm_works(tools).unwrap_or(false) { Accel::Kvm } else { Accel::Tcg };
        fs::write(&verdict, accel.name())?;
        Ok(accel)
    }

    fn parse(name: &str) -> Option<Self> {
        [Accel::Kvm, Accel::Tcg].into_iter().find(|accel| accel.name() == name)
    }

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }

    /// QEMU's arguments for it.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

/// Boots the builder root's kernel with no root of its own: all that is wanted of it is its first line.
fn kvm_works(tools: &Root) -> Result<bool> {
    let mut kernel = None;
    for entry in fs::read_dir(tools.path().join("boot"))? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name.starts_with("vmlinuz-") {
            kernel = Some(format!("/boot/{name}"));
        }
    }
    let Some(kernel) = kernel else { bail!("the builder root has no kernel") };
    let mut qemu = Cmd::new(Tool::Qemu)
        .in_root(tools)
        .args(["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-display", "none", "-nodefaults"])
        .args(["-no-reboot", "-serial", "stdio", "-kernel", &kernel, "-append", "console=ttyS0 panic=-1"])
        .spawn()?;
    let mut said = qemu.stdout().context("QEMU has no output")?;
    let reader = thread::spawn(move || {
        let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = said.read(&mut bytes) {
            text.extend_from_slice(&bytes[..read]);
            if String::from_utf8_lossy(&text).contains("Kernel panic") {
                return true;
            }
        }
        false
    });
    let deadline = Deadline::after(Duration::from_secs(20));
    while !reader.is_finished() && deadline.pause("a guest under KVM").is_ok() {}
    qemu.kill();
    Ok(reader.join().unwrap_or(false))
}
