//! Replicating between two boxes, beside what the same costs with the tools alone, and with syncoid (Debian's sanoid), in
//! one run over one link.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use siris_build::Progress;
use siris_host::cmd::{Cmd, Tool};
use siris_tests::disk;
use siris_tests::lab::{Bench, Lab};
use siris_tests::machine::{Bus, Firmware, Spec};
use siris_tests::two::{ASSET, Two, source};
use siris_tests::vm::{Machine, Vm};

use super::Row;

/// What is sent at once: so much that what a sync costs beside its bytes, which is measured too, is little of it.
const CONTENT_MIB: u64 = 768;
/// Tiny snapshots in a row.
const TINY: u64 = 500;
/// Syncs of one tiny snapshot each, in a row.
const SYNCS: u64 = 20;
/// Assets whose snapshots are listed, how many each has, and how often.
const ASSETS: u64 = 100;
const POINTS: u64 = 200;
const LISTINGS: u32 = 3;
/// Their names, but for four digits.
const MANY: &str = "5f0d3a0e-6c6f-4d7e-8f7c-0f3b2a1c";
/// A disk for the pool, one for syncoid. MiB.
const DISKS: [u32; 2] = [8192, 2048];
/// What syncoid fills.
const REMOTE: &str = "root@127.0.0.1:vault/plain/syncoid";
const LIMIT: Duration = Duration::from_secs(1800);

/// Functions of the shell: `plain`, a shell on the other box as an operator has it; `syncoid`; `timed`, which prints how long
/// something took.
const FUNCTIONS: &str = "peers=/run/peers/root
plain() { ssh -F none -i /run/plain -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
    -o LogLevel=ERROR root@127.0.0.1 \"$@\"; }
syncoid() {
    local lib= dir found; for dir in usr/lib/x86_64-linux-gnu/perl-base usr/lib/x86_64-linux-gnu/perl/5.* usr/share/perl/5.* usr/share/perl5 \\
        usr/lib/x86_64-linux-gnu/perl5/5.*; do for found in $peers/$dir; do lib=$lib:$found; done; done
    PERL5LIB=${lib#:} PATH=$PATH:$peers/usr/bin $peers/usr/bin/perl $peers/usr/sbin/syncoid --no-sync-snap --sshport=2222 \\
        --sshkey=/run/plain --sshoption=StrictHostKeyChecking=no --sshoption=UserKnownHostsFile=/dev/null --quiet \"$@\"; }
timed() { a=$(cut -d' ' -f1 /proc/uptime); \"$@\" > /run/timed 2>&1 || { cat /run/timed; return 1; }; echo \"TOOK $(cut -d' ' -f1 /proc/uptime) $a\"; }
";

struct Pair<'a> {
    two: Two<'a>,
}

impl Pair<'_> {
    fn office(&self, script: &str) -> Result<String> {
        on(&self.two.office, script)
    }

    /// Seconds of a command of the shell's.
    fn timed(&self, what: &str, command: &str) -> Result<f64> {
        eprintln!("bench: {what} ...");
        let said = self.office(&format!("timed {command}")).with_context(|| what.to_owned())?;
        let took = said.lines().rev().find_map(|line| line.strip_prefix("TOOK ")?.split_once(' '));
        let (end, begin) = took.with_context(|| format!("{what}: {said}"))?;
        let seconds = end.parse::<f64>()? - begin.parse::<f64>()?;
        eprintln!("bench: {what}: {seconds:.1} s");
        Ok(seconds)
    }
}

fn on(vm: &Vm<'_>, script: &str) -> Result<String> {
    let done = vm.guest.run_for(LIMIT, &format!("set -e\n{FUNCTIONS}{script}"), b"")?;
    ensure!(done.status == Some(0), "{script}: {done}");
    Ok(done.text.trim().to_owned())
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// How fast a large snapshot passes
    Throughput,
    /// A sync of one snapshot with next to nothing in it
    Each,
    /// Five hundred such snapshots, at once
    Tiny,
    /// Listing twenty thousand snapshots
    Listing,
}

impl Part {
    fn measure(self, pair: &Pair<'_>) -> Result<Vec<Row>> {
        match self {
            Part::Throughput => throughput(pair),
            Part::Tiny => tiny(pair),
            Part::Each => each(pair),
            Part::Listing => listing(pair),
        }
    }
}

/// Boots two boxes and measures these parts.
///
/// # Errors
/// When they do not boot, or something fails.
pub fn measure(checkout: &Path, lab: &Lab, parts: &[Part]) -> Result<Vec<Row>> {
    let bench = Bench::new(lab)?;
    let spec = Spec::bare(Firmware::Bios, Bus::Virtio)
        .with("ssh.authorized_keys.root", &lab.public_key()?)
        .with_data_disks(&DISKS);
    let sender = Machine::new(&bench, spec.clone())?;
    disk::overlay(lab, &freight(checkout, bench.dir())?, "raw", &sender.disk("data1"), None)?;
    let (mut office, mut vault) = (sender.start()?, Machine::new(&bench, spec)?.start()?);
    office.wait_healthy()?;
    vault.wait_healthy()?;
    let pair = Pair { two: Two::new(office, vault, "/dev/disk/by-id/virtio-data0")? };
    let key = pair.office(
        "mkdir -p /run/peers && mount /dev/disk/by-id/virtio-data1 /run/peers
         ssh-keygen -q -t ed25519 -N '' -f /run/plain && cat /run/plain.pub",
    )?;
    on(&pair.two.vault, &format!("echo '{key}' >> /var/lib/siris/peers/authorized_keys; zfs create vault/plain"))?;
    ensure!(pair.office("plain true; syncoid --version")?.contains("syncoid"), "syncoid does not run");

    let mut rows = Vec::new();
    // Told as they come: a later part that fails takes none of them along.
    prepare(&pair)?;
    for part in parts {
        let measured = part.measure(&pair)?;
        measured.iter().for_each(|Row { what, ours, beside }| eprintln!("bench: {what}: {ours}; {beside}"));
        rows.extend(measured);
    }
    Ok(rows)
}

/// The file system with syncoid and what it calls.
fn freight(checkout: &Path, work: &Path) -> Result<std::path::PathBuf> {
    let peers = siris_build::peers(checkout, &Progress::new())?;
    fs::create_dir_all(work.join("out"))?;
    let tools = siris_build::tools(checkout, &Progress::new())?
        .bind(peers.path(), "/siris/freight/root")
        .bind(work.join("out"), "/siris/out");
    let make = Cmd::new(Tool::MkfsExt4).in_root(&tools).args(["-q", "-F", "-d", "/siris/freight"]);
    make.arg("/siris/out/freight.ext4").arg(format!("{}M", DISKS[1])).run()?;
    Ok(work.join("out/freight.ext4"))
}

/// Has each way of replicating begun: what follows is what comes with each sync.
fn prepare(pair: &Pair<'_>) -> Result<()> {
    let dataset = source();
    // By hand only: with a schedule, no new snapshot starts a sync beside those that are measured.
    pair.office(&format!(
        "touch $(zfs get -Ho value mountpoint {dataset})/note; point={dataset}@$(sirisctl dataset snapshot {ASSET})
         sirisctl vector add {ASSET} vault; sirisctl vector sync 1; sirisctl vector set 1 --when 24h
         syncoid {dataset} {REMOTE}
         for name in first second; do zfs send -Lc $point | plain zfs receive -u vault/plain/$name; done"
    ))
    .map(drop)
}

/// Brings each replica to what there is, whatever was measured before.
fn catch_up(pair: &Pair<'_>) -> Result<()> {
    let (dataset, newest) = (source(), "zfs list -Hpd1 -t snapshot -s createtxg -o name");
    pair.office(&format!(
        "sirisctl vector sync 1; syncoid {dataset} {REMOTE}; now=$({newest} {dataset} | tail -1)
         for name in first second; do
             has=$(plain {newest} vault/plain/$name | tail -1 | cut -d@ -f2)
             [ \"${{now#*@}}\" = \"$has\" ] || zfs send -Lc -I @$has $now | plain zfs receive -u vault/plain/$name
         done"
    ))
    .map(drop)
}

/// Much at once, and how fast it passes.
fn throughput(pair: &Pair<'_>) -> Result<Vec<Row>> {
    catch_up(pair)?;
    let dataset = source();
    let point = pair.office(&format!(
        "dd if=/dev/urandom of=$(zfs get -Ho value mountpoint {dataset})/sdb.img bs=1M count={CONTENT_MIB} status=none
         sirisctl dataset snapshot {ASSET}"
    ))?;
    let base =
        pair.office(&format!("zfs list -Hpd1 -t snapshot -s createtxg -o name {dataset} | tail -2 | head -1"))?;
    let send = format!("zfs send -Lc -i {base} {dataset}@{point}");
    // Once for nothing: what is sent is in memory then.
    pair.office(&format!("{send} > /dev/null"))?;
    let plain = |name: &str| {
        let stream = format!("{send} | plain zfs receive -u vault/plain/{name}");
        pair.timed("zfs send | ssh zfs receive", &format!("eval 'set -o pipefail; {stream}'"))
    };
    // Before and after ours: machines get slower and faster.
    let first = plain("first")?;
    let ours = pair.timed("ours", "sirisctl vector sync 1")?;
    let second = plain("second")?;
    let syncoid = pair.timed("syncoid", &format!("syncoid {dataset} {REMOTE}"))?;
    let bare = (first + second) / 2.0;
    let rate = |seconds: f64| format!("{:.1} MB/s", CONTENT_MIB as f64 * 1.048_576 / seconds);
    let beside = format!(
        "zfs send | ssh zfs receive {} and {}: {:.2}x of their mean, goal 0.95x; syncoid {}",
        rate(first),
        rate(second),
        bare / ours,
        rate(syncoid)
    );
    Ok(vec![Row { what: format!("replicating {CONTENT_MIB} MiB"), ours: rate(ours), beside }])
}

/// Many snapshots that hold next to nothing.
fn tiny(pair: &Pair<'_>) -> Result<Vec<Row>> {
    catch_up(pair)?;
    let dataset = source();
    pair.office(&format!(
        "dir=$(zfs get -Ho value mountpoint {dataset}); now=$(date +%s)
         first=$(zfs list -Hpd1 -t snapshot -s createtxg -o name {dataset} | tail -1)
         for n in $(seq {TINY}); do echo $n > $dir/note; zfs snapshot {dataset}@$((now + n)); done
         zfs send -Lc -I $first {dataset}@$((now + {TINY})) > /dev/null"
    ))?;
    // Once for nothing, as above: who is first does not read from the disk what the others find in memory.
    let ours = pair.timed("ours, tiny snapshots", "sirisctl vector sync 1")?;
    let syncoid = pair.timed("syncoid, tiny snapshots", &format!("syncoid {dataset} {REMOTE}"))?;
    // What ZFS itself takes for it: each snapshot waits for transaction groups of its own.
    let list = "zfs list -Hpd1 -t snapshot -s createtxg -o name";
    let has = format!("$(plain {list} vault/plain/first | tail -1 | cut -d@ -f2)");
    let bare = format!("zfs send -Lc -I @{has} $({list} {dataset} | tail -1) | plain zfs receive -u vault/plain/first");
    let bare =
        pair.timed("zfs send -I | ssh zfs receive, tiny snapshots", &format!("eval 'set -o pipefail; {bare}'"))?;
    let count = |dataset: &str| on(&pair.two.vault, &format!("zfs list -Hpd1 -t snapshot -o name {dataset} | wc -l"));
    let counts = (count(&format!("vault/home/agents/{ASSET}"))?, count("vault/plain/syncoid")?);
    ensure!(counts.0 == counts.1, "ours has {} snapshots, syncoid's {}", counts.0, counts.1);
    Ok(vec![Row {
        what: format!("replicating {TINY} tiny snapshots"),
        ours: format!("{ours:.1} s"),
        beside: format!(
            "syncoid {syncoid:.1} s: {:.2}x, goal 0.5x; zfs send | ssh zfs receive {bare:.1} s: {:.2}x",
            ours / syncoid,
            ours / bare
        ),
    }])
}

/// One tiny snapshot at a time, as they come: what a sync costs beside its bytes.
fn each(pair: &Pair<'_>) -> Result<Vec<Row>> {
    let dataset = source();
    let rounds = |sync: &str| {
        format!(
            "eval 'dir=$(zfs get -Ho value mountpoint {dataset}); set -e; for n in $(seq {SYNCS}); do echo $n > $dir/note; \
             zfs snapshot {dataset}@each-$(date +%s%N); {sync}; done'"
        )
    };
    let ours = pair.timed("ours, a sync for each snapshot", &rounds("sirisctl vector sync 1"))?;
    pair.office(&format!("timed syncoid {dataset} {REMOTE}"))?;
    let syncoid = pair.timed("syncoid, one for each snapshot", &rounds(&format!("syncoid {dataset} {REMOTE}")))?;
    let one = |seconds: f64| format!("{:.2} s", seconds / SYNCS as f64);
    Ok(vec![Row {
        what: "a sync of one tiny snapshot".to_owned(),
        ours: one(ours),
        beside: format!("syncoid {}: {:.2}x, goal 0.5x", one(syncoid), ours / syncoid),
    }])
}

/// A long list, over the bus: the snapshots of all assets.
fn listing(pair: &Pair<'_>) -> Result<Vec<Row>> {
    // ZFS takes one snapshot of a dataset in each transaction group: of many datasets, it takes as many.
    pair.office(&format!(
        "all=; for n in $(seq {ASSETS}); do all=\"$all tank/home/agents/{MANY}$(printf %04d $n)\"; done
         for one in $all; do zfs create $one; done
         for n in $(seq {POINTS}); do zfs snapshot $(printf \"%s@$((1568400000 + n)) \" $all); done"
    ))?;
    // Until the agent has seen them.
    pair.office(&format!(
        "for try in $(seq 600); do [ $(sirisctl dataset list --json | grep -c '\"snapshots\": {POINTS},') = {ASSETS} ] \
         && exit 0; sleep 1; done; exit 1"
    ))?;
    let zfs = "zfs list -Hp -t snapshot -o name,guid,createtxg";
    let bus = "sirisctl dataset points --json";
    // Once for nothing: what is read from the disk is in memory then.
    pair.office(&format!("{zfs} | wc -l"))?;
    let before = memory(pair)?;
    let (mut ours, mut theirs) = (0.0, 0.0);
    for _ in 0..LISTINGS {
        theirs += pair.timed("zfs list", zfs)?;
        ours += pair.timed("the same over the bus", bus)?;
    }
    let after = memory(pair)?;
    let counts = (pair.office("grep -c '\"guid\"' /run/timed")?, pair.office(&format!("{zfs} | wc -l"))?);
    ensure!(counts.0 == counts.1, "{} snapshots were listed of {}", counts.0, counts.1);
    let each = |seconds: f64| format!("{:.2} s", seconds / f64::from(LISTINGS));
    Ok(vec![
        Row {
            what: format!("listing {} snapshots", counts.0),
            ours: each(ours),
            beside: format!("zfs list {}: {:.2}x, goal 1.3x", each(theirs), ours / theirs),
        },
        Row {
            what: "the agent's memory while at it".to_owned(),
            ours: format!("peak {after} KiB"),
            beside: format!("peak before {before} KiB"),
        },
    ])
}

/// The agent's peak of resident memory so far, in KiB.
fn memory(pair: &Pair<'_>) -> Result<String> {
    pair.office("sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$(systemctl show -P MainPID siris-agent)/status")
}
