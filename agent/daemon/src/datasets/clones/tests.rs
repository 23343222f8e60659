use siris_zfs::{Label, ModelDatasets};

use super::*;

const X: &str = "tank/home/agents/0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55";
const OTHER: &str = "5d7e0a31-0c2f-4a6b-8f3d-2b9f64e1a7c0";

fn of(text: &str) -> DatasetName {
    text.parse().unwrap()
}

fn point(zfs: &ModelDatasets, dataset: &str, label: &str) {
    zfs.snapshot(&[of(dataset)], &label.parse().unwrap(), &UserProperties::new()).unwrap();
}

/// An asset's dataset with the points 1 and 2.
fn asset() -> ModelDatasets {
    let zfs = ModelDatasets::new(1, &["tank", "spare"]);
    zfs.create(&of(X)).unwrap();
    for label in ["1", "2"] {
        zfs.write(&of(X), "file", Some(label.as_bytes())).unwrap();
        point(&zfs, X, label);
    }
    zfs
}

/// The code with which a dataset is not destroyed; it is there afterwards as it was before.
fn stays(zfs: &ModelDatasets, clone: &str) -> String {
    let before = zfs.datasets(&["tank".parse().unwrap()]).unwrap();
    let [asked, told] = [true, false].map(|dry| destroy(zfs, clone, dry).unwrap_err().code().to_owned());
    assert_eq!(asked, told);
    assert_eq!(zfs.datasets(&["tank".parse().unwrap()]).unwrap(), before);
    told
}

#[test]
fn a_clone_is_made_marked_and_destroyed() {
    let zfs = asset();
    make(&zfs, &of(X), "1970-01-01T00:00:01Z", "tank/look").unwrap();
    let guid = zfs.snapshots(&of(X)).unwrap()[0].guid;
    assert_eq!(zfs.own_properties(&of("tank/look")).unwrap()[CLONE_OF], guid.to_string());
    assert_eq!(zfs.content(&of("tank/look")).unwrap()["file"], b"1");
    // What is written to it goes with it.
    zfs.write(&of("tank/look"), "file", None).unwrap();
    let (origin, _) = destroy(&zfs, "tank/look", true).unwrap();
    assert_eq!(origin.to_string(), format!("{X}@1"));
    assert!(zfs.dataset(&of("tank/look")).unwrap().is_some());
    destroy(&zfs, "tank/look", false).unwrap();
    assert!(zfs.dataset(&of("tank/look")).unwrap().is_none());
    assert_eq!(zfs.snapshots(&of(X)).unwrap().len(), 2);
}

#[test]
fn a_clone_is_made_only_where_it_harms_nobody() {
    let zfs = asset();
    zfs.create(&of("tank/there")).unwrap();
    let upper = OTHER.to_uppercase();
    let targets: [(&str, &str); 14] = [
        ("tank/there", "target-exists"),
        (X, "like-asset-dataset"),
        ("spare/look", "other-pool"),
        ("absent/look", "other-pool"),
        (&format!("{X}/look"), "in-asset-dataset"),
        (&format!("{X}/deeper/look"), "in-asset-dataset"),
        (&format!("tank/home/agents/{OTHER}/look"), "in-asset-dataset"),
        (&format!("tank/home/agents/{OTHER}"), "like-asset-dataset"),
        (&format!("tank/home/agents/{upper}"), "like-asset-dataset"),
        (&format!("tank/home/agents/{}", OTHER.replace('-', "")), "like-asset-dataset"),
        ("tank/none/look", "no-parent"),
        ("tank", "name-invalid"),
        ("tank/a@b", "name-invalid"),
        ("", "name-invalid"),
    ];
    for (target, code) in targets {
        let before = zfs.datasets(&["tank".parse().unwrap()]).unwrap();
        assert_eq!(make(&zfs, &of(X), "1", target).unwrap_err().code(), code, "{target}");
        assert_eq!(zfs.datasets(&["tank".parse().unwrap()]).unwrap(), before, "{target}");
    }
    let missing = make(&zfs, &of(X), "3", "tank/look").unwrap_err();
    assert!(matches!(missing, CloneError::Point(PointsError::Missing { .. })), "{missing}");
    make(&zfs, &of(X), "1", "tank/there/look").unwrap();
    make(&zfs, &of(X), "1", "tank/home/look").unwrap();
}

#[test]
fn no_dataset_but_a_clone_of_ours_is_destroyed() {
    let zfs = asset();
    assert_eq!(stays(&zfs, "tank/none"), "missing");
    assert_eq!(stays(&zfs, "tank"), "name-invalid");
    assert_eq!(stays(&zfs, X), "not-made-here");
    zfs.create(&of("tank/plain")).unwrap();
    assert_eq!(stays(&zfs, "tank/plain"), "not-made-here");
    // A clone by hand, or one that a power cut left without its mark.
    let one: SnapshotName = format!("{X}@1").parse().unwrap();
    zfs.clone_snapshot(&one, &of("tank/by-hand"), &UserProperties::new()).unwrap();
    assert_eq!(stays(&zfs, "tank/by-hand"), "not-made-here");
    // The mark of what it lies in is not its own.
    make(&zfs, &of(X), "1", "tank/look").unwrap();
    zfs.clone_snapshot(&one, &of("tank/look/by-hand"), &UserProperties::new()).unwrap();
    assert_eq!(
        zfs.property(&of("tank/look/by-hand"), CLONE_OF).unwrap(),
        zfs.property(&of("tank/look"), CLONE_OF).unwrap()
    );
    assert_eq!(stays(&zfs, "tank/look/by-hand"), "not-made-here");
    // Nor is one that is no guid of its origin.
    zfs.set_property(&of("tank/by-hand"), CLONE_OF, Some("7")).unwrap();
    assert_eq!(stays(&zfs, "tank/by-hand"), "other-origin");
    zfs.set_property(&of("tank/plain"), CLONE_OF, Some("7")).unwrap();
    assert_eq!(stays(&zfs, "tank/plain"), "other-origin");
}

#[test]
fn a_clone_that_somebody_made_something_of_stays() {
    let zfs = asset();
    make(&zfs, &of(X), "1", "tank/look").unwrap();
    zfs.create(&of("tank/look/inner")).unwrap();
    assert_eq!(stays(&zfs, "tank/look"), "in-use");
    zfs.destroy(&of("tank/look/inner")).unwrap();
    point(&zfs, "tank/look", "3");
    assert_eq!(stays(&zfs, "tank/look"), "in-use");
    // The bookmark of a snapshot that is gone: a vector's base, say.
    zfs.bookmark(&"tank/look@3".parse().unwrap(), &"mark".parse().unwrap()).unwrap();
    let label: Label = "3".parse().unwrap();
    zfs.destroy_snapshots(&of("tank/look"), std::slice::from_ref(&label)).unwrap();
    assert_eq!(stays(&zfs, "tank/look"), "in-use");
    zfs.destroy_bookmark(&of("tank/look"), &"mark".parse().unwrap()).unwrap();
    // Renamed to what backup software takes for an asset's.
    let like = format!("tank/home/agents/{OTHER}");
    zfs.rename(&of("tank/look"), &of(&like)).unwrap();
    assert_eq!(stays(&zfs, &like), "like-asset-dataset");
    zfs.rename(&of(&like), &of("tank/look")).unwrap();
    destroy(&zfs, "tank/look", false).unwrap();
}

#[test]
fn a_clone_that_was_promoted_stays() {
    let zfs = asset();
    make(&zfs, &of(X), "1", "tank/look").unwrap();
    zfs.promote(&of("tank/look")).unwrap();
    assert_eq!(stays(&zfs, "tank/look"), "other-origin");
}
