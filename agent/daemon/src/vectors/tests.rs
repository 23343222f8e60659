#[macro_use]
mod ports;
mod aside;
mod live;
mod real;
mod transcript;
mod world;

use proptest::prelude::*;
use siris_zfs::{Base, Datasets, Guid, Label, ModelDatasets, Notes, SnapshotName, Stream, UserProperties};

use super::digest::Scope;
use super::end::{End, EndError, Local};
use super::lag::{self, Lag};
use super::peer::{Rights, Session};
use super::plan::{self, Obstacle, Step, plan};
use super::prove::prove;
use super::record::Peer;
use super::role;
use super::sync::{Pair, SyncError, Watch, sync};
use super::travel::{self, VectorRecord};
use super::{VectorId, needs};
use ports::{Blows, Far, Fuse, Mutant, Wired};
use world::{A, B, World, id, name, op, pair, run};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_next_sync_completes_and_nothing_is_left_over(ops in prop::collection::vec(op(), 1..40)) {
        run(World::new(), &ops)?;
    }
}

#[test]
fn each_broken_rule_is_found() {
    use Mutant::{MatchByName, PruneWithoutAsking, SkipHold, SwallowFailure};
    for mutant in [MatchByName, SkipHold, SwallowFailure, PruneWithoutAsking] {
        let config =
            ProptestConfig { cases: 2000, failure_persistence: None, max_shrink_iters: 0, ..Default::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let found = runner.run(&prop::collection::vec(op(), 1..40), |ops| run(World::with(Some(mutant)), &ops));
        assert!(found.is_err(), "{mutant:?} goes unseen");
    }
}

/// Every call of a sync at which the process can be killed, with and without the call's effect; and every byte at which
/// the link can be cut.
#[test]
fn a_sync_that_is_stopped_anywhere_is_finished_by_the_next() {
    let prepared = || {
        let mut world = World::new();
        for step in 0..4u8 {
            world.machines[A].write(&name("a/x"), &format!("f{step}"), Some(&[step; 100])).unwrap();
            world.point();
            if step == 0 {
                world.sync(0).unwrap();
            }
        }
        world
    };
    let mut calls = 0;
    for blows in [Blows::Before, Blows::Behind, Blows::Once] {
        for at in 0.. {
            let world = prepared();
            let fuse = Fuse::after(at, blows);
            let (pair, source, target) = world.ends(0, &fuse);
            let ended = sync(pair, &Local::new(&source), &Local::new(&target), &mut ());
            world.check().unwrap();
            world.prune(0, 0).unwrap();
            world.prune(1, 0).unwrap();
            world.finish().unwrap();
            if !fuse.has_blown() {
                ended.unwrap();
                calls = at;
                break;
            }
        }
    }
    assert!(calls > 20, "only {calls} calls were seen");
    for bytes in 1.. {
        let world = prepared();
        let (pair, source, target) = world.ends(0, &Fuse::none());
        let ended = sync(pair, &Local::new(&source), &Far(Local::new(&target), bytes), &mut ());
        world.finish().unwrap();
        if ended.is_ok() {
            assert!(bytes > 500, "the link was cut at {bytes} bytes only");
            break;
        }
    }
}

/// A target that two vectors were given by mistake: the second one does not take the place of the first one's long way.
#[test]
fn what_another_vector_has_left_half_received_stays() {
    let world = World::new();
    let (a, b) = (&world.machines[A], &world.machines[B]);
    for dataset in ["a/one", "a/two"] {
        a.create(&name(dataset)).unwrap();
        a.write(&name(dataset), "f", Some(&[7; 400])).unwrap();
        a.snapshot(&[name(dataset)], &"1001".parse().unwrap(), &UserProperties::new()).unwrap();
    }
    let (first, second) = (pair(1, "a/one", "b/both"), pair(2, "a/two", "b/both"));
    let token = || Local::new(b).look(&name("b/both")).unwrap().unwrap().dataset.resume.unwrap().token;
    sync(&first, &Local::new(a), &Far(Local::new(b), 300), &mut ()).unwrap_err();
    let left = token();
    let refused = sync(&second, &Local::new(a), &Local::new(b), &mut ()).unwrap_err();
    assert_eq!((refused.code(), token()), ("partial-foreign", left));
    sync(&first, &Local::new(a), &Local::new(b), &mut ()).unwrap();
    let refused = sync(&second, &Local::new(a), &Local::new(b), &mut ()).unwrap_err();
    assert_eq!(refused.code(), "nothing-in-common");
    // What is asked for by a token is the dataset's own.
    let of_two = a.snapshots(&name("a/two")).unwrap()[0].guid;
    for token in [format!("{{\"to\":{of_two},\"from\":null,\"received\":0}}"), "no token".to_owned()] {
        let sent = Local::new(a).send(&name("a/one"), &Stream::Rest { token });
        assert_eq!(sent.unwrap_err().code(), "partial-foreign");
    }
}

/// One that fetches from here, and has marked nothing yet, has all that is here before it.
#[test]
fn what_is_to_be_fetched_for_the_first_time_is_needed() {
    let zfs = &ModelDatasets::new(1, &["a"]);
    let dataset = name("a/x");
    zfs.create(&dataset).unwrap();
    zfs.snapshot(std::slice::from_ref(&dataset), &"1001".parse().unwrap(), &UserProperties::new()).unwrap();
    let own = uuid::Uuid::from_u128(0xa);
    let party = |device, name: &str| travel::Party { device: Some(device), name: name.to_owned() };
    let record = VectorRecord { from: party(own, "a"), source: dataset.to_string(), ..pair(1, "a/x", "b/x").record };
    Local::new(zfs).enter(&dataset, &record).unwrap();
    let peer = |may_send: bool| Peer {
        name: "b".parse().unwrap(),
        key: "ssh-ed25519 AAAA".to_owned(),
        rights: rights("a/agents", !may_send, may_send),
    };
    let view = Local::new(zfs).look(&dataset).unwrap().unwrap();
    let concerned = |own, peers: &[Peer]| needs::concerned(&view, own, &[], peers);
    assert_eq!(concerned(own, &[peer(true)]), [(id(1), needs::Side::Source)]);
    assert_eq!(needs::needs(&view, &concerned(own, &[peer(true)])).len(), 1);
    // Whoever may not fetch, does not; and what goes elsewhere is not this box's.
    assert!(concerned(own, &[peer(false)]).is_empty() && concerned(own, &[]).is_empty());
    assert!(concerned(uuid::Uuid::from_u128(0xb), &[peer(true)]).is_empty());
}

/// It goes by what the source knows, and where that is not so any more, the target is as it was and says why.
#[test]
fn what_follows_the_base_is_sent_unasked() {
    let ahead = |world: &World| {
        let view = Local::new(&world.machines[A]).look(&name("a/x")).unwrap().unwrap();
        plan::ahead(&world.vectors[0].0, &view)
    };
    let mut world = World::new();
    world.point();
    assert_eq!(ahead(&world), None, "there is no base yet");
    world.sync(0).unwrap();
    assert_eq!(ahead(&world), None, "there is nothing new");
    world.point();
    let (stream, between) = ahead(&world).unwrap();
    let guids = world.machines[A].snapshots(&name("a/x")).unwrap();
    assert_eq!(between, (guids[0].guid, guids[1].guid));
    let Stream::Snapshot { base: Base::Snapshot(base), .. } = stream else { panic!("{stream:?}") };
    assert_eq!(base.label.epoch(), Some(world.now - 1));
    for now in [2000, 2001] {
        // Both ways of sending come to the same words.
        let mut world = synced();
        world.now = now;
        world.machines[B].snapshot(&[name("b/x")], &"own".parse().unwrap(), &UserProperties::new()).unwrap();
        world.machines[A].write(&name("a/x"), "f", Some(b"2")).unwrap();
        world.point();
        assert_eq!(obstacle(&world).code(), "target-diverged");
    }
}

fn synced() -> World {
    let mut world = World::new();
    world.point();
    world.sync(0).unwrap();
    world.machines[A].write(&name("a/x"), "f", Some(b"1")).unwrap();
    world.point();
    world.sync(0).unwrap();
    world
}

fn obstacle(world: &World) -> Obstacle {
    let state = || {
        let all = |machine: usize, dataset: &str| {
            (
                world.machines[machine].snapshots(&name(dataset)).ok(),
                world.machines[machine].content(&name(dataset)).ok(),
            )
        };
        (all(A, "a/x"), all(B, "b/x"))
    };
    let before = state();
    let obstacle = match world.sync(0) {
        Err(SyncError::Obstacle(obstacle)) => obstacle,
        other => panic!("{other:?}"),
    };
    assert_eq!(state(), before, "{obstacle} was told, and something was changed");
    obstacle
}

#[test]
fn ends_that_do_not_fit_have_a_name_and_stay_as_they_are() {
    // Written to on the target.
    let mut world = synced();
    world.point();
    world.machines[B].write(&name("b/x"), "own", Some(b"2")).unwrap();
    assert_eq!(obstacle(&world), Obstacle::TargetModified("b/x@1002".parse().unwrap()));

    // A snapshot of the target's own.
    let mut world = synced();
    world.machines[B].snapshot(&[name("b/x")], &"own".parse().unwrap(), &UserProperties::new()).unwrap();
    world.point();
    assert_eq!(obstacle(&world).code(), "target-diverged");

    // The source went back behind what was sent.
    let mut world = synced();
    let zfs = &world.machines[A];
    Local::new(zfs).forget(&name("a/x"), &id(1)).unwrap();
    zfs.destroy_snapshots(&name("a/x"), &["1002".parse().unwrap()]).unwrap();
    zfs.roll_back(&name("a/x")).unwrap();
    world.point();
    assert_eq!(obstacle(&world).code(), "source-rolled-back");

    // Others, of the same name.
    let mut world = World::new();
    world.point();
    world.machines[B].create(&name("b/x")).unwrap();
    assert_eq!(obstacle(&world).code(), "target-taken");
    world.machines[B].snapshot(&[name("b/x")], &"1001".parse().unwrap(), &UserProperties::new()).unwrap();
    assert_eq!(obstacle(&world).code(), "nothing-in-common");

    let mut world = synced();
    world.point();
    let renamed: Label = "1003".parse().unwrap();
    world.machines[B].rename_snapshot(&"b/x@1001".parse().unwrap(), &renamed).unwrap();
    assert_eq!(obstacle(&world), Obstacle::NameTaken(renamed));
}

#[test]
fn what_lies_in_a_source_is_not_taken_for_sent() {
    let mut world = synced();
    world.machines[A].create(&name("a/x/below")).unwrap();
    world.point();
    let told = || Obstacle::ChildrenNotSent("a/x".to_owned());
    assert!(matches!(world.sync(0), Err(SyncError::Obstacle(obstacle)) if obstacle == told()));
    // What the vector does send was sent.
    assert_eq!(world.machines[B].snapshots(&name("b/x")).unwrap().len(), 3);
    let ends = [A, B].map(|machine| Local::new(&world.machines[machine]));
    let proof = prove(&pair(1, "a/x", "b/x"), &ends[0], &ends[1], Scope::Whole);
    assert!(matches!(proof, Err(SyncError::Obstacle(obstacle)) if obstacle == told()));
    world.machines[A].destroy(&name("a/x/below")).unwrap();
    world.sync(0).unwrap();
}

#[test]
fn a_clone_goes_on_where_its_dataset_was_once_it_is_promoted() {
    let world = synced();
    let zfs = &world.machines[A];
    zfs.clone_snapshot(&"a/x@1002".parse().unwrap(), &name("a/clone"), &UserProperties::new()).unwrap();
    zfs.write(&name("a/clone"), "g", Some(b"3")).unwrap();
    zfs.snapshot(&[name("a/clone")], &"1003".parse().unwrap(), &UserProperties::new()).unwrap();
    let pair = pair(1, "a/clone", "b/x");
    let go = || sync(&pair, &Local::new(zfs), &Local::new(&world.machines[B]), &mut ());
    assert!(matches!(go(), Err(SyncError::Obstacle(Obstacle::SourceIsClone { .. }))));
    zfs.promote(&name("a/clone")).unwrap();
    go().unwrap();
    assert_eq!(world.machines[B].content(&name("b/x")).unwrap(), zfs.content(&name("a/clone")).unwrap());
}

#[test]
fn a_rest_that_nothing_continues_is_given_up() {
    let world = synced();
    let pair = &world.vectors[0].0;
    let (source, target) = (&world.machines[A], &world.machines[B]);
    source.snapshot(&[name("a/x")], &"aside".parse().unwrap(), &UserProperties::new()).unwrap();
    source.write(&name("a/x"), "f", Some(&[7; 300])).unwrap();
    source.snapshot(&[name("a/x")], &"gone".parse().unwrap(), &UserProperties::new()).unwrap();
    sync(pair, &Local::new(source), &Far(Local::new(target), 500), &mut ()).unwrap_err();
    assert!(target.dataset(&name("b/x")).unwrap().unwrap().resume.is_some());
    Local::new(source).forget(&name("a/x"), &id(1)).unwrap();
    source.destroy_snapshots(&name("a/x"), &["gone".parse().unwrap()]).unwrap();
    source.roll_back(&name("a/x")).unwrap();
    source.snapshot(&[name("a/x")], &"next".parse().unwrap(), &UserProperties::new()).unwrap();
    let view = |zfs: &ModelDatasets, dataset: &str| Local::new(zfs).look(&name(dataset)).unwrap().unwrap();
    assert_eq!(plan(pair, &view(source, "a/x"), Some(&view(target, "b/x"))), Ok(Step::Abort));
    world.sync(0).unwrap();
    assert_eq!(target.content(&name("b/x")).unwrap(), source.content(&name("a/x")).unwrap());
}

/// ZFS looks for what is to be continued by its guid.
#[test]
fn a_stream_whose_snapshot_was_renamed_meanwhile_is_continued() {
    let mut world = synced();
    world.machines[A].write(&name("a/x"), "f", Some(&[7; 300])).unwrap();
    world.point();
    let (pair, source, target) = (&world.vectors[0].0, &world.machines[A], &world.machines[B]);
    sync(pair, &Local::new(source), &Far(Local::new(target), 500), &mut ()).unwrap_err();
    let newest = source.snapshots(&name("a/x")).unwrap().pop().unwrap();
    let renamed = |from: &str, to: &str| {
        source.rename_snapshot(&SnapshotName::new(name("a/x"), from.parse().unwrap()), &to.parse().unwrap()).unwrap();
    };
    let view = |zfs: &ModelDatasets, dataset: &str| Local::new(zfs).look(&name(dataset)).unwrap().unwrap();
    let next = || plan(pair, &view(source, "a/x"), Some(&view(target, "b/x"))).unwrap();
    assert!(matches!(next(), Step::Resume { .. }));
    renamed(newest.label.as_str(), "renamed");
    assert!(matches!(next(), Step::Resume { .. }));
    world.sync(0).unwrap();
    assert_eq!(target.content(&name("b/x")).unwrap(), source.content(&name("a/x")).unwrap());
    assert_eq!(target.snapshots(&name("b/x")).unwrap().pop().unwrap().label.as_str(), "renamed");
}

#[test]
fn names_that_would_be_too_long_on_the_target_are_refused_before_anything_is_sent() {
    let world = synced();
    let target = &world.machines[B];
    let far = |count: usize| pair(7, "a/x", &format!("b/{}", "t".repeat(count)));
    let go = |pair: &Pair| sync(pair, &Local::new(&world.machines[A]), &Local::new(target), &mut ());
    // The mark is longer than any point of this system.
    let fits = 255 - "b/#".len() - id(7).bookmark(Guid::new(u64::MAX)).as_str().len();
    go(&far(fits)).unwrap();
    assert_eq!(go(&far(fits + 1)).unwrap_err().code(), "target-name-too-long");
    assert_eq!(target.dataset(&far(fits + 1).target).unwrap(), None);
}

#[test]
fn what_arrives_other_than_it_was_sent_is_told_and_the_next_one_completes() {
    let mut world = synced();
    world.machines[A].write(&name("a/x"), "f", Some(&[7; 300])).unwrap();
    world.point();
    let before = world.machines[B].snapshots(&name("b/x")).unwrap();
    let (pair, source, target) = world.ends(0, &Fuse::none());
    let short = sync(pair, &Local::new(&source), &Far(Local::new(&target), 500), &mut ());
    assert_eq!(short.unwrap_err().code(), "stream-damaged");
    assert_eq!(world.machines[B].snapshots(&name("b/x")).unwrap(), before);
    world.sync(0).unwrap();
    world.check().unwrap();
}

#[test]
fn what_nobody_can_read_for_lack_of_a_key_is_not_proven_and_that_is_said() {
    let world = synced();
    let (source, target) = (&world.machines[A], &world.machines[B]);
    let proof = || prove(&world.vectors[0].0, &Local::new(source), &Local::new(target), Scope::Whole);
    let key = |zfs: &ModelDatasets, dataset: &str, status: &str| {
        zfs.set_property(&name(dataset), "keystatus", Some(status)).unwrap();
    };
    assert_eq!(proof().unwrap().differing, Vec::<std::path::PathBuf>::new());
    key(target, "b/x", "unavailable");
    assert_eq!(proof().unwrap_err().code(), "replica-is-encrypted");
    key(target, "b/x", "available");
    key(source, "a/x", "unavailable");
    assert_eq!(proof().unwrap_err().code(), "key-not-loaded");
}

#[test]
fn what_is_queued_and_what_is_gone_on_from_stays() {
    let mut world = synced();
    world.point();
    let view = Local::new(&world.machines[A]).look(&name("a/x")).unwrap().unwrap();
    let needs = needs::needs(&view, &world.of_dataset(A, &name("a/x")));
    let words = |n: usize| needs[&view.snapshots[n].guid].iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(words(0), [format!("vector {} has yet to send it", id(2))]);
    assert_eq!(words(1)[0], format!("vector {} goes on from it", id(1)));
    assert_eq!(words(2).len(), 2);
    // Nothing needs the older ones once they are sent everywhere.
    world.sync(0).unwrap();
    world.sync(1).unwrap();
    world.check().unwrap();
    world.prune(0, 0).unwrap();
    assert_eq!(world.machines[A].snapshots(&name("a/x")).unwrap().len(), 1);
}

#[test]
fn an_id_has_one_spelling_and_finds_its_own_marks() {
    let text = "0000000d-0000-0000-0000-000000000000_7";
    let id: VectorId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    for bad in ["", "_7", "0000000d-0000-0000-0000-000000000000_07", "0000000D-0000-0000-0000-000000000000_7"] {
        assert!(bad.parse::<VectorId>().is_err(), "{bad}");
    }
    assert!("0000000d-0000-0000-0000-000000000000_0".parse::<VectorId>().is_err());
    let seventy: VectorId = format!("{text}7").parse().unwrap();
    let mark = id.bookmark(Guid::new(5));
    assert_eq!((VectorId::of_bookmark(&mark), VectorId::of_bookmark(&id.tag())), (Some(id), None));
    assert!(id.owns(&mark) && !seventy.owns(&mark) && !id.owns(&seventy.bookmark(Guid::new(5))));
}

fn rights(prefix: &str, may_receive: bool, may_send: bool) -> Rights {
    Rights { device: id(1).device, prefix: name(prefix), may_receive, may_send }
}

#[test]
fn a_sync_is_the_same_through_the_wire_whoever_dials() {
    for (far_source, far_target) in [(true, false), (false, true), (true, true)] {
        let mut world = World::new();
        let (source, target) = (&world.machines[A], &world.machines[B]);
        source.create(&name("a/home/x")).unwrap();
        target.create(&name("b/home")).unwrap();
        let pair = pair(1, "a/home/x", "b/home/x");
        let (sends, receives) = (rights("a/home", false, true), rights("b/home", true, false));
        let go = |cut: Option<u64>| match (cut, far_source, far_target) {
            (Some(bytes), ..) => sync(&pair, &Wired(source, &sends), &Far(Local::new(target), bytes), &mut ()),
            (_, true, true) => sync(&pair, &Wired(source, &sends), &Wired(target, &receives), &mut ()),
            (_, true, false) => sync(&pair, &Wired(source, &sends), &Local::new(target), &mut ()),
            (_, false, _) => sync(&pair, &Local::new(source), &Wired(target, &receives), &mut ()),
        };
        for step in 0..3u8 {
            source.write(&name("a/home/x"), &format!("f{step}"), Some(&[step; 200])).unwrap();
            source
                .snapshot(&[name("a/home/x")], &Label::of_epoch(u64::from(step) + 1), &UserProperties::new())
                .unwrap();
            if step == 1 {
                go(Some(300)).unwrap_err();
            }
            go(None).unwrap();
        }
        assert_eq!(target.content(&name("b/home/x")).unwrap(), source.content(&name("a/home/x")).unwrap());
        world.now += 1;
    }
}

/// A dataset that goes from one box to another and back, and what is written on the way.
#[test]
fn both_ends_change_places_and_nothing_is_lost() {
    let mut world = synced();
    let (there, back) = (pair(1, "a/x", "b/x"), pair(1, "b/x", "a/x"));
    let write = |world: &World, machine: usize, dataset: &str, file: &str| {
        let zfs = &world.machines[machine];
        zfs.write(&name(dataset), file, Some(file.as_bytes())).unwrap();
    };
    let primary = |world: &World, machine: usize, dataset: &str| {
        world.machines[machine].dataset(&name(dataset)).unwrap().unwrap().primary
    };
    let content =
        |world: &World, machine: usize, dataset: &str| world.machines[machine].content(&name(dataset)).unwrap();
    // Not in any point yet: the last one has it.
    write(&world, A, "a/x", "late");
    role::turn(&there, &Local::new(&world.machines[A]), &Local::new(&world.machines[B]), &mut ()).unwrap();
    assert_eq!((primary(&world, A, "a/x"), primary(&world, B, "b/x")), (Some(false), Some(true)));
    assert_eq!(content(&world, A, "a/x"), content(&world, B, "b/x"));
    assert_eq!(world.machines[A].property(&name("a/x"), "readonly").unwrap().as_deref(), Some("on"));
    assert_eq!(obstacle(&world).code(), "target-is-primary", "the old way");

    write(&world, B, "b/x", "on-b");
    world.machines[B].snapshot(&[name("b/x")], &"9000000001".parse().unwrap(), &UserProperties::new()).unwrap();
    sync(&back, &Local::new(&world.machines[B]), &Local::new(&world.machines[A]), &mut ()).unwrap();
    role::turn(&back, &Local::new(&world.machines[B]), &Local::new(&world.machines[A]), &mut ()).unwrap();
    assert_eq!((primary(&world, A, "a/x"), primary(&world, B, "b/x")), (Some(true), Some(false)));
    assert_eq!(world.machines[A].property(&name("a/x"), "readonly").unwrap(), None);
    write(&world, A, "a/x", "on-a");
    world.machines[A].snapshot(&[name("a/x")], &"9000000002".parse().unwrap(), &UserProperties::new()).unwrap();
    sync(&there, &Local::new(&world.machines[A]), &Local::new(&world.machines[B]), &mut ()).unwrap();
    assert_eq!(content(&world, A, "a/x"), content(&world, B, "b/x"));
    assert!(content(&world, B, "b/x").keys().any(|file| file == "on-b"), "what was written meanwhile");
    world.now += 1;
}

/// Wherever the link or a machine fails in it, the two are never both written to, and another try completes.
#[test]
fn a_turn_that_breaks_off_is_finished_by_the_next() {
    for blows in [Blows::Before, Blows::Behind, Blows::Once] {
        for calls in 0.. {
            let world = synced();
            world.machines[A].write(&name("a/x"), "late", Some(b"late")).unwrap();
            let fuse = Fuse::after(calls, blows);
            let (pair, source, target) = world.ends(0, &fuse);
            let broken = role::turn(pair, &Local::new(&source), &Local::new(&target), &mut ());
            let primary = |machine: usize, dataset: &str| {
                world.machines[machine].dataset(&name(dataset)).unwrap().unwrap().primary
            };
            let both_written = primary(B, "b/x") == Some(true) && primary(A, "a/x") != Some(false);
            assert!(!both_written, "{blows:?} at call {calls}: two are written to");
            if !fuse.has_blown() {
                broken.unwrap();
                assert!(calls > 10, "{calls} calls");
                break;
            }
            let (pair, source, target) = world.ends(0, &Fuse::none());
            role::turn(pair, &Local::new(&source), &Local::new(&target), &mut ()).unwrap();
            assert_eq!((primary(A, "a/x"), primary(B, "b/x")), (Some(false), Some(true)), "{blows:?} at call {calls}");
            let content = |machine: usize, dataset: &str| world.machines[machine].content(&name(dataset)).unwrap();
            assert_eq!(content(A, "a/x"), content(B, "b/x"));
        }
    }
}

/// In a chain, the one in the middle does not become a primary by the way.
#[test]
fn what_may_be_a_replica_does_not_step_down_unless_somebody_says_that_it_is_none() {
    let world = synced();
    world.sync(2).unwrap();
    let onward = VectorId { device: uuid::Uuid::from_u128(0xb), number: 1 };
    let (b, x) = (&world.machines[B], name("b/x"));
    let refused = role::step_down(b, &x, &onward, 9_000_000_000).unwrap_err();
    assert_eq!(refused.code(), "may-be-replica");
    assert_eq!(b.property(&x, "readonly").unwrap(), None);
    role::take_over(b, &x, None).unwrap();
    role::step_down(b, &x, &onward, 9_000_000_000).unwrap();
    // Where there is nothing yet, nothing is taken over, and what has come of it stays.
    b.create(&name("b/fresh")).unwrap();
    assert_eq!(role::take_over(b, &name("b/fresh"), None).unwrap_err().code(), "no-recovery-point");
}

#[test]
fn a_target_that_is_made_anew_is_told_of() {
    #[derive(Default)]
    struct Seen(bool);
    impl Watch for Seen {
        fn is_anew(&mut self) {
            self.0 = true;
        }
    }
    let mut world = World::new();
    world.point();
    let go = |world: &World| {
        let (pair, source, target) = world.ends(0, &Fuse::none());
        let mut seen = Seen::default();
        sync(pair, &Local::new(&source), &Local::new(&target), &mut seen).unwrap();
        seen.0
    };
    assert!(go(&world), "the first time");
    world.point();
    assert!(!go(&world), "what came after");
    aside::set_it_aside(&world);
    assert!(go(&world), "when it was set aside");
}

#[test]
fn how_far_a_target_is_behind() {
    let mut world = World::new();
    let lag = |world: &World| lag::of(&world.vectors[0].0, &Local::new(&world.machines[A])).unwrap();
    assert_eq!(lag(&world), Lag::default(), "nothing was taken yet");
    world.point();
    assert_eq!(lag(&world).points, 1);
    world.sync(0).unwrap();
    assert_eq!(lag(&world), Lag::default());
    world.machines[A].write(&name("a/x"), "f", Some(&[7; 5000])).unwrap();
    world.point();
    world.point();
    let behind = lag(&world);
    assert!(behind.points == 2 && behind.bytes >= 5000 && behind.seconds > 1_000_000_000, "{behind:?}");
    world.sync(0).unwrap();
    assert_eq!(lag(&world), Lag::default());
}

#[test]
fn a_key_does_what_it_is_for_and_nothing_else() {
    let world = synced();
    let zfs = &world.machines[A];
    zfs.create(&name("a/other/y")).unwrap();
    zfs.snapshot(&[name("a/other/y")], &"1".parse().unwrap(), &UserProperties::new()).unwrap();
    let full = |snapshot: &str| Stream::Snapshot {
        snapshot: snapshot.parse().unwrap(),
        base: Base::Nothing,
        between: false,
        raw: false,
    };
    let code = |error: EndError| error.code().to_owned();
    let (receives, sends) = (rights("a/other", true, false), rights("a/other", false, true));

    // What lies elsewhere is neither shown, marked, sent nor received; nor what only begins with the same letters.
    let wired = Wired(zfs, &sends);
    zfs.create(&name("a/others/z")).unwrap();
    for elsewhere in ["a/x", "a/others/z", "a/other"] {
        assert_eq!(code(wired.look(&name(elsewhere)).unwrap_err()), "peer-outside-prefix", "{elsewhere}");
        let marked = wired.keep(&name(elsewhere), &id(1), Guid::new(1), None);
        assert_eq!(code(marked.unwrap_err()), "peer-outside-prefix");
    }
    let guid = zfs.snapshots(&name("a/x")).unwrap()[0].guid;
    let token = format!("{{\"to\":{guid},\"from\":null,\"received\":0}}");
    for (stream, refusal) in [
        (full("a/x@1001"), "peer-outside-prefix"),
        (Stream::Rest { token }, "partial-foreign"),
        (Stream::Rest { token: "no token".to_owned() }, "partial-foreign"),
    ] {
        let sent = wired.send(&name("a/other/y"), &stream);
        assert_eq!(code(sent.unwrap_err()), refusal, "{stream:?}");
        let size = wired.size(&name("a/other/y"), &stream);
        assert_eq!(code(size.unwrap_err()), refusal, "{stream:?}");
    }
    let from_elsewhere = Stream::Snapshot {
        snapshot: "a/other/y@1".parse().unwrap(),
        base: Base::Snapshot("a/x@1001".parse().unwrap()),
        between: false,
        raw: false,
    };
    assert_eq!(code(wired.send(&name("a/other/y"), &from_elsewhere).unwrap_err()), "peer-outside-prefix");
    wired.send(&name("a/other/y"), &full("a/other/y@1")).unwrap();
    wired.size(&name("a/other/y"), &full("a/other/y@1")).unwrap();

    // One kind of key does not do the other's work.
    assert_eq!(code(wired.receive(&name("a/other/z"), &mut &b""[..]).unwrap_err()), "peer-not-allowed");
    assert_eq!(code(wired.abort_receive(&name("a/other/z")).unwrap_err()), "peer-not-allowed");
    let own = VectorId { device: receives.device, number: 1 };
    let land = |wired: &Wired<'_>, dataset: &str, id: VectorId| {
        code(wired.land(&name(dataset), &id, (Some(Guid::new(7)), Guid::new(8)), &mut &b""[..]).unwrap_err())
    };
    assert_eq!(land(&wired, "a/other/z", own), "peer-not-allowed");
    assert_eq!(code(wired.tell(&name("a/other/y"), &Notes::default()).unwrap_err()), "peer-not-allowed");
    let wired = Wired(zfs, &receives);
    assert_eq!(land(&wired, "a/x", own), "peer-outside-prefix");
    assert_eq!(
        land(&wired, "a/other/y", VectorId { device: uuid::Uuid::from_u128(0xf), number: 1 }),
        "peer-foreign-vector"
    );
    assert_eq!(land(&wired, "a/other/y", own), "not-the-newest");
    assert_eq!(code(wired.send(&name("a/other/y"), &full("a/other/y@1")).unwrap_err()), "peer-not-allowed");

    // What is kept with a replica is such as can be listed, and stays below the prefix.
    let named = |name: &str| Notes { asset_name: Some(name.to_owned()), ..Notes::default() };
    assert_eq!(code(wired.tell(&name("a/x"), &named("mail")).unwrap_err()), "peer-outside-prefix");
    assert_eq!(code(wired.tell(&name("a/other/y"), &named("a\tb\nc")).unwrap_err()), "peer-not-a-request");
    wired.tell(&name("a/other/y"), &named("mail")).unwrap();
    let record = pair(1, "a/other/y", "b/x").record;
    let of_it = VectorRecord { id: VectorId { device: receives.device, number: 1 }.to_string(), ..record.clone() };
    let others = VectorRecord { id: VectorId { device: uuid::Uuid::from_u128(0xf), number: 1 }.to_string(), ..record };
    assert_eq!(code(wired.enter(&name("a/x"), &of_it).unwrap_err()), "peer-outside-prefix");
    assert_eq!(code(wired.enter(&name("a/other/y"), &others).unwrap_err()), "peer-foreign-vector");
    let broken = VectorRecord { tier: "x\n".repeat(9000), ..of_it.clone() };
    assert_eq!(code(wired.enter(&name("a/other/y"), &broken).unwrap_err()), "peer-not-a-request");
    wired.enter(&name("a/other/y"), &of_it).unwrap();
    wired.forget(&name("a/other/y"), &of_it.id.parse().unwrap()).unwrap();
    assert_eq!(zfs.dataset(&name("a/other/y")).unwrap().unwrap().notes, named("mail"));

    let newest = zfs.snapshots(&name("a/other/y")).unwrap().pop().unwrap().guid;
    // Vectors of other machines are theirs, and those of this one its own.
    for device in [0xf, 0xe] {
        let foreign = VectorId { device: uuid::Uuid::from_u128(device), number: 1 };
        assert_eq!(code(wired.forget(&name("a/other/y"), &foreign).unwrap_err()), "peer-foreign-vector");
        assert_eq!(code(wired.keep(&name("a/other/y"), &foreign, newest, None).unwrap_err()), "peer-foreign-vector");
    }

    // Only who may both send and receive has datasets change places, and only those that its own vector has marked.
    for rights in [&receives, &sends] {
        let wired = Wired(zfs, rights);
        assert_eq!(code(wired.step_down(&name("a/other/y"), &own).unwrap_err()), "peer-not-allowed");
        assert_eq!(code(wired.take_over(&name("a/other/y"), &own, newest).unwrap_err()), "peer-not-allowed");
    }
    let both = rights("a/other", true, true);
    let wired = Wired(zfs, &both);
    assert_eq!(code(wired.step_down(&name("a/x"), &own).unwrap_err()), "peer-outside-prefix");
    assert_eq!(code(wired.step_down(&name("a/other/y"), &own).unwrap_err()), "peer-foreign-vector");
    assert_eq!(code(wired.take_over(&name("a/other/y"), &own, newest).unwrap_err()), "peer-foreign-vector");
    wired.keep(&name("a/other/y"), &own, newest, None).unwrap();
    assert_eq!(code(wired.take_over(&name("a/other/y"), &own, Guid::new(1)).unwrap_err()), "not-the-newest");
    wired.take_over(&name("a/other/y"), &own, newest).unwrap();
    assert_eq!(code(wired.receive(&name("a/other/y"), &mut &b""[..]).unwrap_err()), "target-is-primary");
    assert_eq!(land(&wired, "a/other/y", own), "target-is-primary");
    assert_eq!(code(wired.tell(&name("a/other/y"), &named("mine")).unwrap_err()), "target-is-primary");
    wired.step_down(&name("a/other/y"), &own).unwrap();

    // Anything else is no request.
    let session = Session { zfs, root: None, rights: &receives };
    for command in ["", "id", "zfs destroy -r a", "{\"destroy\":{\"dataset\":\"a/other/y\"}}", "{\"look\":{}}"] {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        assert!(!session.run(command, &mut std::io::empty(), &mut output, &mut errors), "{command}");
        assert!(String::from_utf8(output).unwrap().contains("peer-not-a-request"), "{command}");
    }
    let huge = format!("{{\"look\":{{\"dataset\":\"{}\"}}}}", "x".repeat(1 << 20));
    assert!(!session.run(&huge, &mut std::io::empty(), &mut Vec::new(), &mut Vec::new()));
}

#[test]
fn an_older_agent_is_answered_as_it_asks() {
    let zfs = &ModelDatasets::new(1, &["b"]);
    let dataset = name("b/agents/x");
    zfs.create(&dataset).unwrap();
    zfs.snapshot(std::slice::from_ref(&dataset), &"1001".parse().unwrap(), &UserProperties::new()).unwrap();
    let newest = zfs.snapshots(&dataset).unwrap().pop().unwrap().guid;
    let receives = rights("b/agents", true, false);
    let session = Session { zfs, root: None, rights: &receives };
    let ask = |request: String| {
        let mut output = Vec::new();
        assert!(session.run(&request, &mut std::io::empty(), &mut output, &mut Vec::new()), "{request}");
        String::from_utf8(output).unwrap()
    };
    let old = ask(format!("{{\"digest\":{{\"dataset\":\"{dataset}\",\"guid\":{newest}}}}}"));
    assert!(old.starts_with("{\"digests\":[[\"\",\""), "{old}");
    let new = ask(format!("{{\"prove\":{{\"dataset\":\"{dataset}\",\"guid\":{newest},\"whole\":false}}}}"));
    assert!(new.starts_with("{\"proven\":{\"digests\":[[\"\",\"") && new.contains("\"data\":"), "{new}");
}
