//! Lock files: every package of a root, by version and digest.
//!
//! Owns: the format of `NAME.lock` and the order of its lines.
//! Never: asks the network. In and out: text.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use siris_host::files::{FileError, write_atomic};
use siris_ibu::Sha256;

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is not there.
    #[error("{} does not exist: make it with `cargo xtask update {name}`", .path.display())]
    Missing {
        /// The lock's name.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the lock file")]
    Write(#[source] FileError),
    /// It is not a lock file.
    #[error("{}: {what}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It was made for other wishes than the profile now has.
    #[error("{} was made for other packages than `{name}` now asks for ({difference}): run `cargo xtask update {name}`", .path.display())]
    Stale {
        /// The lock's name.
        name: String,
        /// The file.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
}

/// One package file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPackage {
    /// Binary package name.
    pub name: String,
    /// Version, with epoch.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Bytes of the package file.
    pub size: u64,
    /// Digest of the package file, from the signed index.
    pub sha256: Sha256,
    /// Which of the mirrors has it.
    pub archive: Archive,
    /// Path below the mirror.
    pub path: String,
}

/// The archives a suite is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Archive {
    /// The distribution's own.
    Main,
    /// Its security updates.
    Security,
}

impl Archive {
    /// As it is written in a lock file.
    pub fn as_str(self) -> &'static str {
        match self {
            Archive::Main => "main",
            Archive::Security => "security",
        }
    }
}

/// A resolved set of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The suite it was resolved in.
    pub suite: String,
    /// Seconds since 1970 when it was resolved: the time stamp of everything built from it.
    pub epoch: u64,
    /// The packages asked for by name.
    pub wanted: Vec<String>,
    /// All packages, sorted by name.
    pub packages: Vec<LockedPackage>,
}

impl Lock {
    /// Where the lock `name` is kept below `dir`.
    pub fn path(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.lock"))
    }

    /// Reads the lock `name` and checks that it answers `suite` and `wanted`.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn load(dir: &Path, name: &str, suite: &str, wanted: &[String]) -> Result<Lock, LockError> {
        let path = Lock::path(dir, name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(LockError::Missing { name: name.to_owned(), path });
            }
            Err(source) => return Err(LockError::Read { path, source }),
        };
        let lock = Lock::parse(&text).map_err(|what| LockError::Format { path: path.clone(), what })?;
        let added = wanted.iter().filter(|w| !lock.wanted.contains(w)).map(|w| format!("+{w}"));
        let gone = lock.wanted.iter().filter(|w| !wanted.contains(w)).map(|w| format!("-{w}"));
        let mut difference: Vec<String> = added.chain(gone).collect();
        if lock.suite != suite {
            difference.push(format!("suite {} instead of {suite}", lock.suite));
        }
        if !difference.is_empty() {
            return Err(LockError::Stale { name: name.to_owned(), path, difference: difference.join(" ") });
        }
        Ok(lock)
    }

    /// Parses a lock file's text.
    ///
    /// # Errors
    /// The first line that is wrong, with its number.
    pub fn parse(text: &str) -> Result<Lock, String> {
        let mut lock = Lock { suite: String::new(), epoch: 0, wanted: Vec::new(), packages: Vec::new() };
        let mut schema = None;
        for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
            let bad = |what: &str| format!("line {}: {what}: `{line}`", n + 1);
            let (key, rest) = line.split_once(' ').ok_or_else(|| bad("no value"))?;
            match key {
                "schema" => schema = Some(rest),
                "suite" => lock.suite = rest.to_owned(),
                "epoch" => lock.epoch = rest.parse().map_err(|_| bad("not a number of seconds"))?,
                "wanted" => lock.wanted.push(rest.to_owned()),
                "package" => lock.packages.push(parse_package(rest).ok_or_else(|| bad("not a package"))?),
                _ => return Err(bad("unknown word")),
            }
        }
        if schema != Some("1") {
            return Err("no line `schema 1`: this is no lock file, or one of a newer kind".into());
        }
        if lock.packages.windows(2).any(|w| w[0].name >= w[1].name) {
            return Err("packages are not in order, or named twice".into());
        }
        Ok(lock)
    }

    /// The lock file's text.
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# Made by `cargo xtask update`. Every package of this root, by version and digest.\nschema 1\n",
        );
        // Writing to a String cannot fail.
        let _ = writeln!(text, "suite {}\nepoch {}", self.suite, self.epoch);
        for wanted in &self.wanted {
            let _ = writeln!(text, "wanted {wanted}");
        }
        for p in &self.packages {
            let archive = p.archive.as_str();
            let _ = writeln!(
                text,
                "package {} {} {} {} {} {archive} {}",
                p.name, p.version, p.architecture, p.size, p.sha256, p.path
            );
        }
        text
    }

    /// Writes it as the lock `name`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), LockError> {
        write_atomic(&Lock::path(dir, name), self.to_text().as_bytes()).map_err(LockError::Write)
    }

    /// The digest that layers made from exactly these packages are named by.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.to_text().as_bytes())
    }

    /// The package of this name.
    pub fn package(&self, name: &str) -> Option<&LockedPackage> {
        self.packages.binary_search_by(|p| p.name.as_str().cmp(name)).ok().map(|n| &self.packages[n])
    }
}

fn parse_package(rest: &str) -> Option<LockedPackage> {
    let mut words = rest.split(' ');
    let mut next = || words.next().filter(|w| !w.is_empty());
    let package = LockedPackage {
        name: next()?.to_owned(),
        version: next()?.to_owned(),
        architecture: next()?.to_owned(),
        size: next()?.parse().ok()?,
        sha256: next()?.parse().ok()?,
        archive: match next()? {
            "main" => Archive::Main,
            "security" => Archive::Security,
            _ => return None,
        },
        path: next()?.to_owned(),
    };
    let safe = !package.path.starts_with('/') && !package.path.split('/').any(|part| part == "..");
    (words.next().is_none() && safe).then_some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Lock {
        let package = |name: &str, archive| LockedPackage {
            name: name.into(),
            version: "1:2.0-3+b1".into(),
            architecture: "amd64".into(),
            size: 12345,
            sha256: Sha256::of(name.as_bytes()),
            archive,
            path: format!("pool/main/{name}.deb"),
        };
        Lock {
            suite: "trixie".into(),
            epoch: 1_700_000_000,
            wanted: vec!["bash".into()],
            packages: vec![package("bash", Archive::Main), package("libc6", Archive::Security)],
        }
    }

    #[test]
    fn a_lock_reads_back_as_it_was_written() {
        assert_eq!(Lock::parse(&sample().to_text()).unwrap(), sample());
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let text = format!("{}package bash 1 amd64 many\n", sample().to_text());
        assert!(Lock::parse(&text).unwrap_err().contains("line 8"));
        let text = sample().to_text().replace("pool/main/bash.deb", "../../etc/passwd");
        assert!(Lock::parse(&text).is_err());
        assert!(Lock::parse("suite trixie\n").unwrap_err().contains("schema"));
    }

    #[test]
    fn a_lock_made_for_other_wishes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        sample().save(dir.path(), "x").unwrap();
        Lock::load(dir.path(), "x", "trixie", &["bash".into()]).unwrap();
        let error = Lock::load(dir.path(), "x", "trixie", &["zsh".into()]).unwrap_err().to_string();
        assert!(error.contains("+zsh -bash"), "{error}");
        assert!(Lock::load(dir.path(), "y", "trixie", &[]).unwrap_err().to_string().contains("cargo xtask update y"));
    }
}
