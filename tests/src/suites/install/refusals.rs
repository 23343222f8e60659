//! What is refused, and that a refusal writes nothing: not a byte to any disk, seen from outside.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{INSTALL, digests, look, started};
use crate::case::Case;
use crate::disk;
use crate::lab::Bench;
use crate::machine::{Bus, Carrier, Firmware, Spec};
use crate::suites::NEW_POOL;
use crate::vm::Machine;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::full(super::GROUP, "each reason to refuse is said with its code, and nothing is written", every_reason),
        Case::full(super::GROUP, "a medium with one byte changed is refused before any of it runs", tampered_medium),
    ]
}

/// The disks of the node: `tank` on 0 to 2, `gone` on 3 to 5 (two of which are lost), `future` on 6, `young` on 7, a
/// small blank one, an old system with netplan, an old file system, and `older` on 11.
const SIZES: [u32; 12] = [192, 192, 192, 192, 192, 192, 192, 192, 64, 16 * 1024, 192, 192];
const LOST: [usize; 2] = [4, 5];

/// What a bundle is made of.
const MEMBERS: [&str; 5] = ["manifest.toml", "manifest.sig", "tree", "boot", "root"];

const NODE: &str = "set -e\nd=/dev/disk/by-id/virtio-data\n\
    new_pool tank raidz1 ${d}0 ${d}1 ${d}2\nnew_pool gone raidz1 ${d}3 ${d}4 ${d}5\nnew_pool future ${d}6\nnew_pool young ${d}7\nnew_pool older ${d}11\n\
    for p in tank gone future young older; do zpool sync $p; done\nfor p in future young older; do zpool export $p; done\n\
    # Features of a ZFS to come, needed: to open the pool, so that labels name it; to read it; to write it.\n\
    zhack -d /dev feature enable -d 'of a ZFS to come' future org.example:needed\n\
    zhack -d /dev feature ref -m future org.example:needed\n\
    zhack -d /dev feature enable -d 'of a ZFS to come' young org.example:later\n\
    zhack -d /dev feature ref young org.example:later\n\
    zhack -d /dev feature enable -r -d 'of a ZFS to come' older org.example:written\n\
    zhack -d /dev feature ref older org.example:written\n\
    mkfs.ext4 -q ${d}10\nmkfs.ext4 -q ${d}9\nmkdir /run/old\nmount ${d}9 /run/old\nmkdir -p /run/old/etc/netplan\n\
    echo 'PRETTY_NAME=\"Old Linux 22.04\"' > /run/old/etc/os-release\n\
    nic=$(ls -d /sys/class/net/*/device | cut -d/ -f5)\n\
    printf 'network: {version: 2, ethernets: {%s: {addresses: [10.0.2.66/24], nameservers: {addresses: [10.0.2.3]}, \
    routes: [{to: default, via: 10.0.2.2}]}}}\n' $nic > /run/old/etc/netplan/01.yaml\numount /run/old\nsync\n";

/// Answers, and what is said to them.
struct Refusal {
    /// The table `[target]` and what else there is.
    answers: &'static str,
    /// Status and code.
    status: i32,
    code: &'static str,
    /// A word of what to do about it.
    todo: &'static str,
}

const TANK: &str = "[[pools]]\nname = \"tank\"\n[other-os]\ndefault = \"keep\"\n";
const REFUSALS: &[Refusal] = &[
    Refusal {
        answers: "[target]\ndisk = \"serial:data0\"\n",
        status: 3,
        code: "target-in-pool",
        todo: "name the OS disk",
    },
    Refusal {
        answers: "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"gone\"\n",
        status: 3,
        code: "pool-incomplete",
        todo: "attach the missing disks",
    },
    Refusal {
        answers: "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"future\"\n",
        status: 3,
        code: "pool-features",
        todo: "newer ZFS",
    },
    Refusal {
        answers: "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"young\"\n",
        status: 3,
        code: "pool-features",
        todo: "newer ZFS",
    },
    Refusal {
        answers: "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"older\"\n",
        status: 3,
        code: "pool-features",
        todo: "newer ZFS",
    },
    Refusal {
        answers: "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"nobody\"\n",
        status: 3,
        code: "pool-unknown",
        todo: "pools found",
    },
    Refusal {
        answers: "[target]\ndisk = \"serial:os\"\n[[pools]]\nname = \"tank\"\nmembers = 4\n",
        status: 3,
        code: "pool-members",
        todo: "check cables",
    },
    Refusal { answers: "[target]\ndisk = \"auto\"\n", status: 3, code: "target-ambiguous", todo: "serial" },
    Refusal { answers: "[target]\ndisk = \"serial:none\"\n", status: 3, code: "target-not-found", todo: "serial" },
    Refusal {
        answers: "[target]\ndisk = \"serial:data8\"\n",
        status: 3,
        code: "target-too-small",
        todo: "name a larger disk",
    },
    Refusal { answers: "[target]\ndisk = \"serial:data10\"\n", status: 3, code: "target-mounted", todo: "unmount" },
    Refusal {
        answers: "[target]\ndisk = \"disk 7\"\nslot-size = \"big\"\n",
        status: 4,
        code: "slot-size",
        todo: "target.disk",
    },
];

fn every_reason(bench: &Bench<'_>) -> Result<()> {
    let node = Spec::bare(Firmware::Bios, Bus::Sata)
        .with("ssh.authorized_keys.root", &bench.lab.public_key()?)
        .with_data_disks(&SIZES);
    let mut vm = Machine::new(bench, node)?.start()?;
    vm.wait_healthy()?;
    let made = vm.guest.run_for(Duration::from_secs(240), "bash -s", format!("{NEW_POOL}{NODE}").as_bytes())?;
    ensure!(made.status == Some(0), "the node: {made}");
    let node = vm.cut_power()?;

    let mut spec = Spec::bare(Firmware::Bios, Bus::Sata)
        .with("ssh.authorized_keys.root", &bench.lab.public_key()?)
        .with_data_disks(&SIZES)
        .with_medium(Carrier::SataCd, bench.lab.iso()?);
    spec.memory_mib = 4096;
    let machine = Machine::blank(bench, spec)?;
    for number in (0..SIZES.len()).filter(|number| !LOST.contains(number)) {
        let name = format!("data{number}");
        fs::rename(node.disk(&name), machine.disk(&name))?;
    }
    let (before, os) = (digests(&machine)?, disk::digest(bench.lab, &machine.disk("os"))?);
    let mut vm = started(machine)?;
    look(&mut vm)?;
    vm.guest.ok("mkdir -p /run/old && mount -o ro,noload /dev/disk/by-id/virtio-data10 /run/old")?;
    let mut wrong = Vec::new();
    for refusal in REFUSALS {
        let pools = if refusal.answers.contains("[[pools]]") { "" } else { TANK };
        let answers = format!(
            "schema = 1\nmode = \"os-only\"\nend = \"stay\"\n{}{pools}[identity]\nrole = \"cloud\"\n",
            refusal.answers
        );
        let run = "cat > /run/a.toml; siris-installer install --unattended --wait 0 --answers /run/a.toml";
        let done = vm.guest.run_for(Duration::from_secs(120), run, answers.as_bytes())?;
        let fits =
            done.status == Some(refusal.status) && done.text.contains(refusal.code) && done.text.contains(refusal.todo);
        println!("       {:16} {}", refusal.code, if fits { "refused" } else { "NOT AS IT SHOULD BE" });
        if !fits {
            wrong.push(format!(
                "{} was to be refused with {} ({}), \"{}\": {done}",
                refusal.answers, refusal.code, refusal.status, refusal.todo
            ));
        }
    }
    vm.guest.ok("umount /run/old")?;
    let carried = format!(
        "schema = 1\nmode = \"os-only\"\nend = \"stay\"\n[target]\ndisk = \"serial:data9\"\n{TANK}[identity]\nrole = \"cloud\"\n\
         [network]\nmode = \"carry-over\"\n"
    );
    let plan =
        vm.guest.run_for(Duration::from_secs(120), "siris-installer plan --answers /dev/stdin", carried.as_bytes())?;
    if !(plan.status == Some(0) && plan.text.contains("10.0.2.66/24") && plan.text.contains("from netplan")) {
        wrong.push(format!("the old system's netplan was not carried over: {plan}"));
    }
    for member in MEMBERS {
        // Two thirds into it: of the root, nothing that a look at disks needs.
        let flip = "f=/run/siris/medium/$m; at=$(( $(stat -c %s $f) * 2 / 3 )); b=$(od -An -tu1 -j $at -N 1 $f); \
                    printf \"\\\\$(printf %o $((255 - b)))\" | dd of=$f bs=1 seek=$at conv=notrunc status=none";
        vm.guest.ok(&format!("m={member}; mount -o remount,rw /run/siris/medium; {flip}"))?;
        let answers = format!(
            "schema = 1\nmode = \"os-only\"\nend = \"stay\"\n[target]\ndisk = \"serial:os\"\n{TANK}[identity]\nrole = \"cloud\"\n"
        );
        let run = "cat > /run/a.toml; siris-installer install --unattended --wait 0 --answers /run/a.toml";
        let done = vm.guest.run_for(Duration::from_secs(240), run, answers.as_bytes())?;
        vm.guest.ok(&format!("m={member}; {flip}"))?;
        let fits =
            done.status == Some(3) && done.text.contains("image-tampered") && done.text.contains("as it was released");
        println!("       {member:16} {}", if fits { "refused" } else { "NOT AS IT SHOULD BE" });
        if !fits {
            wrong.push(format!("{member} was changed, and that was not refused: {done}"));
        }
    }
    let machine = vm.cut_power()?;
    ensure!(digests(&machine)? == before, "a disk was written to");
    ensure!(disk::digest(bench.lab, &machine.disk("os"))? == os, "the OS disk was written to");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Where the members of the bundle lie on a medium: offset and length of each.
fn members(iso: &[u8]) -> Result<Vec<(&'static str, u64, u64)>> {
    let mut found = Vec::new();
    for (at, block) in iso.chunks_exact(512).enumerate().filter(|(_, block)| &block[257..262] == b"ustar") {
        let name = block.split(|byte| *byte == 0).next().unwrap_or_default();
        let member = MEMBERS.into_iter().find(|member| member.as_bytes() == name);
        let size = std::str::from_utf8(&block[124..135]).ok().and_then(|text| u64::from_str_radix(text.trim(), 8).ok());
        if let (Some(member), Some(size)) = (member, size) {
            found.push((member, (at as u64 + 1) * 512, size));
        }
    }
    ensure!(found.len() == MEMBERS.len(), "the medium has {} members", found.len());
    Ok(found)
}

fn tampered_medium(bench: &Bench<'_>) -> Result<()> {
    let iso = fs::read(bench.lab.iso()?)?;
    let copy = bench.dir().join("tampered.iso");
    for (member, offset, size) in members(&iso)? {
        fs::write(&copy, &iso)?;
        let at = offset + size / 2;
        File::options().write(true).open(&copy)?.write_all_at(&[!iso[at as usize]], at)?;
        let mut spec = Spec::bare(Firmware::Bios, Bus::Sata).with_medium(Carrier::SataCd, &copy);
        spec.memory_mib = 4096;
        let machine = Machine::blank(bench, spec)?;
        let before = disk::digest(bench.lab, &machine.disk("os"))?;
        let mut vm = started(machine)?;
        vm.serial.wait("stopped:", INSTALL).with_context(|| format!("{member} was changed"))?;
        vm.serial.wait("no disk was written to", Duration::from_secs(30))?;
        let said = vm.serial.text();
        let line = said.lines().find(|line| line.contains("stopped:")).unwrap_or_default();
        println!("       {member}: {}", line.trim());
        let codes =
            ["(image-tampered)", "(member-digest)", "(bad-signature)", "(signatures-unreadable)", "(bundle-malformed)"];
        ensure!(codes.iter().any(|code| line.contains(code)), "{member} was changed: {line}");
        let machine = vm.cut_power()?;
        ensure!(disk::digest(bench.lab, &machine.disk("os"))? == before, "the OS disk was written to");
    }
    Ok(())
}
