//! The distribution's archive: which mirror, what a wish resolves to, and the package files themselves.
//!
//! Owns: a private package-manager configuration below the cache, and the store of package files by digest.
//! Never: reads or changes the host's own package lists or sources beyond asking where its mirror is.
//! In: a profile's wishes, or a lock. Out: a lock, or package files whose digests were checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, CmdError, Tool};
use siris_host::files::{FileError, write_atomic};
use siris_ibu::Sha256;

use crate::lock::{Archive, Lock, LockedPackage};

/// Why packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The host's mirror is not known.
    #[error(
        "this host's own package sources name no Debian mirror: give one with SIRIS_MIRROR=URL (and SIRIS_SECURITY_MIRROR=URL)"
    )]
    NoMirror,
    /// A program failed.
    #[error("cannot ask the package manager")]
    Ask(#[source] CmdError),
    /// The archive cannot be reached.
    #[error("cannot reach the mirror {mirror}: check the network, or name another with SIRIS_MIRROR=URL\n{tail}")]
    Unreachable {
        /// The mirror.
        mirror: String,
        /// What the package manager said.
        tail: String,
    },
    /// A wish that cannot be met.
    #[error("suite {suite} cannot install what `{name}` asks for:\n{what}")]
    Unresolvable {
        /// The suite.
        suite: String,
        /// Whose wishes.
        name: String,
        /// What the package manager said.
        what: String,
    },
    /// The package manager's answer has a form that is not known.
    #[error("unexpected answer of the package manager: {0}")]
    Answer(String),
    /// Package files could not be fetched.
    #[error(
        "{missing} of {total} package files cannot be fetched from {mirror}. If the mirror has replaced them by newer ones, run `cargo xtask update {name}`\n{tail}"
    )]
    Fetch {
        /// The lock.
        name: String,
        /// How many.
        missing: usize,
        /// Of how many.
        total: usize,
        /// From where.
        mirror: String,
        /// What the fetcher said.
        tail: String,
    },
    /// A file below the cache.
    #[error("cannot keep {what} in the cache")]
    Keep {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: FileError,
    },
    /// A directory or file operation.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The distribution's own archive.
    pub main: String,
    /// Its security archive.
    pub security: String,
}

impl Mirrors {
    /// The mirrors of a profile's `mirror` value: a URL, or `host` for what this host's own sources say.
    /// `SIRIS_MIRROR` and `SIRIS_SECURITY_MIRROR` go before either.
    ///
    /// # Errors
    /// [`ArchiveError::NoMirror`] when `host` is asked for and the host has none.
    pub fn find(value: &str) -> Result<Mirrors, ArchiveError> {
        let given = std::env::var("SIRIS_MIRROR").ok().or_else(|| (value != "host").then(|| value.to_owned()));
        let security = std::env::var("SIRIS_SECURITY_MIRROR").ok();
        if let Some(main) = given {
            let main = main.trim_end_matches('/').to_owned();
            let security = security.unwrap_or_else(|| format!("{main}-security"));
            return Ok(Mirrors { main, security });
        }
        let format = "$(REPO_URI)|$(RELEASE)";
        let targets = Cmd::new(Tool::AptGet).args(["indextargets", "--format", format, "Created-By: Packages"]).text();
        let mut mirrors = Mirrors::of_targets(&targets.map_err(ArchiveError::Ask)?).ok_or(ArchiveError::NoMirror)?;
        mirrors.security = security.unwrap_or(mirrors.security);
        Ok(mirrors)
    }

    /// Picks the Debian mirror out of lines of `URI|RELEASE`.
    fn of_targets(text: &str) -> Option<Mirrors> {
        let pairs: Vec<(&str, &str)> =
            text.lines().filter_map(|l| l.split_once('|')).map(|(u, r)| (u.trim_end_matches('/'), r)).collect();
        let main = pairs
            .iter()
            .find(|(uri, release)| uri.ends_with("/debian") && !release.ends_with("-security"))?
            .0
            .to_owned();
        let security =
            pairs.iter().find(|(uri, release)| uri.ends_with("/debian-security") && release.ends_with("-security"));
        let security = security.map_or_else(|| format!("{main}-security"), |(uri, _)| (*uri).to_owned());
        Some(Mirrors { main, security })
    }

    fn of(&self, archive: Archive) -> &str {
        match archive {
            Archive::Main => &self.main,
            Archive::Security => &self.security,
        }
    }
}

/// The package that stands in for an initrd tool: a kernel's package insists on one, and an image that is never
/// changed after its build has no use for it.
pub(crate) const STAND_IN: &str = "siris-initrd-stand-in";

const STAND_IN_STATUS: &str = "Package: siris-initrd-stand-in\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\
    Maintainer: SIRIS OS\nProvides: linux-initramfs-tool\nDescription: stands in for an initrd tool\n\n";

/// What a root is asked to hold.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// The name of its lock.
    pub name: &'a str,
    /// The suite.
    pub suite: &'a str,
    /// Archive components.
    pub components: &'a [String],
    /// Packages by name.
    pub packages: &'a [String],
}

/// A package as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// Its file.
    pub package: LockedPackage,
    /// Its field `Depends`.
    pub depends: String,
}

/// The store of package files and indices below the cache directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    mirrors: Mirrors,
}

impl Store {
    /// A store in `dir` (made if absent) that fetches from `mirrors`.
    pub fn new(dir: impl Into<PathBuf>, mirrors: Mirrors) -> Self {
        Store { dir: dir.into(), mirrors }
    }

    /// The mirrors it fetches from.
    pub fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Resolves a wish with the archive as it is now.
    ///
    /// # Errors
    /// When the mirror cannot be reached, or a package is not known or not installable.
    pub fn resolve(&self, wish: &Wish<'_>) -> Result<Lock, ArchiveError> {
        let config = self.configure(wish)?;
        let apt = |tool| Cmd::new(tool).env("APT_CONFIG", &config).env("LC_ALL", "C.UTF-8");
        let update = apt(Tool::AptGet).args(["update", "-q", "--error-on=any"]).text();
        update.map_err(|e| self.unreachable(e))?;
        let plan = apt(Tool::AptGet)
            .args(["install", "--print-uris", "-qq", "--yes", "?essential"])
            .args(wish.packages)
            .text()
            .map_err(|e| unresolvable(wish, e))?;
        let names = planned(&plan)?;
        let show =
            apt(Tool::AptCache).args(["show", "--quiet"]).args(names.iter().map(|(n, v)| format!("{n}={v}"))).text();
        let stanzas = show.map_err(ArchiveError::Ask)?;
        let packages = locked(&stanzas, &names, &plan, &self.mirrors)?;
        Ok(Lock {
            suite: wish.suite.to_owned(),
            epoch: self.newest_release()?,
            wanted: wish.packages.to_vec(),
            packages,
        })
    }

    /// All versions of packages that the archive has now, by name, each the newest first, and what it depends on.
    ///
    /// # Errors
    /// When the mirror cannot be reached, or has one of them in no version.
    pub fn versions(&self, wish: &Wish<'_>) -> Result<BTreeMap<String, Vec<Available>>, ArchiveError> {
        let config = self.configure(wish)?;
        let apt = |tool| Cmd::new(tool).env("APT_CONFIG", &config).env("LC_ALL", "C.UTF-8");
        let update = apt(Tool::AptGet).args(["update", "-q", "--error-on=any"]).text();
        update.map_err(|e| self.unreachable(e))?;
        let shown = apt(Tool::AptCache).args(["show", "--quiet"]).args(wish.packages).text();
        let mut found: BTreeMap<String, Vec<Available>> = BTreeMap::new();
        for stanza in stanzas(&shown.map_err(ArchiveError::Ask)?) {
            let path = field(stanza, "Filename")?;
            // Where the archives' own layout has its security updates.
            let archive = if path.starts_with("pool/updates/") { Archive::Security } else { Archive::Main };
            let package = described(stanza, archive)?;
            let depends = field(stanza, "Depends").unwrap_or_default();
            found.entry(package.name.clone()).or_default().push(Available { package, depends });
        }
        Ok(found)
    }

    fn unreachable(&self, error: CmdError) -> ArchiveError {
        match error {
            CmdError::Failed { tail, .. } => ArchiveError::Unreachable { mirror: self.mirrors.main.clone(), tail },
            other => ArchiveError::Ask(other),
        }
    }

    /// Writes the private configuration and returns its path.
    fn configure(&self, wish: &Wish<'_>) -> Result<PathBuf, ArchiveError> {
        let dir = self.dir.join("apt").join(wish.suite);
        for sub in ["state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"] {
            make_dir(&dir.join(sub))?;
        }
        let components = wish.components.join(" ");
        let (suite, Mirrors { main, security }) = (wish.suite, &self.mirrors);
        let keep = |path: &Path, text: &str| {
            write_atomic(path, text.as_bytes())
                .map_err(|source| ArchiveError::Keep { what: "the package manager's configuration", source })
        };
        let signed = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        keep(
            &dir.join("etc/sources.list"),
            &format!(
                "{signed} {main} {suite} {components}\n{signed} {main} {suite}-updates {components}\n{signed} {security} {suite}-security {components}\n"
            ),
        )?;
        keep(&dir.join("status"), STAND_IN_STATUS)?;
        let config = dir.join("apt.conf");
        let d = dir.display();
        keep(
            &config,
            &format!(
                "Dir \"{d}\";\nDir::State \"state\";\nDir::State::status \"{d}/status\";\nDir::Cache \"cache\";\nDir::Etc \"etc\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Install-Recommends \"false\";\n\
                 Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAPT::Sandbox::User \"root\";\n"
            ),
        )?;
        Ok(config)
    }

    /// The newest date in the signed release files: what everything built is stamped with.
    fn newest_release(&self) -> Result<u64, ArchiveError> {
        let format = time::macros::format_description!(
            version = 2,
            "[weekday repr:short], [day padding:none] [month repr:short] [year] [hour padding:none]:[minute]:[second]"
        );
        let mut newest = 0;
        let suites = self.dir.join("apt");
        for suite in read_dir(&suites)? {
            for file in
                read_dir(&suite.join("state/lists"))?.into_iter().filter(|p| p.to_string_lossy().ends_with("Release"))
            {
                let text =
                    fs::read_to_string(&file).map_err(|source| ArchiveError::Io { path: file.clone(), source })?;
                let Some(date) = text.lines().find_map(|l| l.strip_prefix("Date: ")) else { continue };
                let plain = date.trim_end_matches("UTC").trim_end_matches("GMT").trim_end_matches("+0000").trim();
                let parsed = time::PrimitiveDateTime::parse(plain, format)
                    .map_err(|e| ArchiveError::Answer(format!("{}: Date {date}: {e}", file.display())))?;
                newest = newest.max(parsed.assume_utc().unix_timestamp());
            }
        }
        u64::try_from(newest)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| ArchiveError::Answer("no release file has a date".into()))
    }

    /// The file of a package, whether or not it is there yet.
    pub fn file(&self, package: &LockedPackage) -> PathBuf {
        self.dir.join("debs").join(package.sha256.to_string()).join(file_name(package))
    }

    /// Fetches every package file of a lock that is not in the store yet; returns how many bytes that were.
    ///
    /// # Errors
    /// When one cannot be fetched or has another digest than the lock says.
    pub fn fetch(&self, name: &str, lock: &Lock) -> Result<u64, ArchiveError> {
        let absent: Vec<&LockedPackage> = lock.packages.iter().filter(|p| !self.file(p).exists()).collect();
        if absent.is_empty() {
            return Ok(0);
        }
        // Its own directory: two roots may be fetched for at once.
        let partial = self.dir.join("partial").join(name);
        make_dir(&partial)?;
        let config = partial.join("fetch.conf");
        write_atomic(&config, b"APT::Sandbox::User \"root\";\nAcquire::Retries \"3\";\n")
            .map_err(|source| ArchiveError::Keep { what: "the fetcher's configuration", source })?;
        let mut tail = String::new();
        for batch in absent.chunks(100) {
            let mut fetch = Cmd::new(Tool::AptHelper).env("APT_CONFIG", &config).arg("-q").arg("download-file");
            for p in batch {
                let uri = format!("{}/{}", self.mirrors.of(p.archive), p.path.replace('+', "%2b"));
                fetch = fetch.arg(uri).arg(partial.join(p.sha256.to_string())).arg(format!("SHA256:{}", p.sha256));
            }
            if let Err(error) = fetch.run() {
                match error {
                    CmdError::Failed { tail: said, .. } => tail = said,
                    other => return Err(ArchiveError::Ask(other)),
                }
            }
        }
        let mut fetched = 0;
        let mut missing = 0;
        for p in &absent {
            let from = partial.join(p.sha256.to_string());
            match fs::read(&from) {
                Ok(bytes) if Sha256::of(&bytes) == p.sha256 => {
                    let to = self.file(p);
                    make_dir(to.parent().unwrap_or(&self.dir))?;
                    fs::rename(&from, &to).map_err(|source| ArchiveError::Io { path: to.clone(), source })?;
                    fetched += p.size;
                }
                _ => missing += 1,
            }
        }
        if missing > 0 {
            let mirror = self.mirrors.main.clone();
            return Err(ArchiveError::Fetch {
                name: name.to_owned(),
                missing,
                total: lock.packages.len(),
                mirror,
                tail,
            });
        }
        Ok(fetched)
    }
}

/// `NAME_VERSION_ARCH.deb` as archives name their files: an epoch's colon percent-encoded.
fn file_name(p: &LockedPackage) -> String {
    format!("{}_{}_{}.deb", p.name, p.version.replace(':', "%3a"), p.architecture)
}

pub(crate) fn make_dir(dir: &Path) -> Result<(), ArchiveError> {
    fs::create_dir_all(dir).map_err(|source| ArchiveError::Io { path: dir.to_owned(), source })
}

fn read_dir(dir: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let entries = fs::read_dir(dir).map_err(|source| ArchiveError::Io { path: dir.to_owned(), source })?;
    Ok(entries.flatten().map(|e| e.path()).collect())
}

fn unresolvable(wish: &Wish<'_>, error: CmdError) -> ArchiveError {
    match error {
        CmdError::Failed { tail, .. } => {
            ArchiveError::Unresolvable { suite: wish.suite.to_owned(), name: wish.name.to_owned(), what: tail }
        }
        other => ArchiveError::Ask(other),
    }
}

/// Names and versions out of `apt-get install --print-uris`: `'URI' NAME_VERSION_ARCH.deb SIZE HASH`.
fn planned(plan: &str) -> Result<BTreeMap<String, String>, ArchiveError> {
    let mut names = BTreeMap::new();
    for line in plan.lines().filter(|l| !l.trim().is_empty()) {
        let bad = || ArchiveError::Answer(line.to_owned());
        let file = line.split(' ').nth(1).ok_or_else(bad)?;
        let mut parts = file.split('_');
        let (name, version) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
        names.insert(name.to_owned(), version.replace("%3a", ":"));
    }
    Ok(names)
}

/// What the package manager says of each package.
fn stanzas(shown: &str) -> impl Iterator<Item = &str> {
    shown.split("\n\n").filter(|stanza| !stanza.trim().is_empty())
}

fn field(stanza: &str, key: &str) -> Result<String, ArchiveError> {
    let line = stanza.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": "));
    line.map(str::to_owned).ok_or_else(|| ArchiveError::Answer(format!("a package without `{key}`: {stanza}")))
}

fn described(stanza: &str, archive: Archive) -> Result<LockedPackage, ArchiveError> {
    let name = field(stanza, "Package")?;
    let bad = |key: &str| ArchiveError::Answer(format!("{key} of {name}"));
    Ok(LockedPackage {
        version: field(stanza, "Version")?,
        architecture: field(stanza, "Architecture")?,
        size: field(stanza, "Size")?.parse().map_err(|_| bad("Size"))?,
        sha256: field(stanza, "SHA256")?.parse().map_err(|_| bad("SHA256"))?,
        archive,
        path: field(stanza, "Filename")?,
        name,
    })
}

fn locked(
    stanzas: &str,
    names: &BTreeMap<String, String>,
    plan: &str,
    mirrors: &Mirrors,
) -> Result<Vec<LockedPackage>, ArchiveError> {
    let mut found: BTreeMap<String, LockedPackage> = BTreeMap::new();
    for stanza in self::stanzas(stanzas) {
        let (name, path) = (field(stanza, "Package")?, field(stanza, "Filename")?);
        if names.get(&name) != Some(&field(stanza, "Version")?) {
            continue;
        }
        let encoded = path.replace('+', "%2b").replace('~', "%7e");
        let is_security = plan.lines().any(|l| {
            l.starts_with(&format!("'{}/{encoded}'", mirrors.security))
                || l.starts_with(&format!("'{}/{path}'", mirrors.security))
        });
        let archive = if is_security { Archive::Security } else { Archive::Main };
        found.insert(name, described(stanza, archive)?);
    }
    match names.keys().find(|name| !found.contains_key(*name)) {
        Some(name) => Err(ArchiveError::Answer(format!("nothing is said of {name}"))),
        None => Ok(found.into_values().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirror_is_found_among_other_sources() {
        let text = "https://other.example/apt/|stable\nhttp://mirror.example/debian/|bookworm\nhttp://mirror.example/debian-security/|bookworm-security\n";
        let mirrors = Mirrors::of_targets(text).unwrap();
        assert_eq!(mirrors.main, "http://mirror.example/debian");
        assert_eq!(mirrors.security, "http://mirror.example/debian-security");
        assert_eq!(Mirrors::of_targets("https://other.example/apt/|stable\n"), None);
    }

    #[test]
    fn a_plan_gives_names_and_versions_with_epochs() {
        let plan = "'http://m/pool/main/l/less/less_1%3a2.0%2bx_amd64.deb' less_1%3a2.0+x_amd64.deb 5 MD5Sum:0\n";
        assert_eq!(planned(plan).unwrap()["less"], "1:2.0+x");
        assert!(planned("nonsense").is_err());
    }
}
