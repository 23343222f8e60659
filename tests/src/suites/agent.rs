//! The agent on the box: small, quiet, confined, and as its contract says.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use siris_host::cmd::{Cmd, Tool};

use super::{NEW_POOL, must_contain, standard};
use crate::case::{Case, Tier};
use crate::contract::promises;
use crate::deadline;
use crate::lab::Bench;

const GROUP: &str = "agent";

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::quick(GROUP, "is small and quiet when idle", idle),
        Case::quick(GROUP, "is confined", confined),
        Case::quick(GROUP, "answers on the bus as the interface documents say", contract),
        Case::quick(GROUP, "answers sirisctl on another machine through SSH", over_ssh),
        Case::quick(GROUP, "puts no secret into a support bundle", no_secret),
        Case::quick(GROUP, "lets the siris group change things, and nobody else", polkit),
    ]
}

/// The most anonymous memory it may hold, in KiB.
const MEMORY_KIB: u64 = 8 * 1024;
/// The most voluntary context switches of all its threads, for each watchdog ping.
const SWITCHES: u64 = 2;

fn idle(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    // What follows a restore (a stepped clock, a new connection) is not idling.
    pause(60)?;
    let pid = vm.guest.ok("systemctl show -P MainPID siris-agent.service")?;
    let memory: u64 =
        vm.guest.ok(&format!("sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/{pid}/status"))?.parse()?;
    ensure!(memory <= MEMORY_KIB, "it holds {memory} KiB of anonymous memory");
    // Watching the watchdog's time from outside costs the agent nothing.
    let seconds = if bench.lab.tier() == Tier::Full { 600 } else { 120 };
    let switches = format!(
        "cat /proc/{pid}/task/*/status | sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' | \
         {{ s=0; while read -r n; do s=$((s+n)); done; echo $s; }}"
    );
    let script = format!(
        "p=-1; last=; a=$({switches}); end=$(($(cut -d. -f1 /proc/uptime) + {seconds})); \
         while [ $(cut -d. -f1 /proc/uptime) -lt $end ]; do \
           t=$(systemctl show -P WatchdogTimestampMonotonic siris-agent.service); \
           [ \"$t\" = \"$last\" ] || {{ p=$((p+1)); last=$t; }}; sleep 2; \
         done; b=$({switches}); echo $((b-a)) $p"
    );
    let done = vm.guest.run_for(Duration::from_secs(seconds * 2 + 120), &script, b"")?;
    let mut numbers = done.text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(switched)), Some(Ok(pings))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("no count of switches and pings: {done}");
    };
    ensure!(pings > 0, "it did not ping its watchdog within {seconds} s");
    // The window may cut one ping's work off at either end.
    ensure!(switched <= SWITCHES * (pings + 1), "{switched} voluntary switches in {pings} pings");
    println!("       idle agent: {memory} KiB anonymous, {switched} switches in {pings} pings ({seconds} s)");
    Ok(())
}

fn pause(seconds: u64) -> Result<()> {
    let nothing = deadline::until(Duration::from_secs(seconds), "idling", || Ok(None::<()>));
    ensure!(nothing.is_err() && !deadline::interrupted(), "interrupted");
    Ok(())
}

fn confined(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    let text = vm.guest.ok("systemd-analyze security --no-pager siris-agent.service")?;
    let line = text.lines().find(|line| line.contains("Overall exposure level")).context("no overall level")?;
    let level = line.rsplit_once(": ").and_then(|(_, rest)| rest.split_whitespace().next()).context("no level")?;
    ensure!(level.parse::<f32>()? <= 4.0, "{line}");
    println!("       {}", line.trim());
    Ok(())
}

fn contract(bench: &Bench<'_>) -> Result<()> {
    let dir = bench.lab.repository().join("agent/api/xml");
    let mut written = BTreeSet::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        written.extend(promises(&fs::read_to_string(entry?.path())?, "org.siris."));
    }
    let vm = standard(bench)?;
    let asset = "tank/home/agents/5d0c1a52-93c5-4b4e-8f0e-2a1d7c3be904";
    vm.guest.ok(&format!("{NEW_POOL}new_pool tank /dev/disk/by-id/virtio-data0 && zfs create -p {asset}"))?;
    let pool = vm.guest.ok("zpool get -Ho value guid tank")?;
    let dataset = vm.guest.ok(&format!("zfs get -Hpo value guid {asset}"))?;
    let mut live = BTreeSet::new();
    // A machine that is never dialled: nothing new is in the dataset.
    let vector = vm.guest.ok(&format!(
        "sirisctl machine add other 127.0.0.1 --device 7b0e4a52-1d7c-4c7f-9d53-6f2b8f0f3c11 \
         --host-key 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5' --prefix tank/home/agents && \
         sirisctl vector add {asset} other --other tank/home/agents/replica"
    ))?;
    let vector = format!("/vectors/{}", vector.replace('-', "_"));
    let (pool, dataset) = (format!("/pools/{pool}"), format!("/datasets/{dataset}"));
    for path in ["", "/upgrade", "/replication", &pool, &dataset, &vector] {
        let ask = format!("busctl introspect --xml-interface org.siris.Agent1 /org/siris/Agent1{path}");
        let xml = vm.guest.eventually(
            Duration::from_secs(60),
            &format!("x=$({ask}) && echo \"$x\" | grep org.siris >/dev/null && echo \"$x\""),
        )?;
        live.extend(promises(&xml, "org.siris."));
    }
    let missing: Vec<&String> = written.difference(&live).collect();
    let unwritten: Vec<&String> = live.difference(&written).collect();
    ensure!(
        missing.is_empty() && unwritten.is_empty(),
        "not on the bus: {missing:?}; not in the documents: {unwritten:?}"
    );
    Ok(())
}

fn over_ssh(bench: &Bench<'_>) -> Result<()> {
    let checkout = bench.lab.repository();
    // With the whole workspace's features, as `cargo test` has compiled it just before.
    Cmd::new(Tool::Cargo).args(["build", "--quiet", "--workspace", "--bin", "sirisctl"]).cwd(checkout).run()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), Into::into);
    let sirisctl = bench.dir().join("sirisctl");
    fs::copy(target.join("debug/sirisctl"), &sirisctl)?;
    let vm = standard(bench)?;
    let ssh = format!("ssh {}", vm.guest.ssh_options().join(" "));
    let ask = format!("exec {} --ssh '{ssh}' -H root@127.0.0.1 status", sirisctl.display());
    let status = bench.lab.tool(Tool::Bash).args(["-c", &ask]).text()?;
    must_contain(&status, "healthy", "the status")?;
    let id = vm.guest.ok("cat /var/lib/siris/device-id")?;
    must_contain(&status, &id, "the status")
}

fn no_secret(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    vm.guest.ok("sirisctl support-bundle --output /var/tmp/bundle.tar.gz")?;
    let names = vm.guest.ok("tar -tzf /var/tmp/bundle.tar.gz")?;
    must_contain(&names, "journal", "the bundle")?;
    let all = "{ tar -xOzf /var/tmp/bundle.tar.gz; tar -tzf /var/tmp/bundle.tar.gz; }";
    must_contain(
        &vm.guest.ok(&format!("{all} | grep -a -m1 -o IMAGE_VERSION= || true"))?,
        "IMAGE_VERSION",
        "the bundle",
    )?;
    let secrets = [
        ("a private key", "PRIVATE KEY".to_owned()),
        ("root's password hash", vm.guest.ok("grep ^root: /etc/shadow | cut -d: -f2")?),
        ("a host key", vm.guest.ok("sed -n 3p /var/lib/ssh/ssh_host_ed25519_key")?),
    ];
    for (what, secret) in secrets {
        ensure!(secret.len() > 8, "no secret to look for: {what}");
        let look = format!("cat > /run/siris-tests-secret; {all} | grep -acF -f /run/siris-tests-secret");
        let found = vm.guest.run_for(Duration::from_secs(60), &look, secret.as_bytes())?;
        ensure!(found.text.trim() == "0", "the bundle has {what}: {found}");
    }
    Ok(())
}

fn polkit(bench: &Bench<'_>) -> Result<()> {
    let vm = standard(bench)?;
    let call = "busctl call org.siris.Agent1 /org/siris/Agent1 org.siris.Agent1.Manager";
    let as_games = |what: &str| format!("setpriv --reuid=games --regid=games --init-groups {call} {what}");
    let query = vm.guest.ok(&as_games("GetConfig 'a{sv}' 0")).context("a query by an ordinary user")?;
    ensure!(query.starts_with("a{sv}"), "the configuration is {query}");
    for change in [r#"SetConfig 'sva{sv}' timezone s Europe/Berlin 0"#, "SupportBundle 'a{sv}' 0"] {
        let said = vm.guest.refused(&as_games(change)).with_context(|| format!("{change} by an ordinary user"))?;
        ensure!(!said.is_empty(), "{change} was refused without a word");
    }
    // /etc is sealed; a bind mount makes the user a member for as long as this machine lives.
    vm.guest.ok(
        "sed '/^siris:/s/$/games/' /etc/group > /run/siris-tests-group && mount --bind /run/siris-tests-group /etc/group \
         && id -nG games | grep -qw siris",
    )?;
    vm.guest.eventually(Duration::from_secs(30), &as_games(r#"SetConfig 'sva{sv}' timezone s Europe/Berlin 0"#))?;
    must_contain(&vm.guest.ok("cat /etc/siris/config.toml")?, "Europe/Berlin", "the configuration")?;
    let shown = vm.guest.ok("sirisctl config get timezone")?;
    ensure!(shown == "Europe/Berlin", "sirisctl reads {shown}");
    Ok(())
}
