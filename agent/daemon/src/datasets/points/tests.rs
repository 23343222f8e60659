use siris_zfs::{ModelDatasets, UserProperties};
use uuid::Uuid;

use super::*;
use crate::datasets::retention::Policy;
use crate::vectors::VectorId;
use crate::vectors::needs::Side;
use crate::vectors::plan::View;

const X: &str = "tank/home/agents/0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";

fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

fn at(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

fn id(number: u64) -> VectorId {
    VectorId { device: Uuid::from_u128(0xd), number }
}

/// An asset's dataset with these snapshots.
fn with(labels: &[&str]) -> ModelDatasets {
    let zfs = ModelDatasets::new(1, &["tank"]);
    zfs.create(&name(X)).unwrap();
    for label in labels {
        zfs.snapshot(&[name(X)], &label.parse().unwrap(), &UserProperties::new()).unwrap();
    }
    zfs
}

fn nobody(_: &View) -> Vec<(VectorId, Side)> {
    Vec::new()
}

fn labels(zfs: &ModelDatasets, dataset: &str) -> Vec<String> {
    zfs.snapshots(&name(dataset)).unwrap().iter().map(|snapshot| snapshot.label.to_string()).collect()
}

/// Why a point stays; both when it is only asked about and when it is to go, which leaves it there.
fn stays(zfs: &ModelDatasets, point: &str, concerned: &dyn Fn(&View) -> Vec<(VectorId, Side)>) -> Vec<String> {
    let [asked, told] = [true, false].map(|dry| match destroy(zfs, &name(X), point, concerned, dry).unwrap_err() {
        PointsError::Needed { why, .. } => why,
        other => panic!("{other}"),
    });
    assert_eq!(asked, told);
    assert!(labels(zfs, X).contains(&point.to_owned()));
    told
}

#[test]
fn a_point_is_found_by_its_name_or_its_time() {
    let zfs = with(&["1568402268", "by-hand:1", "2019-09-13T19:17:49Z"]);
    let found = |asked: &str| find(&zfs, &name(X), asked).map(|found| found.label.to_string());
    for asked in ["1568402268", "2019-09-13T19:17:48Z", "2019-09-13T21:17:48+02:00", "2019-09-13T19:17:48.000Z"] {
        assert_eq!(found(asked).unwrap(), "1568402268", "{asked}");
    }
    assert_eq!(found("by-hand:1").unwrap(), "by-hand:1");
    // What has the name goes before what has the time.
    assert_eq!(found("2019-09-13T19:17:49Z").unwrap(), "2019-09-13T19:17:49Z");
    for none in ["", "1", "2019-09-13T19:17:48.5Z", "2019-09-13T19:17:48", "2019-09-13", "1969-12-31T23:59:59Z", "a/b"]
    {
        assert!(matches!(found(none), Err(PointsError::Missing { .. })), "{none:?}");
    }
}

#[test]
fn a_hold_is_set_seen_and_taken_back() {
    let zfs = with(&["1", "2"]);
    for _ in 0..2 {
        assert_eq!(hold(&zfs, &name(X), "1970-01-01T00:00:01Z", "mine").unwrap().as_str(), "1");
    }
    zfs.hold(&at(&format!("{X}@2")), &id(1).tag()).unwrap();
    let asked = ["2", "1", "2", "gone"].map(str::to_owned);
    let found: Vec<(String, String)> =
        holds(&zfs, &name(X), &asked).unwrap().into_iter().map(|h| (h.label.to_string(), h.tag.to_string())).collect();
    assert_eq!(found, [("1".to_owned(), "mine".to_owned()), ("2".to_owned(), id(1).tag().to_string())]);
    assert!(matches!(holds(&zfs, &name(X), &["a/b".to_owned()]), Err(PointsError::Missing { .. })));

    let not_held = release(&zfs, &name(X), "2", "mine").unwrap_err();
    assert!(not_held.to_string().ends_with(&format!("@2 is not held by mine; it is by {}", id(1).tag())), "{not_held}");
    release(&zfs, &name(X), "1", "mine").unwrap();
    assert!(matches!(release(&zfs, &name(X), "1", "mine"), Err(PointsError::NotHeld { .. })));
    for missing in [hold(&zfs, &name(X), "3", "mine"), release(&zfs, &name(X), "3", "mine")] {
        assert!(matches!(missing, Err(PointsError::Missing { .. })));
    }
}

#[test]
fn the_holds_of_vectors_are_not_a_persons_to_set_or_release() {
    let zfs = with(&["1"]);
    let one = at(&format!("{X}@1"));
    zfs.hold(&one, &id(1).tag()).unwrap();
    let (own, other) = (id(1).tag().to_string(), id(2).tag().to_string());
    for tag in [&own, &other, "siris:vector:odd", "siris:restore:7", ".send-1", "", "a/b", "a,b"] {
        for refused in [hold(&zfs, &name(X), "1", tag), release(&zfs, &name(X), "1", tag)] {
            assert!(matches!(refused, Err(PointsError::Tag(_))), "{tag:?}");
        }
    }
    let held = zfs.holds(&name(X), &[one.label]).unwrap();
    assert_eq!(held.iter().map(|hold| hold.tag.to_string()).collect::<Vec<_>>(), [own]);
}

#[test]
fn one_point_goes_and_the_others_stay() {
    let zfs = with(&["100", "200", "300"]);
    let below = format!("{X}/below");
    zfs.create(&name(&below)).unwrap();
    zfs.snapshot(&[name(&below), name(X)], &"400".parse().unwrap(), &UserProperties::new()).unwrap();
    zfs.snapshot(&[name(&below), name(X)], &"500".parse().unwrap(), &UserProperties::new()).unwrap();
    let gone = |point: &str, dry| {
        let gone = destroy(&zfs, &name(X), point, &nobody, dry).unwrap();
        gone.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(gone("200", true), [format!("{X}@200")]);
    assert_eq!(labels(&zfs, X), ["100", "200", "300", "400", "500"]);
    assert_eq!(gone("1970-01-01T00:03:20Z", false), [format!("{X}@200")]);
    assert_eq!(gone("400", false), [format!("{below}@400"), format!("{X}@400")]);
    assert_eq!(labels(&zfs, X), ["100", "300", "500"]);
    assert_eq!(labels(&zfs, &below), ["500"]);
}

#[test]
fn no_policy_and_no_clock_keeps_a_point_that_was_named() {
    let zfs = with(&["99999999999", "1"]);
    let policy = Policy { all: u64::MAX, ..Policy::default() };
    zfs.set_property(&name(X), siris_zfs::RETENTION, Some(&policy.to_string())).unwrap();
    destroy(&zfs, &name(X), "99999999999", &nobody, false).unwrap();
    assert_eq!(labels(&zfs, X), ["1"]);
}

#[test]
fn the_newest_point_stays_whatever_the_clock_said() {
    let zfs = with(&["300", "100", "by-hand"]);
    assert_eq!(stays(&zfs, "100", &nobody), ["it is the newest one"]);
    destroy(&zfs, &name(X), "300", &nobody, false).unwrap();
    assert_eq!(stays(&zfs, "100", &nobody).len(), 1);
}

#[test]
fn what_is_no_recovery_point_is_not_destroyed() {
    let zfs = with(&["by-hand", "1", "2"]);
    for dry in [true, false] {
        let refused = destroy(&zfs, &name(X), "by-hand", &nobody, dry);
        assert!(matches!(refused, Err(PointsError::NoPoint(point)) if point == at(&format!("{X}@by-hand"))));
        assert!(matches!(destroy(&zfs, &name(X), "3", &nobody, dry), Err(PointsError::Missing { .. })));
    }
    assert_eq!(labels(&zfs, X).len(), 3);
}

#[test]
fn what_a_vector_goes_on_from_or_has_yet_to_send_stays() {
    let zfs = with(&["1", "2", "3", "4"]);
    let guid = zfs.snapshots(&name(X)).unwrap()[1].guid;
    Local::new(&zfs).keep(&name(X), &id(1), guid, None).unwrap();
    let sends = |_: &View| vec![(id(1), Side::Source)];
    let needs = stays(&zfs, "2", &sends);
    assert_eq!(needs, [format!("vector {} goes on from it", id(1)), format!("it is held by {}", id(1).tag())]);
    assert_eq!(stays(&zfs, "3", &sends), [format!("vector {} has yet to send it", id(1))]);
    // Its target needs the base, and no hold of it is asked for to know that.
    zfs.release(&at(&format!("{X}@2")), &id(1).tag()).unwrap();
    let receives = |_: &View| vec![(id(1), Side::Target)];
    assert_eq!(stays(&zfs, "2", &receives), [format!("vector {} goes on from it", id(1))]);
    // What a vector is about to send it holds, before anything else says so.
    zfs.hold(&at(&format!("{X}@1")), &id(2).tag()).unwrap();
    assert_eq!(stays(&zfs, "1", &nobody), [format!("it is held by {}", id(2).tag())]);
    destroy(&zfs, &name(X), "3", &receives, false).unwrap();
}

#[test]
fn a_point_that_is_held_or_has_clones_says_so_with_every_reason() {
    let zfs = with(&["1", "2"]);
    hold(&zfs, &name(X), "1", "audit").unwrap();
    hold(&zfs, &name(X), "1", "legal").unwrap();
    for clone in ["tank/c", "tank/d"] {
        zfs.clone_snapshot(&at(&format!("{X}@1")), &name(clone), &UserProperties::new()).unwrap();
    }
    let why = ["it is held by audit", "it is held by legal", "tank/c is a clone of it", "tank/d is a clone of it"];
    assert_eq!(stays(&zfs, "1", &nobody), why);
    // And when it is pruned.
    let policy = Policy { all: 1, ..Policy::default() };
    let decided = prune::decisions(&zfs, &name(X), &nobody, &policy, 1_000).unwrap().unwrap();
    assert_eq!(decided[0].stays.iter().map(ToString::to_string).collect::<Vec<_>>(), why);
}

#[test]
fn what_lies_in_the_dataset_keeps_the_whole_point() {
    let zfs = with(&["1"]);
    let below = format!("{X}/below");
    zfs.create(&name(&below)).unwrap();
    for label in ["2", "3"] {
        zfs.snapshot(&[name(&below), name(X)], &label.parse().unwrap(), &UserProperties::new()).unwrap();
    }
    zfs.snapshot(&[name(X)], &"4".parse().unwrap(), &UserProperties::new()).unwrap();
    zfs.hold(&at(&format!("{below}@2")), &"theirs".parse().unwrap()).unwrap();
    assert_eq!(stays(&zfs, "2", &nobody), [format!("{below}@2: it is held by theirs")]);
    // The last copy of what is in there.
    assert_eq!(stays(&zfs, "3", &nobody), [format!("{below}@3: it is the newest one")]);
    assert_eq!(labels(&zfs, &below), ["2", "3"]);

    // And when it is pruned, where it is what a vector of its own has yet to send, too.
    let queued = |view: &View| if view.dataset.name == name(&below) { vec![(id(1), Side::Source)] } else { Vec::new() };
    zfs.release(&at(&format!("{below}@2")), &"theirs".parse().unwrap()).unwrap();
    let policy = Policy { all: 1, ..Policy::default() };
    let decided = |concerned: &prune::Concerned<'_>| {
        let decided = prune::decisions(&zfs, &name(X), concerned, &policy, 1_000).unwrap().unwrap();
        let why = decided.iter().map(|one| one.stays.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        assert_eq!(prune::apply(&zfs, &name(X), &decided).unwrap(), decided.iter().filter(|one| one.goes()).count());
        why.collect::<Vec<_>>()
    };
    let (newest, sends) = (format!("{below}@3: it is the newest one"), format!("vector {} has yet to send it", id(1)));
    let kept = [format!("{below}@2: {sends}"), format!("{newest}; {below}@3: {sends}")];
    assert_eq!(decided(&queued), ["", &kept[0], &kept[1], "it is the newest one"]);
    assert_eq!(labels(&zfs, &below), ["2", "3"]);
    assert_eq!(decided(&nobody), ["", &newest, "it is the newest one"]);
    assert_eq!((labels(&zfs, &below), labels(&zfs, X)), (vec!["3".to_owned()], vec!["3".to_owned(), "4".to_owned()]));
}
