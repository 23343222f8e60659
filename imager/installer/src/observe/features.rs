//! The features of a pool that its labels do not name.
//!
//! Labels have only what is needed to find the rest; all others are in the pool's meta object set. This system's own
//! `zdb` opens it as the new system's kernel would, but in user space, read-only, and from no other devices than the
//! pool's. Nothing is imported, and the kernel's ZFS takes no part.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use siris_host::cmd::{Cmd, Tool};
use siris_zfs_label::PoolState;

use crate::facts::{Facts, Health, Opened, Pool};
use crate::host::Host;

/// The meta object set's object that names all others.
const DIRECTORY: &str = "1";

/// Opens every pool of the machine that can be read, and notes what it has. Only behind the fence of a live system:
/// elsewhere a pool may be in use.
pub fn open_pools(host: &Host, facts: &mut Facts) {
    if !(facts.live && host.is_machine() && Tool::Zdb.is_present(None)) {
        return;
    }
    for pool in &mut facts.pools {
        if pool.state != PoolState::Destroyed && pool.health != Health::Incomplete {
            pool.opened = Some(open(host, pool).unwrap_or_else(failed));
        }
    }
}

/// What `zdb` means by its last words.
fn failed(why: String) -> Opened {
    // ENOTSUP, as C names it: what ZFS answers to a feature that it has to know.
    if why.contains("Operation not supported") { Opened::Unsupported } else { Opened::Failed(why) }
}

fn open(host: &Host, pool: &Pool) -> Result<Opened, String> {
    let devices = devices(host, pool).map_err(|error| format!("its devices cannot be listed: {error}"))?;
    let dump = |object: &str| {
        let zdb = Cmd::new(Tool::Zdb).args(["-e", "-p"]).arg(devices.path()).arg("-dddd").arg(&pool.name).arg(object);
        zdb.text().map_err(|error| error.to_string())
    };
    let directory = entries(&dump(DIRECTORY)?);
    let active = |name: &str| -> Result<Vec<String>, String> {
        let find = |(key, value): &(String, String)| (key == name).then(|| value.clone());
        let Some(object) = directory.iter().find_map(find) else {
            // Pools of versions before 5000 have no features.
            return if pool.version < 5000 { Ok(Vec::new()) } else { Err(format!("it has no list {name}")) };
        };
        let listed = entries(&dump(&object)?).into_iter();
        Ok(listed.filter(|(name, count)| name.contains(':') && count != "0").map(|(name, _)| name).collect())
    };
    Ok(Opened::Features { read: active("features_for_read")?, write: active("features_for_write")? })
}

/// A directory with a link to each of the pool's devices, and to nothing else.
fn devices(host: &Host, pool: &Pool) -> io::Result<tempfile::TempDir> {
    let run = host.path("/run/siris");
    fs::create_dir_all(&run)?;
    let dir = tempfile::Builder::new().prefix("zdb-").tempdir_in(run)?;
    for member in &pool.members {
        symlink(host.dev(member), dir.path().join(member))?;
    }
    Ok(dir)
}

/// Name and value of each entry of a ZAP object, as `zdb -dddd` prints them: `name = value`.
fn entries(text: &str) -> Vec<(String, String)> {
    let entry = |line: &str| {
        let (name, value) = line.trim().split_once(" = ")?;
        let plain = !name.is_empty() && !name.contains(char::is_whitespace);
        plain.then(|| (name.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::{entries, failed};
    use crate::facts::Opened;

    #[test]
    fn a_pool_with_features_to_come_is_not_one_that_is_damaged() {
        let ended = |why: &str| format!("zdb -e -p /run/x -dddd tank 1: exit status: 1\nzdb: can't open 'tank': {why}");
        assert_eq!(failed(ended("Operation not supported")), Opened::Unsupported);
        assert!(matches!(failed(ended("Input/output error")), Opened::Failed(_)));
    }

    #[test]
    fn the_entries_of_a_dumped_object_are_read() {
        let text = "    Object  lvl   iblk   dblk  dsize  dnsize  lsize   %full  type\n\
            \x20        1    1   128K    16K     8K     512    32K  100.00  object directory\n\
            \tdnode flags: USED_BYTES \n\tFat ZAP stats:\n\t\tPointer table:\n\t\t\t1024 elements\n\
            \t\troot_dataset = 32 \n\t\tfeatures_for_read = 49 \n\t\tsize = 1 of 2\n";
        let wanted = [("root_dataset", "32"), ("features_for_read", "49"), ("size", "1 of 2")];
        assert_eq!(entries(text), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
