//! A label out of its list of names and values.

use std::collections::BTreeSet;

use super::{Label, PoolState, Vdev};
use crate::damage::Damage;
use crate::guid::{PoolGuid, VdevGuid};
use crate::nvlist::{List, Value};

/// What is wrong: the value of that name.
fn bad(field: &str) -> Damage {
    Damage::Content { field: field.to_owned() }
}

/// Looks for values of a kind; a value of another kind than wanted is an error, never an absence.
trait Fields {
    fn number(&self, name: &str) -> Result<Option<u64>, Damage>;
    fn numbers(&self, name: &str) -> Result<&[u64], Damage>;
    fn text(&self, name: &str) -> Result<Option<String>, Damage>;
    fn lists(&self, name: &str) -> Result<&[List], Damage>;
    fn list(&self, name: &str) -> Result<Option<&List>, Damage>;

    fn set(&self, name: &str) -> Result<bool, Damage> {
        Ok(self.number(name)?.is_some_and(|number| number != 0))
    }
}

impl Fields for List {
    fn number(&self, name: &str) -> Result<Option<u64>, Damage> {
        match self.find(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(*number)),
            Some(_) => Err(bad(name)),
        }
    }

    fn numbers(&self, name: &str) -> Result<&[u64], Damage> {
        match self.find(name) {
            None => Ok(&[]),
            Some(Value::Numbers(numbers)) => Ok(numbers),
            Some(_) => Err(bad(name)),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, Damage> {
        match self.find(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(bad(name)),
        }
    }

    fn lists(&self, name: &str) -> Result<&[List], Damage> {
        match self.find(name) {
            None => Ok(&[]),
            Some(Value::Lists(lists)) => Ok(lists),
            Some(_) => Err(bad(name)),
        }
    }

    fn list(&self, name: &str) -> Result<Option<&List>, Damage> {
        match self.find(name) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(bad(name)),
        }
    }
}

impl Label {
    /// The label that says all this. It has no uberblock yet.
    pub(crate) fn from_list(list: &List) -> Result<Self, Damage> {
        let label = Self {
            version: list.number("version")?.ok_or_else(|| bad("version"))?,
            name: list.text("name")?,
            pool: list.number("pool_guid")?.map(PoolGuid::new),
            state: PoolState::from_number(list.number("state")?.ok_or_else(|| bad("state"))?),
            txg: list.number("txg")?,
            create_txg: list.number("create_txg")?,
            hostid: hostid(list)?,
            hostname: list.text("hostname")?,
            vdev: list.number("guid")?.map(VdevGuid::new).ok_or_else(|| bad("guid"))?,
            top: list.number("top_guid")?.map(VdevGuid::new),
            tree: list.list("vdev_tree")?.map(Vdev::from_list).transpose()?,
            children: list.number("vdev_children")?,
            holes: list.numbers("hole_array")?.iter().copied().collect(),
            is_log: list.set("is_log")?,
            path: list.text("path")?,
            devid: list.text("devid")?,
            split_from: list.number("split_guid")?.map(PoolGuid::new),
            comment: list.text("comment")?,
            compatibility: list.text("compatibility")?,
            features_for_read: features(list)?,
            uberblock: None,
        };
        label.checked()
    }

    /// A device of a pool says which, and where in it. ZFS passes over labels that do not; here they are damage, since
    /// something of ZFS is on the device.
    fn checked(self) -> Result<Self, Damage> {
        if self.state.is_auxiliary() {
            return Ok(self);
        }
        let top = self.tree.as_ref().map(|tree| tree.guid);
        let missing = [
            ("name", self.name.is_none()),
            ("pool_guid", self.pool.is_none()),
            ("txg", self.txg.is_none()),
            ("vdev_tree", self.tree.is_none()),
            ("top_guid", self.top.is_none() || self.top != top),
        ];
        match missing.iter().find(|(_, missing)| *missing) {
            Some((field, _)) => Err(bad(field)),
            None => Ok(self),
        }
    }
}

fn hostid(list: &List) -> Result<Option<u32>, Damage> {
    match list.number("hostid")? {
        None | Some(0) => Ok(None),
        Some(id) => id.try_into().map(Some).map_err(|_| bad("hostid")),
    }
}

fn features(list: &List) -> Result<BTreeSet<String>, Damage> {
    Ok(list.list("features_for_read")?.into_iter().flat_map(List::names).map(str::to_owned).collect())
}

impl Vdev {
    /// The vdev that this describes. Lists are nested a limited number of times, and so are vdevs.
    fn from_list(list: &List) -> Result<Self, Damage> {
        let children = list.lists("children")?.iter().map(Self::from_list).collect::<Result<_, _>>()?;
        Ok(Self {
            kind: list.text("type")?.ok_or_else(|| bad("type"))?,
            guid: list.number("guid")?.map(VdevGuid::new).ok_or_else(|| bad("guid"))?,
            id: list.number("id")?.ok_or_else(|| bad("id"))?,
            path: list.text("path")?,
            devid: list.text("devid")?,
            phys_path: list.text("phys_path")?,
            nparity: list.number("nparity")?,
            ashift: list.number("ashift")?,
            asize: list.number("asize")?,
            whole_disk: list.number("whole_disk")?.map(|number| number != 0),
            is_log: list.set("is_log")?,
            is_spare: list.set("is_spare")?,
            offline: list.set("offline")?,
            removed: list.set("removed")?,
            faulted: list.set("faulted")?,
            degraded: list.set("degraded")?,
            not_present: list.set("not_present")?,
            resilvering: list.set("resilver_txg")? || list.set("rebuild_txg")?,
            removing: list.set("removing")?,
            expanding: list.find("raidz_expanding").is_some(),
            children,
        })
    }
}
