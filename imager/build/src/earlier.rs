//! A profile as it was before: its locks with some packages put back to the version before theirs.
//!
//! What upgrades are measured with: two systems that differ as two releases do, made of the distribution's own
//! packages. Owns: which version comes before one, and the kernel, whose packages have its release in their names.
//! Never: touches a package that is not asked for, or the time stamp. In and out: the locks of a checkout, which is
//! rewritten: to be called on a copy.

use std::collections::BTreeMap;
use std::path::Path;

use crate::archive::{ArchiveError, Available, Wish};
use crate::error::BuildError;
use crate::image::{BUILDER, Session};
use crate::lock::{Lock, LockedPackage};
use crate::progress::Progress;

/// Which packages are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packages<'a> {
    /// None.
    None,
    /// These, where the archive still has an earlier version.
    Named(&'a [&'a str]),
    /// Every one of which the archive still has an earlier version, but for the kernel's.
    All,
}

/// What is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier<'a> {
    /// Packages.
    pub packages: Packages<'a>,
    /// Whether the kernel is, with the headers that its modules are compiled against.
    pub kernel: bool,
}

/// Puts packages back in the locks of `profile` and of the builder. Returns what changed, as
/// [`update`](crate::update) does, the other way round.
///
/// # Errors
/// When the archive cannot be reached, or no longer has an earlier version of anything that is asked for.
pub fn earlier(
    checkout: &Path,
    profile: &str,
    what: Earlier<'_>,
    progress: &Progress,
) -> Result<Vec<String>, BuildError> {
    let session = Session::open(checkout, profile, progress)?;
    let (dir, name) = (session.profiles.dir(), session.profile.lock.as_str());
    let suite = &session.profile.suite;
    let versions = |packages: &[String]| {
        session.store.versions(&Wish { name, suite, components: &session.profile.components, packages })
    };
    let mut lock = Lock::load(dir, name, suite, &session.wanted())?;
    let mut changes = Vec::new();
    let kernel = version_of(&lock, &session.profile.kernel)?;

    let wanted: Vec<String> = lock
        .packages
        .iter()
        .filter(|package| match what.packages {
            Packages::None => false,
            Packages::Named(names) => names.contains(&package.name.as_str()),
            Packages::All => package.version != kernel,
        })
        .map(|package| package.name.clone())
        .collect();
    if !wanted.is_empty() {
        let there = versions(&wanted)?;
        for package in &mut lock.packages {
            if let Some(before) = before(&there, package) {
                changes.push(format!("{}: {} -> {}", package.name, before.package.version, package.version));
                *package = before.package.clone();
            }
        }
    }
    if what.kernel {
        let metapackage = &session.profile.kernel;
        let there = versions(std::slice::from_ref(metapackage))?;
        let now = lock.package(metapackage).cloned().ok_or_else(|| gone(metapackage))?;
        let old = before(&there, &now).ok_or_else(|| gone(metapackage))?;
        let releases = there.get(metapackage).into_iter().flatten().find(|a| a.package == now);
        let releases = releases.and_then(|new| Some((release(new)?, release(old)?)));
        let (new_release, old_release) = releases.ok_or_else(|| gone(metapackage))?;
        changes.push(format!("kernel: {old_release} -> {new_release}"));
        let (install, unpack) = session.profiles.tools(BUILDER)?;
        let wanted: Vec<String> = install.into_iter().chain(unpack).collect();
        let mut builder = Lock::load(dir, BUILDER, suite, &wanted)?;
        for lock in [&mut lock, &mut builder] {
            // One source makes them all, so one version is theirs.
            let names: BTreeMap<String, String> = lock
                .packages
                .iter()
                .filter(|package| package.version == kernel)
                .map(|package| (package.name.clone(), package.name.replace(&new_release, &old_release)))
                .collect();
            let there = versions(&names.values().cloned().collect::<Vec<_>>())?;
            for package in &mut lock.packages {
                if let Some(name) = names.get(&package.name) {
                    let versions = there.get(name).into_iter().flatten();
                    let found = versions.map(|a| &a.package).find(|p| p.version == old.package.version);
                    *package = found.cloned().ok_or_else(|| gone(name))?;
                }
            }
            lock.packages.sort();
        }
        builder.save(dir, BUILDER)?;
    }
    if changes.is_empty() && what.packages != Packages::None {
        return Err(gone("these packages"));
    }
    lock.save(dir, name)?;
    Ok(changes)
}

fn gone(what: &str) -> BuildError {
    ArchiveError::Answer(format!("the archive has no earlier version of {what}")).into()
}

fn version_of(lock: &Lock, name: &str) -> Result<String, BuildError> {
    let package = lock.package(name).ok_or_else(|| BuildError::Incomplete { what: format!("{name} in its lock") })?;
    Ok(package.version.clone())
}

/// The version that the archive has before this one.
fn before<'a>(there: &'a BTreeMap<String, Vec<Available>>, package: &LockedPackage) -> Option<&'a Available> {
    let versions = there.get(&package.name)?;
    let now = versions.iter().position(|a| a.package.version == package.version)?;
    versions[now + 1..].iter().find(|a| a.package.version != package.version)
}

/// The kernel release in what a kernel's metapackage depends on: `linux-image-6.12.1+deb13-amd64 (= 6.12.1-1)` with
/// `linux-image-amd64` has `6.12.1+deb13`.
fn release(metapackage: &Available) -> Option<String> {
    let name = metapackage.package.name.strip_prefix("linux-image-")?;
    let image = metapackage.depends.split([' ', ',']).next()?;
    Some(image.strip_prefix("linux-image-")?.strip_suffix(name)?.strip_suffix('-')?.to_owned())
}

#[cfg(test)]
mod tests {
    use siris_ibu::Sha256;

    use super::*;
    use crate::lock::Archive;

    fn available(name: &str, version: &str, depends: &str) -> Available {
        let package = LockedPackage {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            size: 1,
            sha256: Sha256::of(version.as_bytes()),
            archive: Archive::Main,
            path: "pool/x.deb".into(),
        };
        Available { package, depends: depends.into() }
    }

    #[test]
    fn what_comes_before_is_the_next_one_down_that_the_archive_has() {
        let versions = ["3-1", "2-1", "1-1"].map(|version| available("a", version, ""));
        let there = BTreeMap::from([("a".to_owned(), versions.to_vec())]);
        let found = |version: &str| before(&there, &available("a", version, "").package).map(|a| &a.package.version);
        assert_eq!(found("3-1").unwrap(), "2-1");
        assert_eq!(found("1-1"), None);
        assert_eq!(found("9-1"), None, "the archive moved on: what is before is not known");
    }

    #[test]
    fn a_kernels_release_is_read_off_what_its_metapackage_depends_on() {
        let of = |depends: &str| release(&available("linux-image-amd64", "6.12.115-2", depends));
        assert_eq!(of("linux-image-6.12.115+deb13.1-amd64 (= 6.12.115-2)").unwrap(), "6.12.115+deb13.1");
        assert_eq!(of("linux-image-6.12.115+deb13.1-arm64"), None);
    }
}
