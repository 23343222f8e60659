//! What a target has beside its source's is set aside, as each obstacle's own words have it: wherever that breaks off, nothing is
//! lost, and the vector goes on.

use std::collections::BTreeMap;

use siris_zfs::{Content, Datasets, Guid, Label, SnapshotName, UserProperties};

use super::super::aside::set_aside;
use super::super::end::{End, Local};
use super::ports::{Blows, Fuse, Fused};
use super::world::{A, B, World, id, name};
use super::{obstacle, synced};

#[test]
fn what_a_target_has_beside_is_set_aside_and_the_vector_goes_on() {
    type Break = fn(&mut World);
    let breaks: [(Break, Option<&str>); 4] = [
        (|world| world.machines[B].write(&name("b/x"), "own", Some(b"2")).unwrap(), Some("1002")),
        (
            |world| {
                world.machines[B].write(&name("b/x"), "own", Some(b"2")).unwrap();
                world.machines[B].snapshot(&[name("b/x")], &"own".parse().unwrap(), &UserProperties::new()).unwrap();
            },
            Some("1002"),
        ),
        (
            |world| {
                let zfs = &world.machines[A];
                Local::new(zfs).forget(&name("a/x"), &id(1)).unwrap();
                zfs.destroy_snapshots(&name("a/x"), &["1002".parse().unwrap()]).unwrap();
                zfs.roll_back(&name("a/x")).unwrap();
            },
            Some("1001"),
        ),
        (
            |world| {
                let x = name("a/x");
                Local::new(&world.machines[A]).forget(&x, &id(1)).unwrap();
                world.machines[A].destroy_snapshots(&x, &["1001".parse().unwrap(), "1002".parse().unwrap()]).unwrap();
            },
            None,
        ),
    ];
    for (at, (spoil, back_to)) in breaks.into_iter().enumerate() {
        for (blows, calls) in [Blows::Before, Blows::Behind, Blows::Once]
            .into_iter()
            .flat_map(|blows| (0..40).map(move |calls| (blows, calls)))
        {
            let mut world = synced();
            spoil(&mut world);
            world.point();
            obstacle(&world);
            let zfs = &world.machines[B];
            zfs.set_property(&name("b/x"), "readonly", Some("on")).unwrap();
            let all = || -> BTreeMap<Guid, Content> {
                let sets = zfs.datasets(&["b".parse().unwrap()]).unwrap();
                let snapshots = sets.into_iter().flat_map(|set| {
                    let of = zfs.snapshots(&set.name).unwrap();
                    of.into_iter().map(move |s| (s.guid, SnapshotName::new(set.name.clone(), s.label)))
                });
                snapshots.map(|(guid, name)| (guid, zfs.content_at(&name).unwrap())).collect()
            };
            let (before, live) = (all(), zfs.content(&name("b/x")).unwrap());
            let back_to = back_to.map(|label| label.parse::<Label>().unwrap());
            let fuse = Fuse::after(calls, blows);
            let broken = set_aside(&Fused(zfs, fuse.clone()), &name("b/x"), back_to.as_ref(), 7);
            let (case, done) = (format!("obstacle {at}, {blows:?} at call {calls}"), broken.is_ok());
            assert!(done || fuse.has_blown(), "{case}: {broken:?}");
            let is_there = |dataset: &str| zfs.dataset(&name(dataset)).unwrap().is_some();
            let moved = is_there("b/x.aside-7") && !is_there("b/x.back") && is_there("b/x") == back_to.is_some();
            let named = match broken {
                Ok(named) => named,
                // All but the word that it is done.
                Err(_) if moved => name("b/x.aside-7"),
                Err(_) => set_aside(zfs, &name("b/x"), back_to.as_ref(), 7).unwrap(),
            };
            assert_eq!(named, name("b/x.aside-7"), "{case}");
            assert_eq!(all(), before, "{case}: a snapshot was lost");
            assert_eq!(zfs.content(&named).unwrap(), live, "{case}: what was written since is lost");
            assert_eq!(zfs.bookmarks(&named).unwrap(), [], "{case}");
            assert!(zfs.dataset(&name("b/x.back")).unwrap().is_none(), "{case}");
            let own = zfs.own_properties(&if back_to.is_some() { name("b/x") } else { named }).unwrap();
            assert_eq!(own.get("readonly").map(String::as_str), Some("on"), "{case}");
            world.sync(0).unwrap_or_else(|error| panic!("{case}: {error:?}"));
            assert_eq!(zfs.content(&name("b/x")).unwrap(), world.machines[A].content(&name("a/x")).unwrap(), "{case}");
            if !fuse.has_blown() {
                break;
            }
        }
    }
}

#[test]
fn what_is_written_to_or_has_something_in_it_is_not_set_aside() {
    let world = synced();
    let (zfs, x) = (&world.machines[B], name("b/x"));
    let code = |back_to: &str| set_aside(zfs, &x, Some(&back_to.parse().unwrap()), 7).unwrap_err().code().to_owned();
    assert_eq!(code("none"), "missing");
    zfs.create(&name("b/x/inner")).unwrap();
    assert_eq!(code("1002"), "not-alone");
    zfs.destroy(&name("b/x/inner")).unwrap();
    zfs.create(&name("b/x.back")).unwrap();
    assert_eq!(code("1002"), "name-taken");
    zfs.set_property(&x, siris_zfs::PRIMARY, Some("on")).unwrap();
    assert_eq!(code("1002"), "dataset-is-primary");
}

/// Sets all of B's dataset aside.
pub(super) fn set_it_aside(world: &World) {
    set_aside(&world.machines[B], &name("b/x"), None, 7).unwrap();
}
