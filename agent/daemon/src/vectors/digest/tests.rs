use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/image"), vec![7; 3 * CHUNK as usize + 5]).unwrap();
    fs::write(dir.path().join("a.txt"), "text").unwrap();
    symlink("a.txt", dir.path().join("link")).unwrap();
    for path in ["a/image", "a.txt", "a", ""] {
        File::open(dir.path().join(path)).unwrap().set_modified(UNIX_EPOCH).unwrap();
    }
    dir
}

fn tree(root: &Path) -> io::Result<Vec<Entry>> {
    let mut reading = Reading::default();
    reading.tree(root)?;
    Ok(reading.done().0.entries)
}

/// Without the link, whose own time cannot be set here.
fn entries(dir: &tempfile::TempDir) -> Vec<Entry> {
    tree(dir.path()).unwrap().into_iter().filter(|entry| entry.path != Path::new("link")).collect()
}

fn times(dir: &tempfile::TempDir) {
    for path in ["a/image", "a.txt", "a", ""] {
        File::open(dir.path().join(path)).unwrap().set_modified(UNIX_EPOCH).unwrap();
    }
}

#[test]
fn equal_trees_are_equal_and_each_change_is_found_by_its_path() {
    let (one, two) = (sample(), sample());
    assert_eq!(whole(&entries(&one)), whole(&entries(&two)));
    let paths: Vec<PathBuf> = tree(one.path()).unwrap().into_iter().map(|entry| entry.path).collect();
    assert_eq!(paths, ["", "a", "a/image", "a.txt", "link"].map(PathBuf::from));

    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("a/image", |dir| {
            let file = fs::OpenOptions::new().write(true).open(dir.join("a/image")).unwrap();
            file.write_all_at(b"x", 2 * CHUNK + 17).unwrap();
        }),
        ("a/image", |dir| fs::OpenOptions::new().write(true).open(dir.join("a/image")).unwrap().set_len(7).unwrap()),
        ("a.txt", |dir| fs::set_permissions(dir.join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap()),
        ("b", |dir| fs::write(dir.join("b"), "").unwrap()),
        ("a.txt", |dir| fs::remove_file(dir.join("a.txt")).unwrap()),
    ];
    for (path, change) in changes {
        let two = sample();
        change(two.path());
        let _ = fs::File::open(two.path().join("a.txt")).map(|file| file.set_modified(UNIX_EPOCH));
        for path in ["a/image", "a", ""] {
            File::open(two.path().join(path)).unwrap().set_modified(UNIX_EPOCH).unwrap();
        }
        let (ours, theirs) = (entries(&one), entries(&two));
        assert_ne!(whole(&ours), whole(&theirs), "{path}");
        assert_eq!(differences(&ours, &theirs), [Path::new(path)]);
        assert_eq!(differences(&theirs, &ours), [Path::new(path)]);
    }
    let two = sample();
    File::open(two.path().join("a.txt")).unwrap().set_modified(UNIX_EPOCH + Duration::from_nanos(1)).unwrap();
    assert_eq!(differences(&entries(&one), &entries(&two)), [Path::new("a.txt")]);
}

#[test]
fn a_hole_is_zeros() {
    let (one, two) = (sample(), sample());
    let length = 5 * CHUNK + 9;
    for (dir, holes) in [(&one, true), (&two, false)] {
        let file = fs::File::create(dir.path().join("a/image")).unwrap();
        if holes {
            file.set_len(length).unwrap();
        } else {
            file.write_all_at(&vec![0; length as usize], 0).unwrap();
        }
        file.write_all_at(b"data", 3 * CHUNK + 100).unwrap();
        times(dir);
    }
    assert_eq!(whole(&entries(&one)), whole(&entries(&two)));
}
