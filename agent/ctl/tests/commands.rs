//! sirisctl as it is run: against an agent on a private bus, here and through something that stands for ssh.

#[path = "../../daemon/tests/private_bus/mod.rs"]
mod private_bus;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use private_bus::Machine;
use siris_agent::bus::Authority;
use siris_zfs::{DatasetName, Datasets, PoolState, UserProperties};

struct Ran {
    status: i32,
    out: String,
    err: String,
}

async fn sirisctl(machine: &Machine, arguments: &[&str]) -> Ran {
    run(&machine.bus.address, &[], arguments).await
}

#[allow(clippy::disallowed_methods, reason = "the program under test is no tool of the host")]
async fn run(address: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sirisctl"));
    command.env("DBUS_SYSTEM_BUS_ADDRESS", address).envs(environment.iter().copied()).args(arguments);
    // The agent lives on this thread: it must not be blocked.
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) };
    eprintln!("sirisctl {arguments:?}: {}\n{}{}", ran.status, ran.out, ran.err);
    ran
}

#[tokio::test]
async fn status_shows_the_box_its_pools_and_what_is_wrong() {
    let Some(builder) = Machine::prepare() else { return };
    let guid = builder.zfs.create(9_223_372_036_854_775_809, "tank");
    builder.zfs.change(guid, |p| {
        p.pool.state = PoolState::Degraded;
        p.pool.members[1].state = PoolState::Offline;
    });
    let machine = builder.boot(Authority::Fixed(true)).await;
    let ran = sirisctl(&machine, &["status"]).await;
    assert_eq!(ran.status, 0);
    for wanted in [
        "siris 1.2.3 on box1",
        "degraded",
        "local",
        "not booted from a slot",
        "1 h 10 min",
        "pool-degraded",
        "/dev/disk/by-id/two",
        "tank",
        "1.00 GiB",
    ] {
        assert!(ran.out.contains(wanted), "no {wanted}");
    }
    let json = sirisctl(&machine, &["status", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["health"], "degraded");
    assert_eq!(json["reasons"][0]["code"], "pool-degraded");
    assert_eq!(json["pools"][0]["guid"], 9_223_372_036_854_775_809_u64);
    assert_eq!(json["pools"][0]["members"][1]["state"], "OFFLINE");
    let pools = sirisctl(&machine, &["pools"]).await;
    assert!(pools.out.contains("mirror-0") && pools.out.contains("OFFLINE"));
}

#[tokio::test]
async fn exit_statuses_tell_what_kind_of_failure_it_was() {
    let Some(builder) = Machine::prepare() else { return };
    let address = builder.bus.address.clone();
    let absent = run(&address, &[], &["status"]).await;
    assert_eq!(absent.status, 4, "no agent");
    assert!(absent.err.contains("[agent-unreachable]") && absent.err.contains("systemctl status siris-agent"));
    assert_eq!(run("unix:path=/nonexistent/bus", &[], &["status"]).await.status, 4, "no bus");
    let mut machine = builder.boot(Authority::Fixed(false)).await;
    assert_eq!(sirisctl(&machine, &["config", "set", "hostname", "x"]).await.status, 3, "not allowed");
    machine.stop().await;
    machine.start(Authority::Fixed(true)).await;
    assert_eq!(sirisctl(&machine, &["config", "set", "hostnam", "x"]).await.status, 2, "no such key");
    assert_eq!(sirisctl(&machine, &["config", "get", "hostname"]).await.status, 2, "not set");
    assert_eq!(sirisctl(&machine, &["-H", "-oProxyCommand=x", "status"]).await.status, 2, "no host");
    machine.zfs.set_broken(true);
    let broken = sirisctl(&machine, &["pools", "refresh"]).await;
    assert_eq!(broken.status, 1, "the agent could not");
    assert!(broken.err.contains("[pools-unreadable]"));
    assert_eq!(sirisctl(&machine, &["wait", "--timeout", "0", "healthy"]).await.status, 5, "not reached");
    assert_eq!(sirisctl(&machine, &["wait", "--timeout", "60", "started"]).await.status, 0);
}

#[tokio::test]
async fn the_configuration_is_kept() {
    let Some(builder) = Machine::prepare() else { return };
    let machine = builder.boot(Authority::Fixed(true)).await;
    assert_eq!(sirisctl(&machine, &["config", "set", "hostname", "box7"]).await.status, 0);
    assert_eq!(sirisctl(&machine, &["config", "set", "dns.servers", "192.0.2.1"]).await.status, 0);
    assert_eq!(sirisctl(&machine, &["config", "set", "ntp.servers", "a", "b"]).await.status, 0);
    assert_eq!(sirisctl(&machine, &["config", "get", "ntp.servers"]).await.out, "a\nb\n");
    assert_eq!(
        sirisctl(&machine, &["config", "show"]).await.out,
        "dns.servers = [\"192.0.2.1\"]\nhostname = \"box7\"\nntp.servers = [\"a\",\"b\"]\n"
    );
    assert_eq!(sirisctl(&machine, &["config", "unset", "dns.servers"]).await.status, 0);
    let json = sirisctl(&machine, &["config", "show", "--json"]).await.out;
    assert!(json.contains("box7") && !json.contains("dns"));
}

#[tokio::test]
async fn one_point_is_held_cloned_and_destroyed() {
    const ASSET: &str = "0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";
    let Some(builder) = Machine::prepare() else { return };
    builder.zfs.create(1, "tank");
    let name: DatasetName = format!("tank/home/agents/{ASSET}").parse().unwrap();
    let zfs = &builder.zfs.sets;
    zfs.create(&name).unwrap();
    for label in ["1568402268", "1568402269"] {
        zfs.snapshot(std::slice::from_ref(&name), &label.parse().unwrap(), &UserProperties::new()).unwrap();
    }
    let vector = format!("{ASSET}_7");
    zfs.hold(&format!("{name}@1568402269").parse().unwrap(), &format!("siris:vector:{vector}").parse().unwrap())
        .unwrap();
    let mut machine = builder.boot(Authority::Fixed(true)).await;
    let point = format!("{name}@1568402268");
    let date = format!("{ASSET}@2019-09-13T19:17:48Z");

    let held = sirisctl(&machine, &["dataset", "hold", &date]).await;
    assert_eq!((held.status, held.out.as_str()), (0, "1568402268\n"));
    assert_eq!(sirisctl(&machine, &["dataset", "hold", &point, "--tag", "audit"]).await.status, 0);
    let points = sirisctl(&machine, &["dataset", "points", ASSET]).await.out;
    assert!(points.contains("2019-09-13T19:17:48Z") && points.contains("audit, siris-operator\n"), "{points}");
    assert!(points.contains(&vector) && !points.contains("siris:vector"), "{points}");
    let json = sirisctl(&machine, &["dataset", "points", ASSET, "--json"]).await.out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["held-by"], serde_json::json!(["audit", "siris-operator"]));
    assert_eq!(json[1]["held-by"], serde_json::json!([vector]));
    let (old, none) = (point.as_str(), format!("{name}@1"));
    for (what, at, tag, code) in [
        ("hold", "tank/x", "audit", "POOL/DATASET@POINT"),
        ("hold", old, "siris:vector:x", "[hold-tag]"),
        ("hold", none.as_str(), "audit", "[point-not-found]"),
        ("release", old, "nobody's", "[hold-tag]"),
        ("release", old, "nobody", "[hold-not-found]"),
    ] {
        let refused = sirisctl(&machine, &["dataset", what, at, "--tag", tag]).await;
        assert!(refused.status == 2 && refused.err.contains(code), "{what} {at} --tag {tag}");
    }

    assert_eq!(sirisctl(&machine, &["dataset", "clone", &point, "tank/look"]).await.status, 0);
    let again = sirisctl(&machine, &["dataset", "clone", &point, "tank/look"]).await;
    assert!(again.status == 2 && again.err.contains("target-exists") && again.err.contains("[clone-refused]"));
    let needed = sirisctl(&machine, &["dataset", "destroy", &point, "--yes"]).await;
    assert!(needed.status == 1 && needed.err.contains("[point-needed]"));
    for reason in ["held by audit", "held by siris-operator", "tank/look is a clone of it"] {
        assert!(needed.err.contains(reason), "{reason}");
    }
    for tag in ["siris-operator", "audit"] {
        assert_eq!(sirisctl(&machine, &["dataset", "release", old, "--tag", tag]).await.status, 0);
    }
    // Without --yes it is only said; with it, and not allowed, nothing goes either.
    for what in ["tank/look", old] {
        if what == old {
            machine.stop().await;
            machine.start(Authority::Fixed(false)).await;
            assert_eq!(sirisctl(&machine, &["dataset", "hold", &point]).await.status, 3);
            assert_eq!(sirisctl(&machine, &["dataset", "clone", &point, "tank/other"]).await.status, 3);
        }
        let asked = sirisctl(&machine, &["dataset", "destroy", what]).await;
        assert!(asked.status == 2 && asked.out.contains("would go") && asked.err.contains("--yes"));
        if what == old {
            assert_eq!(sirisctl(&machine, &["dataset", "destroy", what, "--yes"]).await.status, 3);
            machine.stop().await;
            machine.start(Authority::Fixed(true)).await;
        }
        let gone = sirisctl(&machine, &["dataset", "destroy", what, "--yes"]).await;
        assert!(gone.status == 0 && gone.out.contains("is gone"));
    }
    assert_eq!(machine.zfs.sets.snapshots(&name).unwrap().len(), 1);
    let newest = sirisctl(&machine, &["dataset", "destroy", &format!("{name}@1568402269"), "--yes"]).await;
    assert!(newest.status == 1 && newest.err.contains("it is the newest one"));
}

#[tokio::test]
async fn waiting_sees_an_agent_that_comes_later_and_gets_well() {
    let Some(builder) = Machine::prepare() else { return };
    let address = builder.bus.address.clone();
    builder.zfs.set_broken(true);
    let wait = tokio::spawn(async move { run(&address, &[], &["wait", "--timeout", "120", "healthy"]).await.status });
    let machine = builder.boot(Authority::Fixed(true)).await;
    machine.zfs.set_broken(false);
    assert_eq!(sirisctl(&machine, &["pools", "refresh"]).await.status, 0);
    assert_eq!(wait.await.unwrap(), 0);
}

#[tokio::test]
async fn a_support_bundle_is_its_owners_alone() {
    let Some(builder) = Machine::prepare() else { return };
    let machine = builder.boot(Authority::Fixed(true)).await;
    let path = machine.bus.dir.path().join("bundle.tar.gz");
    assert_eq!(sirisctl(&machine, &["support-bundle", "-o", path.to_str().unwrap()]).await.status, 0);
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(&path).unwrap()[..2], [0x1f, 0x8b]);
}

#[tokio::test]
async fn another_box_is_asked_through_ssh() {
    const BRIDGE: &str = "/usr/bin/systemd-stdio-bridge";
    if !Path::new(BRIDGE).exists() {
        eprintln!("SKIPPED: systemd-stdio-bridge is not installed (Debian package systemd): run `cargo xtask setup`");
        return;
    }
    let Some(builder) = Machine::prepare() else { return };
    let machine = builder.boot(Authority::Fixed(true)).await;
    // Stands for ssh: notes what it was given, and does on this machine what was asked of the other.
    let said = machine.bus.dir.path().join("said");
    let ssh = machine.bus.dir.path().join("ssh");
    let script =
        format!("#!/bin/sh\necho \"$@\" > {}\nexec {BRIDGE} --bus-path={}\n", said.display(), machine.bus.address);
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let environment = [("SIRIS_SSH", ssh.to_str().unwrap())];
    let arguments = ["-H", "root@box7:2222", "--ssh-option", "ConnectTimeout=5", "status", "--json"];
    let ran = run("unix:path=/nonexistent/bus", &environment, &arguments).await;
    assert_eq!(ran.status, 0);
    assert!(ran.out.contains("\"hostname\": \"box1\""));
    assert_eq!(
        std::fs::read_to_string(&said).unwrap(),
        "-T -o ConnectTimeout=5 -p 2222 -- root@box7 systemd-stdio-bridge\n"
    );
    let fails = [("SIRIS_SSH", "/bin/false")];
    assert_eq!(run("unix:path=/nonexistent/bus", &fails, &["-H", "box7", "status"]).await.status, 4);
}

#[tokio::test]
async fn completions_and_man_pages_are_made_without_an_agent() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let ran = run("unix:path=/nonexistent/bus", &[], &["completions", shell]).await;
        assert!(ran.status == 0 && ran.out.contains("support-bundle"), "{shell}");
    }
    assert_eq!(run("unix:path=/nonexistent/bus", &[], &["man", dir.path().to_str().unwrap()]).await.status, 0);
    let pages: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(pages.contains(&"sirisctl.1".to_owned()) && pages.contains(&"sirisctl-status.1".to_owned()), "{pages:?}");
    let page = std::fs::read_to_string(dir.path().join("sirisctl.1")).unwrap();
    assert!(page.contains("Exit status"));
}
