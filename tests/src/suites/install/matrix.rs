//! Every layout of a pool at once: one storage node with a disk for each place in them, re-imaged.
//!
//! All of them lie on one virtio-scsi controller. The digests of their disks are taken from outside.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{INSTALL, answers, digests, escrow_is_on, first_boot, spec, started};
use crate::case::Case;
use crate::disk;
use crate::lab::Bench;
use crate::machine::{Bus, Carrier, Firmware, Spec};
use crate::suites::{NEW_POOL, PARTITION, must_contain};
use crate::vm::Machine;

/// What a pool of the node is made of.
struct Layout {
    name: &'static str,
    /// How many of the node's disks it has, the next ones in order.
    disks: usize,
    /// `zpool create`'s words; `{0}`, `{1}`, ... are its disks.
    vdevs: &'static str,
    /// Run before (`{0}`...), to partition disks say.
    before: &'static str,
    /// Run after.
    after: &'static str,
    /// What the answers say of it, beside its name; nothing where they do not name it.
    answer: Option<&'static str>,
}

const fn plain(name: &'static str, disks: usize, vdevs: &'static str) -> Layout {
    Layout { name, disks, vdevs, before: "", after: "", answer: Some("") }
}

const LAYOUTS: &[Layout] = &[
    plain("single", 1, "{0}"),
    plain("twin", 2, "mirror {0} {1}"),
    // The cache and the spare do not say whose they are.
    Layout { answer: Some("members = 5\n"), ..plain("whole", 7, "raidz2 {0} {1} {2} {3} log {4} cache {5} spare {6}") },
    plain("spread", 4, "draid1:2d:1s:4c {0} {1} {2} {3}"),
    Layout {
        before: "for disk in {0} {1}; do partition $disk -n 1:0:+32M -n 2:0:0; done",
        ..plain("parts", 2, "mirror {0}-part2 {1}-part2")
    },
    Layout {
        after: "echo correct-horse-9 > /run/pass; zfs create -o encryption=on -o keyformat=passphrase \
                -o keylocation=file:///run/pass secret/sealed; zfs snapshot secret/sealed@1; zpool sync secret",
        ..plain("secret", 1, "{0}")
    },
    Layout {
        after: "zpool offline lame {1}",
        answer: Some("allow-degraded = true\n"),
        ..plain("lame", 2, "mirror {0} {1}")
    },
    Layout { answer: Some("allow-degraded = true\n"), ..plain("torn", 3, "raidz1 {0} {1} {2}") },
    Layout { after: "zpool export given", ..plain("given", 1, "{0}") },
    Layout { answer: None, ..plain("left", 1, "{0}") },
    // Not there when the install begins.
    Layout { answer: None, ..plain("late", 1, "{0}") },
];

/// Bytes of the disks, in MiB.
const SIZE: u32 = 192;
/// The last disk of `torn`, which is a blank one when the installer comes.
const LOST: usize = 21;
/// Disks with old systems, in use when the power goes: on ext4; on an md mirror of two; on half of one.
const OLD: [usize; 4] = [25, 26, 27, 28];
/// The node's disk that becomes the target.
const TARGET: usize = 29;
/// The disk of `late`.
const LATE: usize = 24;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let name = "a node with every layout of a pool is re-imaged, and every pool is as it was";
    vec![Case::full(super::GROUP, name, every_layout)]
}

fn by_id(number: usize) -> String {
    format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_data{number}")
}

/// What makes the pools, and prints a line for each: its name and the digest of its file.
fn script() -> String {
    let mut script = format!("set -e\n{NEW_POOL}{PARTITION}");
    script.push_str(
        "fill() { m=$(zfs get -Hpo value mountpoint $1/data); head -c 3000000 /dev/urandom > $m/file; \
         zfs snapshot $1/data@1568402268; zpool sync $1; echo \"SUM $1 $(sha256sum < $m/file)\"; }\n",
    );
    let mut next = 0;
    for layout in LAYOUTS {
        let filled = |text: &str| {
            (0..layout.disks).fold(text.to_owned(), |text, n| text.replace(&format!("{{{n}}}"), &by_id(next + n)))
        };
        let (name, vdevs) = (layout.name, filled(layout.vdevs));
        script += &format!(
            "{}\nnew_pool {name} {vdevs}\nzfs create {name}/data\nfill {name}\n{}\n",
            filled(layout.before),
            filled(layout.after)
        );
        next += layout.disks;
    }
    // The target had a pool, which was destroyed.
    let former = by_id(TARGET);
    script += &format!("new_pool former {former}\nzpool destroy former\n");
    let [plain, one, two, half] = OLD.map(by_id);
    script += &format!(
        "old() {{ mkfs.ext4 -q $1; mkdir /run/$2; mount $1 /run/$2; mkdir /run/$2/etc; echo $2 > /run/$2/etc/hostname; \
         echo 'PRETTY_NAME=\"Old Linux 16.04\"' > /run/$2/etc/os-release; sync; echo more > /run/$2/etc/motd; \
         sync -d /run/$2/etc/motd; }}\n\
         md() {{ /run/raid-tool --create $1 --run --homehost=any --level=1 --raid-devices=2 --metadata=1.2 $2 $3; }}\n\
         md /dev/md0 {one} {two}\nmd /dev/md1 {half} missing\nold {plain} plain\nold /dev/md0 mirror\nold /dev/md1 half\n"
    );
    script
}

fn every_layout(bench: &Bench<'_>) -> Result<()> {
    let mut sizes = vec![SIZE; TARGET + 1];
    sizes[TARGET] = 16 * 1024;
    let node = Spec::bare(Firmware::Bios, Bus::Sata)
        .with("ssh.authorized_keys.root", &bench.lab.public_key()?)
        .with_data_disks(&sizes)
        .on_scsi();
    let mut vm = Machine::new(bench, node)?.start()?;
    vm.wait_healthy()?;
    // The image has no such tool: nothing of it assembles a mirror.
    let mdadm = fs::read(bench.lab.tools_path().join("usr/sbin/mdadm"))?;
    let put = vm.guest.run_for(Duration::from_secs(60), "cat > /run/raid-tool && chmod 755 /run/raid-tool", &mdadm)?;
    ensure!(put.status == Some(0), "{put}");
    let made = vm.guest.run_for(Duration::from_secs(600), "bash -s", script().as_bytes())?;
    ensure!(made.status == Some(0), "the node's pools: {made}");
    let sums: BTreeMap<String, String> = made
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("SUM ")?.split_once(' '))
        .map(|(pool, sum)| (pool.to_owned(), sum.to_owned()))
        .collect();
    ensure!(sums.len() == LAYOUTS.len(), "the node told {} digests", sums.len());
    let hostid = vm.guest.ok("hostid")?;
    let imported: Vec<&str> = LAYOUTS.iter().map(|layout| layout.name).filter(|name| *name != "given").collect();
    vm.guest.eventually(Duration::from_secs(240), &escrow_is_on(&imported))?;
    let node = vm.cut_power()?;

    let mut more = String::from("[target]\ndisk = \"serial:os\"\n[other-os]\ndefault = \"keep\"\n");
    for layout in LAYOUTS {
        if let Some(answer) = layout.answer {
            more += &format!("[[pools]]\nname = \"{}\"\n{answer}", layout.name);
        }
    }
    let mut spec = spec(bench, Firmware::Bios, Bus::Scsi, Carrier::SataCd, &answers(bench, &more)?)?.on_scsi();
    sizes.truncate(LATE + OLD.len());
    spec.data_disks_mib = sizes;
    let machine = Machine::blank(bench, spec)?;
    for number in (0..LATE).filter(|number| *number != LOST) {
        let name = format!("data{number}");
        fs::rename(node.disk(&name), machine.disk(&name))?;
    }
    for (number, old) in OLD.into_iter().enumerate() {
        fs::rename(node.disk(&format!("data{old}")), machine.disk(&format!("data{}", LATE + number)))?;
    }
    let late = bench.dir().join("late.qcow2");
    fs::rename(node.disk(&format!("data{TARGET}")), machine.disk("os"))?;
    fs::rename(node.disk(&format!("data{LATE}")), &late)?;
    let (before, late_before) = (digests(&machine)?, disk::digest(bench.lab, &late)?);

    let mut vm = started(machine)?;
    vm.serial.wait("writing to /dev/", INSTALL).context("the first write")?;
    // In the middle of it, somebody plugs a disk in.
    vm.plug("late", &late, 100)?;
    vm.serial.wait("proven:", INSTALL).context("install")?;
    let mut machine = vm.switched_off(Duration::from_secs(240))?;
    ensure!(digests(&machine)? == before, "a disk is not what it was before the install");
    ensure!(disk::digest(bench.lab, &late)? == late_before, "the disk that was plugged in was written to");

    machine.spec_mut().medium = None;
    machine.spec_mut().credentials.clear();
    let vm = first_boot(machine)?;
    ensure!(vm.guest.ok("hostid")? == hostid, "the host id was not carried over");
    let listed = vm.guest.ok("zpool list -Ho name,health")?;
    for layout in LAYOUTS {
        let Some(answer) = layout.answer else {
            ensure!(
                !listed.contains(layout.name),
                "pool {} was imported, which nobody asked for: {listed}",
                layout.name
            );
            continue;
        };
        let health = if answer.contains("degraded") { "DEGRADED" } else { "ONLINE" };
        must_contain(&listed, &format!("{}\t{health}", layout.name), "the list of pools")?;
        let name = layout.name;
        let sum = vm.guest.ok(&format!(
            "[ \"$(zfs get -Ho value mounted {name}/data)\" = yes ] || zfs mount {name}/data; \
             sha256sum < \"$(zfs get -Hpo value mountpoint {name}/data)/file\""
        ))?;
        ensure!(Some(&sum) == sums.get(name), "pool {name} came back with other data");
        must_contain(&vm.guest.ok(&format!("zfs list -Hrt snapshot -o name {name}"))?, "data@1568402268", name)?;
    }
    let sealed = "echo correct-horse-9 | zfs load-key -L prompt secret/sealed && zfs mount secret/sealed";
    vm.guest.ok(sealed).context("the encrypted dataset")?;
    Ok(())
}
