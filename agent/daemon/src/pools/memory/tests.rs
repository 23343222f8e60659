use super::*;

fn pool(guid: u64, name: &str, state: PoolState) -> Pool {
    Pool {
        guid: PoolGuid::new(guid),
        name: name.parse().unwrap(),
        state,
        size: 1,
        free: 1,
        errors: 0,
        members: Vec::new(),
    }
}

fn remembered(guids: &[u64]) -> Memory {
    guids
        .iter()
        .map(|g| (PoolGuid::new(*g), Remembered { name: format!("p{g}").parse().unwrap(), state: PoolState::Online }))
        .collect()
}

fn guids(memory: &Memory) -> Vec<u64> {
    memory.keys().map(|g| g.as_u64()).collect()
}

#[test]
fn a_pool_seen_is_remembered_with_its_present_name() {
    let (next, _) = reconcile(
        &remembered(&[1]),
        None,
        &[pool(1, "renamed", PoolState::Online), pool(2, "b", PoolState::Degraded)],
        &BTreeSet::new(),
        true,
    );
    assert_eq!(guids(&next), [1, 2]);
    assert_eq!(next[&PoolGuid::new(1)].name.as_str(), "renamed");
    assert_eq!(next[&PoolGuid::new(2)].state, PoolState::Degraded);
}

#[test]
fn before_this_boots_import_nothing_is_forgotten() {
    let (next, boot) = reconcile(&remembered(&[1, 2]), None, &[], &BTreeSet::new(), true);
    assert_eq!(guids(&next), [1, 2]);
    assert_eq!(boot, None);
}

#[test]
fn after_it_a_pool_that_is_gone_was_exported_unless_its_import_failed() {
    let failed = BootImports::from([(PoolGuid::new(2), "no device".to_owned())]);
    let (next, boot) = reconcile(&remembered(&[1, 2]), Some(&failed), &[], &BTreeSet::new(), true);
    assert_eq!(guids(&next), [2]);
    assert_eq!(boot, Some(failed));
}

#[test]
fn a_failed_pool_imported_by_hand_and_exported_again_is_forgotten() {
    let failed = BootImports::from([(PoolGuid::new(2), "no device".to_owned())]);
    let (next, boot) =
        reconcile(&remembered(&[2]), Some(&failed), &[pool(2, "p2", PoolState::Online)], &BTreeSet::new(), true);
    let boot = boot.unwrap();
    assert!(boot.is_empty(), "the failure no longer stands");
    let (next, _) = reconcile(&next, Some(&boot), &[], &BTreeSet::from([PoolGuid::new(2)]), true);
    assert!(next.is_empty());
}

#[test]
fn on_trial_the_measure_stays_what_the_committed_slot_saw() {
    let seen = [pool(1, "p1", PoolState::Degraded)];
    let (next, _) = reconcile(&remembered(&[1]), None, &seen, &BTreeSet::new(), false);
    assert_eq!(next[&PoolGuid::new(1)].state, PoolState::Online);
    let (next, _) = reconcile(&remembered(&[1]), None, &seen, &BTreeSet::new(), true);
    assert_eq!(next[&PoolGuid::new(1)].state, PoolState::Degraded);
}

#[test]
fn files_come_back_as_written_and_damage_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    assert!(load(&root).unwrap().is_empty());
    assert_eq!(load_boot(&root).unwrap(), None);
    let memory = remembered(&[1, u64::MAX]);
    store(&root, &memory).unwrap();
    assert_eq!(load(&root).unwrap(), memory);
    let failed = BootImports::from([(PoolGuid::new(u64::MAX), "say \"why\"".to_owned())]);
    store_boot(&root, &failed).unwrap();
    assert_eq!(load_boot(&root).unwrap(), Some(failed));
    root.write(POOLS, b"schema = 1\n[[pool]]\nguid = \"x\"\nname = \"a\"\nstate = \"ONLINE\"\n", 0o644).unwrap();
    assert_eq!(load(&root).unwrap_err().code(), "pools-memory-damaged");
}
