//! Three machines that replicate, whatever happens to them, and what has to hold all the time: on the model, and on real ZFS.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use siris_zfs::{
    ASSET_ID, Content, DatasetName, Datasets, Guid, Hold, Label, ModelDatasets, Snapshot, SnapshotName, UserProperties,
    ZfsError,
};

use super::super::VectorId;
use super::super::end::Local;
use super::super::needs::Side;
use super::super::plan::Obstacle;
use super::super::sync::{Pair, SyncError, sync};
use super::super::travel::{Party, Records, VectorRecord};
use super::ports::{Blows, Far, Fuse, Fused, Mutant, Mutated};
use crate::datasets::prune;
use crate::datasets::retention::Policy;

/// A dataset by its name.
pub(super) fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

/// A vector of machine `d`.
pub(super) fn id(number: u64) -> VectorId {
    VectorId { device: uuid::Uuid::from_u128(0xd), number }
}

/// A vector between two datasets.
pub(super) fn pair(number: u64, source: &str, target: &str) -> Pair {
    let party = |dataset: &str| {
        let machine = dataset.as_bytes()[0];
        Party { device: Some(uuid::Uuid::from_u128(machine.into())), name: char::from(machine).to_string() }
    };
    let record = VectorRecord {
        id: id(number).to_string(),
        from: party(source),
        source: source.to_owned(),
        to: party(target),
        target: target.to_owned(),
        tier: "primary".to_owned(),
        other: BTreeMap::new(),
    };
    Pair { id: id(number), source: name(source), target: name(target), record }
}

/// A machine's ZFS, whose file systems can be written to and read.
pub(super) trait Machine: Datasets {
    /// Writes a file, or takes it away.
    fn write(&self, dataset: &DatasetName, path: &str, bytes: Option<&[u8]>) -> Result<(), ZfsError>;

    /// What is in a snapshot.
    fn content_at(&self, snapshot: &SnapshotName) -> Result<Content, ZfsError>;

    /// As `zfs rollback` to the newest snapshot does.
    fn roll_back(&self, dataset: &DatasetName) -> Result<(), ZfsError>;

    /// How many times as long as the model's its streams are, about.
    fn stretch(&self) -> u64;
}

impl Machine for ModelDatasets {
    fn write(&self, dataset: &DatasetName, path: &str, bytes: Option<&[u8]>) -> Result<(), ZfsError> {
        ModelDatasets::write(self, dataset, path, bytes)
    }

    fn content_at(&self, snapshot: &SnapshotName) -> Result<Content, ZfsError> {
        ModelDatasets::content_at(self, snapshot)
    }

    fn roll_back(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        ModelDatasets::roll_back(self, dataset)
    }

    fn stretch(&self) -> u64 {
        1
    }
}

/// Three machines with the pools a, b and c. A sends to B and to C; B sends what it has to C too.
pub(super) struct World<Z = ModelDatasets> {
    pub(super) machines: [Z; 3],
    pub(super) vectors: [(Pair, usize, usize); 3],
    pub(super) now: u64,
    /// What was in each snapshot when it was taken.
    taken: RefCell<BTreeMap<Guid, Content>>,
    /// What was ever seen in each place.
    seen: RefCell<[BTreeSet<Guid>; 4]>,
    mutant: Option<Mutant>,
}

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
pub(super) const C: usize = 2;
/// The dataset on each machine, and the second one on C.
const PLACES: [(usize, &str); 4] = [(A, "a/x"), (B, "b/x"), (C, "c/x"), (C, "c/y")];

impl World {
    /// Three models.
    pub(super) fn new() -> Self {
        World::with(None)
    }

    /// Three models, and code that breaks a rule.
    pub(super) fn with(mutant: Option<Mutant>) -> Self {
        let machines = [("a", 1), ("b", 2), ("c", 3)].map(|(pool, seed)| ModelDatasets::new(seed, &[pool]));
        World { mutant, ..World::of(machines) }
    }
}

impl<Z: Machine> World<Z> {
    /// These machines, with nothing on them.
    pub(super) fn of(machines: [Z; 3]) -> Self {
        machines[A].create(&name("a/x")).unwrap();
        let vectors = [(pair(1, "a/x", "b/x"), A, B), (pair(2, "a/x", "c/x"), A, C), (pair(3, "b/x", "c/y"), B, C)];
        World { machines, vectors, now: 1000, taken: RefCell::default(), seen: RefCell::default(), mutant: None }
    }

    pub(super) fn point(&mut self) {
        self.now += 1;
        let label = Label::of_epoch(self.now);
        let zfs = &self.machines[A];
        zfs.snapshot(&[name("a/x")], &label, &UserProperties::new()).unwrap();
        let newest = zfs.snapshots(&name("a/x")).unwrap().pop().unwrap();
        let content = zfs.content_at(&SnapshotName::new(name("a/x"), label)).unwrap();
        self.taken.borrow_mut().insert(newest.guid, content);
    }

    pub(super) fn ends(&self, vector: usize, fuse: &Fuse) -> (&Pair, Mutated<'_>, Mutated<'_>) {
        let (pair, source, target) = &self.vectors[vector];
        (pair, self.port(*source, fuse), self.port(*target, fuse))
    }

    fn port(&self, machine: usize, fuse: &Fuse) -> Mutated<'_> {
        Mutated(Fused(&self.machines[machine], fuse.clone()), self.mutant)
    }

    pub(super) fn sync(&self, vector: usize) -> Result<Snapshot, SyncError> {
        let (pair, source, target) = self.ends(vector, &Fuse::none());
        let (source, target) = (Local::new(&source), Local::new(&target));
        // Half of them to a target that is sent to before it is asked.
        if self.now.is_multiple_of(2) {
            sync(pair, &source, &Far(target, u64::MAX), &mut ())
        } else {
            sync(pair, &source, &target, &mut ())
        }
    }

    pub(super) fn of_dataset(&self, machine: usize, dataset: &DatasetName) -> Vec<(VectorId, Side)> {
        let mut found = Vec::new();
        for (pair, source, target) in &self.vectors {
            if (*source, &pair.source) == (machine, dataset) {
                found.push((pair.id, Side::Source));
            }
            if (*target, &pair.target) == (machine, dataset) {
                found.push((pair.id, Side::Target));
            }
        }
        found
    }

    pub(super) fn prune(&self, place: usize, keep: u64) -> Result<(), TestCaseError> {
        let (machine, dataset) = (PLACES[place].0, name(PLACES[place].1));
        let zfs = self.port(machine, &Fuse::none());
        let policy = Policy { all: keep, ..Policy::default() };
        let mut vectors = self.of_dataset(machine, &dataset);
        if self.mutant == Some(Mutant::PruneWithoutAsking) {
            vectors.clear();
        }
        let Some(decisions) = prune::decisions(&zfs, &dataset, &|_| vectors.clone(), &policy, self.now).unwrap() else {
            return Ok(());
        };
        let guids = || self.machines[machine].snapshots(&dataset).unwrap().into_iter().map(|snapshot| snapshot.guid);
        let before: BTreeSet<Guid> = guids().collect();
        let went =
            prune::apply(&zfs, &dataset, &decisions).map_err(|error| TestCaseError::fail(crate::chain(&error)))?;
        let now: BTreeSet<Guid> = guids().collect();
        prop_assert_eq!(before.len() - now.len(), went);
        // What goes has arrived wherever it was to be sent.
        let seen = self.seen.borrow();
        for (pair, source, target) in &self.vectors {
            if (*source, &pair.source) == (machine, &dataset) {
                let there = PLACES.iter().position(|(m, d)| m == target && name(d) == pair.target).unwrap();
                prop_assert!(
                    before.difference(&now).all(|guid| seen[there].contains(guid)),
                    "{} has lost one",
                    pair.id
                );
            }
        }
        Ok(())
    }

    /// What has to hold at every moment.
    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        let taken = self.taken.borrow();
        for (place, (machine, dataset)) in PLACES.into_iter().enumerate() {
            let zfs = &self.machines[machine];
            if zfs.dataset(&name(dataset)).unwrap().is_none() {
                continue;
            }
            for snapshot in zfs.snapshots(&name(dataset)).unwrap() {
                // What is in a snapshot does not change: once is enough.
                if self.seen.borrow_mut()[place].insert(snapshot.guid) {
                    let at = SnapshotName::new(name(dataset), snapshot.label.clone());
                    prop_assert_eq!(Some(&zfs.content_at(&at).unwrap()), taken.get(&snapshot.guid));
                }
            }
        }
        Ok(())
    }

    /// A sync ends well, or fails of what was done to it; B has nothing to send before it has received something.
    fn expect(
        &self,
        vector: usize,
        ended: Result<Snapshot, SyncError>,
        was_disturbed: bool,
    ) -> Result<(), TestCaseError> {
        let (pair, source, target) = &self.vectors[vector];
        let newest = |machine: usize, dataset: &DatasetName| {
            self.machines[machine].snapshots(dataset).ok().and_then(|mut all| all.pop()).map(|snapshot| snapshot.guid)
        };
        let ours = newest(*source, &pair.source);
        match ended {
            Ok(base) => {
                prop_assert_eq!(ours, Some(base.guid));
                prop_assert_eq!(newest(*target, &pair.target), Some(base.guid));
            }
            Err(SyncError::Obstacle(Obstacle::NoPoints | Obstacle::SourceMissing(_))) if ours.is_none() => {}
            Err(SyncError::Obstacle(obstacle)) => prop_assert!(false, "{obstacle}"),
            Err(error) => prop_assert!(was_disturbed, "{}", crate::chain(&error)),
        }
        Ok(())
    }

    /// After a sync of each vector that nothing disturbs: all the same, and nothing is left over.
    pub(super) fn finish(&self) -> Result<(), TestCaseError> {
        self.machines[A].set_property(&name("a/x"), ASSET_ID, Some("123")).unwrap();
        for vector in 0..self.vectors.len() {
            self.sync(vector)
                .map_err(|error| TestCaseError::fail(format!("vector {vector}: {}", crate::chain(&error))))?;
        }
        self.check()?;
        for (pair, source, target) in &self.vectors {
            for (machine, dataset) in [(*source, &pair.source), (*target, &pair.target)] {
                let notes = self.machines[machine].dataset(dataset).unwrap().unwrap().notes;
                prop_assert_eq!(notes.asset_id.as_deref(), Some("123"));
                prop_assert!(Records::of(&notes).unwrap().iter().any(|record| *record == pair.record));
            }
        }
        let newest = |machine: usize, dataset: &str| {
            self.machines[machine].snapshots(&name(dataset)).unwrap().pop().map(|snapshot| snapshot.guid)
        };
        for (machine, dataset) in PLACES {
            prop_assert_eq!(newest(machine, dataset), newest(A, "a/x"));
            let zfs = &self.machines[machine];
            prop_assert!(zfs.dataset(&name(dataset)).unwrap().unwrap().resume.is_none());
            let base = newest(machine, dataset).unwrap();
            let all = zfs.snapshots(&name(dataset)).unwrap();
            let labels: Vec<Label> = all.iter().map(|snapshot| snapshot.label.clone()).collect();
            let last = labels.last().cloned().unwrap();
            let mut holds: Vec<Hold> = Vec::new();
            let mut bookmarks: Vec<Label> = Vec::new();
            for (id, _) in self.of_dataset(machine, &name(dataset)) {
                holds.push(Hold { label: last.clone(), tag: id.tag() });
                bookmarks.push(id.bookmark(base));
            }
            holds.sort();
            prop_assert_eq!(zfs.holds(&name(dataset), &labels).unwrap(), holds);
            let mut found: Vec<Label> = zfs.bookmarks(&name(dataset)).unwrap().into_iter().map(|b| b.label).collect();
            found.sort();
            bookmarks.sort();
            prop_assert_eq!(found, bookmarks);
        }
        Ok(())
    }
}

/// What happens to them.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Write(u8, Option<u8>),
    Point,
    Sync(usize),
    Cut(usize, u16),
    Fail(usize, u8, Blows),
    Prune(usize, u8),
    Rename(usize, u8),
}

/// Anything that can happen.
pub(super) fn op() -> impl Strategy<Value = Op> {
    let blows = prop_oneof![Just(Blows::Before), Just(Blows::Behind), Just(Blows::Once)];
    prop_oneof![
        2 => (0..6u8, proptest::option::of(any::<u8>())).prop_map(|(path, value)| Op::Write(path, value)),
        3 => Just(Op::Point),
        1 => (0..3usize).prop_map(Op::Sync),
        2 => (0..3usize, 0..2000u16).prop_map(|(vector, bytes)| Op::Cut(vector, bytes)),
        3 => (0..3usize, 0..40u8, blows).prop_map(|(vector, calls, blows)| Op::Fail(vector, calls, blows)),
        2 => (0..4usize, 0..4u8).prop_map(|(place, keep)| Op::Prune(place, keep)),
        1 => (0..4usize, any::<u8>()).prop_map(|(place, which)| Op::Rename(place, which)),
    ]
}

/// Has all of it happen, one after the other, and checks what has to hold.
pub(super) fn run<Z: Machine>(mut world: World<Z>, ops: &[Op]) -> Result<(), TestCaseError> {
    world.point();
    for (number, op) in ops.iter().enumerate() {
        match *op {
            Op::Write(path, value) => {
                let bytes = value.map(|value| vec![value; 40]);
                world.machines[A].write(&name("a/x"), &format!("f{path}"), bytes.as_deref()).unwrap();
            }
            Op::Point => world.point(),
            Op::Sync(vector) => world.expect(vector, world.sync(vector), false)?,
            Op::Cut(vector, bytes) => {
                let (pair, source, target) = world.ends(vector, &Fuse::none());
                let far = Far(Local::new(&target), u64::from(bytes) * world.machines[A].stretch() + 1);
                world.expect(vector, sync(pair, &Local::new(&source), &far, &mut ()), true)?;
            }
            Op::Fail(vector, calls, blows) => {
                let fuse = Fuse::after(i64::from(calls), blows);
                let (pair, source, target) = world.ends(vector, &fuse);
                let ended = sync(pair, &Local::new(&source), &Local::new(&target), &mut ());
                world.expect(vector, ended, fuse.has_blown())?;
            }
            Op::Prune(place, keep) => world.prune(place, u64::from(keep))?,
            Op::Rename(place, which) => {
                let (machine, dataset) = (PLACES[place].0, name(PLACES[place].1));
                let zfs = &world.machines[machine];
                let all = zfs.dataset(&dataset).unwrap().map_or_else(Vec::new, |_| zfs.snapshots(&dataset).unwrap());
                if let Some(one) = all.get(usize::from(which) % all.len().max(1)) {
                    let label = format!("renamed-{number}").parse().unwrap();
                    zfs.rename_snapshot(&SnapshotName::new(dataset, one.label.clone()), &label).unwrap();
                }
            }
        }
        world.check()?;
    }
    world.finish()
}
