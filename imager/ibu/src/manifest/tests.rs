use super::*;

const GOLDEN: &str = include_str!("golden.toml");

pub(crate) fn manifest() -> Manifest {
    Manifest::parse(GOLDEN.as_bytes()).unwrap()
}

#[test]
fn bytes_are_deterministic_and_parse_back() {
    assert_eq!(String::from_utf8(manifest().to_bytes().unwrap()).unwrap(), GOLDEN);
}

#[test]
fn all_faults_are_reported_at_once() {
    let mut bad = manifest();
    bad.compatible.clear();
    bad.lowest_replaces = Version::new(9, 0, 0);
    bad.kernel = "6.12 evil".into();
    bad.verity.data_blocks = u64::MAX;
    bad.tree.size = ByteSize::from_bytes(4096);
    bad.slot_size_min = ByteSize::from_bytes(1);
    bad.zfs.features_write.insert("org.example:new".into());
    let faults = bad.faults();
    let paths: Vec<_> = faults.iter().map(|f| f.path).collect();
    assert_eq!(
        paths,
        [
            "compatible",
            "lowest-replaces",
            "kernel",
            "zfs.features-write",
            "verity.data-blocks",
            "tree.size",
            "slot-size-min"
        ]
    );
    assert_eq!(bad.to_bytes().unwrap_err().code(), "manifest-faults");
}

#[test]
fn huge_sizes_are_faults_and_not_overflows() {
    let mut bad = manifest();
    bad.root.size = ByteSize::from_bytes(u64::MAX);
    bad.tree.size = ByteSize::from_bytes(u64::MAX);
    bad.boot.size = ByteSize::from_bytes(0);
    let paths: Vec<_> = bad.faults().iter().map(|f| f.path).collect();
    assert_eq!(paths, ["root.size", "tree.size", "boot.size"]);
}

#[test]
fn unknown_fields_and_other_schemas_are_refused() {
    let other = GOLDEN.replacen("schema = 1", "schema = 2\nbrand-new = true", 1);
    assert_eq!(Manifest::parse(other.as_bytes()).unwrap_err().code(), "unknown-schema");
    let unknown = GOLDEN.replacen("schema = 1", "schema = 1\nbrand-new = true", 1);
    assert_eq!(Manifest::parse(unknown.as_bytes()).unwrap_err().code(), "manifest-unreadable");
    assert_eq!(Manifest::parse(b"\xff").unwrap_err().code(), "manifest-unreadable");
    assert_eq!(Manifest::parse(&vec![b'#'; MAX_BYTES + 1]).unwrap_err().code(), "manifest-too-large");
}

#[test]
fn build_times_have_one_form() {
    let time = BuildTime::from_unix(1_767_225_600).unwrap();
    assert_eq!(time.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!("2026-01-01T00:00:00Z".parse(), Ok(time));
    for bad in ["2026-01-01", "2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00.5Z"] {
        assert!(bad.parse::<BuildTime>().is_err(), "{bad}");
    }
}
