use super::*;
use crate::Base;

fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn at(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

fn why<T: std::fmt::Debug>(result: Result<T, ZfsError>) -> Refusal {
    match result.unwrap_err() {
        ZfsError::Refused { why, .. } => why,
        other => panic!("{other}"),
    }
}

fn of(snapshot: &str, base: Base) -> Stream {
    Stream::Snapshot { snapshot: at(snapshot), base, between: false, raw: false }
}

fn bytes(from: &ModelDatasets, stream: &Stream) -> Vec<u8> {
    let mut sending = from.send(stream).unwrap();
    let mut bytes = Vec::new();
    sending.read_to_end(&mut bytes).unwrap();
    sending.finish().unwrap();
    bytes
}

/// A source with two snapshots of `s/a`, and an empty target with the pool `t`.
fn pair() -> (ModelDatasets, ModelDatasets) {
    let (source, target) = (ModelDatasets::new(1, &["s"]), ModelDatasets::new(2, &["t"]));
    source.create(&name("s/a")).unwrap();
    for (path, point) in [("one", "1"), ("two", "2")] {
        source.write(&name("s/a"), path, Some(b"x")).unwrap();
        source.snapshot(&[name("s/a")], &label(point), &UserProperties::new()).unwrap();
    }
    (source, target)
}

#[test]
fn guids_travel_and_bases_are_found_by_them() {
    let (source, target) = pair();
    target.receive(&name("t/a"), &mut &bytes(&source, &of("s/a@1", Base::Nothing))[..]).unwrap();
    // The source forgets the snapshot; its bookmark does as well.
    source.bookmark(&at("s/a@1"), &label("v")).unwrap();
    source.destroy_snapshots(&name("s/a"), &[label("1")]).unwrap();
    source.write(&name("s/a"), "one", None).unwrap();
    source.snapshot(&[name("s/a")], &label("3"), &UserProperties::new()).unwrap();
    let increment = bytes(&source, &of("s/a@3", Base::Bookmark(label("v"))));
    target.receive(&name("t/a"), &mut &increment[..]).unwrap();
    assert_eq!(target.content(&name("t/a")).unwrap(), source.content(&name("s/a")).unwrap());
    let guids = |of: Vec<Snapshot>| of.iter().map(|s| s.guid).collect::<Vec<_>>();
    assert_eq!(guids(target.snapshots(&name("t/a")).unwrap())[1], guids(source.snapshots(&name("s/a")).unwrap())[1]);
    assert_eq!(why(target.receive(&name("t/a"), &mut &increment[..])), Refusal::Exists);
}

#[test]
fn a_stream_that_breaks_off_anywhere_is_continued() {
    let (source, _) = pair();
    let whole = bytes(&source, &of("s/a@2", Base::Nothing));
    // All but the last line's end, without which it is whole.
    for end in 1..whole.len() - 1 {
        let target = ModelDatasets::new(2, &["t"]);
        let refusal = why(target.receive(&name("t/a"), &mut &whole[..end]));
        if refusal == Refusal::Corrupt {
            assert_eq!(target.dataset(&name("t/a")).unwrap(), None);
            continue;
        }
        assert_eq!(refusal, Refusal::Incomplete);
        let token = target.dataset(&name("t/a")).unwrap().unwrap().resume.unwrap().token;
        target.receive(&name("t/a"), &mut &bytes(&source, &Stream::Rest { token })[..]).unwrap();
        assert_eq!(target.content_at(&at("t/a@2")).unwrap(), source.content_at(&at("s/a@2")).unwrap());
    }
    let target = ModelDatasets::new(2, &["t"]);
    assert_eq!(why(target.receive(&name("t/a"), &mut &whole[..whole.len() - 2])), Refusal::Incomplete);
    target.abort_receive(&name("t/a")).unwrap();
    assert_eq!(target.dataset(&name("t/a")).unwrap(), None);
}

#[test]
fn a_target_that_was_changed_is_never_rolled_back() {
    let (source, target) = pair();
    target.receive(&name("t/a"), &mut &bytes(&source, &of("s/a@1", Base::Nothing))[..]).unwrap();
    target.write(&name("t/a"), "own", Some(b"y")).unwrap();
    let increment = bytes(&source, &of("s/a@2", Base::Snapshot(at("s/a@1"))));
    assert_eq!(why(target.receive(&name("t/a"), &mut &increment[..])), Refusal::Modified);
    target.roll_back(&name("t/a")).unwrap();
    // A snapshot of its own, and nothing written: it does not see that as a change.
    target.snapshot(&[name("t/a")], &label("own"), &UserProperties::new()).unwrap();
    target.receive(&name("t/a"), &mut &increment[..]).unwrap();
}

#[test]
fn what_is_held_or_cloned_stays() {
    let (source, _) = pair();
    source.hold(&at("s/a@1"), &label("v")).unwrap();
    source.hold(&at("s/a@1"), &label("v")).unwrap();
    assert_eq!(source.holds(&name("s/a"), &[label("1"), label("2")]).unwrap().len(), 1);
    assert_eq!(why(source.destroy_snapshots(&name("s/a"), &[label("2"), label("1")])), Refusal::Busy);
    assert_eq!(source.snapshots(&name("s/a")).unwrap().len(), 2);
    source.release(&at("s/a@1"), &label("v")).unwrap();
    source.clone_snapshot(&at("s/a@1"), &name("s/c"), &UserProperties::new()).unwrap();
    assert_eq!(why(source.destroy_snapshots(&name("s/a"), &[label("1")])), Refusal::Busy);
    assert_eq!(why(source.destroy(&name("s/a"))), Refusal::Busy);
}

#[test]
fn the_first_increment_of_a_clone_does_not_fit_the_old_replica_until_it_is_promoted() {
    let (source, target) = pair();
    target.receive(&name("t/a"), &mut &bytes(&source, &of("s/a@2", Base::Nothing))[..]).unwrap();
    source.clone_snapshot(&at("s/a@2"), &name("s/c"), &UserProperties::new()).unwrap();
    source.snapshot(&[name("s/c")], &label("3"), &UserProperties::new()).unwrap();
    let increment = bytes(&source, &of("s/c@3", Base::Snapshot(at("s/a@2"))));
    assert_eq!(why(target.receive(&name("t/a"), &mut &increment[..])), Refusal::NotTheBase);
    source.promote(&name("s/c")).unwrap();
    assert_eq!(source.dataset(&name("s/a")).unwrap().unwrap().origin, Some(at("s/c@2")));
    let increment = bytes(&source, &of("s/c@3", Base::Snapshot(at("s/c@2"))));
    target.receive(&name("t/a"), &mut &increment[..]).unwrap();
}

#[test]
fn a_snapshot_is_of_all_its_datasets_or_of_none() {
    let (source, _) = pair();
    source.create(&name("s/b")).unwrap();
    let both = [name("s/b"), name("s/a")];
    assert_eq!(why(source.snapshot(&both, &label("2"), &UserProperties::new())), Refusal::Exists);
    assert_eq!(source.snapshots(&name("s/b")).unwrap(), []);
    source.snapshot(&both, &label("3"), &UserProperties::new()).unwrap();
    let txg = |dataset: &str| source.snapshots(&name(dataset)).unwrap().last().unwrap().createtxg;
    assert_eq!(txg("s/a"), txg("s/b"));
}

#[test]
fn what_lies_between_travels_too_and_stays_where_the_rest_breaks_off() {
    let (source, _) = pair();
    for point in ["3", "4"] {
        source.write(&name("s/a"), point, Some(b"x")).unwrap();
        source.snapshot(&[name("s/a")], &label(point), &UserProperties::new()).unwrap();
    }
    let base = Base::Snapshot(at("s/a@1"));
    let all = Stream::Snapshot { snapshot: at("s/a@4"), base, between: true, raw: false };
    let (first, whole) = (bytes(&source, &of("s/a@1", Base::Nothing)), bytes(&source, &all));
    for end in 1..=whole.len() {
        let target = ModelDatasets::new(2, &["t"]);
        target.receive(&name("t/a"), &mut &first[..]).unwrap();
        let came = target.receive(&name("t/a"), &mut &whole[..end]);
        let labels: Vec<String> = target.snapshots(&name("t/a")).unwrap().iter().map(|s| s.label.to_string()).collect();
        assert_eq!(labels, ["1", "2", "3", "4"][..labels.len()]);
        if end == whole.len() {
            came.unwrap();
            assert_eq!(labels.len(), 4);
        }
    }
}
