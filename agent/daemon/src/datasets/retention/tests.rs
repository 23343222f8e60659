use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000;

fn point(n: u64, epoch: u64) -> Snapshot {
    Snapshot { label: Label::of_epoch(epoch), guid: Guid::new(n + 1), createtxg: n }
}

fn points(epochs: &[u64]) -> Vec<Snapshot> {
    epochs.iter().enumerate().map(|(n, epoch)| point(n as u64, *epoch)).collect()
}

fn remaining(points: &[Snapshot], needs: &BTreeMap<Guid, BTreeSet<Need>>, policy: &Policy, now: u64) -> Vec<Snapshot> {
    let gone: BTreeSet<Label> =
        decide(points, needs, policy, now).into_iter().filter(Decision::goes).map(|d| d.label).collect();
    points.iter().filter(|point| !gone.contains(&point.label)).cloned().collect()
}

const TIERS: Policy = Policy { all: DAY, hourly: 2 * DAY, daily: 14 * DAY, weekly: 42 * DAY, monthly: 365 * DAY };

#[test]
fn each_point_says_why_it_stays() {
    let midnight = NOW / DAY * DAY;
    let needed = Need::Base { vector: "a:7".to_owned() };
    let points =
        points(&[midnight - 500 * DAY, midnight - 30 * DAY + 5, midnight - 30 * DAY + 6, midnight - 60, midnight]);
    let needs = BTreeMap::from([(points[2].guid, BTreeSet::from([needed.clone()]))]);
    let decided = decide(&points, &needs, &TIERS, midnight + 60);
    let stays: Vec<Vec<Why>> = decided.into_iter().map(|d| d.stays).collect();
    let period = Why::Period;
    assert_eq!(stays[0], []);
    assert_eq!(stays[1], [period(Period::Week), period(Period::Month)]);
    assert_eq!(stays[2], [Why::Needed(needed)]);
    let all: Vec<Why> = [Why::All].into_iter().chain(Period::ALL.map(period)).collect();
    assert_eq!(stays[3], all);
    assert_eq!(stays[4], [Why::All, period(Period::Hour), period(Period::Day), Why::Newest]);
    let text = stays[4].iter().map(Why::to_string).collect::<Vec<_>>().join("; ");
    assert!(text.ends_with("it is the first one of its day; it is the newest one"), "{text}");
}

#[test]
fn weeks_begin_on_monday_and_months_have_their_own_length() {
    // Sunday the 31st of December 2023, and the day after it.
    let (sunday, monday) = (1_703_980_800, 1_704_067_200);
    for period in [Period::Week, Period::Month] {
        assert_eq!(period.of(sunday), period.of(sunday + DAY - 1));
        assert_eq!(period.of(monday), period.of(sunday) + 1, "{period}");
    }
    assert_eq!(Period::Week.of(monday), Period::Week.of(monday + 7 * DAY - 1));
}

#[test]
fn what_is_no_recovery_point_is_not_decided_on() {
    let mut all = points(&[NOW - 9 * DAY, NOW]);
    all[0].label = "before-the-migration".parse().unwrap();
    let decided = decide(&all, &BTreeMap::new(), &Policy::default(), NOW);
    assert_eq!(decided.len(), 1);
    // Nothing but the last copy, with a policy that keeps nothing.
    assert_eq!(decided[0].stays, [Why::Newest]);
}

#[test]
fn a_clock_that_was_set_back_destroys_nothing() {
    let all = points(&[NOW - 400 * DAY, NOW + 3 * DAY, NOW + 2 * DAY]);
    let decided = decide(&all, &BTreeMap::new(), &Policy::default(), NOW);
    assert_eq!(decided.iter().map(Decision::goes).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(decided[2].stays, [Why::Future, Why::Newest]);
}

#[test]
fn what_comes_later_takes_no_points_place() {
    // Of one day each; then what claims to have been before them, as a sender could have it received.
    let (day, other) = (NOW - 9 * DAY, NOW - 8 * DAY);
    let all = points(&[day, other, day - 1, other - 1, NOW]);
    let policy = Policy { daily: 20 * DAY, ..Policy::default() };
    let kept = remaining(&all, &BTreeMap::new(), &policy, NOW + 60);
    assert_eq!(kept, [all[0].clone(), all[1].clone(), all[4].clone()]);
}

prop_compose! {
    fn policies()(all in 0..3 * DAY, hourly in 0..5 * DAY, daily in 0..30 * DAY, weekly in 0..90 * DAY, monthly in 0..400 * DAY) -> Policy {
        Policy { all, hourly, daily, weekly, monthly }
    }
}

proptest! {
    #[test]
    fn pruning_often_comes_to_the_same_as_pruning_once(
        policy in policies(),
        gaps in prop::collection::vec(1..3 * DAY, 1..60),
        looks in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut at = NOW;
        let epochs: Vec<u64> = gaps.iter().map(|gap| { at += gap; at }).collect();
        let all = points(&epochs);
        let mut kept: Vec<Snapshot> = Vec::new();
        for (point, look) in all.iter().zip(looks) {
            kept.push(point.clone());
            if look {
                kept = remaining(&kept, &BTreeMap::new(), &policy, point.label.epoch().unwrap());
            }
        }
        let now = at + 1;
        // What was the newest one when it was looked at may be there in addition.
        let often = remaining(&kept, &BTreeMap::new(), &policy, now);
        let once = remaining(&all, &BTreeMap::new(), &policy, now);
        prop_assert!(once.iter().all(|point| often.contains(point)), "{once:?} but {often:?}");
        prop_assert_eq!(remaining(&often, &BTreeMap::new(), &policy, now), often);
    }

    #[test]
    fn what_is_needed_stays_and_so_does_the_last_copy(
        policy in policies(),
        epochs in prop::collection::vec(NOW - 500 * DAY..NOW + DAY, 1..50),
        needed in prop::collection::vec(any::<bool>(), 50),
    ) {
        let epochs: BTreeSet<u64> = epochs.into_iter().collect();
        let all = points(&epochs.into_iter().collect::<Vec<_>>());
        let need = BTreeSet::from([Need::Queued { vector: "a:1".to_owned() }]);
        let chosen = all.iter().zip(needed).filter(|(_, needed)| *needed);
        let needs: BTreeMap<Guid, BTreeSet<Need>> = chosen.map(|(point, _)| (point.guid, need.clone())).collect();
        let kept = remaining(&all, &needs, &policy, NOW);
        prop_assert!(needs.keys().all(|guid| kept.iter().any(|point| point.guid == *guid)));
        prop_assert_eq!(kept.last(), all.last());
        // Each day within its span that had a point has one.
        for point in &all {
            let epoch = point.label.epoch().unwrap();
            let first = all.iter().find(|p| Period::Day.of(p.label.epoch().unwrap()) == Period::Day.of(epoch)).unwrap();
            if NOW.saturating_sub(first.label.epoch().unwrap()) < policy.daily {
                prop_assert!(kept.contains(first));
            }
        }
    }
}

#[test]
fn a_policy_is_words_and_none_is_no_policy() {
    let policy: Policy = "all=2d hourly=1w monthly=2y".parse().unwrap();
    assert_eq!(policy, Policy { all: 2 * DAY, hourly: 7 * DAY, monthly: 730 * DAY, ..Policy::default() });
    assert_eq!(policy.to_string(), "all=2d hourly=1w monthly=2y");
    assert_eq!("daily=36h".parse::<Policy>().unwrap().to_string(), "daily=36h");
    for bad in
        ["", " ", "all", "all=", "all=2", "all=2x", "all=-1d", "all=1d all=2d", "ever=1d", "all=99999999999999999y"]
    {
        assert!(bad.parse::<Policy>().is_err(), "{bad:?}");
    }
}
