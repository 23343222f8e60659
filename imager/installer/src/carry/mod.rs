//! The network set-up of an old Debian or Ubuntu root, as files of systemd-networkd that go by MAC addresses.
//!
//! Read off the old root without mounting it. Interface names of the old system become MAC addresses: by its own udev
//! rules where it has some, else by the name that the same port has now. What cannot be carried over whole is refused,
//! with what it is about: a box that is reached by half its addresses is not reached.

mod ifupdown;
mod networkd;
pub mod stash;

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use siris_host::cmd::{Cmd, Tool};
use siris_slots::layout::Part;

use crate::answers::{Mac, Network, Static};
use crate::facts::{Disk, DiskName, Facts};
use crate::host::Host;
use crate::observe;
use crate::refusal::Refusal;

/// Files of a root that is not mounted.
trait Files {
    /// The text of a file.
    fn read(&self, path: &str) -> Option<String>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &str) -> Vec<String>;
}

/// An ext file system on a disk.
struct OldRoot {
    device: PathBuf,
    start: u64,
}

impl Files for OldRoot {
    fn read(&self, path: &str) -> Option<String> {
        observe::cat(&self.device, self.start, path)
    }

    fn list(&self, dir: &str) -> Vec<String> {
        observe::list(&self.device, self.start, dir)
    }
}

/// Which port has which address on the wire.
type Ports = BTreeMap<String, Mac>;

/// What was found, with what it was found in.
struct Found {
    network: Network,
    from: &'static str,
}

/// The network of the old root on `target`.
///
/// # Errors
/// A refusal, where there is none or it cannot be carried over.
pub fn network(host: &Host, facts: &Facts, target: &DiskName) -> Result<(Network, String), Refusal> {
    let refuse = |what: String| {
        Refusal::new("network-carry-over", what, "write the network into the answers: mode = \"static\" or \"dhcp\"")
    };
    if let Some(network) = stashed(host, target) {
        return Ok((network, format!("an install of /dev/{target} that did not come to its end")));
    }
    let disk = facts.disk(target);
    let device = || host.dev(target.as_str());
    if let Some(files) = disk.and_then(|disk| own(disk, device())) {
        let mut network = of_files(files);
        if network.kind == Static::Files(Vec::new()) {
            network.kind = Static::Dhcp;
        }
        return Ok((network, format!("the SIRIS OS on /dev/{target}")));
    }
    let Some(start) = disk.and_then(Disk::old_root) else {
        return Err(refuse(format!("/dev/{target} carries no old system whose network could be read")));
    };
    let found = find(&OldRoot { device: device(), start }, &ports_now(host)).map_err(refuse)?;
    Ok((found.network, format!("{} on /dev/{target}", found.from)))
}

fn stashed(host: &Host, target: &DiskName) -> Option<Network> {
    let mut dev = host.open(target.as_str()).ok()?;
    let mut bytes = vec![0; stash::LEN as usize];
    dev.seek(SeekFrom::Start(stash::START)).and_then(|_| dev.read_exact(&mut bytes)).ok()?;
    stash::decode(&bytes)
}

/// The network files of a system of ours; none of them means DHCP.
fn own(disk: &Disk, device: PathBuf) -> Option<Vec<(String, String)>> {
    let state = disk.partitions.iter().find(|part| part.kind == Part::State.type_guid().to_string())?;
    let root = OldRoot { device, start: state.start };
    let dir = format!("/persist{}", crate::state::NETWORK);
    let files: Vec<(String, String)> = root
        .list(&dir)
        .into_iter()
        .filter_map(|name| Some((name.clone(), root.read(&format!("{dir}/{name}"))?)))
        .collect();
    Some(files)
}

fn ports_now(host: &Host) -> Ports {
    let mac = |port: &String| {
        // Physical ports alone have a device behind them.
        let real = host.path(format!("/sys/class/net/{port}/device")).exists();
        Mac::parse(&host.text(format!("/sys/class/net/{port}/address"))?).filter(|_| real)
    };
    host.names("/sys/class/net").into_iter().filter_map(|port| Some((port.clone(), mac(&port)?))).collect()
}

/// Names that the old system's own rules give: `... ATTR{address}=="00:11:...", ... NAME="eth0"`.
fn ports_then(root: &dyn Files) -> Ports {
    let rules = root.read("/etc/udev/rules.d/70-persistent-net.rules").unwrap_or_default();
    let value = |line: &str, key: &str| {
        let rest = line.split(key).nth(1)?;
        Some(rest.split('"').next()?.to_owned())
    };
    let rule = |line: &str| {
        let line = line.trim();
        let mac = Mac::parse(&value(line, "ATTR{address}==\"")?)?;
        Some((value(line, "NAME=\"")?, mac)).filter(|_| !line.starts_with('#'))
    };
    rules.lines().filter_map(rule).collect()
}

fn find(root: &dyn Files, now: &Ports) -> Result<Found, String> {
    let mut ports = now.clone();
    ports.extend(ports_then(root));
    let files = |dir: &str, kinds: &[&str]| -> Vec<(String, String)> {
        let names = root.list(dir).into_iter().filter(|name| kinds.iter().any(|kind| name.ends_with(kind)));
        names.filter_map(|name| Some((name.clone(), root.read(&format!("{dir}/{name}"))?))).collect()
    };
    let netplan = files("/etc/netplan", &[".yaml"]);
    let networkd = files("/etc/systemd/network", &[".network", ".netdev"]);
    let interfaces = root.read("/etc/network/interfaces");
    if !netplan.is_empty() {
        let generated = generate(&netplan)?;
        return Ok(Found { network: networkd::network(&generated, &ports)?, from: "netplan" });
    }
    if !networkd.is_empty() {
        return Ok(Found { network: networkd::network(&networkd, &ports)?, from: "systemd-networkd" });
    }
    match interfaces {
        Some(text) => Ok(Found { network: ifupdown::network(&text, root, &ports)?, from: "ifupdown" }),
        None => Err("the old system has no network set-up that is known (ifupdown, netplan, systemd-networkd)".into()),
    }
}

/// What netplan's own generator makes of its files.
fn generate(files: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
    let fault = |error: std::io::Error| format!("netplan's files cannot be worked on: {error}");
    if !Tool::NetplanGenerate.is_present(None) {
        return Err("the old system uses netplan, and this image has no generator for its files".into());
    }
    let dir = tempfile::tempdir().map_err(fault)?;
    let etc = dir.path().join("etc/netplan");
    std::fs::create_dir_all(&etc).map_err(fault)?;
    for (name, text) in files {
        let path = etc.join(name);
        std::fs::write(&path, text).map_err(fault)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(fault)?;
    }
    let run = Cmd::new(Tool::NetplanGenerate).arg("--root-dir").arg(dir.path()).run();
    run.map_err(|error| format!("netplan's generator does not take the old files: {error}"))?;
    let made = dir.path().join("run/systemd/network");
    let mut generated = Vec::new();
    for entry in std::fs::read_dir(made).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".network") || name.ends_with(".netdev") {
            generated.push((name, std::fs::read_to_string(entry.path()).map_err(fault)?));
        }
    }
    generated.sort();
    Ok(generated)
}

/// A network of files as they are.
fn of_files(files: Vec<(String, String)>) -> Network {
    Network { kind: Static::Files(files), dns: Vec::new(), ntp: Vec::new() }
}

#[cfg(test)]
mod tests;
