use super::*;

const TANK: u64 = 7;

fn pool(state: PoolState, errors: u64) -> Pool {
    Pool {
        guid: PoolGuid::new(TANK),
        name: "tank".parse().unwrap(),
        state,
        size: 100,
        free: 50,
        errors,
        members: Vec::new(),
    }
}

fn unit(active_state: &str, has_job: bool) -> Option<UnitFact> {
    Some(UnitFact { active_state: active_state.into(), has_job })
}

/// A box on which everything is as it should be.
fn well() -> Facts {
    Facts {
        units: BTreeMap::from([("ssh.service".to_owned(), unit("active", false))]),
        settled: true,
        state: Some(StateFact::Writable { size: 1000, free: 500 }),
        state_free_min: Some(FreeMin::Percent(5)),
        pools: Some(Ok(vec![pool(PoolState::Online, 0)])),
        expected: BTreeMap::from([(
            PoolGuid::new(TANK),
            ExpectedFact { name: "tank".parse().unwrap(), baseline: Some(PoolState::Online) },
        )]),
        import: ImportFact::Done(BTreeMap::new()),
        ..Facts::default()
    }
}

fn judged(change: impl FnOnce(&mut Facts)) -> (Health, Vec<&'static str>) {
    let mut facts = well();
    change(&mut facts);
    let verdict = evaluate(&facts);
    (verdict.health, verdict.reasons.iter().map(|r| r.code).collect())
}

#[test]
fn a_box_that_is_well_has_no_reasons() {
    assert_eq!(judged(|_| ()), (Health::Healthy, vec![]));
}

#[test]
fn before_anything_is_known_it_is_starting() {
    assert_eq!(evaluate(&Facts::default()).health, Health::Starting);
}

#[test]
fn each_state_of_a_unit() {
    let cases = [
        (unit("active", false), true, Health::Healthy, None),
        (unit("reloading", true), true, Health::Healthy, None),
        (unit("failed", false), true, Health::Failed, Some("unit-failed")),
        (unit("failed", false), false, Health::Failed, Some("unit-failed")),
        (unit("inactive", false), true, Health::Failed, Some("unit-inactive")),
        (unit("inactive", false), false, Health::Failed, Some("unit-inactive")),
        (unit("inactive", true), false, Health::Starting, Some("unit-starting")),
        (unit("activating", true), false, Health::Starting, Some("unit-starting")),
        (unit("activating", true), true, Health::Degraded, Some("unit-restarting")),
        // Between two tries of Restart=: the unit is down, with a start to come.
        (unit("activating", false), true, Health::Degraded, Some("unit-restarting")),
        (unit("failed", true), true, Health::Degraded, Some("unit-restarting")),
        (None, false, Health::Starting, Some("unit-starting")),
    ];
    for (fact, settled, health, code) in cases {
        let judged = judged(|f| {
            f.settled = settled;
            f.units.insert("ssh.service".into(), fact.clone());
        });
        assert_eq!(judged, (health, code.into_iter().collect()), "{fact:?} settled {settled}");
    }
}

#[test]
fn each_state_of_the_state_partition() {
    let cases = [
        (StateFact::NotMounted, Health::Failed, "state-not-mounted"),
        (StateFact::ReadOnly, Health::Failed, "state-read-only"),
        (StateFact::Writable { size: 1000, free: 49 }, Health::Degraded, "state-low"),
    ];
    for (fact, health, code) in cases {
        assert_eq!(judged(|f| f.state = Some(fact)), (health, vec![code]));
    }
    assert_eq!(judged(|f| f.state = Some(StateFact::Writable { size: 1000, free: 50 })).0, Health::Healthy);
    let on_trial = |free| judged(move |f| (f.trial, f.state) = (true, Some(StateFact::Writable { size: 1000, free })));
    assert_eq!(on_trial(49), (Health::Failed, vec!["state-low"]));
    assert_eq!(on_trial(50).0, Health::Healthy);
}

#[test]
fn a_pool_that_is_worse_fails_a_trial_and_only_degrades_a_committed_slot() {
    let now = |state| move |f: &mut Facts| f.pools = Some(Ok(vec![pool(state, 0)]));
    assert_eq!(judged(now(PoolState::Degraded)), (Health::Degraded, vec!["pool-degraded"]));
    assert_eq!(judged(now(PoolState::Suspended)), (Health::Degraded, vec!["pool-faulted"]));
    let on_trial = |before: Option<PoolState>, now: Option<PoolState>| {
        judged(move |f| {
            f.trial = true;
            f.pools = Some(Ok(now.map(|state| pool(state, 0)).into_iter().collect()));
            f.expected.values_mut().for_each(|e| e.baseline = before);
        })
        .0
    };
    assert_eq!(on_trial(Some(PoolState::Online), Some(PoolState::Degraded)), Health::Failed);
    assert_eq!(on_trial(Some(PoolState::Degraded), Some(PoolState::Degraded)), Health::Degraded);
    assert_eq!(on_trial(Some(PoolState::Degraded), Some(PoolState::Suspended)), Health::Failed);
    assert_eq!(on_trial(Some(PoolState::Degraded), None), Health::Failed);
    assert_eq!(on_trial(None, None), Health::Degraded);
    assert_eq!(on_trial(Some(PoolState::Online), Some(PoolState::Online)), Health::Healthy);
}

#[test]
fn a_missing_pool_says_why() {
    let missing = |import: ImportFact, settled: bool| {
        let mut facts = well();
        facts.pools = Some(Ok(Vec::new()));
        facts.import = import;
        facts.settled = settled;
        let verdict = evaluate(&facts);
        (verdict.health, verdict.reasons[0].code, verdict.reasons[0].text.clone())
    };
    let failed = BTreeMap::from([(PoolGuid::new(TANK), "no device".to_owned())]);
    let (health, code, text) = missing(ImportFact::Done(failed), true);
    assert_eq!((health, code), (Health::Degraded, "pool-missing"));
    assert!(text.contains("no device") && text.contains("\"tank\"") && text.contains("forget 7"), "{text}");
    assert_eq!(missing(ImportFact::Pending, false).0, Health::Starting);
    assert_eq!(missing(ImportFact::NotRun, false).1, "pool-missing");
}

#[test]
fn zfs_that_does_not_answer_fails_and_lost_data_degrades() {
    assert_eq!(judged(|f| f.pools = Some(Err("no module".into()))), (Health::Failed, vec!["pools-unreadable"]));
    assert_eq!(
        judged(|f| f.pools = Some(Ok(vec![pool(PoolState::Online, 3)]))),
        (Health::Degraded, vec!["pool-errors"])
    );
}

#[test]
fn the_gravest_reason_comes_first_and_gives_the_health() {
    let (health, codes) = judged(|f| {
        f.config_faults.insert("x".into());
        f.slot_mismatch = Some("y".into());
        f.settled = false;
        f.units.insert("late.service".into(), unit("activating", true));
    });
    assert_eq!((health, codes), (Health::Failed, vec!["slot-mismatch", "unit-starting", "config-invalid"]));
}

#[test]
fn what_is_wrong_with_the_agent_itself_fails() {
    assert_eq!(judged(|f| f.settings_fault = Some("x".into())).1, ["settings-invalid"]);
    assert_eq!(judged(|f| f.identity_fault = Some("x".into())).0, Health::Failed);
    assert_eq!(judged(|f| f.memory_fault = Some("x".into())).1, ["identity-fault"]);
    assert_eq!(judged(|f| f.config_faults = BTreeSet::from(["x".into()])), (Health::Degraded, vec!["config-invalid"]));
}
