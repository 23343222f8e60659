//! The shape of `install.toml`. Values are still texts here: `parse` says what is wrong with them, all at once.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{End, Mode, OtherOs, PoolLayout, Role};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct AnswersFile {
    // Looked at before all else.
    #[serde(rename = "schema")]
    _schema: i64,
    pub(super) id: Option<String>,
    pub(super) mode: Option<Mode>,
    pub(super) end: Option<End>,
    pub(super) target: Option<TargetFile>,
    pub(super) pools: Option<Vec<PoolFile>>,
    #[serde(default)]
    pub(super) destroy: Vec<DestroyFile>,
    #[serde(default)]
    pub(super) other_os: OtherOsFile,
    #[serde(default)]
    pub(super) identity: IdentityFile,
    #[serde(default)]
    pub(super) access: AccessFile,
    #[serde(default)]
    pub(super) network: NetworkFile,
    pub(super) pool: Option<NewPoolFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct TargetFile {
    pub(super) disk: String,
    pub(super) mirror: Option<String>,
    pub(super) slot_size: Option<String>,
    #[serde(default)]
    pub(super) keep_partitions: Vec<KeepFile>,
    #[serde(default)]
    pub(super) wipe_stale: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum KeepFile {
    Number(u32),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct PoolFile {
    pub(super) name: String,
    pub(super) guid: Option<String>,
    pub(super) members: Option<u64>,
    #[serde(default)]
    pub(super) allow_degraded: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DestroyFile {
    pub(super) name: String,
    pub(super) guid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct OtherOsFile {
    pub(super) default: Option<OtherOs>,
    #[serde(default)]
    pub(super) disks: BTreeMap<String, OtherOs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct IdentityFile {
    pub(super) role: Option<Role>,
    pub(super) hostname: Option<String>,
    pub(super) device_id: Option<String>,
    pub(super) timezone: Option<String>,
    pub(super) hostid: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct AccessFile {
    #[serde(default)]
    pub(super) ssh_keys: Vec<String>,
    pub(super) password_hash: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NetworkMode {
    #[default]
    #[serde(rename = "restore")]
    Unsaid,
    Dhcp,
    Static,
    CarryOver,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NetworkFile {
    #[serde(default)]
    pub(super) mode: NetworkMode,
    #[serde(default)]
    pub(super) dns: Vec<String>,
    #[serde(default)]
    pub(super) ntp: Vec<String>,
    #[serde(default)]
    pub(super) interfaces: Vec<InterfaceFile>,
    #[serde(default)]
    pub(super) bonds: Vec<BondFile>,
    #[serde(default)]
    pub(super) vlans: Vec<VlanFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct InterfaceFile {
    pub(super) mac: String,
    #[serde(default)]
    pub(super) dhcp: bool,
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    #[serde(default)]
    pub(super) gateways: Vec<String>,
    pub(super) mtu: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct BondFile {
    pub(super) name: String,
    pub(super) mode: String,
    pub(super) members: Vec<String>,
    #[serde(default)]
    pub(super) dhcp: bool,
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    #[serde(default)]
    pub(super) gateways: Vec<String>,
    pub(super) mtu: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct VlanFile {
    pub(super) name: String,
    pub(super) id: u16,
    /// A MAC address, or the name of a bond.
    pub(super) on: String,
    #[serde(default)]
    pub(super) dhcp: bool,
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    #[serde(default)]
    pub(super) gateways: Vec<String>,
    pub(super) mtu: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NewPoolFile {
    pub(super) name: String,
    pub(super) layout: PoolLayout,
    pub(super) disks: Vec<String>,
    #[serde(default)]
    pub(super) spares: Vec<String>,
    #[serde(default)]
    pub(super) log: Vec<String>,
}
