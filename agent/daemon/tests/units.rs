//! Health follows the units of the profile's list, by the signals of a service manager that is played here.

mod private_bus;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use private_bus::Machine;
use siris_agent::bus::Authority;
use siris_agent::units::unit_path;
use siris_api::ManagerProxy;
use zbus::fdo::Properties;
use zbus::object_server::SignalEmitter;
use zbus::proxy::CacheProperties;
use zbus::{Connection, ObjectPath, OwnedObjectPath, Variant};

const UNIT: &str = "org.freedesktop.systemd1.Unit";

struct SystemdManager;

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl SystemdManager {
    fn subscribe(&self) {}
}

#[derive(Clone)]
struct Unit(Arc<Mutex<(String, u32)>>);

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn active_state(&self) -> String {
        self.0.lock().unwrap().0.clone()
    }

    #[zbus(property)]
    fn job(&self) -> (u32, OwnedObjectPath) {
        (self.0.lock().unwrap().1, ObjectPath::from_static_str_unchecked("/").into())
    }
}

struct Systemd {
    connection: Connection,
    units: HashMap<&'static str, Unit>,
}

impl Systemd {
    async fn start(connection: Connection, units: &[(&'static str, &str, u32)]) -> Self {
        connection.object_server().at("/org/freedesktop/systemd1", SystemdManager).await.unwrap();
        let mut all = HashMap::new();
        for (name, state, job) in units {
            let unit = Unit(Arc::new(Mutex::new(((*state).to_owned(), *job))));
            connection.object_server().at(unit_path(name), unit.clone()).await.unwrap();
            all.insert(*name, unit);
        }
        connection.request_name("org.freedesktop.systemd1").await.unwrap();
        Systemd { connection, units: all }
    }

    async fn set(&self, unit: &str, state: &str, job: u32) {
        *self.units[unit].0.lock().unwrap() = (state.to_owned(), job);
        let emitter = SignalEmitter::new(&self.connection, unit_path(unit)).unwrap();
        let changed = HashMap::from([
            ("ActiveState", Variant::from(state)),
            ("Job", Variant::from((job, ObjectPath::from_static_str_unchecked("/")))),
        ]);
        Properties::properties_changed(&emitter, UNIT.try_into().unwrap(), changed, (&[][..]).into()).await.unwrap();
    }
}

async fn becomes(agent: &Machine, health: &str, code: Option<&str>) {
    let manager = ManagerProxy::builder(&agent.client).cache_properties(CacheProperties::No).build().await.unwrap();
    let is = async |_: &Connection| {
        let codes: Vec<String> = manager.health_reasons().await.unwrap().into_iter().map(|r| r.code).collect();
        manager.health().await.unwrap() == health && code.is_none_or(|c| codes.iter().any(|x| x == c))
    };
    agent.until(&format!("the health is {health} ({code:?})"), is).await;
}

#[tokio::test]
async fn a_boot_and_what_befalls_a_unit_after_it() {
    let Some(builder) = Machine::prepare() else { return };
    builder
        .root
        .write(
            "/usr/lib/siris/agent.toml",
            b"schema = 1\n[health]\nunits = [\"ssh.service\"]\nstate-free-min = \"1\"\n",
            0o644,
        )
        .unwrap();
    let systemd = Systemd::start(
        builder.bus.connect().await,
        &[("ssh.service", "inactive", 5), ("siris-pools.service", "activating", 6)],
    )
    .await;
    let agent = builder.boot(Authority::Fixed(true)).await;
    becomes(&agent, "starting", Some("unit-starting")).await;
    systemd.set("ssh.service", "activating", 5).await;
    becomes(&agent, "starting", Some("unit-starting")).await;
    systemd.set("ssh.service", "active", 0).await;
    becomes(&agent, "healthy", None).await;
    systemd.set("ssh.service", "inactive", 0).await;
    becomes(&agent, "failed", Some("unit-inactive")).await;
    systemd.set("ssh.service", "activating", 9).await;
    becomes(&agent, "degraded", Some("unit-restarting")).await;
    systemd.set("ssh.service", "failed", 0).await;
    becomes(&agent, "failed", Some("unit-failed")).await;
    systemd.set("ssh.service", "active", 0).await;
    becomes(&agent, "healthy", None).await;
}

#[tokio::test]
async fn the_pools_unit_decides_whether_a_missing_pool_may_still_come() {
    let Some(builder) = Machine::prepare() else { return };
    builder.zfs.create(1, "tank");
    let systemd = Systemd::start(builder.bus.connect().await, &[("siris-pools.service", "activating", 6)]).await;
    let mut agent = builder.boot(Authority::Fixed(true)).await;
    becomes(&agent, "healthy", None).await;
    agent.stop().await;
    agent.zfs.reboot();
    agent.start(Authority::Fixed(true)).await;
    becomes(&agent, "starting", Some("pools-importing")).await;
    systemd.set("siris-pools.service", "failed", 0).await;
    becomes(&agent, "degraded", Some("pool-missing")).await;
    siris_agent::pools::import::import_pools(&agent.root, agent.zfs.as_ref(), std::time::Duration::ZERO, &mut |_| ())
        .unwrap();
    systemd.set("siris-pools.service", "active", 0).await;
    becomes(&agent, "healthy", None).await;
}
