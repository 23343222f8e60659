//! `siris-agent import-pools`: imports the remembered pools, once per boot, by guid, and nothing else.
//!
//! A pool that is not remembered (foreign, exported, destroyed) is never looked at. Devices may be late: a pool that
//! is not found, or is not whole, is tried again until the time is up; its failure is then recorded, and the agent's
//! health says it.

use std::time::{Duration, Instant};

use siris_zfs::{PoolGuid, Zfs, ZfsError};

use crate::pools::memory::{self, BootImports, Memory, MemoryError};
use crate::root::Root;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It had been done in this boot.
    AlreadyDone,
    /// It was done now; these could not be imported.
    Done(BootImports),
}

/// Imports what is remembered. `pause` sleeps between tries.
///
/// # Errors
/// When the memory cannot be read or the record not be written. That a pool fails to import is no error here.
pub fn import_pools(
    root: &Root,
    zfs: &dyn Zfs,
    limit: Duration,
    pause: &mut dyn FnMut(Duration),
) -> Result<Outcome, MemoryError> {
    if memory::load_boot(root)?.is_some() {
        return Ok(Outcome::AlreadyDone);
    }
    let memory = memory::load(root)?;
    let failed = if memory.is_empty() { BootImports::new() } else { import_until(zfs, &memory, limit, pause) };
    memory::store_boot(root, &failed)?;
    Ok(Outcome::Done(failed))
}

fn import_until(zfs: &dyn Zfs, memory: &Memory, limit: Duration, pause: &mut dyn FnMut(Duration)) -> BootImports {
    let begin = Instant::now();
    let mut wait = Duration::from_millis(500);
    loop {
        // A mirror imports from its first half. For a third of the time its second half is waited for.
        let whole_only = begin.elapsed() < limit / 3;
        let failed = import_once(zfs, memory, whole_only);
        let left = limit.saturating_sub(begin.elapsed());
        if failed.is_empty() || left.is_zero() {
            return failed;
        }
        pause(wait.min(left));
        wait = (wait * 2).min(Duration::from_secs(8));
    }
}

fn import_once(zfs: &dyn Zfs, memory: &Memory, whole_only: bool) -> BootImports {
    let imported: Vec<PoolGuid> = match zfs.pools() {
        Ok(pools) => pools.iter().map(|p| p.guid).collect(),
        Err(error) => {
            let text = chain(&error);
            return memory.keys().map(|guid| (*guid, text.clone())).collect();
        }
    };
    // Where the list cannot be had, the import itself decides.
    let listed = if whole_only { zfs.importable().unwrap_or_default() } else { Vec::new() };
    let mut failed = BootImports::new();
    for (guid, pool) in memory.iter().filter(|(guid, _)| !imported.contains(guid)) {
        let found = listed.iter().find(|p| p.guid == *guid);
        if let Some(found) = found.filter(|p| p.state > pool.state) {
            failed.insert(*guid, format!("some of its devices are not there yet ({})", found.state));
            continue;
        }
        match zfs.import(*guid, &pool.name) {
            Ok(()) => eprintln!("imported pool {} (guid {guid})", pool.name),
            Err(error) => {
                failed.insert(*guid, chain(&error));
            }
        }
    }
    failed
}

fn chain(error: &ZfsError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    // One line: it becomes part of a health reason.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::memory::reconcile;
    use siris_zfs::Model;
    use std::collections::BTreeSet;

    fn box_with(zfs: &Model) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let (memory, _) = reconcile(&Memory::new(), None, &zfs.pools().unwrap(), &BTreeSet::new(), true);
        memory::store(&root, &memory).unwrap();
        (dir, root)
    }

    #[test]
    fn remembered_pools_come_back_and_foreign_ones_do_not() {
        let zfs = Model::new();
        zfs.create(1, "mine");
        let (_dir, root) = box_with(&zfs);
        zfs.create(2, "foreign");
        zfs.reboot();
        assert_eq!(import_pools(&root, &zfs, Duration::ZERO, &mut |_| ()).unwrap(), Outcome::Done(BootImports::new()));
        let names: Vec<String> = zfs.pools().unwrap().iter().map(|p| p.name.to_string()).collect();
        assert_eq!(names, ["mine"]);
    }

    #[test]
    fn it_is_done_once_per_boot() {
        let zfs = Model::new();
        let guid = zfs.create(1, "mine");
        let (_dir, root) = box_with(&zfs);
        zfs.reboot();
        import_pools(&root, &zfs, Duration::ZERO, &mut |_| ()).unwrap();
        zfs.export(&"mine".parse().unwrap()).unwrap();
        assert_eq!(import_pools(&root, &zfs, Duration::ZERO, &mut |_| ()).unwrap(), Outcome::AlreadyDone);
        assert!(zfs.pools().unwrap().is_empty(), "{guid} was imported behind the operator's back");
    }

    #[test]
    fn a_late_device_is_waited_for_and_a_failure_is_recorded() {
        let zfs = Model::new();
        let (late, never) = (zfs.create(1, "late"), zfs.create(2, "never"));
        let (_dir, root) = box_with(&zfs);
        zfs.reboot();
        zfs.change(late, |p| p.hidden = true);
        zfs.change(never, |p| p.hidden = true);
        let mut pauses = 0;
        let outcome = import_pools(&root, &zfs, Duration::from_millis(50), &mut |_| {
            pauses += 1;
            zfs.change(late, |p| p.hidden = false);
            std::thread::sleep(Duration::from_millis(20));
        });
        let Ok(Outcome::Done(failed)) = outcome else { panic!("{outcome:?}") };
        assert!(pauses >= 1);
        assert_eq!(failed.keys().copied().collect::<Vec<_>>(), [never]);
        assert_eq!(memory::load_boot(&root).unwrap(), Some(failed));
        assert_eq!(memory::load(&root).unwrap().len(), 2, "a pool that fails to import stays remembered");
    }

    #[test]
    fn a_pool_whose_devices_are_late_is_not_imported_from_half_of_them() {
        let zfs = Model::new();
        let guid = zfs.create(1, "mirror");
        let (_dir, root) = box_with(&zfs);
        zfs.reboot();
        zfs.change(guid, |p| p.pool.state = siris_zfs::PoolState::Degraded);
        let mut seen_waiting = false;
        import_pools(&root, &zfs, Duration::from_secs(600), &mut |_| {
            seen_waiting = zfs.pools().unwrap().is_empty();
            zfs.change(guid, |p| p.pool.state = siris_zfs::PoolState::Online);
        })
        .unwrap();
        assert!(seen_waiting, "it was imported from what was there");
        assert_eq!(zfs.pools().unwrap().len(), 1);
    }

    #[test]
    fn a_pool_that_was_degraded_before_is_not_waited_for() {
        let zfs = Model::new();
        let guid = zfs.create(1, "mirror");
        zfs.change(guid, |p| p.pool.state = siris_zfs::PoolState::Degraded);
        let (_dir, root) = box_with(&zfs);
        zfs.reboot();
        import_pools(&root, &zfs, Duration::from_secs(600), &mut |_| panic!("it waits")).unwrap();
        assert_eq!(zfs.pools().unwrap().len(), 1);
    }

    #[test]
    fn without_zfs_each_pool_is_recorded_as_failed() {
        let zfs = Model::new();
        zfs.create(1, "mine");
        let (_dir, root) = box_with(&zfs);
        zfs.set_broken(true);
        let Outcome::Done(failed) = import_pools(&root, &zfs, Duration::ZERO, &mut |_| ()).unwrap() else { panic!() };
        assert_eq!(failed.len(), 1);
    }
}
