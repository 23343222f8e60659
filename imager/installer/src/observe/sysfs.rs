//! What the kernel and udev say of each disk.

use std::collections::BTreeMap;

use siris_ibu::ByteSize;

use crate::facts::{Disk, DiskName, TableKind};
use crate::host::{Host, HostError};

/// Devices that are no disks: made by software, or never to be written.
const NO_DISKS: [&str; 9] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "zd"];

/// The kernel's name of a partition.
pub fn partition_name(disk: &DiskName, number: u32) -> String {
    let p = if disk.as_str().ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{p}{number}")
}

/// Every disk, by name, without what is on it.
pub fn disks(host: &Host) -> Result<Vec<Disk>, HostError> {
    let mounts = mounts(host);
    let swaps = swaps(host);
    let (by_id, by_path) = (links(host, "by-id"), links(host, "by-path"));
    let mut disks = Vec::new();
    for name in host.names("/sys/block") {
        let Ok(disk_name) = name.parse::<DiskName>() else { continue };
        let sys = format!("/sys/block/{name}");
        if NO_DISKS.iter().any(|prefix| name.starts_with(prefix)) || flag(host, &sys, "hidden") {
            continue;
        }
        let size = number(host, &format!("{sys}/size"))? * 512;
        if size == 0 {
            // A drive without a medium.
            continue;
        }
        let mut disk = Disk {
            size: ByteSize::from_bytes(size),
            sector: number(host, &format!("{sys}/queue/logical_block_size"))?,
            serial: None,
            wwn: None,
            model: None,
            by_id: by_id.get(&name).cloned().unwrap_or_default(),
            by_path: by_path.get(&name).cloned().unwrap_or_default(),
            transport: None,
            rotational: flag(host, &sys, "queue/rotational"),
            removable: flag(host, &sys, "removable"),
            read_only: flag(host, &sys, "ro"),
            path_of: None,
            diskseq: host.text(format!("{sys}/diskseq")).and_then(|seq| seq.parse().ok()),
            written: 0,
            discarded: 0,
            holders: Vec::new(),
            used_as: Vec::new(),
            unreadable: None,
            table: TableKind::None,
            boot_code: false,
            content: Vec::new(),
            partitions: Vec::new(),
            name: disk_name,
        };
        (disk.written, disk.discarded) = counters(host, &disk.name)?;
        identify(host, &sys, &mut disk);
        for device in std::iter::once(sys.clone()).chain(partition_dirs(host, &sys)) {
            disk.holders.extend(host.names(format!("{device}/holders")));
            let dev = host.text(format!("{device}/dev")).unwrap_or_default();
            disk.used_as.extend(mounts.iter().filter(|(d, _)| *d == dev).map(|(_, at)| at.clone()));
            let node = device.rsplit('/').next().unwrap_or_default();
            disk.used_as.extend(swaps.iter().filter(|swap| *swap == node).map(|_| "swap".to_owned()));
        }
        disk.holders.sort();
        disk.holders.dedup();
        disks.push(disk);
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    paths(&mut disks);
    Ok(disks)
}

/// Two disks with one world wide name and one size are two paths of one.
fn paths(disks: &mut [Disk]) {
    for n in 1..disks.len() {
        let (before, here) = disks.split_at_mut(n);
        let same = |other: &&Disk| other.wwn == here[0].wwn && other.size == here[0].size && other.path_of.is_none();
        let first = before.iter().find(same).filter(|_| here[0].wwn.is_some()).map(|first| first.name.clone());
        here[0].path_of = first;
    }
}

/// Sectors of 512 bytes written and discarded since boot (Documentation/block/stat.rst: fields 7 and 14).
pub fn counters(host: &Host, disk: &DiskName) -> Result<(u64, u64), HostError> {
    let text = host.need(format!("/sys/block/{disk}/stat"))?;
    let fields: Vec<u64> = text.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    // A kernel that counts no discards makes none either: the fields came with the accounting (4.18).
    Ok((fields.get(6).copied().unwrap_or(u64::MAX), fields.get(13).copied().unwrap_or(0)))
}

fn partition_dirs(host: &Host, sys: &str) -> Vec<String> {
    let inside = host.names(sys).into_iter().map(|name| format!("{sys}/{name}"));
    inside.filter(|dir| host.path(format!("{dir}/partition")).exists()).collect()
}

fn flag(host: &Host, sys: &str, attribute: &str) -> bool {
    host.text(format!("{sys}/{attribute}")).is_some_and(|text| text == "1")
}

fn number(host: &Host, path: &str) -> Result<u64, HostError> {
    let text = host.need(path)?;
    let source = || std::io::Error::other(format!("`{text}` is no number"));
    text.parse().map_err(|_| HostError::Read { path: host.path(path), source: source() })
}

/// Serial number, WWN, model and transport: udev's word where there is one, as people know it from its links.
fn identify(host: &Host, sys: &str, disk: &mut Disk) {
    let dev = host.text(format!("{sys}/dev")).unwrap_or_default();
    let database = host.text(format!("/run/udev/data/b{dev}")).unwrap_or_default();
    let udev: BTreeMap<&str, &str> =
        database.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('=')).collect();
    let known = |keys: &[&str]| keys.iter().find_map(|key| udev.get(key)).map(|value| (*value).to_owned());
    let attribute = |names: &[&str]| names.iter().find_map(|name| host.text(format!("{sys}/{name}")));
    let unit = || {
        let page = std::fs::read(host.path(format!("{sys}/device/vpd_pg80"))).ok()?;
        let text = String::from_utf8_lossy(page.get(4..)?).trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    };
    disk.serial = known(&["ID_SCSI_SERIAL", "SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT"])
        .or_else(|| attribute(&["serial", "device/serial"]))
        .or_else(unit);
    let wwn = known(&["ID_WWN_WITH_EXTENSION", "ID_WWN"]).or_else(|| attribute(&["wwid", "device/wwid"]));
    disk.wwn = wwn.as_deref().and_then(wwn_digits);
    disk.model = attribute(&["device/model"]).or_else(|| known(&["ID_MODEL"]));
    disk.transport = known(&["ID_BUS"]).or_else(|| {
        let name = disk.name.as_str();
        let kinds = [("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc"), ("sd", "scsi"), ("xvd", "xen")];
        kinds.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| (*kind).to_owned())
    });
}

/// `0x5000c500a1b2c3d4`, `naa.5000c500a1b2c3d4`, `eui.0025388b01234567`: the digits alone, in lower case.
pub fn wwn_digits(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let digits =
        ["wwn-", "0x", "naa.", "eui."].iter().fold(text.as_str(), |t, prefix| t.strip_prefix(prefix).unwrap_or(t));
    let fits = digits.len() >= 8 && digits.chars().all(|c| c.is_ascii_hexdigit());
    fits.then(|| digits.to_owned())
}

fn links(host: &Host, kind: &str) -> BTreeMap<String, Vec<String>> {
    let dir = format!("/dev/disk/{kind}");
    let mut links: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for link in host.names(&dir) {
        let Ok(target) = std::fs::read_link(host.path(&dir).join(&link)) else { continue };
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        links.entry(name).or_default().push(link);
    }
    links
}

/// Device number and mount point of everything that is mounted (proc_pid_mountinfo(5)).
fn mounts(host: &Host) -> Vec<(String, String)> {
    let text = host.text("/proc/self/mountinfo").unwrap_or_default();
    let fields = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        Some((fields.next()?.to_owned(), fields.nth(1)?.to_owned()))
    };
    text.lines().filter_map(fields).collect()
}

/// Names of devices that are swapped on.
fn swaps(host: &Host) -> Vec<String> {
    let text = host.text("/proc/swaps").unwrap_or_default();
    let device = |line: &str| Some(line.split_ascii_whitespace().next()?.strip_prefix("/dev/")?.to_owned());
    text.lines().skip(1).filter_map(device).collect()
}
