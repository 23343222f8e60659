//! The agent on a private bus, as its clients see it.

mod private_bus;
#[path = "private_bus/slots_box.rs"]
mod slots_box;

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt;
use private_bus::Machine;
use siris_agent::bus::Authority;
use siris_agent::gate::{GateError, Patience, gate};
use siris_agent::pools::import::import_pools;
use siris_agent::pools::memory;
use siris_api::{
    BUS_NAME, DatasetProxy, ErrorCode, Health, ManagerProxy, PoolProxy, ROOT_PATH, ReplicationProxy, UpgradeProxy,
    VectorProxy, code_of, pool_path,
};
use siris_zfs::{DatasetName, Datasets, PoolState, Zfs};
use zbus::fdo::ObjectManagerProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedVariant, Variant};

const NO_OPTIONS: fn() -> HashMap<&'static str, Variant<'static>> = HashMap::new;

async fn manager(connection: &Connection) -> ManagerProxy<'static> {
    ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await.unwrap()
}

async fn objects(connection: &Connection) -> ObjectManagerProxy<'static> {
    ObjectManagerProxy::builder(connection).destination(BUS_NAME).path(ROOT_PATH).build().await.unwrap()
}

fn text(value: &str) -> OwnedVariant {
    OwnedVariant::try_from(Variant::from(value)).unwrap()
}

fn code<T>(result: zbus::Result<T>) -> Option<ErrorCode> {
    code_of(&result.err()?)
}

#[tokio::test]
async fn it_says_who_it_is() {
    let Some(builder) = Machine::prepare() else { return };
    let agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    assert_eq!(manager.product().await.unwrap(), "siris");
    assert_eq!(manager.version().await.unwrap(), "1.2.3");
    assert_eq!(manager.role().await.unwrap(), "local");
    assert_eq!(manager.hostname().await.unwrap(), "box1");
    assert_eq!(manager.uptime().await.unwrap(), 4242);
    assert_eq!(manager.health().await.unwrap(), "healthy");
    let id = manager.device_id().await.unwrap();
    assert_eq!(agent.root.read(siris_agent::root::DEVICE_ID).unwrap().unwrap().trim(), id);
    let upgrade = UpgradeProxy::new(&agent.client).await.unwrap();
    assert_eq!(upgrade.boot_slot().await.unwrap(), "");
    assert_eq!(code(upgrade.get_slot_status().await), Some(ErrorCode::SlotsUnreadable));
}

#[tokio::test]
async fn pools_come_change_and_go_with_their_signals() {
    let Some(builder) = Machine::prepare() else { return };
    let there = builder.zfs.create(1, "there");
    let agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    let objects = objects(&agent.client).await;
    let mut added = objects.receive_interfaces_added().await.unwrap();
    let mut removed = objects.receive_interfaces_removed().await.unwrap();
    assert_eq!(manager.find_pool("there").await.unwrap().as_str(), pool_path(1));
    assert_eq!(code(manager.find_pool("absent").await), Some(ErrorCode::PoolNotFound));

    let guid = agent.zfs.create(2, "new");
    manager.refresh_pools(NO_OPTIONS()).await.unwrap();
    assert_eq!(added.next().await.unwrap().args().unwrap().object_path.as_str(), pool_path(2));
    let pool = PoolProxy::builder(&agent.client).path(pool_path(2)).build().await.unwrap();
    assert_eq!(pool.state().await.unwrap(), "ONLINE");
    assert_eq!(pool.members().await.unwrap().len(), 2);
    let expected: Vec<String> = manager.expected_pools().await.unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(expected, ["there", "new"]);

    let mut states = pool.receive_state_changed().await;
    assert_eq!(states.next().await.unwrap().get().await.unwrap(), "ONLINE");
    agent.zfs.change(guid, |p| {
        p.pool.state = PoolState::Degraded;
        p.pool.members[1].state = PoolState::Offline;
    });
    manager.refresh_pools(NO_OPTIONS()).await.unwrap();
    assert_eq!(states.next().await.unwrap().get().await.unwrap(), "DEGRADED");
    assert_eq!(manager.health().await.unwrap(), "degraded");
    let reasons = manager.health_reasons().await.unwrap();
    assert_eq!(reasons[0].code, "pool-degraded");
    assert!(reasons[0].text.contains("/dev/disk/by-id/two"), "{}", reasons[0].text);

    agent.zfs.destroy(guid);
    agent.zfs.export(&"there".parse().unwrap()).unwrap();
    manager.refresh_pools(NO_OPTIONS()).await.unwrap();
    let gone = [removed.next().await.unwrap(), removed.next().await.unwrap()]
        .map(|s| s.args().unwrap().object_path.to_string());
    assert!(gone.contains(&pool_path(2)) && gone.contains(&pool_path(there.as_u64())));
    assert!(manager.expected_pools().await.unwrap().is_empty());
    assert_eq!(manager.health().await.unwrap(), "healthy");
}

#[tokio::test]
async fn an_asset_is_called_what_people_say_and_numbered_from_the_range_of_the_box() {
    const ASSETS: [&str; 2] = ["0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55", "1b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55"];
    let Some(builder) = Machine::prepare() else { return };
    builder.zfs.create(1, "tank");
    let agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    for asset in ASSETS {
        agent.zfs.sets.create(&format!("tank/home/agents/{asset}").parse().unwrap()).unwrap();
    }
    manager.refresh_datasets(NO_OPTIONS()).await.unwrap();
    let mut datasets = Vec::new();
    for asset in ASSETS {
        let path = manager.find_dataset(asset).await.unwrap();
        let dataset = DatasetProxy::builder(&agent.client).path(path).cache_properties(CacheProperties::No);
        datasets.push(dataset.build().await.unwrap());
    }
    let [first, second] = &datasets[..] else { panic!("{datasets:?}") };
    let describe = |key: &'static str, value: Variant<'static>| HashMap::from([(key, value)]);
    first.describe(HashMap::from([("id", 7u64.into()), ("name", "mail server".into())])).await.unwrap();
    assert_eq!((first.asset_id().await.unwrap(), first.asset_name().await.unwrap()), (7, "mail server".to_owned()));
    assert_eq!(manager.find_dataset("7").await.unwrap().as_str(), first.inner().path().as_str());
    assert_eq!(code(second.describe(describe("id", 7u64.into())).await), Some(ErrorCode::DescribeFailed));
    assert_eq!(code(second.describe(describe("name", "a\nb".into())).await), Some(ErrorCode::OptionInvalid));
    assert_eq!(code(second.describe(describe("next-id", true.into())).await), Some(ErrorCode::DescribeFailed));
    second.snapshot(NO_OPTIONS()).await.unwrap();
    assert_eq!(second.asset_id().await.unwrap(), 0, "there is no range");

    let none = manager.set_config("asset-ids", &text("9-1"), NO_OPTIONS()).await;
    assert_eq!(code(none), Some(ErrorCode::ConfigValueInvalid));
    manager.set_config("asset-ids", &text("7-8"), NO_OPTIONS()).await.unwrap();
    second.snapshot(NO_OPTIONS()).await.unwrap();
    assert_eq!(second.asset_id().await.unwrap(), 8, "7 is another's");
    second.describe(describe("id", 0u64.into())).await.unwrap();
    // It was given, and stays so; a recovery point is taken all the same.
    second.snapshot(NO_OPTIONS()).await.unwrap();
    assert_eq!(second.asset_id().await.unwrap(), 0);
    first.describe(describe("name", "".into())).await.unwrap();
    assert_eq!((first.asset_id().await.unwrap(), first.asset_name().await.unwrap()), (7, String::new()));
    assert!(first.get_vectors().await.unwrap().is_empty());
}

#[tokio::test]
async fn datasets_of_assets_are_shown_and_take_recovery_points() {
    const ASSET: &str = "0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";
    let Some(builder) = Machine::prepare() else { return };
    builder.zfs.create(1, "tank");
    let mut agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    assert_eq!(code(manager.find_dataset(ASSET).await), Some(ErrorCode::DatasetNotFound));

    let name: DatasetName = format!("tank/home/agents/{ASSET}").parse().unwrap();
    agent.zfs.sets.create(&name).unwrap();
    manager.refresh_datasets(NO_OPTIONS()).await.unwrap();
    let path = manager.find_dataset(ASSET).await.unwrap();
    assert_eq!(manager.find_dataset(name.as_str()).await.unwrap(), path);
    let dataset = DatasetProxy::builder(&agent.client).path(path.clone()).build().await.unwrap();
    assert_eq!((dataset.name().await.unwrap(), dataset.asset().await.unwrap()), (name.to_string(), ASSET.to_owned()));
    assert_eq!(dataset.newest_snapshot().await.unwrap(), "");

    let mut counts = dataset.receive_snapshot_count_changed().await;
    assert_eq!(counts.next().await.unwrap().get().await.unwrap(), 0);
    let points = [dataset.snapshot(NO_OPTIONS()).await.unwrap(), dataset.snapshot(NO_OPTIONS()).await.unwrap()];
    assert!(points[0] < points[1], "{points:?}");
    while counts.next().await.unwrap().get().await.unwrap() != 2 {}
    let rows = dataset.list_snapshots(0, 10, NO_OPTIONS()).await.unwrap();
    assert_eq!(rows.iter().map(|row| &row.name).collect::<Vec<_>>(), points.iter().collect::<Vec<_>>());
    let second = dataset.list_snapshots(rows[0].createtxg, 10, NO_OPTIONS()).await.unwrap();
    assert_eq!(second, rows[1..]);
    assert_eq!(dataset.list_snapshots(0, 1, NO_OPTIONS()).await.unwrap(), rows[..1]);
    let all = manager.list_snapshots("", 10, NO_OPTIONS()).await.unwrap();
    assert_eq!((all.len(), &all[0].dataset, &all[0].snapshots), (1, &name.to_string(), &rows));
    assert!(manager.list_snapshots(name.as_str(), 10, NO_OPTIONS()).await.unwrap().is_empty(), "there are no more");

    // Whoever may not change things may look.
    agent.stop().await;
    agent.start(Authority::Fixed(false)).await;
    let dataset = DatasetProxy::builder(&agent.client).path(path).build().await.unwrap();
    assert_eq!(code(dataset.snapshot(NO_OPTIONS()).await), Some(ErrorCode::NotAuthorized));
    assert_eq!(dataset.list_snapshots(0, 10, NO_OPTIONS()).await.unwrap().len(), 2);
    let manager = self::manager(&agent.client).await;
    assert_eq!(manager.list_snapshots("", 10, NO_OPTIONS()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_export_that_is_not_over_when_its_event_comes_is_seen_later() {
    let Some(builder) = Machine::prepare() else { return };
    builder.zfs.create(1, "tank");
    let agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    manager.refresh_pools(NO_OPTIONS()).await.unwrap();
    agent.zfs.export(&"tank".parse().unwrap()).unwrap();
    let objects = objects(&agent.client).await;
    agent
        .until("the pool is gone from the bus", async |_| {
            !objects.get_managed_objects().await.unwrap().keys().any(|p| p.as_str() == pool_path(1))
        })
        .await;
}

#[tokio::test]
async fn zfs_that_fails_takes_no_pool_from_the_bus_or_the_memory() {
    let Some(builder) = Machine::prepare() else { return };
    builder.zfs.create(1, "tank");
    let agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    agent.zfs.set_broken(true);
    assert_eq!(code(manager.refresh_pools(NO_OPTIONS()).await), Some(ErrorCode::PoolsUnreadable));
    assert_eq!(manager.health().await.unwrap(), "failed");
    assert_eq!(memory::load(&agent.root).unwrap().len(), 1);
    agent.zfs.set_broken(false);
    manager.refresh_pools(NO_OPTIONS()).await.unwrap();
    assert_eq!(manager.health().await.unwrap(), "healthy");
}

#[tokio::test]
async fn over_reboots_and_restarts_a_pool_returns_unless_it_was_exported() {
    let Some(builder) = Machine::prepare() else { return };
    for (guid, name) in [(1, "kept"), (2, "exported"), (3, "dead")] {
        builder.zfs.create(guid, name);
    }
    let mut agent = builder.boot(Authority::Fixed(true)).await;
    agent.stop().await;
    agent.zfs.reboot();
    let _ = std::fs::remove_file(agent.root.path(siris_agent::root::BOOT_IMPORTS));
    agent.zfs.create(4, "foreign");
    agent.zfs.export(&"foreign".parse().unwrap()).unwrap();
    agent.zfs.change(siris_zfs::PoolGuid::new(3), |p| p.hidden = true);
    import_pools(&agent.root, agent.zfs.as_ref(), Duration::ZERO, &mut |_| ()).unwrap();
    // The agent is not running: nobody sees this but the next start.
    agent.zfs.export(&"exported".parse().unwrap()).unwrap();
    agent.start(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    let names: Vec<String> = manager.expected_pools().await.unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["kept", "dead"]);
    assert_eq!(manager.health().await.unwrap(), "degraded");
    assert_eq!(manager.health_reasons().await.unwrap()[0].code, "pool-missing");
    assert!(manager.find_pool("kept").await.is_ok());

    assert_eq!(
        code(manager.forget_pool(1, NO_OPTIONS()).await),
        Some(ErrorCode::PoolNotFound),
        "an imported pool is not forgotten"
    );
    manager.forget_pool(3, NO_OPTIONS()).await.unwrap();
    assert_eq!(manager.health().await.unwrap(), "healthy");
    assert_eq!(memory::load(&agent.root).unwrap().len(), 1);
}

#[tokio::test]
async fn the_configuration_is_read_and_changed() {
    let Some(builder) = Machine::prepare() else { return };
    let agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    assert_eq!(manager.set_config("hostname", &text("box7"), NO_OPTIONS()).await.unwrap(), "reboot");
    let values = manager.get_config(NO_OPTIONS()).await.unwrap();
    assert_eq!(values["hostname"], text("box7"));
    assert_eq!(code(manager.set_config("hostnam", &text("x"), NO_OPTIONS()).await), Some(ErrorCode::ConfigKeyUnknown));
    assert_eq!(
        code(manager.set_config("timezone", &text("Nowhere"), NO_OPTIONS()).await),
        Some(ErrorCode::ConfigValueInvalid)
    );
    let number = OwnedVariant::from(7u32);
    assert_eq!(code(manager.set_config("hostname", &number, NO_OPTIONS()).await), Some(ErrorCode::ConfigValueInvalid));
    assert_eq!(code(manager.set_config("role", &text("cloud"), NO_OPTIONS()).await), Some(ErrorCode::ConfigRefused));
    let unknown = HashMap::from([("fast", Variant::from(true))]);
    assert_eq!(code(manager.set_config("hostname", &text("x"), unknown).await), Some(ErrorCode::OptionUnknown));
    let force = || HashMap::from([("force", Variant::from(true))]);
    manager.set_config("role", &text("cloud"), force()).await.unwrap();
    assert_eq!(manager.role().await.unwrap(), "cloud");
    manager.unset_config("hostname", NO_OPTIONS()).await.unwrap();
    assert!(!manager.get_config(NO_OPTIONS()).await.unwrap().contains_key("hostname"));
}

#[tokio::test]
async fn a_faulty_configuration_degrades_and_is_mended_through_the_agent() {
    let Some(builder) = Machine::prepare() else { return };
    builder.root.write(siris_agent::root::CONFIG, b"timezone = \"Nowhere\"\n", 0o644).unwrap();
    let agent = builder.boot(Authority::Fixed(true)).await;
    let manager = manager(&agent.client).await;
    assert_eq!(manager.health_reasons().await.unwrap()[0].code, "config-invalid");
    manager.set_config("timezone", &text("Europe/Berlin"), NO_OPTIONS()).await.unwrap();
    assert_eq!(manager.health().await.unwrap(), "healthy");
}

#[tokio::test]
async fn who_is_not_allowed_may_ask_and_not_change() {
    let Some(builder) = Machine::prepare() else { return };
    let agent = builder.boot(Authority::Fixed(false)).await;
    let manager = manager(&agent.client).await;
    assert_eq!(manager.health().await.unwrap(), "healthy");
    assert!(manager.get_config(NO_OPTIONS()).await.is_ok());
    let denied = Some(ErrorCode::NotAuthorized);
    assert_eq!(code(manager.refresh_pools(NO_OPTIONS()).await), denied);
    assert_eq!(code(manager.forget_pool(1, NO_OPTIONS()).await), denied);
    assert_eq!(code(manager.set_config("hostname", &text("x"), NO_OPTIONS()).await), denied);
    assert_eq!(code(manager.unset_config("hostname", NO_OPTIONS()).await), denied);
    assert_eq!(code(manager.support_bundle(NO_OPTIONS()).await), denied);
    assert_eq!(agent.root.read(siris_agent::root::CONFIG).unwrap(), None);
}

#[tokio::test]
async fn the_gate_passes_when_well_and_names_the_reasons_when_not() {
    let Some(builder) = Machine::prepare() else { return };
    let client = builder.bus.connect().await;
    let short = Patience { limit: Duration::from_millis(200), settle: Duration::from_millis(50) };
    assert!(matches!(gate(&client, short).await, Err(GateError::NoAgent)));
    let agent = builder.boot(Authority::Fixed(true)).await;
    assert_eq!(gate(&client, short).await.unwrap(), []);
    agent.zfs.set_broken(true);
    let manager = manager(&client).await;
    let _ = manager.refresh_pools(NO_OPTIONS()).await;
    let error = gate(&client, short).await.unwrap_err();
    assert!(
        matches!(&error, GateError::NotWell { health: Health::Failed, reasons } if reasons[0].code == "pools-unreadable"),
        "{error}"
    );
    // A failure that is taken back in time does not count.
    let patient = Patience { limit: Duration::from_secs(600), settle: Duration::from_secs(600) };
    let mend = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        agent.zfs.set_broken(false);
        manager.refresh_pools(NO_OPTIONS()).await.unwrap();
    };
    let (passed, ()) = tokio::join!(gate(&client, patient), mend);
    assert_eq!(passed.unwrap(), []);
}

#[tokio::test]
async fn a_support_bundle_has_states_and_no_secrets() {
    let Some(builder) = Machine::prepare() else { return };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHMkYwrcAyC0vBcfaUoTMZJmyHDRTp3GY9x who";
    builder
        .root
        .write(
            siris_agent::root::CONFIG,
            format!("hostname = \"box1\"\n[ssh]\nauthorized-keys = [\"{key}\"]\n").as_bytes(),
            0o644,
        )
        .unwrap();
    builder
        .root
        .write("/proc/cmdline", b"quiet systemd.set_credential=passwd.hashed-password.root:$6$salt$hashhash\n", 0o644)
        .unwrap();
    builder.zfs.create(1, "tank");
    let agent = builder.boot(Authority::Fixed(true)).await;
    let bytes = manager(&agent.client).await.support_bundle(NO_OPTIONS()).await.unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let mut all = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        all += &entry.path().unwrap().display().to_string();
        std::io::Read::read_to_string(&mut entry, &mut all).unwrap();
    }
    for wanted in ["siris-support/status.txt", "version 1.2.3", "pool tank", "hostname", "1 keys"] {
        assert!(all.contains(wanted), "no {wanted} in {all}");
    }
    for secret in ["AAAAC3", "$6$"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[tokio::test]
async fn an_install_that_is_cancelled_arms_nothing() {
    let Some(builder) = Machine::prepare() else { return };
    slots_box::lay(&builder.root.path("/"));
    let agent = builder.boot(Authority::Fixed(true)).await;
    let upgrade = UpgradeProxy::builder(&agent.client).cache_properties(CacheProperties::No).build().await.unwrap();
    assert_eq!(code(upgrade.cancel().await), Some(ErrorCode::UpgradeIdle));
    let whole = slots_box::sample(2).bundle();
    let mut completed = upgrade.receive_completed().await.unwrap();
    let (bundle, mut source) = std::io::pipe().unwrap();
    upgrade.install_fd(zbus::Fd::from(&bundle), NO_OPTIONS()).await.unwrap();
    drop(bundle);
    let (first, rest) = whole.split_at(whole.len() / 2);
    source.write_all(first).unwrap();
    upgrade.cancel().await.unwrap();
    // Its reader is gone, or ends with the next read.
    let _ = source.write_all(rest);
    drop(source);
    assert_eq!(completed.next().await.unwrap().args().unwrap().result, 1);
    let error = upgrade.last_error().await.unwrap();
    assert!(error.starts_with("upgrade-cancelled: "), "{error}");
    assert_eq!(upgrade.get_primary().await.unwrap(), "a");
}

#[tokio::test]
async fn a_bundle_is_installed_from_a_descriptor_and_what_became_of_it_is_said() {
    let Some(builder) = Machine::prepare() else { return };
    slots_box::lay(&builder.root.path("/"));
    let agent = builder.boot(Authority::Fixed(true)).await;
    let upgrade = UpgradeProxy::builder(&agent.client).cache_properties(CacheProperties::No).build().await.unwrap();
    assert_eq!((upgrade.boot_slot().await.unwrap(), upgrade.operation().await.unwrap()), ("a".into(), "idle".into()));
    let bundle = agent.root.path("/bundle.ibu");
    let whole = slots_box::sample(2).bundle();
    let mut completed = upgrade.receive_completed().await.unwrap();
    let cases = [(&whole[..whole.len() / 2], 1, "bundle-truncated: "), (&whole[..], 0, "")];
    for (bytes, result, error) in cases {
        std::fs::write(&bundle, bytes).unwrap();
        let file = std::fs::File::open(&bundle).unwrap();
        upgrade.install_fd(zbus::Fd::from(&file), NO_OPTIONS()).await.unwrap();
        assert_eq!(completed.next().await.unwrap().args().unwrap().result, result);
        assert!(upgrade.last_error().await.unwrap().starts_with(error), "{}", upgrade.last_error().await.unwrap());
        assert_eq!(upgrade.operation().await.unwrap(), "idle");
    }
    assert_eq!(upgrade.progress().await.unwrap().0, 100);
    assert_eq!(upgrade.get_primary().await.unwrap(), "b");
    let slots = upgrade.get_slot_status().await.unwrap();
    assert_eq!(String::try_from(slots[1].details["version"].clone()).unwrap(), "1.2.0");

    let about = upgrade.inspect_fd(zbus::Fd::from(&std::fs::File::open(&bundle).unwrap()), NO_OPTIONS()).await.unwrap();
    assert_eq!(String::try_from(about["version"].clone()).unwrap(), "1.2.0");
    assert!(!about.contains_key("refused"));
    assert_eq!(upgrade.mark("active", "booted").await.unwrap().0, "a");
    assert_eq!(upgrade.get_primary().await.unwrap(), "a");
    assert_eq!(code(upgrade.mark("good", "other").await), Some(ErrorCode::SlotRefused));
    assert_eq!(code(upgrade.mark("bad", "booted").await), Some(ErrorCode::SlotRefused));
    assert_eq!(upgrade.mark("active", "other").await.unwrap().0, "b");
    assert_eq!(upgrade.mark("bad", "other").await.unwrap().0, "b");
    let options = HashMap::from([("now", Variant::from(true))]);
    let file = std::fs::File::open(&bundle).unwrap();
    assert_eq!(code(upgrade.install_fd(zbus::Fd::from(&file), options).await), Some(ErrorCode::OptionUnknown));
}

#[tokio::test]
async fn a_vector_has_a_schedule_that_outlives_the_agent() {
    let Some(builder) = Machine::prepare() else { return };
    let agent = builder.boot(Authority::Fixed(true)).await;
    let replication = ReplicationProxy::new(&agent.client).await.unwrap();
    let machine = HashMap::from([
        ("kind", "server".into()),
        ("host", "127.0.0.1".into()),
        ("host-key", "ssh-ed25519 AAAAC3Nz".into()),
        ("prefix", "vault/old".into()),
    ]);
    replication.add_machine("vault", machine).await.unwrap();
    let dataset = "tank/home/agents/0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";
    let vector = HashMap::from([("dataset", dataset.into()), ("machine", "vault".into())]);
    let path = replication.add_vector(vector).await.unwrap();
    let vector = VectorProxy::builder(&agent.client).path(path);
    let vector = vector.cache_properties(CacheProperties::No).build().await.unwrap();
    assert_eq!((vector.when().await.unwrap().as_str(), vector.next_at().await.unwrap()), ("points", 0));
    let set = |words: &'static str| HashMap::from([("when", words.into())]);
    for wrong in ["", "noon", "02:00 6h"] {
        assert_eq!(code(vector.configure(set(wrong)).await), Some(ErrorCode::VectorRefused), "{wrong}");
    }
    vector.configure(set(" mon-sun/02:00  sat/12:00")).await.unwrap();
    vector.configure(HashMap::from([("priority", 1u32.into())])).await.unwrap();
    assert_eq!(vector.when().await.unwrap(), "02:00 sat/12:00");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // A day has 25 hours where clocks leap back.
    assert!((now..=now + 25 * 3600 + 60).contains(&vector.next_at().await.unwrap()));
    let kept = siris_agent::store::Store::open(&agent.root).unwrap().vectors().unwrap();
    assert_eq!((kept[0].schedule.to_string().as_str(), kept[0].priority.as_u32()), ("02:00 sat/12:00", 1));
    vector.pause().await.unwrap();
    assert_eq!(vector.next_at().await.unwrap(), 0);
}
