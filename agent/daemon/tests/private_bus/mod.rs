//! A private bus with a real agent on it, over ZFS in memory and a root directory of its own. Shared by the tests of
//! the agent and of sirisctl.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use siris_agent::bus::Authority;
use siris_agent::root::Root;
use siris_agent::run;
use siris_host::cmd::{Cmd, Running, Tool};
use siris_zfs::Model;
use zbus::Connection;

/// A message bus of this test's own.
pub struct Bus {
    pub dir: tempfile::TempDir,
    pub address: String,
    _daemon: Running,
}

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

impl Bus {
    /// Starts one. `None`, loudly, where there is no dbus-daemon; in CI that is a failure.
    pub fn start() -> Option<Bus> {
        if !Tool::DbusDaemon.is_present(None) {
            assert!(std::env::var_os("CI").is_none(), "dbus-daemon is not installed: run `cargo xtask setup`");
            eprintln!("SKIPPED: dbus-daemon is not installed (Debian package dbus-daemon): run `cargo xtask setup`");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("bus");
        let config = dir.path().join("bus.conf");
        fs::write(&config, CONFIG.replace("SOCKET", socket.to_str().unwrap())).unwrap();
        let daemon = Cmd::new(Tool::DbusDaemon).arg("--nofork").arg(format!("--config-file={}", config.display()));
        let daemon = daemon.log(dir.path().join("bus.log")).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Bus { address: format!("unix:path={}", socket.display()), dir, _daemon: daemon })
    }

    pub async fn connect(&self) -> Connection {
        zbus::connection::Builder::address(self.address.as_str()).build().await.unwrap()
    }
}

/// An agent, its box and its ZFS.
pub struct Machine {
    pub bus: Bus,
    pub root: Root,
    pub zfs: Arc<Model>,
    pub client: Connection,
    agent: Option<(tokio::task::JoinHandle<()>, Connection)>,
}

impl Machine {
    /// A box that is well: state mounted, nothing listed.
    pub fn prepare() -> Option<StoppedMachine> {
        let bus = Bus::start()?;
        let root = Root::new(bus.dir.path().join("root"));
        let write = |path: &str, text: &str| root.write(path, text.as_bytes(), 0o644).unwrap();
        write("/usr/lib/siris/agent.toml", "schema = 1\n[health]\nunits = []\nstate-free-min = \"1\"\n");
        write("/usr/lib/os-release", "IMAGE_ID=siris\nIMAGE_VERSION=1.2.3\n");
        write("/proc/self/mountinfo", "30 1 254:7 / /state rw - ext4 /dev/vda7 rw\n");
        write("/proc/uptime", "4242.17 1.0\n");
        write("/proc/sys/kernel/hostname", "box1\n");
        write("/usr/share/zoneinfo/Europe/Berlin", "TZif");
        Some(StoppedMachine { bus, root, zfs: Arc::new(Model::new()) })
    }

    /// Stops the agent and waits until its name is free.
    pub async fn stop(&mut self) {
        if let Some((task, connection)) = self.agent.take() {
            task.abort();
            let _ = task.await;
            connection.close().await.unwrap();
            self.until("the name is free", async |c| !owned(c).await).await;
        }
    }

    /// Starts the agent and waits until it has its name.
    pub async fn start(&mut self, authority: Authority) {
        let connection = self.bus.connect().await;
        let serve = run::serve(connection.clone(), self.root.clone(), self.zfs.clone(), authority);
        let task = tokio::spawn(async move {
            let result = serve.await;
            eprintln!("the agent ended: {result:?}");
        });
        self.agent = Some((task, connection));
        self.until("the agent is there", async |c| owned(c).await).await;
    }

    /// Waits until `condition` holds. The test's own time limit is the runner's.
    pub async fn until(&self, what: &str, condition: impl AsyncFn(&Connection) -> bool) {
        let mut waited = 0;
        while !condition(&self.client).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited += 1;
            if waited % 500 == 0 {
                eprintln!("still waiting until {what}");
            }
        }
    }
}

async fn owned(connection: &Connection) -> bool {
    let bus = zbus::fdo::DBusProxy::new(connection).await.unwrap();
    bus.name_has_owner(siris_api::BUS_NAME.try_into().unwrap()).await.unwrap()
}

/// A box whose agent does not run yet.
pub struct StoppedMachine {
    pub bus: Bus,
    pub root: Root,
    pub zfs: Arc<Model>,
}

impl StoppedMachine {
    pub async fn boot(self, authority: Authority) -> Machine {
        let client = self.bus.connect().await;
        let mut agent = Machine { bus: self.bus, root: self.root, zfs: self.zfs, client, agent: None };
        agent.start(authority).await;
        agent
    }
}

/// What lies in the repository, from this crate's directory.
pub fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
