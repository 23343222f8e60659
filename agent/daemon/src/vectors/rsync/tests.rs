use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use siris_host::cmd::{Cmd, Tool};
use siris_zfs::{Guid, ModelDatasets};

use super::super::limit::Rate;
use super::*;

/// A shell of this machine in the place of one that SSH leads to.
#[derive(Debug)]
struct Here;

impl Shell for Here {
    fn run(&self, command: &str) -> Cmd {
        Cmd::new(Tool::Bash).args(["-c", command])
    }

    fn carrier(&self) -> Vec<String> {
        // As SSH does it: the name goes, and the words are one command for a shell.
        ["bash", "-c", "shift; exec bash -c \"$*\"", "carrier"].map(str::to_owned).to_vec()
    }
}

/// One that is cut off when so many pieces of 4 KiB have passed to there.
#[derive(Debug)]
struct Frail(u64);

impl Shell for Frail {
    fn run(&self, command: &str) -> Cmd {
        Here.run(command)
    }

    fn carrier(&self) -> Vec<String> {
        let cut = format!(
            // Ends when the command there does, as SSH.
            "shift; exec 3<&0; bash -c \"$*\" < <(exec dd bs=4096 count={} status=none <&3)",
            self.0
        );
        ["bash", "-c", &cut, "carrier"].map(str::to_owned).to_vec()
    }
}

/// A box with one dataset, and a directory in the place of the other machine's.
struct World {
    zfs: ModelDatasets,
    dataset: DatasetName,
    dir: tempfile::TempDir,
    path: FarPath,
}

/// `None` where there is no rsync, as on a machine that has not been set up.
fn world(below: &str) -> Option<World> {
    if !Tool::Rsync.is_present(None) {
        eprintln!("SKIPPED: rsync is not installed (Debian package rsync)");
        return None;
    }
    let (zfs, dataset) = (ModelDatasets::new(1, &["tank"]), "tank/x".parse().unwrap());
    zfs.create(&dataset).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}/{below}", dir.path().display()).parse().unwrap();
    Some(World { zfs, dataset, dir, path })
}

impl World {
    fn mirror<'a>(&'a self, way: Way, shell: &'a dyn Shell) -> Mirror<'a> {
        let id = VectorId { device: uuid::Uuid::from_u128(0xd), number: 1 };
        Mirror { id, dataset: &self.dataset, path: &self.path, way, zfs: &self.zfs, shell }
    }

    fn push(&self) -> Result<Snapshot, SyncError> {
        self.mirror(Way::Push, &Here).sync(&mut ())
    }

    fn pull(&self) -> Result<Snapshot, SyncError> {
        self.mirror(Way::Pull, &Here).sync(&mut ())
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        self.zfs.write(&self.dataset, path, Some(bytes)).unwrap();
    }

    fn point(&self, now: u64) {
        take_point(&self.zfs, &self.dataset, now).unwrap();
    }

    fn there(&self, path: &str) -> PathBuf {
        PathBuf::from(self.path.as_str()).join(path)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.path))
    }

    fn bases(&self) -> Vec<Guid> {
        self.zfs.bookmarks(&self.dataset).unwrap().into_iter().map(|bookmark| bookmark.guid).collect()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, SyncError>) -> String {
    let error = result.unwrap_err();
    eprintln!("{}", crate::chain(&error));
    error.code().to_owned()
}

/// Bytes without a pattern.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

const AWKWARD: [&str; 6] = ["a b", "it's", "two\nlines", "quo\"te $(id) `id`", "*[x]?", "-rf"];

#[test]
fn a_point_is_pushed_whole_and_the_next_one_shares_what_is_the_same() {
    for below in ["copy", "it's a \"copy\"\n$(touch here)*"] {
        let Some(world) = world(below) else { return };
        for (n, name) in AWKWARD.iter().enumerate() {
            world.write(name, &noise(1000 + n, 1));
        }
        world.write("deep/er/image", &noise(300_000, 2));
        assert_eq!(code(world.push()), "no-recovery-point");
        world.point(100);
        assert_eq!(world.push().unwrap().label.as_str(), "100");
        for (n, name) in AWKWARD.iter().enumerate() {
            assert_eq!(fs::read(world.there(name)).unwrap(), noise(1000 + n, 1), "{name}");
        }
        let inode = |path: &str| fs::metadata(world.there(path)).unwrap().ino();
        let (same, other) = (inode("a b"), inode("deep/er/image"));
        assert_eq!(world.push().unwrap().label.as_str(), "100", "there is nothing to do");
        assert_eq!(inode("a b"), same);

        let mut image = noise(300_000, 2);
        image.extend(noise(10, 3));
        world.write("deep/er/image", &image);
        world.zfs.write(&world.dataset, "it's", None).unwrap();
        world.point(200);
        world.point(300);
        assert_eq!(world.push().unwrap().label.as_str(), "300");
        assert_eq!(inode("a b"), same, "what is the same is linked to");
        assert_ne!(inode("deep/er/image"), other, "what is other is not written to where it was");
        assert_eq!(fs::read(world.there("deep/er/image")).unwrap(), image);
        assert!(!world.there("it's").exists());
        let newest = world.zfs.snapshots(&world.dataset).unwrap().pop().unwrap();
        assert_eq!(world.bases(), [newest.guid]);
        assert_eq!(world.zfs.holds(&world.dataset, &[newest.label]).unwrap().len(), 1);
        assert!(!world.beside(".partial").exists() && !world.beside(".old").exists());
        assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 1);

        let proof = world.mirror(Way::Push, &Here).verify().unwrap();
        assert_eq!((proof.differing, proof.base.label.as_str()), (vec![], "300"));
        Mirror::forget(&world.zfs, &world.dataset, &world.mirror(Way::Push, &Here).id).unwrap();
        assert!(world.bases().is_empty() && world.there("a b").exists());
    }
}

#[test]
fn a_push_that_is_cut_leaves_the_copy_as_it_is_and_goes_on_in_the_file_it_was_cut_in() {
    let Some(world) = world("copy") else { return };
    let old = noise(4 << 20, 1);
    world.write("image", &old);
    world.write("same", &noise(5000, 5));
    world.point(100);
    world.push().unwrap();
    // Other at its beginning only.
    let mut new = noise(2 << 20, 2);
    new.extend(&old[2 << 20..]);
    new.extend(noise(7, 9));
    world.write("image", &new);
    world.point(200);
    let cut = world.mirror(Way::Push, &Frail(256)).sync(&mut ());
    assert!(matches!(&cut, Err(SyncError::Mirror(error)) if error.passes()), "{cut:?}");
    assert!(fs::read(world.there("image")).unwrap() == old);
    let partial = fs::read(world.beside(".partial").join("image")).unwrap();
    assert!((1 << 18..2 << 20).contains(&partial.len()), "{} bytes were kept", partial.len());

    // A newer one waits until that one is there, and what has arrived is not sent again, nor what was there before.
    // The model forgets times: what is other has another size.
    world.write("same", &noise(5001, 6));
    world.point(300);
    let mut next = Counted::default();
    let sync = world.mirror(Way::Push, &Frail(448)).sync(&mut next);
    assert_eq!(sync.unwrap().label.as_str(), "300");
    assert!(fs::read(world.there("image")).unwrap() == new);
    assert!(fs::read(world.there("same")).unwrap() == noise(5001, 6));
    assert!(next.begun >= new.len() as u64 && next.passed >= new.len() as u64, "{next:?}");
    assert!(world.mirror(Way::Push, &Here).verify().unwrap().differing.is_empty());
}

#[derive(Debug, Default)]
struct Counted {
    begun: u64,
    passed: u64,
    rates: Vec<Rate>,
}

impl Watch for Counted {
    fn begins(&mut self, bytes: Option<u64>) {
        self.begun += bytes.unwrap_or(0);
    }

    fn passes(&mut self, _bytes: u64) -> bool {
        true
    }

    fn passed(&mut self, bytes: u64) -> bool {
        self.passed += bytes;
        true
    }

    fn rate(&mut self) -> Rate {
        if self.rates.len() > 1 { self.rates.remove(0) } else { self.rates.first().copied().unwrap_or(Rate::Free) }
    }
}

#[test]
fn a_run_is_begun_again_when_its_rate_changes_and_held_when_nothing_may_pass() {
    let Some(world) = world("copy") else { return };
    world.write("image", &noise(8 << 20, 1));
    world.point(100);
    let slow: Rate = "64KiB".parse().unwrap();
    // Asked before each run, when it begins, and then each second.
    let mut watch = Counted { rates: vec![slow, slow, slow, slow, Rate::Stop], ..Counted::default() };
    let held = world.mirror(Way::Push, &Here).sync(&mut watch);
    assert!(matches!(held, Err(SyncError::Stopped)), "{held:?}");
    assert!(!world.there("").exists() && world.beside(".partial").exists());
    let mut watch = Counted { rates: vec![slow, slow, slow, Rate::Free], ..Counted::default() };
    assert_eq!(world.mirror(Way::Push, &Here).sync(&mut watch).unwrap().label.as_str(), "100");
    assert_eq!(watch.begun, 16 << 20, "it was begun twice");
    assert_eq!(fs::read(world.there("image")).unwrap(), noise(8 << 20, 1));
}

#[test]
fn wherever_the_last_steps_of_a_push_are_cut_a_whole_copy_is_found() {
    // As an exchange, and as two renames where there is none.
    let stages: [&[(&str, &str)]; 5] = [
        &[],
        &[("", ".old")],
        &[("", ".old"), (".partial", "")],
        &[("", ".tmp"), (".partial", ""), (".tmp", ".partial")],
        &[("", ".gone")],
    ];
    for (n, moves) in stages.into_iter().enumerate() {
        let Some(world) = world("copy") else { return };
        world.write("file", b"one");
        world.point(100);
        world.push().unwrap();
        world.write("file", b"second");
        world.point(200);
        // Cut when it is all there: only the last step is missing.
        let mirror = world.mirror(Way::Push, &Here);
        let newest = world.zfs.snapshots(&world.dataset).unwrap().pop().unwrap();
        said(Here.run(&mirror.script("begin", &[&point(&newest)]))).unwrap();
        fs::write(world.beside(".partial").join("file"), b"second").unwrap();
        let mark = world.beside(".partial").join(MARK);
        fs::write(&mark, format!("{}whole\n", fs::read_to_string(&mark).unwrap())).unwrap();
        for (from, to) in moves {
            fs::rename(world.beside(from), world.beside(to)).unwrap();
        }
        if n == 4 {
            // The whole copy is gone: what was to take its place does.
            fs::remove_dir_all(world.beside(".gone")).unwrap();
        }
        assert_eq!(mirror.look().unwrap(), There { whole: Some(point(&newest)), partial: None }, "stage {n}");
        assert_eq!(fs::read(world.there("file")).unwrap(), b"second", "stage {n}");
        assert!(!world.beside(".partial").exists() && !world.beside(".old").exists(), "stage {n}");
        assert_eq!(world.push().unwrap().label.as_str(), "200");
        assert_eq!(world.bases(), [newest.guid]);
    }
}

#[test]
fn what_the_vector_has_not_made_is_not_touched() {
    let Some(world) = world("copy") else { return };
    world.write("file", b"one");
    world.point(100);
    for suffix in ["", ".partial", ".old"] {
        let foreign = world.beside(suffix);
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("precious"), b"theirs").unwrap();
        assert_eq!(code(world.push()), "path-not-ours", "{suffix}");
        assert_eq!(fs::read(foreign.join("precious")).unwrap(), b"theirs");
        fs::write(foreign.join(MARK), "siris-vector 0000000d-0000-0000-0000-000000000000_7\npoint 1 1\nwhole\n")
            .unwrap();
        assert_eq!(code(world.push()), "path-of-another", "{suffix}");
        assert_eq!(fs::read(foreign.join("precious")).unwrap(), b"theirs");
        fs::remove_dir_all(&foreign).unwrap();
        fs::write(&foreign, b"a file").unwrap();
        assert_eq!(code(world.push()), "path-not-ours", "{suffix}");
        fs::remove_file(&foreign).unwrap();
        std::os::unix::fs::symlink(world.dir.path(), &foreign).unwrap();
        assert_eq!(code(world.push()), "path-not-ours", "{suffix}");
        fs::remove_file(&foreign).unwrap();
    }
    // An empty directory is as good as none.
    fs::create_dir(world.there("")).unwrap();
    world.push().unwrap();
    assert_eq!(fs::read(world.there("file")).unwrap(), b"one");

    let inside = World { path: format!("{}/inner", world.path).parse().unwrap(), ..self::world("other").unwrap() };
    inside.point(100);
    assert_eq!(code(inside.push()), "inside-a-copy");
    let nowhere = World { path: format!("{}/no/where", inside.dir.path().display()).parse().unwrap(), ..inside };
    assert_eq!(code(nowhere.push()), "parent-missing");

    // A disk that is not mounted is not filled anew in its place.
    fs::rename(world.there(""), world.beside(".elsewhere")).unwrap();
    world.write("file", b"other");
    world.point(200);
    assert_eq!(code(world.push()), "copy-missing");
    assert!(!world.there("").exists() && !world.beside(".partial").exists());
    fs::rename(world.beside(".elsewhere"), world.there("")).unwrap();
    world.push().unwrap();
    assert_eq!(fs::read(world.there("file")).unwrap(), b"other");
    world.write(MARK, b"mine");
    world.point(300);
    assert_eq!(code(world.push()), "mark-taken");
}

#[test]
fn what_was_begun_of_a_point_that_is_gone_is_given_up() {
    let Some(world) = world("copy") else { return };
    world.write("file", b"one");
    world.point(100);
    let mirror = world.mirror(Way::Push, &Here);
    said(Here.run(&mirror.script("begin", &["4711 50"]))).unwrap();
    fs::write(world.beside(".partial").join("left"), b"over").unwrap();
    assert_eq!(mirror.look().unwrap().partial.as_deref(), Some("4711 50"));
    world.push().unwrap();
    assert!(world.there("file").exists() && !world.there("left").exists());
}

#[test]
fn one_altered_file_of_the_same_size_and_time_is_found() {
    let Some(world) = world("copy") else { return };
    for name in AWKWARD {
        world.write(name, b"right");
    }
    world.point(100);
    assert_eq!(code(world.mirror(Way::Push, &Here).verify()), "nothing-in-common");
    world.push().unwrap();
    let altered = world.there("two\nlines");
    let time = fs::metadata(&altered).unwrap().modified().unwrap();
    fs::write(&altered, b"wrong").unwrap();
    fs::File::open(&altered).unwrap().set_modified(time).unwrap();
    let proof = world.mirror(Way::Push, &Here).verify().unwrap();
    let [path] = &proof.differing[..] else { panic!("{proof:?}") };
    assert!(path.to_str().unwrap().starts_with("two"), "{path:?}");
    assert_eq!(proof.paths, AWKWARD.len() + 1, "the directory is one");
    assert_eq!(fs::read(&altered).unwrap(), b"wrong", "nothing is mended by looking");
    // What is there more is found too.
    fs::write(&altered, b"right").unwrap();
    fs::File::open(&altered).unwrap().set_modified(time).unwrap();
    fs::write(world.there("more"), b"").unwrap();
    let proof = world.mirror(Way::Push, &Here).verify().unwrap();
    assert!(proof.differing.iter().any(|path| path.ends_with("more")), "{proof:?}");
}

#[test]
fn what_is_fetched_becomes_a_point_when_it_is_all_there_and_something_changed() {
    let Some(world) = world("with 'quotes'\nand a line") else { return };
    assert_eq!(code(world.pull()), "source-missing");
    fs::create_dir(world.there("")).unwrap();
    for name in AWKWARD {
        fs::write(world.there(name), format!("this is {name}")).unwrap();
    }
    fs::write(world.there(MARK), "no content").unwrap();
    let first = world.pull().unwrap();
    let content = |snapshot: &Snapshot| {
        world.zfs.content_at(&SnapshotName::new(world.dataset.clone(), snapshot.label.clone())).unwrap()
    };
    assert_eq!(content(&first).keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut names = AWKWARD.to_vec();
        names.sort_unstable();
        names
    });
    assert_eq!(world.pull().unwrap(), first, "nothing changed");
    fs::remove_file(world.there("it's")).unwrap();
    fs::write(world.there("a b"), "other").unwrap();
    let second = world.pull().unwrap();
    assert_eq!(content(&second)["a b"], b"other");
    assert!(!content(&second).contains_key("it's"));
    assert_eq!(world.zfs.snapshots(&world.dataset).unwrap().len(), 2);

    let verify = || world.mirror(Way::Pull, &Here).verify().unwrap().differing;
    // The model forgets times; what is in the files is compared all the same.
    fs::write(world.there("a b"), "OTHER").unwrap();
    assert!(verify().iter().any(|path| path.ends_with("a b")));
    Mirror::forget(&world.zfs, &world.dataset, &world.mirror(Way::Pull, &Here).id).unwrap();
    assert_eq!(world.zfs.property(&world.dataset, FETCHED_BY).unwrap(), None);
}

#[test]
fn a_directory_that_is_missing_or_empty_deletes_nothing() {
    let Some(world) = world("source") else { return };
    fs::create_dir(world.there("")).unwrap();
    fs::write(world.there("file"), "one").unwrap();
    world.pull().unwrap();
    let kept = || world.zfs.content(&world.dataset).unwrap().len();
    fs::rename(world.there("file"), world.dir.path().join("file")).unwrap();
    assert_eq!((code(world.pull()).as_str(), kept()), ("source-empty", 1));
    fs::write(world.there(MARK), "that of a copy").unwrap();
    assert_eq!((code(world.pull()).as_str(), kept()), ("source-empty", 1), "nothing but a mark is nothing");
    fs::remove_dir_all(world.there("")).unwrap();
    assert_eq!((code(world.pull()).as_str(), kept()), ("source-missing", 1));
    fs::write(world.beside(""), "a file").unwrap();
    assert_eq!((code(world.pull()).as_str(), kept()), ("source-missing", 1));
    fs::remove_file(world.beside("")).unwrap();

    // Unmounted between the look and rsync.
    fs::create_dir(world.there("")).unwrap();
    let mirror = world.mirror(Way::Pull, &Here);
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("file"), "one").unwrap();
    let (there, way) = (mirror.script("fetch", &["no"]), Way::Pull);
    let run = Run { shell: &Here, there, here: here.path(), way, link_dest: None };
    assert_eq!(code(transfer(&run, &mut ())), "source-empty");
    assert!(here.path().join("file").exists());
    // What was never filled may be empty.
    let fresh = World { path: world.path.clone(), ..self::world("other").unwrap() };
    assert_eq!(fresh.pull().unwrap(), fresh.pull().unwrap());
}

#[test]
fn what_is_not_fetched_and_in_no_point_is_not_written_over() {
    let Some(world) = world("source") else { return };
    fs::create_dir(world.there("")).unwrap();
    fs::write(world.there("file"), "theirs").unwrap();
    world.write("live", b"mine");
    assert_eq!(code(world.pull()), "target-not-ours");
    world.point(100);
    world.write("live", b"mine, and more");
    assert_eq!(code(world.pull()), "target-not-ours");
    world.point(200);
    world.pull().unwrap();
    assert!(!world.zfs.content(&world.dataset).unwrap().contains_key("live"));
    for (value, _) in [("on", "the primary"), ("off", "a replica")] {
        world.zfs.set_property(&world.dataset, siris_zfs::PRIMARY, Some(value)).unwrap();
        assert_eq!(code(world.pull()), "target-has-role");
    }
    world.zfs.set_property(&world.dataset, siris_zfs::PRIMARY, None).unwrap();
    world.zfs.create(&"tank/x/inner".parse().unwrap()).unwrap();
    assert_eq!(
        (code(world.pull()), code(world.push())),
        ("dataset-has-children".into(), "dataset-has-children".into())
    );
}

#[test]
fn a_fetch_that_is_cut_or_misses_something_takes_no_point() {
    let Some(world) = world("source") else { return };
    fs::create_dir(world.there("")).unwrap();
    fs::write(world.there("image"), noise(4 << 20, 1)).unwrap();
    /// One from which so much comes.
    #[derive(Debug)]
    struct Drying;
    impl Shell for Drying {
        fn run(&self, command: &str) -> Cmd {
            Here.run(command)
        }

        fn carrier(&self) -> Vec<String> {
            ["bash", "-c", "shift; bash -c \"$*\" | dd bs=4096 count=250 status=none", "carrier"]
                .map(str::to_owned)
                .to_vec()
        }
    }
    let cut = world.mirror(Way::Pull, &Drying).sync(&mut ());
    assert!(matches!(&cut, Err(SyncError::Mirror(error)) if error.passes()), "{cut:?}");
    assert!(world.zfs.snapshots(&world.dataset).unwrap().is_empty());
    assert!(world.zfs.content(&world.dataset).unwrap()["image"].len() >= 100_000, "what has come stays");
    world.pull().unwrap();
    assert_eq!(world.zfs.content(&world.dataset).unwrap()["image"], noise(4 << 20, 1));

    // What did not get through is missed, whatever has changed.
    assert_eq!(code(world.mirror(Way::Pull, &Failing(23)).sync(&mut ())), "partial-transfer");
    assert_eq!(world.zfs.snapshots(&world.dataset).unwrap().len(), 1);
    fs::write(world.there("more"), "more").unwrap();
    assert_eq!(code(world.mirror(Way::Pull, &Failing(23)).sync(&mut ())), "partial-transfer");
    assert_eq!(world.zfs.snapshots(&world.dataset).unwrap().len(), 1);
    world.pull().unwrap();
    assert_eq!(world.zfs.snapshots(&world.dataset).unwrap().len(), 2);
}

/// One whose rsync there ends in this way.
#[derive(Debug)]
struct Failing(i32);

impl Shell for Failing {
    fn run(&self, command: &str) -> Cmd {
        Here.run(command)
    }

    fn carrier(&self) -> Vec<String> {
        let ends = format!("shift; bash -c \"$*\"; exit {}", self.0);
        ["bash", "-c", &ends, "carrier"].map(str::to_owned).to_vec()
    }
}

#[test]
fn only_a_broken_link_is_tried_again() {
    let Some(world) = world("source") else { return };
    fs::create_dir(world.there("")).unwrap();
    fs::write(world.there("file"), "one").unwrap();
    for (status, code, passes) in [
        (12, "link-broken", true),
        (30, "link-broken", true),
        (35, "link-broken", true),
        (255, "link-broken", true),
        (23, "partial-transfer", false),
        (11, "rsync-failed", false),
        (2, "rsync-failed", false),
    ] {
        let Err(SyncError::Mirror(error)) = world.mirror(Way::Pull, &Failing(status)).sync(&mut ()) else {
            panic!("{status}");
        };
        assert_eq!((error.code(), error.passes()), (code, passes), "{status}: {}", crate::chain(&error));
    }
    // What vanished meanwhile is none of it, and the rest is a point.
    assert_eq!(world.zfs.snapshots(&world.dataset).unwrap().len(), 0);
    world.mirror(Way::Pull, &Failing(24)).sync(&mut ()).unwrap();
    assert_eq!(world.zfs.snapshots(&world.dataset).unwrap().len(), 1);
}

#[test]
fn what_a_file_is_beside_its_bytes_gets_there_too() {
    let Some(world) = world("source") else { return };
    let (from, to) = (tempfile::tempdir().unwrap(), world.there(""));
    fs::create_dir(&to).unwrap();
    let file = |name: &str| from.path().join(name);
    fs::write(file("one"), "x").unwrap();
    fs::hard_link(file("one"), file("two")).unwrap();
    fs::set_permissions(file("one"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::File::open(file("one")).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(1_568_402_268)).unwrap();
    std::os::unix::fs::symlink("nowhere", file("link")).unwrap();
    let sparse = fs::File::create(file("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    let there = "rsync".to_owned();
    let there = format!(
        "sh -c {} sh {} ",
        quoted(&format!("cd \"$1\" && shift && exec {there} \"$@\"")),
        quoted(to.to_str().unwrap())
    );
    let run = Run { shell: &Here, there, here: from.path(), way: Way::Push, link_dest: None };
    transfer(&run, &mut ()).unwrap();
    let data = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
    assert_eq!(data("one").ino(), data("two").ino());
    assert_eq!((data("one").mode() & 0o777, data("one").mtime()), (0o640, 1_568_402_268));
    assert!(data("link").is_symlink());
    assert!(data("sparse").len() == 64 << 20 && data("sparse").blocks() < 2048, "{} blocks", data("sparse").blocks());
}

#[test]
fn words_reach_rsync_as_they_are() {
    let run = Run { shell: &Here, there: "x".to_owned(), here: Path::new("/"), way: Way::Pull, link_dest: None };
    let line = run.command(Work::Transfer("2MiB".parse().unwrap())).to_string();
    assert!(line.contains("--bwlimit=2048 ") && line.ends_with("-- siris-peer:./ ./"), "{line}");
    assert!(!run.command(Work::Transfer(Rate::Free)).to_string().contains("bwlimit"));
    let least = Rate::Bytes(1.try_into().unwrap());
    assert!(run.command(Work::Transfer(least)).to_string().contains("--bwlimit=1 "), "0 would be no limit");
}

#[test]
fn a_copy_of_a_point_that_the_dataset_never_had_is_not_replaced() {
    let Some(mut world) = world("copy") else { return };
    world.write("file", b"the last one");
    world.point(100);
    world.push().unwrap();
    // The pool is lost, and made anew under its name.
    world.zfs = ModelDatasets::new(2, &["tank"]);
    world.zfs.create(&world.dataset).unwrap();
    world.point(200);
    assert_eq!(code(world.push()), "copy-unknown");
    assert_eq!(fs::read(world.there("file")).unwrap(), b"the last one");
    assert!(!world.beside(".partial").exists());
}

#[test]
fn what_somebody_wrote_where_a_vector_fetches_is_in_a_point_before_it_is_overwritten() {
    let Some(world) = world("source") else { return };
    fs::create_dir(world.there("")).unwrap();
    fs::write(world.there("file"), "one").unwrap();
    world.pull().unwrap();
    world.write("own", b"mine");
    fs::write(world.there("file"), "two").unwrap();
    let newest = world.pull().unwrap();
    let at = |snapshot: &Snapshot| {
        world.zfs.content_at(&SnapshotName::new(world.dataset.clone(), snapshot.label.clone())).unwrap()
    };
    let all = world.zfs.snapshots(&world.dataset).unwrap();
    assert_eq!((all.len(), all.last()), (3, Some(&newest)));
    assert_eq!(at(&all[1])["own"], b"mine");
    assert!(!at(&newest).contains_key("own"));
}

/// Fetches a directory into another one.
fn fetch(from: &std::path::Path, to: &std::path::Path) {
    let there =
        format!("sh -c 'cd -- \"$1\" && shift && exec rsync \"$@\"' sh {}", quoted(&from.display().to_string()));
    let run = Run { shell: &Here, there, here: to, way: Way::Pull, link_dest: None };
    assert!(matches!(run.transfer(&mut ()).unwrap(), Ended::Done(_)));
}

#[test]
fn what_was_one_file_with_two_names_may_be_two_the_next_time() {
    let Some(_) = world("none") else { return };
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| fs::write(from.path().join(name), text).unwrap();
    write("daily.1", "yesterday");
    fs::hard_link(from.path().join("daily.1"), from.path().join("daily.0")).unwrap();
    fetch(from.path(), to.path());
    fs::remove_file(from.path().join("daily.0")).unwrap();
    write("daily.0", "of today!");
    fetch(from.path(), to.path());
    let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
    assert_eq!((read("daily.0").as_str(), read("daily.1").as_str()), ("of today!", "yesterday"));
}

#[test]
fn a_change_within_one_second_is_seen() {
    let Some(_) = world("none") else { return };
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = from.path().join("image");
    for (text, nanoseconds) in [("before", 100), ("behind", 900)] {
        fs::write(&image, text).unwrap();
        let time = UNIX_EPOCH + Duration::new(1_568_402_268, nanoseconds);
        fs::File::open(&image).unwrap().set_modified(time).unwrap();
        fetch(from.path(), to.path());
        assert_eq!(fs::read_to_string(to.path().join("image")).unwrap(), text);
    }
}
