//! Digests of what changed: a directory that is changed stands for the dataset, and streams are made of what was done to it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use proptest::prelude::*;
use rustix::fs::FallocateFlags;
use siris_ibu::digest::Sha256;
use siris_zfs::{
    Bookmark, Dataset, DatasetName, Datasets, Guid, Hold, Label, ModelDatasets, Newest, PoolName, Rest, Sending,
    Snapshot, SnapshotName, Stream, UserProperties, ZfsError,
};

use super::super::digest::kept::DIGESTS;
use super::super::digest::stream::tests::{Made, made};
use super::super::digest::{Amount, CHUNK, Digests, Scope, differences};
use super::super::end::{End, Local};
use super::name;
use super::ports::Bytes;
use crate::root::Root;

/// Bytes of a block.
const BLOCK: u64 = 128 << 10;

/// A machine whose one dataset is a directory. Snapshots are of the present: the newest one is what is there.
#[derive(Debug)]
struct Live {
    zfs: ModelDatasets,
    dir: tempfile::TempDir,
    root: Root,
    /// What a stream has, whatever is asked for between the two.
    stream: Mutex<Option<Vec<u8>>>,
    asked: Mutex<Vec<Stream>>,
    records: Vec<Made>,
    points: u64,
    last: Guid,
}

fn through<'a, T>(port: &'a Live, call: impl FnOnce(&'a ModelDatasets) -> Result<T, ZfsError>) -> Result<T, ZfsError> {
    call(&port.zfs)
}

impl Datasets for Live {
    fn property(&self, dataset: &DatasetName, name: &str) -> Result<Option<String>, ZfsError> {
        self.zfs.property(dataset, name)
    }

    fn show(
        &self,
        _snapshot: &SnapshotName,
        look: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        look(&self.dir.path().join("data")).map_err(ZfsError::Stream)
    }

    fn send(&self, stream: &Stream) -> Result<Box<dyn Sending>, ZfsError> {
        self.asked.lock().unwrap().push(stream.clone());
        let bytes = self.stream.lock().unwrap().clone();
        bytes.map_or_else(
            || Err(ZfsError::Stream(io::Error::other("it cannot be sent"))),
            |bytes| Ok(Box::new(Bytes(io::Cursor::new(bytes))) as Box<dyn Sending>),
        )
    }

    fn open(
        &self,
        dataset: &DatasetName,
        work: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        self.zfs.open(dataset, work)
    }

    fn leads_to(&self, token: &str) -> Option<Rest> {
        self.zfs.leads_to(token)
    }

    pass! { through:
        datasets(pools: &[PoolName]) -> Vec<Dataset>;
        newest(pools: &[PoolName]) -> BTreeMap<DatasetName, Newest>;
        dataset(name: &DatasetName) -> Option<Dataset>;
        snapshots(dataset: &DatasetName) -> Vec<Snapshot>;
        bookmarks(dataset: &DatasetName) -> Vec<Bookmark>;
        holds(dataset: &DatasetName, labels: &[Label]) -> Vec<Hold>;
        create(dataset: &DatasetName) -> ();
        own_properties(dataset: &DatasetName) -> UserProperties;
        set_property(dataset: &DatasetName, name: &str, value: Option<&str>) -> ();
        mount(dataset: &DatasetName) -> ();
        unmount(dataset: &DatasetName) -> ();
        is_changed(dataset: &DatasetName) -> bool;
        snapshot(datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> ();
        bookmark(snapshot: &SnapshotName, label: &Label) -> ();
        destroy_bookmark(dataset: &DatasetName, label: &Label) -> ();
        hold(snapshot: &SnapshotName, tag: &Label) -> ();
        release(snapshot: &SnapshotName, tag: &Label) -> ();
        destroy_snapshots(dataset: &DatasetName, labels: &[Label]) -> ();
        clone_snapshot(snapshot: &SnapshotName, target: &DatasetName, properties: &UserProperties) -> ();
        promote(clone: &DatasetName) -> ();
        rename(dataset: &DatasetName, name: &DatasetName) -> ();
        rename_snapshot(snapshot: &SnapshotName, label: &Label) -> ();
        destroy(dataset: &DatasetName) -> ();
        send_size(stream: &Stream) -> u64;
        receive(dataset: &DatasetName, stream: &mut dyn io::Read) -> ();
        abort_receive(dataset: &DatasetName) -> ();
    }
}

/// What somebody does to a file.
#[derive(Debug, Clone)]
enum Act {
    Write(u8, u64, u64, u8),
    Cut(u8, u64),
    Punch(u8, u64, u64),
    Replace(u8, u64, u8),
    Remove(u8),
    Rename(u8, u8),
    Link(u8, u8),
}

impl Live {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let (zfs, root) = (ModelDatasets::new(1, &["a"]), Root::new(dir.path().join("root")));
        zfs.create(&name("a/x")).unwrap();
        let mut live = Live {
            zfs,
            dir,
            root,
            stream: Mutex::default(),
            asked: Mutex::default(),
            records: Vec::new(),
            points: 0,
            last: Guid::new(0),
        };
        live.point();
        live
    }

    fn path(&self, file: u8) -> PathBuf {
        self.dir.path().join("data").join(format!("file{file}"))
    }

    /// A snapshot of what is there; streams to it are from the one before.
    fn point(&mut self) -> Guid {
        self.points += 1;
        self.zfs.snapshot(&[name("a/x")], &Label::of_epoch(self.points), &UserProperties::new()).unwrap();
        let newest = self.zfs.snapshots(&name("a/x")).unwrap().pop().unwrap().guid;
        *self.stream.lock().unwrap() = Some(made(&std::mem::take(&mut self.records), self.last, newest));
        self.last = newest;
        newest
    }

    /// Does it, and has the records that ZFS would send for it. What cannot be done is not.
    fn act(&mut self, act: &Act) {
        let open = |path: PathBuf| OpenOptions::new().write(true).open(path).ok();
        let inode = |file: &File| file.metadata().unwrap().ino();
        match *act {
            Act::Write(file, at, length, byte) => {
                let Some(file) = open(self.path(file)) else { return };
                file.write_all_at(&vec![byte; length as usize], at).unwrap();
                self.written(inode(&file), at, length);
            }
            Act::Cut(file, length) => {
                let Some(file) = open(self.path(file)) else { return };
                let was = file.metadata().unwrap().len();
                file.set_len(length).unwrap();
                if length < was {
                    self.written(inode(&file), length, 1);
                }
                let end = length.min(was).next_multiple_of(BLOCK);
                self.records.extend([Made::Object(inode(&file), 168), Made::Free(inode(&file), end, u64::MAX)]);
            }
            Act::Punch(file, at, length) => {
                let Some(file) = open(self.path(file)) else { return };
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, at, length).unwrap();
                self.written(inode(&file), at, 1);
                self.records.push(Made::Free(inode(&file), at, length));
                self.written(inode(&file), at + length - 1, 1);
            }
            Act::Replace(file, length, byte) => {
                self.remove(file);
                let made = File::create(self.path(file)).unwrap();
                made.write_all_at(&vec![byte; length as usize], 0).unwrap();
                self.written(inode(&made), 0, length);
                self.records.push(Made::Free(inode(&made), length.next_multiple_of(BLOCK), u64::MAX));
            }
            Act::Remove(file) => self.remove(file),
            Act::Rename(from, to) => {
                if from != to && self.path(from).exists() {
                    self.remove(to);
                    fs::rename(self.path(from), self.path(to)).unwrap();
                }
            }
            Act::Link(from, to) => {
                if from != to && self.path(from).exists() {
                    self.remove(to);
                    fs::hard_link(self.path(from), self.path(to)).unwrap();
                }
            }
        }
    }

    fn written(&mut self, inode: u64, at: u64, length: u64) {
        let (start, end) = (at / BLOCK * BLOCK, (at + length).next_multiple_of(BLOCK));
        self.records.push(Made::Object(inode, 168));
        self.records.extend((start..end).step_by(BLOCK as usize).map(|at| Made::Write(inode, at, BLOCK, Some(512))));
    }

    fn remove(&mut self, file: u8) {
        let _ = fs::remove_file(self.path(file));
    }

    fn digest(&self, scope: Scope) -> (Digests, Amount) {
        let digests = Local::keeping(self, &self.root).digest(&name("a/x"), self.last, scope).unwrap();
        let amount = digests.amount.unwrap();
        (digests, amount)
    }

    /// As who keeps nothing reads it.
    fn whole(&self) -> (Digests, Amount) {
        let digests = Local::new(self).digest(&name("a/x"), self.last, Scope::Changed).unwrap();
        let amount = digests.amount.unwrap();
        assert_eq!(amount.read, amount.data);
        (digests, amount)
    }

    /// What an end that reads what changed says is what one says that reads all. Gives what it has read.
    fn check(&self) -> u64 {
        let ((changed, amount), (whole, all)) = (self.digest(Scope::Changed), self.whole());
        assert_eq!(differences(&changed.entries, &whole.entries), Vec::<&Path>::new());
        assert_eq!((changed.entries, amount.data), (whole.entries, all.data));
        amount.read
    }
}

fn act() -> impl Strategy<Value = Act> {
    let (file, at, length) = (0..4u8, 0..(4 * CHUNK), 1..(CHUNK + CHUNK / 2));
    // Zeros among what is written.
    let byte = 0..4u8;
    prop_oneof![
        4 => (file.clone(), at.clone(), length.clone(), byte.clone()).prop_map(|(f, at, l, b)| Act::Write(f, at, l, b)),
        2 => (file.clone(), 0..(5 * CHUNK)).prop_map(|(file, length)| Act::Cut(file, length)),
        2 => (file.clone(), at, length).prop_map(|(file, at, length)| Act::Punch(file, at, length)),
        2 => (file.clone(), 0..(3 * CHUNK), byte).prop_map(|(file, length, byte)| Act::Replace(file, length, byte)),
        1 => file.clone().prop_map(Act::Remove),
        1 => (file.clone(), file.clone()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (file.clone(), file).prop_map(|(from, to)| Act::Link(from, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn who_reads_what_changed_says_what_one_says_that_reads_all(
        rounds in prop::collection::vec(prop::collection::vec(act(), 0..6), 1..5),
    ) {
        let mut live = Live::new();
        (0..3).for_each(|file| live.act(&Act::Replace(file, 3 * CHUNK + 77, file + 1)));
        live.point();
        live.check();
        for acts in rounds {
            acts.iter().for_each(|act| live.act(act));
            live.point();
            live.check();
        }
    }
}

/// An image of 16 MiB and a small file, read once.
fn known() -> Live {
    let mut live = Live::new();
    live.act(&Act::Replace(0, 16 * CHUNK, 1));
    live.act(&Act::Replace(1, 100, 1));
    live.point();
    assert_eq!(live.check(), 16 * CHUNK + 100);
    live
}

#[test]
fn only_what_was_written_is_read_again() {
    let mut live = known();
    assert_eq!(live.check(), 0, "the same one again");
    live.point();
    assert_eq!(live.check(), 0, "nothing was written");
    live.act(&Act::Write(0, 3 * CHUNK - 10, 20, 9));
    live.act(&Act::Rename(0, 2));
    live.point();
    assert_eq!(live.check(), 2 * CHUNK);
    // Longer by a hole, then written to behind it.
    live.act(&Act::Cut(2, 20 * CHUNK));
    live.point();
    assert_eq!(live.check(), 0);
    live.act(&Act::Write(2, 18 * CHUNK, 1, 9));
    live.act(&Act::Punch(2, 0, 4 * CHUNK));
    live.point();
    // The block behind what was punched is written, as far as ZFS tells.
    assert!(live.check() <= 2 * CHUNK);
    live.act(&Act::Cut(2, 10 * CHUNK + 5));
    live.point();
    assert_eq!(live.check(), 5);
    live.act(&Act::Replace(2, 2 * CHUNK, 1));
    live.point();
    assert_eq!(live.check(), 2 * CHUNK);
}

#[test]
fn what_nobody_wrote_and_is_other_is_found_by_who_reads_all() {
    let mut live = known();
    let image = OpenOptions::new().write(true).open(live.path(0)).unwrap();
    let time = image.metadata().unwrap().modified().unwrap();
    image.write_all_at(b"x", 5 * CHUNK).unwrap();
    image.set_modified(time).unwrap();
    live.act(&Act::Write(1, 0, 1, 7));
    live.point();
    let ((changed, amount), (whole, _)) = (live.digest(Scope::Changed), live.whole());
    assert_eq!(amount.read, 100);
    assert_eq!(differences(&changed.entries, &whole.entries), [Path::new("file0")]);
    let (whole_here, amount) = live.digest(Scope::Whole);
    assert_eq!((whole_here.entries, amount.read), (whole.entries, 16 * CHUNK + 100));
    // From then on that is what is known.
    assert_eq!(live.check(), 0);
    // A hole where data was is seen even where ZFS does not say so, and data where a hole was.
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&image, flags, 7 * CHUNK, CHUNK).unwrap();
    live.point();
    assert_eq!(live.check(), 0);
    image.write_all_at(b"x", 7 * CHUNK + 9).unwrap();
    live.point();
    assert_eq!(live.check(), CHUNK);
}

#[test]
fn where_anything_is_in_doubt_all_is_read() {
    let all = 16 * CHUNK + 100;
    let read = |harm: &dyn Fn(&mut Live)| {
        let mut live = known();
        live.act(&Act::Write(0, 0, 1, 9));
        live.point();
        harm(&mut live);
        live.check()
    };
    assert_eq!(read(&|_| {}), CHUNK);
    assert_eq!(read(&|live| *live.stream.lock().unwrap() = None), all);
    assert_eq!(read(&|live| *live.stream.lock().unwrap() = Some(b"{}\n".to_vec())), all);
    assert_eq!(read(&|live| live.stream.lock().unwrap().as_mut().unwrap().truncate(1900)), all);
    let kept = |live: &Live| {
        let guid = live.zfs.dataset(&name("a/x")).unwrap().unwrap().guid;
        live.root.path(DIGESTS).join(format!("a-{guid}"))
    };
    assert_eq!(read(&|live| fs::remove_file(kept(live)).unwrap()), all);
    assert_eq!(read(&|live| fs::write(kept(live), "odd").unwrap()), all);
    assert_eq!(
        read(&|live| {
            fs::remove_dir_all(live.root.path(DIGESTS)).unwrap();
            fs::write(live.root.path(DIGESTS), "no directory").unwrap();
        }),
        all
    );
    // The one that was read last is gone; and is older only by its name.
    let gone = |live: &mut Live| live.zfs.destroy_snapshots(&name("a/x"), &[Label::of_epoch(2)]).unwrap();
    assert_eq!(read(&gone), all);
    assert_eq!(
        read(&|live| {
            live.digest(Scope::Whole);
            live.last = live.zfs.snapshots(&name("a/x")).unwrap()[1].guid;
        }),
        all
    );
    // A bookmark of it does not do.
    assert_eq!(
        read(&|live| {
            live.zfs.bookmark(&"a/x@2".parse().unwrap(), &"mark".parse().unwrap()).unwrap();
            gone(live);
        }),
        all
    );
    // It was lost and received again: of the same guid, in another transaction group.
    let anew = |live: &mut Live| {
        let mut bytes = fs::read(kept(live)).unwrap();
        bytes[36] ^= 1;
        let end = bytes.len() - 32;
        let digest = Sha256::of(&bytes[..end]);
        bytes[end..].copy_from_slice(digest.as_bytes());
        fs::write(kept(live), bytes).unwrap();
    };
    assert_eq!(read(&anew), all);
    let mut live = known();
    anew(&mut live);
    assert_eq!(live.check(), all, "the very snapshot");
}
