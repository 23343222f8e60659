//! Installing, beside what the same bytes cost without an installer: `zstd -dc | dd`, fsync, and reading them back.

use std::time::Duration;

use anyhow::{Context, Result};
use siris_tests::lab::{Bench, Lab};
use siris_tests::machine::{Bus, Carrier, Firmware, Spec};
use siris_tests::vm::Machine;

/// Seconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// `siris-installer install`, from its start to its receipt.
    pub ours: Duration,
    /// The bare copy.
    pub bare: Duration,
    /// Bytes of the payload.
    pub bytes: u64,
}

const LIMIT: Duration = Duration::from_secs(900);

const ANSWERS: &str =
    "schema = 1\nmode = \"os-only\"\nend = \"stay\"\n[target]\ndisk = \"serial:os\"\n[identity]\nrole = \"cloud\"\n";

/// Seconds of a command, as the machine's own clock has them.
const TIMED: &str = "set -o pipefail\nt=$(cut -d' ' -f1 /proc/uptime)\n";
const TOLD: &str = "\necho \"TOOK $(cut -d' ' -f1 /proc/uptime) $t\"";

/// Boots the medium, and measures both on one disk, ours first: what is compiled by then is there for the other.
///
/// # Errors
/// When the medium does not boot, or either fails.
pub fn measure(lab: &Lab) -> Result<Times> {
    let bench = Bench::new(lab)?;
    let mut spec = Spec::bare(Firmware::Bios, Bus::Virtio)
        .with("ssh.authorized_keys.root", &lab.public_key()?)
        .with_medium(Carrier::SataCd, lab.iso()?);
    spec.memory_mib = 6144;
    let mut vm = Machine::blank(&bench, spec)?.start()?;
    vm.serial.wait("executed automatically", Duration::from_secs(120)).context("the medium's menu")?;
    vm.serial.type_text("\r")?;
    vm.serial.wait("Nothing was written", LIMIT).context("the live system")?;
    vm.guest.connect(Duration::from_secs(120))?;
    let bytes = vm.guest.ok("cd /run/siris/medium && cat tree boot root | wc -c")?.parse()?;

    let took = |script: &str| -> Result<Duration> {
        let done = vm.guest.run_for(LIMIT, &format!("set -e\n{TIMED}{script}{TOLD}"), ANSWERS.as_bytes())?;
        done.text.lines().filter_map(|line| line.strip_prefix("AT ")).for_each(|line| eprintln!("         {line}"));
        let line = done.text.lines().rev().find_map(|line| line.strip_prefix("TOOK ")?.split_once(' '));
        let (end, begin) = line.with_context(|| format!("{script}: {done}"))?;
        Ok(Duration::from_secs_f64(end.parse::<f64>()? - begin.parse::<f64>()?))
    };
    // With the seconds at which each step began.
    let ours = took(
        "siris-installer install --unattended --wait 0 --stay --answers /dev/stdin 2>&1 |\n\
         while IFS= read -r line; do read up _ < /proc/uptime; echo \"AT $up $line\"; done",
    )?;
    // The same disk, which the installer has closed again. One thread, as a pipe has; compressed beforehand, into memory.
    let packed = "mkdir /run/bare && mount -t tmpfs -o size=1g bare /run/bare && cd /run/siris/medium && \
                  cat tree boot root | zstd -q -1 > /run/bare/all.zst && blockdev --setrw /dev/disk/by-id/virtio-os";
    let done = vm.guest.run_for(LIMIT, packed, b"")?;
    anyhow::ensure!(done.status == Some(0), "packing the payload: {done}");
    let bare = took(&format!(
        "d=/dev/disk/by-id/virtio-os\nzstd -q -dc /run/bare/all.zst | dd of=$d bs=1M iflag=fullblock oflag=direct conv=fsync status=none\n\
         dd if=$d bs=1M iflag=direct,count_bytes count={bytes} status=none | sha256sum"
    ))?;
    Ok(Times { ours, bare, bytes })
}
