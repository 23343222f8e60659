//! Upgrades on a box: the older system booted, with a web server that has the newer one.
//!
//! RAUC runs on the same box from a root of its own, with slots on disks of the same kind as the box's own disk. What
//! is fetched is counted by the web server, for both; seconds are the box's; memory is the most that the kernel has
//! seen resident, of the process that writes, and of RAUC's service and its child that fetches together.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use siris_build::Progress;
use siris_host::cmd::{Cmd, Tool};
use siris_ibu::ByteSize;
use siris_tests::case::Tier;
use siris_tests::disk;
use siris_tests::lab::{Bench, Lab, LabOptions};
use siris_tests::machine::{Bus, Firmware, Spec};
use siris_tests::vm::{Machine, Vm};
use siris_tests::web::Web;

/// One way to install, measured.
#[derive(Debug, Clone, Copy)]
pub struct Install {
    /// Seconds, from the command's start to its end.
    pub seconds: f64,
    /// Bytes that the web server has sent.
    pub fetched: u64,
    /// Bytes resident at most.
    pub peak: u64,
}

/// What is taken to the box.
#[derive(Debug)]
pub struct Load<'a> {
    /// The checkout.
    pub checkout: &'a Path,
    /// The older system's disk.
    pub disk: &'a Path,
    /// RAUC's root.
    pub rauc: &'a Path,
    /// What RAUC verifies bundles with.
    pub certificate: &'a Path,
    /// RAUC's bundle of the older system.
    pub old: &'a Path,
    /// What the web server shows: `new.ibu`, `new.blocks`, `new.from-VERSION.patch`, `new.raucb`. `new.ibu` and
    /// `plain.raucb`, if that is there, are also taken to the box.
    pub served: &'a Path,
    /// A directory for what is made on the way.
    pub work: &'a Path,
}

/// What was measured on one box.
#[derive(Debug)]
pub struct Times {
    /// Ours, by a patch.
    pub patch: Install,
    /// Ours, by blocks.
    pub blocks: Install,
    /// RAUC, adaptive.
    pub adaptive: Install,
    /// From bundles on the box, whole, where asked for.
    pub whole: Option<Whole>,
}

/// Installs of whole bundles that are on the box.
#[derive(Debug)]
pub struct Whole {
    /// Ours.
    pub ours: Install,
    /// RAUC's.
    pub rauc: Install,
    /// Seconds of unpacking the same bytes with `zstd -dc | dd`, fsync, and reading them back.
    pub bare: f64,
}

/// How long anything may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(3600);
/// The port of the box's own loopback that leads to the web server.
const WEB: u16 = 8080;
/// A disk for RAUC's root and the bundles; then RAUC's slots: boot, root, boot, root. MiB.
const DISKS: [u32; 5] = [4096, 512, 3072, 512, 3072];

const RAUC: &str = "[system]\ncompatible=siris\nbootloader=noop\nbundle-formats=verity\ndata-directory=/srv/data\n\
    [keyring]\npath=/srv/cert.pem\n[streaming]\nsandbox-user=nobody\n\
    [slot.rootfs.0]\ndevice=/dev/disk/by-id/virtio-data2\ntype=raw\nbootname=A\n\
    [slot.boot.0]\ndevice=/dev/disk/by-id/virtio-data1\ntype=raw\nparent=rootfs.0\n\
    [slot.rootfs.1]\ndevice=/dev/disk/by-id/virtio-data4\ntype=raw\nbootname=B\n\
    [slot.boot.1]\ndevice=/dev/disk/by-id/virtio-data3\ntype=raw\nparent=rootfs.1\n";

/// Puts RAUC's root together on the box.
const SET_UP: &str = "set -ex
mkdir -p /run/peers && mount /dev/disk/by-id/virtio-data0 /run/peers && cd /run/peers/root
mount --rbind /dev dev; mount -t proc proc proc; mount --rbind /sys sys
mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; mount --bind /run/peers/files srv
mkdir -p run/dbus srv/data mnt
modprobe nbd; modprobe loop
systemd-run --quiet --unit peers-bus chroot /run/peers/root dbus-daemon --system --nofork --nopidfile
for try in $(seq 60); do [ ! -S run/dbus/system_bus_socket ] || exit 0; sleep 1; done
systemctl status --no-pager peers-bus; exit 1";

/// RAUC's service, on the box whose slot `$1` runs.
fn service(slot: &str) -> String {
    format!(
        "systemctl stop peers-rauc 2>/dev/null; systemctl reset-failed peers-rauc 2>/dev/null
        systemd-run --quiet --unit peers-rauc chroot /run/peers/root \
            rauc service --conf=/srv/system.conf --override-boot-slot={slot} || exit 1
        for try in $(seq 60); do
            chroot /run/peers/root rauc status >/dev/null 2>&1 && exit 0; sleep 1
        done; systemctl status --no-pager peers-rauc; exit 1"
    )
}

/// Erases the slot that does not run: nothing of an earlier install can be of use to the next.
const ERASE: &str = "set -e; sirisctl upgrade mark bad other
for part in siris-b siris-boot-b; do blkdiscard -f -z /dev/disk/by-partlabel/$part; done";

/// Measures a pair of systems on a box. `whole`: also bundles that are on the box.
///
/// # Errors
/// When the box does not boot, or an install fails.
pub fn measure(load: &Load<'_>, whole: bool) -> Result<Times> {
    let tools = siris_build::tools(load.checkout, &Progress::new())?;
    let lab = Lab::open(LabOptions {
        tools,
        image: load.disk.to_owned(),
        iso: None,
        repository: load.checkout.to_owned(),
        tier: Tier::Quick,
    })?;
    let bench = Bench::new(&lab)?;
    let spec = Spec::bare(Firmware::Bios, Bus::Virtio)
        .with("ssh.authorized_keys.root", &lab.public_key()?)
        .with_data_disks(&DISKS);
    let machine = Machine::new(&bench, spec)?;
    disk::overlay(&lab, &freight(load)?, "raw", &machine.disk("data0"), None)?;
    let web = Web::start(&bench, load.served)?;
    let mut vm = machine.start()?;
    vm.wait_healthy()?;
    let on = OnBox { vm: &vm, web: &web };
    on.ok(SET_UP).context("RAUC's root on the box")?;
    vm.guest.forward(WEB, web.port())?;

    on.ok(&service("B"))?;
    on.rauc("/srv/old.raucb").context("RAUC's older system")?;
    on.ok(&service("A"))?;
    let url = |name: &str| format!("http://127.0.0.1:{WEB}/{name}");
    let adaptive = on.rauc(&url("new.raucb")).context("RAUC, adaptive")?;
    let patch = on.ours(&url("new.ibu"), "as a patch")?;
    on.ok(ERASE)?;
    let patches: Vec<PathBuf> = fs::read_dir(load.served)?.flatten().map(|entry| entry.path()).collect();
    for path in patches.iter().filter(|path| path.extension().is_some_and(|ending| ending == "patch")) {
        fs::remove_file(path)?;
    }
    let blocks = on.ours(&url("new.ibu"), "block by block")?;
    let whole = if whole { Some(on.whole()?) } else { None };
    drop(vm.power_off()?);
    Ok(Times { patch, blocks, adaptive, whole })
}

/// The file system with RAUC's root and what is taken to the box.
fn freight(load: &Load<'_>) -> Result<PathBuf> {
    let files = super::super::fresh(&load.work.join("files"))?;
    fs::write(files.join("system.conf"), RAUC)?;
    fs::copy(load.certificate, files.join("cert.pem"))?;
    fs::hard_link(load.old, files.join("old.raucb"))?;
    for name in ["new.ibu", "plain.raucb"] {
        let from = load.served.join(name);
        if from.exists() {
            fs::hard_link(from, files.join(name))?;
        }
    }
    let tools = siris_build::tools(load.checkout, &Progress::new())?
        .bind(load.rauc, "/siris/freight/root")
        .bind(&files, "/siris/freight/files")
        .bind(load.work, "/siris/out");
    let image = load.work.join("freight.ext4");
    let make = Cmd::new(Tool::MkfsExt4).in_root(&tools).args(["-q", "-F", "-d", "/siris/freight"]);
    make.arg("/siris/out/freight.ext4").arg(format!("{}M", DISKS[0])).run()?;
    Ok(image)
}

/// A box that is measured.
struct OnBox<'a> {
    vm: &'a Vm<'a>,
    web: &'a Web,
}

impl OnBox<'_> {
    fn ok(&self, script: &str) -> Result<String> {
        let done = self.vm.guest.run_for(LIMIT, &format!("(\n{script}\n)"), b"")?;
        ensure!(done.status == Some(0), "{done}");
        Ok(done.text)
    }

    /// Runs an install; `process` sets `$ids` to the processes whose memory counts, once they are there.
    fn watched(&self, install: &str, process: &str) -> Result<(Install, String)> {
        let before = self.web.sent()?;
        let said = self.ok(&format!(
            "sync; echo 3 > /proc/sys/vm/drop_caches
            read -r begin _ < /proc/uptime
            {install} > /run/install.log 2>&1 & p=$!
            declare -A peak; ids=
            while kill -0 $p 2>/dev/null; do
                {process}
                for id in $ids; do
                    while read -r key value _; do
                        [ $key != VmHWM: ] || peak[$id]=$value
                    done 2>/dev/null < /proc/$id/status
                done
                sleep 0.5
            done
            wait $p; status=$?
            read -r end _ < /proc/uptime
            all=0; for kib in \"${{peak[@]}}\"; do all=$((all + kib)); done
            cat /run/install.log
            echo \"MEASURED $begin $end $all\"; exit $status"
        ))?;
        let line =
            said.lines().rev().find_map(|line| line.strip_prefix("MEASURED ")).context("nothing was measured")?;
        let words: Vec<&str> = line.split(' ').collect();
        let [begin, end, kib] = words[..] else { anyhow::bail!("`{line}` is not what was asked for") };
        // Requests are in the log when they are over.
        std::thread::sleep(Duration::from_secs(1));
        let install = Install {
            seconds: end.parse::<f64>()? - begin.parse::<f64>()?,
            fetched: self.web.sent()? - before,
            peak: kib.parse::<u64>()? * 1024,
        };
        eprintln!(
            "bench: {:.1} s, {} fetched, {} resident at most",
            install.seconds,
            ByteSize::from_bytes(install.fetched).rounded(),
            ByteSize::from_bytes(install.peak).rounded()
        );
        Ok((install, said))
    }

    fn ours(&self, bundle: &str, how: &str) -> Result<Install> {
        eprintln!("bench: ours, {bundle}");
        let worker =
            "[ -n \"$ids\" ] || { ids=$(systemctl show -P MainPID siris-upgrade.service); [ $ids != 0 ] || ids=; }";
        let (install, said) = self.watched(&format!("sirisctl upgrade install {bundle}"), worker)?;
        ensure!(said.contains(how), "not {how}: {said}");
        Ok(install)
    }

    fn rauc(&self, bundle: &str) -> Result<Install> {
        eprintln!("bench: RAUC, {bundle}");
        let both = "[ -n \"$main\" ] || main=$(systemctl show -P MainPID peers-rauc); ids=$main
                for file in /proc/$main/task/*/children; do read -r child < $file; ids=\"$ids $child\"; done 2>/dev/null";
        Ok(self.watched(&format!("chroot /run/peers/root rauc install {bundle}"), both)?.0)
    }

    fn whole(&self) -> Result<Whole> {
        let files = "/run/peers/files";
        self.ok(ERASE)?;
        let ours = self.ours(&format!("{files}/new.ibu"), "")?;
        let rauc = self.rauc("/srv/plain.raucb")?;
        eprintln!("bench: zstd -dc | dd");
        let said = self.ok(&format!(
            "set -e; d=/dev/disk/by-partlabel/siris-b; b={files}/new.ibu; sirisctl upgrade mark bad other
            sync; echo 3 > /proc/sys/vm/drop_caches
            read -r begin _ < /proc/uptime
            bytes=$({{ tar -xOf $b tree; tar -xOf $b boot root | zstd -q -dc; }} | \
                dd of=$d bs=1M iflag=fullblock oflag=direct conv=fsync 2>&1 | sed -n 's/ bytes.*//p')
            dd if=$d bs=1M iflag=direct,count_bytes count=$bytes status=none | sha256sum
            read -r end _ < /proc/uptime
            echo \"MEASURED $begin $end $bytes\""
        ))?;
        let line = said.lines().find_map(|line| line.strip_prefix("MEASURED ")).context("nothing was measured")?;
        let words: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [begin, end, bytes] = words[..] else { anyhow::bail!("`{line}` is not what was asked for") };
        eprintln!("bench: {:.1} s for {:.0} bytes", end - begin, bytes);
        Ok(Whole { ours, rauc, bare: end - begin })
    }
}
