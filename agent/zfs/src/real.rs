//! The real ZFS: the `zpool` tool, and libzfs_core where it is linked.

use siris_host::cmd::{Cmd, Tool};

use crate::types::{DatasetName, ImportablePool, Pool, PoolGuid, PoolName};
use crate::{Datasets, UserProperties, Zfs, ZfsError, import_text, status_json};

/// Where mount points of imported pools lie: below this, and the pool's name. An old pool may carry `mountpoint=/`.
pub const IMPORT_ROOT: &str = "/srv/pools";

/// How often a listing is tried when pools come and go meanwhile.
const LIST_TRIES: usize = 4;

/// OpenZFS of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenZfs;

fn zpool(arguments: &[&str]) -> Cmd {
    Cmd::new(Tool::Zpool).args(arguments)
}

impl OpenZfs {
    fn list_once(&self) -> Result<Option<Vec<Pool>>, ZfsError> {
        const LIST: &str = "zpool list -j --json-int -p -o size,free";
        const STATUS: &str = "zpool status -j --json-int -p -P";
        let list = zpool(&["list", "-j", "--json-int", "-p", "-o", "size,free"]).output()?;
        let spaces = status_json::parse_list(&list).map_err(|source| ZfsError::ReadJson { command: LIST, source })?;
        if spaces.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let status = zpool(&["status", "-j", "--json-int", "-p", "-P"]).output()?;
        status_json::parse_status(&status, &spaces).map_err(|source| ZfsError::ReadJson { command: STATUS, source })
    }
}

impl Zfs for OpenZfs {
    fn pools(&self) -> Result<Vec<Pool>, ZfsError> {
        for _ in 0..LIST_TRIES {
            if let Some(pools) = self.list_once()? {
                return Ok(pools);
            }
        }
        Err(ZfsError::ChangedMeanwhile)
    }

    fn active_features(&self) -> Result<Vec<(PoolName, Vec<String>)>, ZfsError> {
        let mut all = Vec::new();
        for pool in self.pools()? {
            let text = zpool(&["get", "-H", "-o", "property,value", "all", pool.name.as_str()]).text()?;
            let active = |line: &str| {
                let (name, value) = line.split_once('\t')?;
                // Active, though this ZFS does not know it: the pool is imported read-only, or it is read-compatible.
                let name = name.strip_prefix("feature@").or_else(|| name.strip_prefix("unsupported@"))?;
                (value != "enabled" && value != "disabled" && value != "inactive").then(|| name.to_owned())
            };
            all.push((pool.name, text.lines().filter_map(active).collect()));
        }
        Ok(all)
    }

    fn importable(&self) -> Result<Vec<ImportablePool>, ZfsError> {
        match zpool(&["import", "-d", "/dev/disk/by-id", "-d", "/dev"]).text() {
            Ok(text) => Ok(import_text::parse(&text)?),
            // It exits 1, with these words, where there is none.
            Err(error) if error.to_string().contains("no pools available to import") => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn import(&self, guid: PoolGuid, name: &PoolName) -> Result<(), ZfsError> {
        let guid_text = guid.to_string();
        let root = format!("{IMPORT_ROOT}/{name}");
        let arguments =
            ["import", "-N", "-R", &root, "-o", "cachefile=none", "-d", "/dev/disk/by-id", "-d", "/dev", &guid_text];
        match zpool(&arguments).output() {
            Ok(_) => self.answers(name),
            Err(error) if error.to_string().contains("no such pool available") => Err(ZfsError::NotFound(guid)),
            Err(error) => Err(error.into()),
        }
    }

    fn user_properties(&self, dataset: &DatasetName) -> Result<Option<UserProperties>, ZfsError> {
        let get = ["get", "-H", "-p", "-o", "property,value", "-s", "local", "all", dataset.as_str()];
        match Cmd::new(Tool::Zfs).args(get).text() {
            Ok(text) => {
                let property =
                    |line: &str| line.split_once('\t').map(|(name, value)| (name.to_owned(), value.to_owned()));
                Ok(Some(text.lines().filter_map(property).filter(|(name, _)| name.contains(':')).collect()))
            }
            Err(error) if error.to_string().contains("dataset does not exist") => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn set_user_properties(&self, dataset: &DatasetName, properties: &UserProperties) -> Result<(), ZfsError> {
        if self.user_properties(dataset)?.is_none() {
            // One by one: what `create -p` makes on the way is mounted.
            for name in dataset.from_the_top() {
                let create = ["create", "-o", "canmount=off", "-o", "mountpoint=none", name];
                match Cmd::new(Tool::Zfs).args(create).output() {
                    Err(error) if !error.to_string().contains("dataset already exists") => return Err(error.into()),
                    _ => {}
                }
            }
        }
        let (set, unset): (Vec<_>, Vec<_>) = properties.iter().partition(|(_, value)| !value.is_empty());
        if !set.is_empty() {
            let set = set.iter().map(|(name, value)| format!("{name}={value}"));
            Cmd::new(Tool::Zfs).arg("set").args(set).arg(dataset.as_str()).output()?;
        }
        for (name, _) in unset {
            Cmd::new(Tool::Zfs).args(["inherit", name, dataset.as_str()]).output()?;
        }
        Ok(())
    }

    fn export(&self, name: &PoolName) -> Result<(), ZfsError> {
        zpool(&["export", name.as_str()]).output()?;
        Ok(())
    }

    fn sets(&self) -> &dyn Datasets {
        self
    }
}

impl OpenZfs {
    /// An import that ends well and leaves a pool whose root dataset is not there has been seen with pools that are
    /// suspended at once; libzfs_core tells without another process.
    #[cfg(feature = "libzetta")]
    fn answers(self, name: &PoolName) -> Result<(), ZfsError> {
        if crate::lzc::exists(name) { Ok(()) } else { Err(ZfsError::Unanswering(name.clone())) }
    }

    #[cfg(not(feature = "libzetta"))]
    fn answers(self, name: &PoolName) -> Result<(), ZfsError> {
        Cmd::new(Tool::Zfs)
            .args(["list", "-H", "-o", "name", name.as_str()])
            .output()
            .map(drop)
            .map_err(|_| ZfsError::Unanswering(name.clone()))
    }
}
