//! Upgrades: from one version to the next and back, with the pool in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{NEW_POOL, health_is, must_contain, standard};
use crate::case::Case;
use crate::guest::Done;
use crate::lab::Bench;
use crate::sources::{Sources, names_in};
use crate::vm::{BOOT, Vm};
use crate::web::{Serving, Web};

const GROUP: &str = "upgrade";
/// How long writing a slot may take before it counts as hung.
const INSTALL: Duration = Duration::from_secs(900);

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::full(
            GROUP,
            "a bundle streamed to the box is tried, kept, and left again, its pool there throughout",
            there_and_back,
        ),
        Case::full(
            GROUP,
            "a new system that is not well, hangs or panics is left again, and the old one says why",
            left_again,
        ),
        Case::full(
            GROUP,
            "a box fetches of a bundle on a web server only what it lacks, and goes on where it broke off",
            fetched,
        ),
    ]
}

/// A bundle of the image under test under another version, with what else `options` ask for beside it.
fn bundle(bench: &Bench<'_>, version: &str, options: &str) -> Result<PathBuf> {
    let out = bench.dir().join(format!("bundle-{version}"));
    let sources = Sources::here(bench.lab.repository())?;
    let script = format!("\"$XTASK\" ibu siris --version {version} --out '{}' {options}", out.display());
    sources.shell(&script).log(bench.dir().join("build.log")).run()?;
    Ok(out.join("latest.ibu").canonicalize()?)
}

/// Runs an install; prints how it ended, and how much memory the process that writes the slot had at most, looked at
/// once a second.
fn watched(vm: &Vm<'_>, install: &str, input: &[u8]) -> Result<Done> {
    let script = format!(
        "exec 3<&0; {install} <&3 & p=$!
        while kill -0 $p 2>/dev/null; do
            m=$(grep VmHWM /proc/$(systemctl show -P MainPID siris-upgrade.service)/status 2>/dev/null) && last=$m
            sleep 1
        done
        wait $p; s=$?; echo \"PEAK $last\"; exit $s"
    );
    let done = vm.guest.run_for(INSTALL, &script, input)?;
    let told = done.text.lines().filter(|line| line.starts_with("PEAK") || line.contains("holds"));
    println!("       {}", told.collect::<Vec<_>>().join("; "));
    Ok(done)
}

/// The slot that is booted, and the version in it.
fn booted(vm: &Vm<'_>) -> Result<String> {
    let slots = vm.guest.ok("sirisctl upgrade status")?;
    let row = slots.lines().find(|line| line.contains("booted")).context("no slot is booted")?;
    let words: Vec<&str> = row.split_whitespace().collect();
    Ok(words[..4.min(words.len())].join(" "))
}

fn there_and_back(bench: &Bench<'_>) -> Result<()> {
    let bytes = fs::read(bundle(bench, "0.9.0", "")?)?;
    let mut vm = standard(bench)?;
    let disk = "/dev/disk/by-id/virtio-data";
    let sum = vm.guest.ok(&format!(
        "{NEW_POOL}new_pool tank mirror {disk}0 {disk}1 && zfs create tank/data && \
         f=$(zfs get -Hpo value mountpoint tank/data)/file && head -c 20000000 /dev/urandom > $f && zpool sync tank && sha256sum < $f"
    ))?;
    ensure!(booted(&vm)?.starts_with("a good 3 "), "{}", booted(&vm)?);

    let half = vm.guest.run_for(INSTALL, "sirisctl upgrade install -", &bytes[..bytes.len() / 2])?;
    ensure!(half.status == Some(1) && half.text.contains("bundle-truncated"), "half a bundle: {half}");
    let slots = vm.guest.ok("sirisctl upgrade status")?;
    must_contain(&slots, "the next boot tries slot a", "the slots after half a bundle")?;

    let about = vm.guest.run_for(INSTALL, "sirisctl upgrade inspect -", &bytes)?;
    must_contain(&about.text, "0.9.0", "what the bundle is")?;
    must_contain(&about.text, "may be installed", "what the bundle is")?;
    let done = watched(&vm, "sirisctl upgrade install -", &bytes)?;
    ensure!(done.status == Some(0), "the install: {done}");
    must_contain(&vm.guest.ok("sirisctl upgrade status")?, "the next boot tries slot b", "the slots")?;
    // The box waits for what must not be cut off.
    vm.guest.ok(
        "systemd-run --quiet --unit hold systemd-inhibit --what=shutdown --mode=block --why='a restore' sleep infinity",
    )?;
    vm.guest.eventually(Duration::from_secs(30), "systemd-inhibit --list | grep -q 'a restore'")?;
    vm.guest.ok("sirisctl upgrade reboot idle")?;
    vm.guest.eventually(
        Duration::from_secs(60),
        "journalctl -u siris-reboot-when-idle | grep -q 'waiting for .*a restore'",
    )?;
    restart(&mut vm, "systemctl stop hold")?;
    vm.wait_healthy()?;
    let kept = "sirisctl upgrade status | grep -q 'b *good *3 *0.9.0 *booted'";
    vm.guest.eventually(Duration::from_secs(120), kept).context("the new slot is kept")?;
    pool_is_there(&vm, &sum)?;

    must_contain(&vm.guest.ok("sirisctl upgrade rollback")?, "slot a", "the way back")?;
    vm.reboot()?;
    ensure!(booted(&vm)?.starts_with("a good 3 "), "{}", booted(&vm)?);
    pool_is_there(&vm, &sum)
}

fn pool_is_there(vm: &Vm<'_>, sum: &str) -> Result<()> {
    ensure!(vm.guest.ok("zpool list -Ho name,health")? == "tank\tONLINE", "the pool is not there");
    let found = vm.guest.ok("[ \"$(zfs get -Ho value mounted tank/data)\" = yes ] || zfs mount tank/data; \
         sha256sum < \"$(zfs get -Hpo value mountpoint tank/data)/file\"")?;
    ensure!(found == sum, "the pool came back with other data");
    Ok(())
}

fn left_again(bench: &Bench<'_>) -> Result<()> {
    let bytes = fs::read(bundle(bench, "0.9.0", "")?)?;
    let mut vm = standard(bench)?;
    let disk = "/dev/disk/by-id/virtio-data";
    vm.guest.ok(&format!("{NEW_POOL}new_pool tank mirror {disk}0 {disk}1"))?;
    let install = |vm: &Vm<'_>| -> Result<()> {
        let done = vm.guest.run_for(INSTALL, "sirisctl upgrade install -", &bytes)?;
        ensure!(done.status == Some(0), "the install: {done}");
        Ok(())
    };

    // Not well: a pool is worse than the slot that was kept has seen it, whose agent does not look any more.
    install(&vm)?;
    vm.guest.ok(&format!("systemctl stop siris-agent && zpool offline tank {disk}1"))?;
    restart(&mut vm, "systemctl reboot")?;
    vm.serial.wait("SIRIS: slot b", BOOT)?;
    vm.serial.wait("is given up", BOOT).context("the new slot giving itself up")?;
    vm.serial.wait("SIRIS: slot a", BOOT).context("the way back")?;
    vm.wait_healthy()?;
    let said = vm.guest.ok("sirisctl upgrade status")?;
    must_contain(&said, "slot b (0.9.0) was tried and left again: pool-degraded", "the slots")?;
    let journal = vm.guest.ok("zcat /var/lib/siris/failed-trial.journal.gz | head -5; sirisctl upgrade status")?;
    must_contain(&journal, "kernel: Linux version", "the failed boot's journal")?;

    // Tries that hang or panic are spent one by one. The pool keeps the slot from being found good meanwhile.
    install(&vm)?;
    restart(&mut vm, "systemctl reboot")?;
    let hang = "echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze";
    let panic = "echo c > /proc/sysrq-trigger";
    for (n, end) in [hang, panic, panic].into_iter().enumerate() {
        vm.serial.wait("SIRIS: slot b", BOOT).with_context(|| format!("try {}", n + 1))?;
        vm.serial.wait("login:", BOOT)?;
        vm.guest.connect(BOOT)?;
        restart(&mut vm, end)?;
    }
    vm.serial.wait("SIRIS: slot a", BOOT).context("the way back")?;
    vm.wait_healthy()?;
    must_contain(&vm.guest.ok("sirisctl upgrade status")?, "was tried and left again: no-answer", "the slots")?;
    vm.guest.ok(&format!("zpool online tank {disk}1"))?;
    vm.guest.eventually(Duration::from_secs(120), &health_is("healthy"))?;
    Ok(())
}

/// Runs a command after which the machine starts anew, sooner or later.
fn restart(vm: &mut Vm<'_>, command: &str) -> Result<()> {
    vm.serial.forget();
    // The connection breaks before the status comes back, or nothing comes any more.
    let _ = vm.guest.run_for(Duration::from_secs(20), command, b"");
    vm.guest.disconnect();
    Ok(())
}

/// The port of the box's own loopback that leads to the web server.
const WEB: u16 = 8080;

fn fetched(bench: &Bench<'_>) -> Result<()> {
    let manifest = bench.lab.image().manifest().context("the image has no manifest")?;
    let old = bundle(bench, &siris_ibu::Manifest::parse(manifest)?.version.to_string(), "")?;
    let new = bundle(bench, "0.9.0", &format!("--patch-from '{}'", old.display()))?;
    let files = new.parent().context("a bundle without a directory")?;
    let mut web = Web::start(bench, files)?;
    let vm = standard(bench)?;
    vm.guest.forward(WEB, web.port())?;
    let url = format!("http://127.0.0.1:{WEB}/latest.ibu");
    let install = || watched(&vm, &format!("sirisctl upgrade install {url}"), b"");

    let about = vm.guest.ok(&format!("sirisctl upgrade inspect {url}"))?;
    must_contain(&about, "siris 0.9.0", "what the bundle on the server is")?;
    let missing = vm.guest.refused(&format!("sirisctl upgrade install {}", url.replace("latest", "none")))?;
    must_contain(&missing, "bundle-not-found", "a bundle that is not there")?;

    // By the patch; without it by blocks; without these as a whole, from a server that knows no ranges too.
    let ways = [("", "as a patch"), ("from-*.patch", "block by block"), ("blocks", "as a whole")];
    for (gone, how) in ways {
        if !gone.is_empty() {
            vm.guest.ok("sirisctl upgrade mark bad other")?;
            remove(files, gone)?;
        }
        let done = install()?;
        ensure!(done.status == Some(0), "{how}: {done}");
        must_contain(&done.text, how, "how it came")?;
    }
    web.serve(Serving { no_ranges: true, ..Serving::default() })?;
    let done = install()?;
    ensure!(done.status == Some(0), "without ranges: {done}");

    // The server goes away in the middle, and comes back.
    web.serve(Serving { rate: Some(4 << 20), ..Serving::default() })?;
    vm.guest.ok(&format!("systemd-run --quiet --unit fetch --remain-after-exit sirisctl upgrade install {url}"))?;
    vm.guest.eventually(INSTALL, "busctl get-property org.siris.Agent1 /org/siris/Agent1/upgrade org.siris.Agent1.Upgrade Progress | grep -E '\\(isi\\) [2-9][0-9] '")?;
    web.stop()?;
    std::thread::sleep(Duration::from_secs(5));
    web.serve(Serving::default())?;
    let over = "systemctl show -P SubState fetch | grep -q exited";
    vm.guest.eventually(INSTALL, over)?;
    let said = vm
        .guest
        .ok("journalctl -o cat -u fetch; journalctl -o cat -u siris-upgrade | grep 'tried again' | tail -1; sirisctl upgrade status")?;
    must_contain(&said, "it is tried again", "a connection that broke")?;
    must_contain(&said, "as a whole", "the whole bundle in the end")?;
    must_contain(&said, "the next boot tries slot b", "the slots")
}

fn remove(dir: &Path, pattern: &str) -> Result<()> {
    let (start, end) = pattern.split_once('*').unwrap_or(("", pattern));
    for name in names_in(dir).iter().filter(|name| name.contains(start) && name.ends_with(end)) {
        fs::remove_file(dir.join(name))?;
    }
    Ok(())
}
