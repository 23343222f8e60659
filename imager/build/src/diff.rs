//! What lies between two bundles: what a box on the one fetches to get the other, and which packages changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use siris_host::cmd::{Cmd, Root, Tool};
use siris_ibu::delta::blocks::Index;
use siris_ibu::delta::{Blocks, Known, Remote};
use siris_ibu::keys::PublicKey;
use siris_ibu::{ByteSize, Manifest};

use crate::archive::Store;
use crate::deltas::{Image, unpack};
use crate::error::BuildError;
use crate::image::Session;
use crate::lock::Lock;
use crate::payload::{chain, fault, open};
use crate::progress::Progress;
use crate::roots::builder;

/// Where a Debian root says what is installed.
const STATUS: &str = "/var/lib/dpkg/status";

/// What lies between two bundles.
#[derive(Debug)]
pub struct Difference {
    /// The older one.
    pub old: Manifest,
    /// The newer one.
    pub new: Manifest,
    /// Bytes of the patch beside the newer one, if there is one.
    pub patch: Option<ByteSize>,
    /// Bytes fetched by the blocks file beside the newer one, if there is one.
    pub blocks: Option<ByteSize>,
    /// Bytes of the newer one.
    pub whole: ByteSize,
    /// Packages that are other ones, by name.
    pub packages: Vec<PackageChange>,
}

/// A package that came, went or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its version in the older bundle.
    pub old: Option<String>,
    /// Its version in the newer one.
    pub new: Option<String>,
    /// What its changelog says of the versions in between, newest first; empty when the package is not at hand.
    pub changelog: Vec<String>,
}

/// A file that is here, as if it was fetched.
struct Local(File);

impl Remote for Local {
    fn parts(&self, parts: &[Range<u64>]) -> io::Result<Box<dyn Read>> {
        let mut all = Vec::new();
        for part in parts {
            let mut file = &self.0;
            file.seek(SeekFrom::Start(part.start))?;
            file.take(part.end - part.start).read_to_end(&mut all)?;
        }
        Ok(Box::new(io::Cursor::new(all)))
    }
}

/// A slot that holds nothing of use.
struct Erased;

impl Blocks for Erased {
    fn read_blocks(&mut self, _: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0xff);
        Ok(())
    }
}

/// Compares two bundles of the same profile.
///
/// # Errors
/// When one cannot be read, or is not signed by a trusted key.
pub fn diff(
    checkout: &Path,
    profile: &str,
    old: &Path,
    new: &Path,
    trusted: &[PublicKey],
    progress: &Progress,
) -> Result<Difference, BuildError> {
    let session = Session::open(checkout, profile, progress)?;
    let tools = builder(&session.builder(progress)?.0);
    // Not beside the bundles: these may lie where a server shows them, or on a medium that is read-only.
    let cache = session.cache.dir();
    let dir = || tempfile::tempdir_in(cache).map_err(BuildError::io("make a directory in", cache));
    let (old_dir, new_dir) = (dir()?, dir()?);
    let (old_manifest, mut old_image) = unpack(old, trusted, old_dir.path())?;
    let (new_manifest, new_image) = unpack(new, trusted, new_dir.path())?;
    let blocks = by_blocks(new, &new_manifest, &mut old_image, &new_image)?;
    let size = |path: &Path| fs::metadata(path).ok().map(|meta| ByteSize::from_bytes(meta.len()));
    let patch = size(&new.with_extension(format!("from-{}.patch", old_manifest.version)));
    let lock = Lock::load(session.profiles.dir(), &session.profile.lock, &session.profile.suite, &[]).ok();
    let (before, after) = (installed(&tools, old_dir.path())?, installed(&tools, new_dir.path())?);
    let packages = changes(&before, &after, |name, old| changelog(&session.store, lock.as_ref(), name, old));
    let whole = size(new).unwrap_or(ByteSize::from_bytes(0));
    Ok(Difference { old: old_manifest, new: new_manifest, patch, blocks, whole, packages })
}

fn by_blocks(new: &Path, manifest: &Manifest, old: &mut Image, image: &Image) -> Result<Option<ByteSize>, BuildError> {
    let path = new.with_extension("blocks");
    if !path.exists() {
        return Ok(None);
    }
    let unusable = |error: &dyn std::fmt::Display| fault("the blocks file", error);
    let index = Index::read(&Local(open(&path)?), image.shape, &manifest.verity.root_hash).map_err(|e| unusable(&e))?;
    let (index_len, shape) = (index.len(), old.shape);
    let known = Known::look(old, shape, manifest.verity.salt, None).map_err(|e| unusable(&e))?;
    let plan = index.plan(&known, &mut Erased, manifest.verity.salt).map_err(|e| unusable(&e))?;
    Ok(Some(ByteSize::from_bytes(index_len + plan.fetch_len())))
}

/// Packages and their versions, from the status file in the root image that lies in `dir`.
fn installed(tools: &Root, dir: &Path) -> Result<BTreeMap<String, String>, BuildError> {
    let root = tools.clone().bind(dir, "/siris/in");
    let dump = Cmd::new(Tool::DumpErofs).in_root(&root).args(["--cat", "--path", STATUS, "/siris/in/root"]);
    let text = dump.output().map_err(|e| fault("the package list in the root image", chain(&e)))?;
    Ok(versions(&String::from_utf8_lossy(&text)))
}

/// The packages that a status file calls installed.
fn versions(status: &str) -> BTreeMap<String, String> {
    status
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            field("Status")?.ends_with(" installed").then_some(())?;
            Some((field("Package")?.to_owned(), field("Version")?.to_owned()))
        })
        .collect()
}

fn changes(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    changelog: impl Fn(&str, &str) -> Vec<String>,
) -> Vec<PackageChange> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    changed
        .map(|name| {
            let (old, new) = (before.get(name).cloned(), after.get(name).cloned());
            let changelog = match (&old, &new) {
                (Some(old), Some(_)) => changelog(name, old),
                _ => Vec::new(),
            };
            PackageChange { name: name.clone(), old, new, changelog }
        })
        .collect()
}

/// What a package's changelog says since a version. Nothing when the package's file is not in the cache.
fn changelog(store: &Store, lock: Option<&Lock>, name: &str, since: &str) -> Vec<String> {
    let file = lock.and_then(|lock| lock.package(name)).map(|package| store.file(package));
    let Some(file) = file.filter(|file| file.exists()) else { return Vec::new() };
    let Ok(tar) = Cmd::new(Tool::DpkgDeb).arg("--fsys-tarfile").arg(&file).output() else { return Vec::new() };
    let mut archive = tar::Archive::new(&tar[..]);
    for entry in archive.entries().into_iter().flatten().flatten() {
        let Ok(path) = entry.path() else { continue };
        let path = path.to_string_lossy().into_owned();
        if path.ends_with("/changelog.Debian.gz") || path.ends_with("/changelog.gz") && !path.contains("/html/") {
            let mut text = String::new();
            if flate2::read::GzDecoder::new(entry).read_to_string(&mut text).is_ok() {
                return entries(&text, since);
            }
        }
    }
    Vec::new()
}

/// The lines that say what was done, of every version above `since`; of the newest alone when that is not named.
fn entries(changelog: &str, since: &str) -> Vec<String> {
    // Rebuilds have no entry of their own.
    let since = since.rsplit_once("+b").map_or(since, |(version, _)| version);
    let head = |line: &str| -> Option<String> {
        let (_, rest) = (!line.starts_with(' ')).then(|| line.split_once(" ("))??;
        Some(rest.split_once(')')?.0.to_owned())
    };
    let (mut lines, mut newest, mut seen) = (Vec::new(), 0, 0);
    for line in changelog.lines() {
        if let Some(version) = head(line) {
            if version == since {
                return lines;
            }
            seen += 1;
        } else if line.starts_with("  ") && !line.trim().is_empty() {
            lines.push(line.trim_end().to_owned());
            if seen == 1 {
                newest = lines.len();
            }
        }
    }
    lines.truncate(newest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "curl (8.2-1) trixie; urgency=medium\n\n  * Fix two.\n    - more\n\n -- A <a@b>  Mon, 1 Jan\n\n\
                       curl (8.1-2) trixie; urgency=medium\n\n  * Fix one.\n\n -- A <a@b>  Mon, 1 Jan\n\n\
                       curl (8.1-1) trixie; urgency=low\n\n  * Begin.\n";

    #[test]
    fn a_changelog_is_read_down_to_the_version_that_was_there() {
        assert_eq!(entries(LOG, "8.1-1+b2"), ["  * Fix two.", "    - more", "  * Fix one."]);
        assert_eq!(entries(LOG, "7.0-1"), ["  * Fix two.", "    - more"]);
        assert!(entries(LOG, "8.2-1").is_empty());
    }

    #[test]
    fn packages_that_came_went_or_changed_are_found() {
        let status = |packages: &[(&str, &str)]| {
            let text: Vec<String> = packages
                .iter()
                .map(|(name, version)| {
                    format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\nDescription: x\n more")
                })
                .collect();
            versions(&format!(
                "{}\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
                text.join("\n\n")
            ))
        };
        let (before, after) =
            (status(&[("a", "1"), ("b", "1"), ("c", "1")]), status(&[("a", "1"), ("b", "2"), ("d", "1")]));
        let found = changes(&before, &after, |name, old| vec![format!("{name} since {old}")]);
        let text: Vec<String> =
            found.iter().map(|c| format!("{} {:?} {:?} {}", c.name, c.old, c.new, c.changelog.len())).collect();
        assert_eq!(text, ["b Some(\"1\") Some(\"2\") 1", "c Some(\"1\") None 0", "d None Some(\"1\") 0"]);
    }
}
