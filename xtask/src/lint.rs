//! `cargo xtask lint`: what a reviewer should not have to look for.
//!
//! Formatting, clippy with warnings denied, the licence of every dependency, dependencies in more than one version,
//! and paths of the machine that wrote a file. What is allowed is in `.config/deps.toml`, each with its reason; an
//! entry that allows nothing any more is a fault too.

mod licence;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use siris_host::cmd::{Cmd, Tool};

/// Runs every check, and reports all that is wrong before it fails.
///
/// # Errors
/// When something is wrong, or a check cannot be run.
pub fn run() -> Result<()> {
    let checkout = crate::checkout();
    let mut faults = Vec::new();
    for (name, args) in [
        ("fmt", &["fmt", "--all", "--check"][..]),
        ("clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"][..]),
    ] {
        println!("lint: {name}");
        if !Cmd::new(Tool::Cargo).args(args).cwd(&checkout).interactive()?.success() {
            faults.push(format!("{name}: see above; to repeat it: cargo {}", args.join(" ")));
        }
    }
    println!("lint: dependencies");
    faults.extend(dependency_faults(&checkout)?);
    println!("lint: paths");
    faults.extend(path_faults(&checkout)?);
    if faults.is_empty() {
        println!("lint: nothing to say");
        return Ok(());
    }
    bail!("{} faults\n  {}", faults.len(), faults.join("\n  "))
}

/// `.config/deps.toml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Allowed {
    licences: Vec<AllowedLicence>,
    #[serde(default)]
    duplicates: Vec<AllowedDuplicate>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct AllowedLicence {
    licence: String,
    reason: String,
    /// Only for these crates; for any when empty.
    #[serde(default)]
    crates: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct AllowedDuplicate {
    name: String,
    reason: String,
}

/// The part of `cargo metadata` that is looked at.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
}

fn dependency_faults(checkout: &Path) -> Result<Vec<String>> {
    let args = ["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"];
    let json = Cmd::new(Tool::Cargo).args(args).cwd(checkout).output()?;
    let metadata: Metadata = serde_json::from_slice(&json).context("read cargo's metadata")?;
    let path = checkout.join(".config/deps.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let allowed: Allowed = toml::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    judge(&metadata, &allowed)
}

fn judge(metadata: &Metadata, allowed: &Allowed) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let used: BTreeSet<&str> = metadata.resolve.nodes.iter().map(|node| node.id.as_str()).collect();
    let foreign = metadata.packages.iter().filter(|p| p.source.is_some() && used.contains(p.id.as_str()));
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut licences_met = BTreeSet::new();
    for package in foreign {
        versions.entry(&package.name).or_default().insert(&package.version);
        let Some(expression) = &package.license else {
            faults.push(format!("{} {} names no licence", package.name, package.version));
            continue;
        };
        let holds = |licence: &str| {
            let entry = allowed.licences.iter().position(|entry| {
                entry.licence == licence && (entry.crates.is_empty() || entry.crates.contains(&package.name))
            });
            entry.is_some()
        };
        let met = licence::satisfied_by(expression, &holds).with_context(|| format!("licence of {}", package.name))?;
        match met {
            Some(names) => licences_met.extend(names),
            None => faults.push(format!("{} {} is under {expression}", package.name, package.version)),
        }
    }
    for (name, versions) in &versions {
        let excused = allowed.duplicates.iter().any(|entry| entry.name == *name);
        if versions.len() > 1 && !excused {
            let list: Vec<&str> = versions.iter().copied().collect();
            faults.push(format!("{name} is there in {} versions: {}", versions.len(), list.join(", ")));
        }
    }
    for entry in &allowed.licences {
        if !licences_met.contains(&entry.licence) {
            faults.push(format!(".config/deps.toml allows {}, which nothing needs: {}", entry.licence, entry.reason));
        }
    }
    for entry in &allowed.duplicates {
        if versions.get(entry.name.as_str()).is_none_or(|versions| versions.len() < 2) {
            let why = &entry.reason;
            faults.push(format!(".config/deps.toml excuses {}, which is there once at most: {why}", entry.name));
        }
    }
    Ok(faults)
}

/// Tracked files that name a folder of the machine they were written on.
fn path_faults(checkout: &Path) -> Result<Vec<String>> {
    let mut private = vec![checkout.display().to_string()];
    private.extend(std::env::var("CARGO_HOME").ok());
    let list = Cmd::new(Tool::Git).args(["ls-files", "-z"]).cwd(checkout).output()?;
    let mut faults = Vec::new();
    for name in String::from_utf8_lossy(&list).split_terminator('\0') {
        // A file may be listed and gone; only what is there can name anything.
        let Ok(bytes) = std::fs::read(checkout.join(name)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        faults.extend(private.iter().filter(|p| text.contains(p.as_str())).map(|p| format!("{name} names {p}")));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::{Allowed, Metadata, judge};

    const METADATA: &str = r#"{"packages":[
        {"id":"1","name":"a","version":"1.0.0","license":"MIT OR Apache-2.0","source":"registry"},
        {"id":"2","name":"a","version":"2.0.0","license":"MIT","source":"registry"},
        {"id":"3","name":"b","version":"1.0.0","license":"GPL-3.0","source":"registry"},
        {"id":"4","name":"unused","version":"1.0.0","license":"GPL-3.0","source":"registry"},
        {"id":"5","name":"ours","version":"1.0.0","license":null,"source":null}],
        "resolve":{"nodes":[{"id":"1"},{"id":"2"},{"id":"3"},{"id":"5"}]}}"#;

    fn faults(allowed: &str) -> Vec<String> {
        let metadata: Metadata = serde_json::from_str(METADATA).unwrap();
        let allowed: Allowed = toml::from_str(allowed).unwrap();
        judge(&metadata, &allowed).unwrap()
    }

    #[test]
    fn a_licence_and_a_second_version_need_a_reason() {
        let found = faults(r#"licences = [{ licence = "MIT", reason = "r" }]"#);
        assert_eq!(found, ["b 1.0.0 is under GPL-3.0", "a is there in 2 versions: 1.0.0, 2.0.0"]);
    }

    #[test]
    fn an_entry_that_allows_nothing_is_a_fault() {
        let found = faults(
            r#"licences = [{ licence = "MIT", reason = "r" }, { licence = "GPL-3.0", reason = "r", crates = ["b"] },
                           { licence = "ISC", reason = "x" }]
               duplicates = [{ name = "a", reason = "r" }, { name = "b", reason = "y" }]"#,
        );
        assert_eq!(
            found,
            [
                ".config/deps.toml allows ISC, which nothing needs: x",
                ".config/deps.toml excuses b, which is there once at most: y"
            ]
        );
    }
}
