use super::*;

const DATASET: Guid = Guid::new(5);
const SNAPSHOT: Guid = Guid::new(6);

fn file(inode: u64) -> Incarnation {
    Incarnation { inode, born: (1_568_402_268, 17), block: 131_072 }
}

fn data(byte: u8) -> Chunk {
    Chunk::Data(Sha256::of(&[byte]))
}

/// Two files: one of three chunks and a bit, and an empty one.
fn keep(root: &Root) {
    let mut keeping = Keeping::begin(root, "tank", DATASET, &snapshot(SNAPSHOT)).unwrap();
    keeping.file(&file(9), 3 * CHUNK + 5);
    [data(1), Chunk::Hole, Chunk::Zeros, data(2)].iter().for_each(|chunk| keeping.chunk(chunk));
    keeping.file(&file(10), 0);
    keeping.finish().unwrap();
}

fn snapshot(guid: Guid) -> Snapshot {
    Snapshot { label: "1568402268".parse().unwrap(), guid, createtxg: 70 }
}

fn names(root: &Root) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root.path(DIGESTS))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_read_is_there_again_and_of_its_own_file_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    assert!(Kept::open(&root, "tank", DATASET).unwrap().is_none());
    keep(&root);
    assert_eq!(names(&root), ["tank-5"]);
    assert!(Kept::open(&root, "tank", Guid::new(6)).unwrap().is_none());
    let mut kept = Kept::open(&root, "tank", DATASET).unwrap().unwrap();
    assert_eq!(kept.snapshot(), (SNAPSHOT, 70));
    let ends = [CHUNK, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 5, 4 * CHUNK];
    let read = |kept: &mut Kept, ends: &[u64]| {
        let mut chunks = kept.file(&file(9)).unwrap();
        ends.iter().map(|end| chunks.next(*end)).collect::<Vec<_>>()
    };
    let known = [Some(data(1)), Some(Chunk::Hole), Some(Chunk::Zeros), Some(data(2)), None];
    assert_eq!(read(&mut kept, &ends), known);
    assert_eq!(kept.file(&file(10)).unwrap().next(1), None);
    // Longer, the chunk in which it ended is another one; shorter, the one in which it ends now.
    assert_eq!(read(&mut kept, &[CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK])[3], None);
    assert_eq!(read(&mut kept, &[CHUNK, CHUNK + 1]), [Some(data(1)), None]);
    // Another file that has the inode, or the same one in other blocks.
    for other in [
        Incarnation { born: (1_568_402_268, 18), ..file(9) },
        Incarnation { born: (1_568_402_269, 17), ..file(9) },
        Incarnation { block: 1 << 20, ..file(9) },
        file(11),
    ] {
        assert!(kept.file(&other).is_none());
    }
}

#[test]
fn whatever_is_odd_about_it_nothing_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    keep(&root);
    let path = place(&root, "tank", DATASET);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(Kept::open(&root, "tank", DATASET).is_err(), "byte {at} turned");
        fs::write(&path, &good[..at]).unwrap();
        assert!(Kept::open(&root, "tank", DATASET).is_err(), "{at} bytes");
    }
    fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    assert!(Kept::open(&root, "tank", DATASET).is_err());
    // Another dataset's, moved here.
    fs::write(place(&root, "tank", SNAPSHOT), &good).unwrap();
    assert!(Kept::open(&root, "tank", SNAPSHOT).is_err());
    fs::write(&path, &good).unwrap();
    assert!(Kept::open(&root, "tank", DATASET).is_ok());
}

#[test]
fn the_oldest_ones_go_where_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    make_dir(&root).unwrap();
    for (name, age, size) in [("1", 30, 40), (".new-left", 40, 20), ("2", 10, 30), ("3", 50, 25)] {
        let file = File::create(root.path(DIGESTS).join(name)).unwrap();
        file.set_len(size << 20).unwrap();
        file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
    }
    keep(&root);
    assert_eq!(names(&root), ["2", "tank-5"]);
}

#[test]
fn what_does_not_fit_is_not_kept_and_leaves_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    keep(&root);
    let mut keeping = Keeping::begin(&root, "tank", DATASET, &snapshot(Guid::new(7))).unwrap();
    let chunks = ROOM / 33 + 1;
    keeping.file(&file(9), chunks * CHUNK);
    (0..chunks).for_each(|_| keeping.chunk(&data(1)));
    assert!(keeping.finish().is_err());
    assert_eq!(names(&root), ["tank-5"]);
    assert_eq!(Kept::open(&root, "tank", DATASET).unwrap().unwrap().snapshot(), (SNAPSHOT, 70));
}
