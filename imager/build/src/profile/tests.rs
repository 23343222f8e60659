use std::fs;

use super::{ProfileError, Profiles, Role};

fn profiles(files: &[(&str, &str)]) -> (tempfile::TempDir, Profiles) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
    }
    let profiles = Profiles::new(dir.path());
    (dir, profiles)
}

const BASE: &str = r#"
schema = 1
product = "p"
distribution = { suite = "s", components = ["main"] }
packages.include = ["bash"]
kernel.package = "linux"
health.state-free-min = "5%"
disk = { slot-size = "4GiB", raw-size = "12GiB" }
install.role = "local"
upgrade.lowest-replaces = "0.1.0"
"#;

#[test]
fn three_faults_are_told_at_once_with_their_paths() {
    let faulty = r#"
schema = 1
extends = "base"
colour = "red"
packages.include = ["Not A Package"]
disk.slot-size = "four"
"#;
    let (_dir, profiles) = profiles(&[("base", BASE), ("x", faulty)]);
    let error = profiles.load("x").unwrap_err();
    let text = error.to_string();
    assert!(matches!(&error, ProfileError::Faulty { faults, .. } if faults.len() == 3), "{text}");
    for path in ["x.toml: colour", "x.toml: packages.include[0]", "x.toml: disk.slot-size"] {
        assert!(text.contains(path), "{text}");
    }
}

#[test]
fn a_child_adds_to_lists_and_replaces_values() {
    let child = "schema = 1\nextends = \"base\"\npackages.include = [\"zsh\", \"bash\"]\ninstall.role = \"cloud\"\n";
    let (_dir, profiles) = profiles(&[("base", BASE), ("x", child)]);
    let profile = profiles.load("x").unwrap();
    assert_eq!(profile.packages, ["bash", "zsh"]);
    assert_eq!((profile.role, profile.product.as_str()), (Role::Cloud, "p"));
}

#[test]
fn a_check_is_a_service() {
    let child = "schema = 1\nextends = \"base\"\nupgrade.checks = [\"raid.service\", \"/bin/true\"]\n";
    let (_dir, profiles) = profiles(&[("base", BASE), ("x", child)]);
    let text = profiles.load("x").unwrap_err().to_string();
    assert!(text.contains("upgrade.checks[1]") && !text.contains("checks[0]"), "{text}");
}

#[test]
fn what_is_missing_everywhere_is_told() {
    let (_dir, profiles) = profiles(&[("x", "schema = 1\n")]);
    let text = profiles.load("x").unwrap_err().to_string();
    assert!(text.contains("product: missing") && text.contains("disk.slot-size: missing"), "{text}");
}

#[test]
fn an_unknown_profile_names_those_there_are() {
    let (_dir, profiles) = profiles(&[("base", BASE), ("siris", BASE)]);
    let text = profiles.load("sirius").unwrap_err().to_string();
    assert!(text.contains("profiles here: siris"), "{text}");
}

#[test]
fn a_circle_of_extends_ends() {
    let (_dir, profiles) = profiles(&[("x", "schema = 1\nextends = \"y\"\n"), ("y", "schema = 1\nextends = \"x\"\n")]);
    assert!(profiles.load("x").unwrap_err().to_string().contains("extends itself"));
}

#[test]
fn the_shipped_profiles_load() {
    let profiles = Profiles::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../image-profiles"));
    assert_eq!(profiles.names(), ["alto", "cloud-siris", "siris"]);
    for name in profiles.names() {
        profiles.load(&name).unwrap();
    }
    let (local, cloud) = (profiles.load("siris").unwrap(), profiles.load("cloud-siris").unwrap());
    assert_eq!((local.packages, local.product, local.lock), (cloud.packages, cloud.product, cloud.lock));
}
