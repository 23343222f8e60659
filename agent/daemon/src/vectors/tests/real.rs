//! The same on real ZFS, so that the model cannot drift from it: on a machine that has it, as root, with three pools in files.
//!
//! The suite `vectors` runs it in a VM: `SIRIS_TEST_POOLS=DIR PROGRAM --ignored --nocapture real::`, where PROGRAM is what
//! `cargo test -p siris-agent --lib --no-run` makes. Never: touches a pool that it has not made.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use siris_host::cmd::{Cmd, Tool};
use siris_zfs::{Content, DatasetName, Datasets, ModelDatasets, RunsZfs, SnapshotName, ZfsError};

use super::transcript::transcript;
use super::world::{Machine, Op, World, op, run};

/// The directory for the pools' files.
const DIR: &str = "SIRIS_TEST_POOLS";
const POOLS: [&str; 3] = ["a", "b", "c"];
/// Bytes of each.
const SIZE: u64 = 128 << 20;
/// Where the operations come from. Found by trying on the model, where they are cheap: together they cut, fail, prune and rename
/// each vector and place.
const SEEDS: [u8; 4] = [1, 2, 3, 4];
/// How many operations of each: half a minute to a minute on an emulated machine.
const OPS: usize = 12;

/// Pools in files, gone with this.
struct Pools {
    dir: PathBuf,
    made: Vec<&'static str>,
}

impl Pools {
    fn fresh() -> Self {
        let dir = std::env::var(DIR).unwrap_or_else(|_| panic!("{DIR} names no directory for the pools' files"));
        let mut pools = Pools { dir: dir.into(), made: Vec::new() };
        for pool in POOLS {
            let file = pools.dir.join(pool);
            File::create(&file).unwrap().set_len(SIZE).unwrap();
            let root = format!("/srv/pools/{pool}");
            // Not by force: one that is there already stays, and ends this.
            let create = ["create", "-o", "cachefile=none", "-R", &root, pool];
            Cmd::new(Tool::Zpool).args(create).arg(&file).run().unwrap();
            pools.made.push(pool);
        }
        pools
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        for pool in &self.made {
            Cmd::new(Tool::Zpool).args(["destroy", pool]).run().unwrap();
            fs::remove_file(self.dir.join(pool)).unwrap();
        }
    }
}

/// This machine.
#[derive(Debug)]
struct Real;

impl RunsZfs for Real {
    fn zfs(&self, arguments: &[String]) -> Cmd {
        Cmd::new(Tool::Zfs).args(arguments)
    }

    fn is_here(&self) -> bool {
        true
    }
}

impl Real {
    /// Where a file system is mounted.
    fn place(&self, dataset: &DatasetName) -> Result<PathBuf, ZfsError> {
        self.mount(dataset)?;
        Ok(self.property(dataset, "mountpoint")?.unwrap_or_default().into())
    }
}

fn files(dir: &Path) -> io::Result<Content> {
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
    };
    fs::read_dir(dir)?.map(file).collect()
}

impl Machine for Real {
    fn write(&self, dataset: &DatasetName, path: &str, bytes: Option<&[u8]>) -> Result<(), ZfsError> {
        let file = self.place(dataset)?.join(path);
        let done = match bytes {
            Some(bytes) => fs::write(file, bytes),
            None => fs::remove_file(file).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        done.map_err(ZfsError::Stream)
    }

    fn content_at(&self, snapshot: &SnapshotName) -> Result<Content, ZfsError> {
        let mut found = Content::new();
        self.show(snapshot, &mut |dir| {
            found = files(dir)?;
            Ok(())
        })?;
        Ok(found)
    }

    fn roll_back(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let newest = self.snapshots(dataset)?.pop().expect("there is a snapshot to go back to");
        Ok(Cmd::new(Tool::Zfs).args(["rollback", &format!("{dataset}@{}", newest.label)]).run()?)
    }

    fn stretch(&self) -> u64 {
        // A stream of the smallest file system has some 40 KiB.
        64
    }
}

/// The operations of a seed: the same ones each time.
fn ops(seed: u8) -> Vec<Op> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    prop::collection::vec(op(), OPS).new_tree(&mut runner).unwrap().current()
}

#[test]
fn the_fixed_operations_have_everything_in_them() {
    let all: Vec<Op> = SEEDS.into_iter().flat_map(ops).collect();
    let has = |what: fn(&Op) -> bool| all.iter().any(what);
    assert!(has(|op| matches!(op, Op::Write(_, None))) && has(|op| matches!(op, Op::Sync(_))));
    for vector in 0..3 {
        assert!(
            all.iter().any(|op| matches!(op, Op::Cut(v, _) | Op::Fail(v, ..) if *v == vector)),
            "{vector}: {all:?}"
        );
    }
    assert!(all.iter().filter(|op| matches!(op, Op::Prune(..))).count() > 3, "{all:?}");
    assert!(all.iter().filter(|op| matches!(op, Op::Rename(..))).count() > 1, "{all:?}");
    for seed in SEEDS {
        run(World::new(), &ops(seed)).unwrap();
    }
}

#[test]
#[ignore = "makes pools: the suite `vectors` runs it in a VM"]
fn whatever_happens_on_real_zfs_the_next_sync_completes_and_nothing_is_left_over() {
    for seed in SEEDS {
        let _pools = Pools::fresh();
        println!("seed {seed}: {:?}", ops(seed));
        if let Err(error) = run(World::of([Real, Real, Real]), &ops(seed)) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
#[ignore = "makes pools: the suite `vectors` runs it in a VM"]
fn the_model_answers_as_real_zfs_does() {
    let _pools = Pools::fresh();
    let (model, real) = (transcript(&ModelDatasets::new(1, &POOLS)), transcript(&Real));
    let apart: Vec<String> = model
        .iter()
        .zip(&real)
        .filter(|(model, real)| model != real)
        .map(|(model, real)| format!("model: {model}\n real: {real}"))
        .collect();
    assert!(apart.is_empty() && model.len() == real.len(), "they differ:\n{}", apart.join("\n"));
}
