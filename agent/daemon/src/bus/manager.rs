//! `org.siris.Agent1.Manager`.

use std::sync::Arc;

use siris_api::{
    CONFIGURE_ACTION, ConfigMap, DATASET_ACTION, ErrorCode, ExpectedPool, HealthReason, REFRESH_ACTION, SUPPORT_ACTION,
    SnapshotRows, dataset_path, pool_path,
};
use siris_zfs::{Dataset, PoolGuid};
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use crate::agent::Agent;
use crate::bus::dataset::{find, off_the_bus, row, unreadable};
use crate::bus::options::{Options, flag, only};
use crate::bus::publish::{expected, reasons};
use crate::bus::{Authority, Failure, Publisher};
use crate::config::{BoxConfig, ConfigValue, Key};
use crate::datasets::{self, clones};
use crate::root::{RECEIPT, Root};
use crate::{observe, support};

/// Everything that is set has effect from the next boot on: `/etc` is sealed.
const TAKES: &str = "reboot";

/// The root object.
pub struct ManagerObject {
    agent: Arc<Agent>,
    publisher: Publisher,
    authority: Authority,
    /// Changes of the configuration, one at a time.
    changing: tokio::sync::Mutex<()>,
}

impl ManagerObject {
    /// The object over this agent.
    pub fn new(agent: Arc<Agent>, publisher: Publisher, authority: Authority) -> Self {
        ManagerObject { agent, publisher, authority, changing: tokio::sync::Mutex::default() }
    }

    async fn change(&self, key: &str, value: Option<ConfigValue>, options: &Options) -> Result<String, Failure> {
        let force = flag(options, "force")?;
        only(options, &["force"])?;
        let key = find_key(key)?;
        if key == Key::Role && !force {
            let text = "the role is set when a box is installed: a change needs the option \"force\" (`sirisctl config set --force role ...`)";
            return Err(Failure::new(ErrorCode::ConfigRefused, text));
        }
        let _one_at_a_time = self.changing.lock().await;
        let root = &self.agent.root;
        let unusable = |e: crate::config::ConfigError| {
            let code = if e.code() == "config-write-failed" {
                ErrorCode::ConfigWriteFailed
            } else {
                ErrorCode::ConfigUnreadable
            };
            Failure::new(code, crate::chain(&e))
        };
        let (mut config, _) = BoxConfig::load(root).map_err(unusable)?;
        config
            .change(root, key, value)
            .map_err(|text| Failure::new(ErrorCode::ConfigValueInvalid, format!("{}: {text}", key.as_str())))?;
        config.commit(root).map_err(unusable)?;
        self.agent.look_at_config();
        self.publisher.publish_settings().await?;
        Ok(TAKES.to_owned())
    }
}

/// The receipt, without what pads its place on the disk.
fn receipt(root: &Root) -> Result<Vec<u8>, Failure> {
    let absent = || Failure::new(ErrorCode::ReceiptAbsent, "this box has no receipt of an install");
    match std::fs::read(root.path(RECEIPT)) {
        Ok(bytes) => {
            let bytes = bytes.trim_ascii_end();
            // Until the receipt is there, its place says so in words.
            if bytes.starts_with(b"{") { Ok(bytes.to_vec()) } else { Err(absent()) }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(absent()),
        Err(error) => Err(Failure::new(ErrorCode::ReceiptUnreadable, format!("{RECEIPT}: {error}"))),
    }
}

fn find_key(name: &str) -> Result<Key, Failure> {
    Key::find(name).ok_or_else(|| {
        let keys: Vec<&str> = Key::ALL.into_iter().map(Key::as_str).collect();
        Failure::new(ErrorCode::ConfigKeyUnknown, format!("no key \"{name}\"; the keys are {}", keys.join(", ")))
    })
}

fn from_wire(key: &str, value: OwnedVariant) -> Result<ConfigValue, Failure> {
    let value = Variant::from(value);
    match value {
        Variant::Str(text) => Ok(ConfigValue::Text(text.to_string())),
        other => match Vec::<String>::try_from(other) {
            Ok(items) => Ok(ConfigValue::List(items)),
            Err(_) => Err(Failure::new(
                ErrorCode::ConfigValueInvalid,
                format!("{key}: takes a string or an array of strings"),
            )),
        },
    }
}

fn to_wire(value: &ConfigValue) -> Result<OwnedVariant, Failure> {
    let value = match value {
        ConfigValue::Text(text) => Variant::from(text.clone()),
        ConfigValue::List(items) => Variant::from(items.clone()),
    };
    OwnedVariant::try_from(value).map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))
}

#[zbus::interface(name = "org.siris.Agent1.Manager", introspection_docs = false)]
impl ManagerObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        self.agent.os.version.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn product(&self) -> String {
        self.agent.os.product.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn device_id(&self) -> String {
        self.agent.device_id.to_string()
    }

    #[zbus(property)]
    fn role(&self) -> String {
        self.agent.shown().role
    }

    #[zbus(property)]
    fn health(&self) -> String {
        self.agent.shown().verdict.health.to_string()
    }

    #[zbus(property)]
    fn health_reasons(&self) -> Vec<HealthReason> {
        reasons(&self.agent.shown())
    }

    #[zbus(property)]
    fn expected_pools(&self) -> Vec<ExpectedPool> {
        expected(&self.agent.shown())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn uptime(&self) -> u64 {
        observe::uptime(&self.agent.root)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn hostname(&self) -> String {
        observe::hostname(&self.agent.root)
    }

    #[zbus(out_args("pool"))]
    async fn find_pool(&self, name: &str) -> Result<OwnedObjectPath, Failure> {
        let pools = self.agent.shown().pools;
        let pool = pools.values().find(|p| p.name.as_str() == name);
        let guid = pool
            .ok_or_else(|| Failure::new(ErrorCode::PoolNotFound, format!("no imported pool is named \"{name}\"")))?
            .guid;
        OwnedObjectPath::try_from(pool_path(guid.as_u64()))
            .map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))
    }

    #[zbus(out_args("dataset"))]
    async fn find_dataset(&self, name: &str) -> Result<OwnedObjectPath, Failure> {
        let guid = find(&self.agent, name)?.guid;
        OwnedObjectPath::try_from(dataset_path(guid.as_u64()))
            .map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))
    }

    #[zbus(out_args("datasets"))]
    async fn list_snapshots(&self, after: String, limit: u32, options: Options) -> Result<Vec<SnapshotRows>, Failure> {
        only(&options, &[])?;
        let page = datasets::page(self.agent.shown().datasets.into_values(), &after, u64::from(limit));
        let (agent, names) = (self.agent.clone(), page.iter().map(|dataset| dataset.name.clone()).collect::<Vec<_>>());
        let found = off_the_bus(move || datasets::snapshots(agent.zfs.sets(), &names)).await?;
        let found = found.map_err(|error| unreadable(&error))?;
        let rows = |Dataset { name, guid, .. }: Dataset| SnapshotRows {
            snapshots: found.get(&name).into_iter().flatten().map(row).collect(),
            dataset: name.to_string(),
            guid: guid.as_u64(),
        };
        Ok(page.into_iter().map(rows).collect())
    }

    async fn refresh_pools(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, REFRESH_ACTION).await?;
        self.publisher.refresh_pools_and_again().await?;
        match self.agent.pools_fault() {
            None => Ok(()),
            Some(fault) => Err(Failure::new(ErrorCode::PoolsUnreadable, fault)),
        }
    }

    async fn refresh_datasets(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, REFRESH_ACTION).await?;
        Ok(self.publisher.refresh_datasets_at_leisure().await?)
    }

    #[zbus(out_args("origin", "used"))]
    async fn destroy_clone(
        &self,
        name: String,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, u64), Failure> {
        let dry = flag(&options, "dry-run")?;
        only(&options, &["dry-run"])?;
        if !dry {
            self.authority.check(connection, &call, DATASET_ACTION).await?;
        }
        let agent = self.agent.clone();
        let (origin, clone) = off_the_bus(move || clones::destroy(agent.zfs.sets(), &name, dry)).await??;
        Ok((origin.to_string(), clone.used))
    }

    async fn forget_pool(
        &self,
        guid: u64,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, CONFIGURE_ACTION).await?;
        let guid = PoolGuid::new(guid);
        if self.agent.pool(guid).is_some() {
            return Err(Failure::new(
                ErrorCode::PoolNotFound,
                format!("pool {guid} is imported: `zpool export` it, and it is forgotten"),
            ));
        }
        match self.agent.forget_pool(guid) {
            Ok(true) => Ok(self.publisher.publish_settings().await?),
            Ok(false) => Err(Failure::new(ErrorCode::PoolNotFound, format!("no pool with guid {guid} is expected"))),
            Err(error) => Err(Failure::new(ErrorCode::ConfigWriteFailed, crate::chain(&error))),
        }
    }

    #[zbus(out_args("values"))]
    async fn get_config(&self, options: Options) -> Result<ConfigMap, Failure> {
        only(&options, &[])?;
        let (config, _) = BoxConfig::load(&self.agent.root)
            .map_err(|e| Failure::new(ErrorCode::ConfigUnreadable, crate::chain(&e)))?;
        let set = Key::ALL.into_iter().filter_map(|key| Some((key.as_str().to_owned(), to_wire(config.value(key)?))));
        set.map(|(key, value)| Ok((key, value?))).collect()
    }

    #[zbus(out_args("receipt"))]
    async fn get_receipt(&self, options: Options) -> Result<Vec<u8>, Failure> {
        only(&options, &[])?;
        receipt(&self.agent.root)
    }

    #[zbus(out_args("takes"))]
    async fn set_config(
        &self,
        key: &str,
        value: OwnedVariant,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Failure> {
        self.authority.check(connection, &call, CONFIGURE_ACTION).await?;
        self.change(key, Some(from_wire(key, value)?), &options).await
    }

    #[zbus(out_args("takes"))]
    async fn unset_config(
        &self,
        key: &str,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Failure> {
        self.authority.check(connection, &call, CONFIGURE_ACTION).await?;
        self.change(key, None, &options).await
    }

    #[zbus(out_args("archive"))]
    async fn support_bundle(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<u8>, Failure> {
        only(&options, &[])?;
        self.authority.check(connection, &call, SUPPORT_ACTION).await?;
        let agent = self.agent.clone();
        let bundle = tokio::task::spawn_blocking(move || support::bundle(&agent)).await;
        let bundle = bundle.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
        bundle.map_err(|e| Failure::new(ErrorCode::SupportFailed, crate::chain(&e)))
    }
}
