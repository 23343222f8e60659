//! Profiles: what an image is made of.
//!
//! Owns: the TOML format, `extends`, and the resolved [`Profile`].
//! Never: touches anything but the profile files themselves.
//! In: `image-profiles/NAME.toml` and what it extends. Out: one resolved profile, or every fault in it at once.

mod fields;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use siris_ibu::{ByteSize, Version};

pub use fields::Fault;
use fields::{Faults, Section};

/// Why there is no profile to build from.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No such file.
    #[error("no profile `{name}`: {} does not exist (profiles here: {})", .path.display(), .known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The file looked for.
        path: PathBuf,
        /// The profiles there are.
        known: Vec<String>,
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
    /// It is not TOML.
    #[error("{}: not TOML\n{message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message with line and column.
        message: String,
    },
    /// It is TOML, but wrong.
    #[error("{} in profile `{name}`:\n{}", count(.faults.len()), list(.faults))]
    Faulty {
        /// The profile.
        name: String,
        /// Everything wrong with it.
        faults: Vec<Fault>,
    },
}

fn count(n: usize) -> String {
    if n == 1 { "1 fault".into() } else { format!("{n} faults") }
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|f| format!("  {f}")).collect::<Vec<_>>().join("\n")
}

/// What a box is for; a setting made at install, never a property of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// In a customer's closet.
    Local,
    /// A cloud storage server.
    Cloud,
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "local" => Ok(Role::Local),
            "cloud" => Ok(Role::Cloud),
            _ => Err("expected `local` or `cloud`"),
        }
    }
}

impl Role {
    /// As it is written in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Local => "local",
            Role::Cloud => "cloud",
        }
    }
}

/// A profile with everything it extends merged in and every value checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name it was asked for by.
    pub name: String,
    /// The product its images belong to (`IMAGE_ID`): profiles with one product share one root.
    pub product: String,
    /// Suite of the distribution, such as `trixie`.
    pub suite: String,
    /// `host` (what the host's own package manager uses) or a URL.
    pub mirror: String,
    /// Archive components.
    pub components: Vec<String>,
    /// Packages asked for by name, sorted.
    pub packages: Vec<String>,
    /// Packages fetched and unpacked by a step that needs their content, never installed.
    pub unpack: Vec<String>,
    /// The kernel's package.
    pub kernel: String,
    /// Trees laid over the root, in this order, as paths below `image-profiles/`.
    pub trees: Vec<String>,
    /// Paths taken out of the root (no globs; directories go whole).
    pub remove: Vec<String>,
    /// Units enabled.
    pub enable: Vec<String>,
    /// Units that their packages enable and that shall only start when asked for.
    pub disable: Vec<String>,
    /// Units masked.
    pub mask: Vec<String>,
    /// Directories that persist.
    pub persist: Vec<String>,
    /// Directories that may be written and are empty at each boot.
    pub volatile: Vec<String>,
    /// Units that must be active for a box to be healthy.
    pub health_units: Vec<String>,
    /// Least free share or size of the state partition.
    pub state_free_min: String,
    /// Words added to the kernel's command line.
    pub kernel_options: Vec<String>,
    /// Size of one root slot.
    pub slot_size: ByteSize,
    /// Size of a raw image.
    pub raw_size: ByteSize,
    /// The role a box gets where no answer says otherwise.
    pub role: Role,
    /// The pool of a full install.
    pub pool: String,
    /// Units that must run to a good end in a slot on trial before it is kept.
    pub upgrade_checks: Vec<String>,
    /// The lowest version an upgrade may replace.
    pub lowest_replaces: Version,
    /// Name of the lock file, without `.lock`: profiles with the same packages share one.
    pub lock: String,
}

/// The directory `image-profiles` of a checkout.
#[derive(Debug, Clone)]
pub struct Profiles {
    dir: PathBuf,
}

impl Profiles {
    /// Profiles in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Profiles { dir: dir.into() }
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The names of the profiles that can be built: those not marked `abstract`.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
            .filter(|name| !["base", "bmc", "builder", "peers"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }

    /// Loads one, with what it extends.
    ///
    /// # Errors
    /// [`ProfileError`], with every fault found at once.
    pub fn load(&self, name: &str) -> Result<Profile, ProfileError> {
        let faults = Faults::default();
        let mut raw = self.read(name, &faults)?;
        let mut seen = vec![name.to_owned()];
        while let Some(parent) = raw.extends.take() {
            if seen.contains(&parent) {
                faults.add(format!("{name}.toml: extends"), format!("`{parent}` extends itself"));
                break;
            }
            seen.push(parent.clone());
            raw = self.read(&parent, &faults)?.overlaid(raw);
        }
        let profile = raw.resolve(name, &faults);
        let faults = faults.into_inner();
        match profile {
            Some(profile) if faults.is_empty() => Ok(profile),
            _ => Err(ProfileError::Faulty { name: name.to_owned(), faults }),
        }
    }

    /// Loads the file of a root of tools, which only says what packages it holds: sorted, and those to be unpacked.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn tools(&self, name: &str) -> Result<(Vec<String>, Vec<String>), ProfileError> {
        let faults = Faults::default();
        let mut raw = self.read(name, &faults)?;
        let faults = faults.into_inner();
        if !faults.is_empty() {
            return Err(ProfileError::Faulty { name: name.to_owned(), faults });
        }
        raw.packages.sort();
        raw.unpack.sort();
        Ok((raw.packages, raw.unpack))
    }

    fn read(&self, name: &str, faults: &Faults) -> Result<RawProfile, ProfileError> {
        let path = self.dir.join(format!("{name}.toml"));
        if !path.exists() || name.contains('/') {
            return Err(ProfileError::Unknown { name: name.to_owned(), path, known: self.names() });
        }
        let text = fs::read_to_string(&path).map_err(|source| ProfileError::Read { path: path.clone(), source })?;
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| ProfileError::Syntax { path: path.clone(), message: e.to_string() })?;
        Ok(RawProfile::read(Section::new(format!("{name}.toml: "), table, faults), faults))
    }
}

/// One file, before `extends`: a list adds to its parent's, a value replaces it.
#[derive(Debug, Default)]
struct RawProfile {
    extends: Option<String>,
    product: Option<String>,
    lock: Option<String>,
    suite: Option<String>,
    mirror: Option<String>,
    components: Vec<String>,
    packages: Vec<String>,
    unpack: Vec<String>,
    kernel: Option<String>,
    kernel_options: Vec<String>,
    trees: Vec<String>,
    remove: Vec<String>,
    enable: Vec<String>,
    disable: Vec<String>,
    mask: Vec<String>,
    persist: Vec<String>,
    volatile: Vec<String>,
    health_units: Vec<String>,
    state_free_min: Option<String>,
    slot_size: Option<ByteSize>,
    raw_size: Option<ByteSize>,
    role: Option<Role>,
    pool: Option<String>,
    upgrade_checks: Vec<String>,
    lowest_replaces: Option<Version>,
}

impl RawProfile {
    fn read(mut root: Section<'_>, faults: &Faults) -> Self {
        match root.integer("schema") {
            Some(1) => {}
            Some(other) => faults.add(root.path_of("schema"), format!("schema {other} is not known (known: 1)")),
            None => faults.add(root.path_of("schema"), "missing: `schema = 1`"),
        }
        let mut raw = RawProfile {
            extends: root.string("extends"),
            product: root.string("product"),
            lock: root.string("lock"),
            ..RawProfile::default()
        };
        let mut distribution = root.section("distribution");
        raw.suite = distribution.string("suite");
        raw.mirror = distribution.string("mirror");
        raw.components = distribution.list("components");
        distribution.finish();
        let mut packages = root.section("packages");
        raw.packages = packages.list("include");
        check_each(&packages, "include", &raw.packages, faults, is_package, "not a package name");
        raw.unpack = packages.list("unpack");
        check_each(&packages, "unpack", &raw.unpack, faults, is_package, "not a package name");
        packages.finish();
        let mut kernel = root.section("kernel");
        raw.kernel = kernel.string("package");
        raw.kernel_options = kernel.list("options");
        kernel.finish();
        let mut files = root.section("files");
        raw.trees = files.list("trees");
        raw.remove = files.list("remove");
        check_each(&files, "remove", &raw.remove, faults, is_absolute, "not an absolute path without `..`");
        files.finish();
        let mut units = root.section("units");
        raw.enable = units.list("enable");
        raw.disable = units.list("disable");
        raw.mask = units.list("mask");
        units.finish();
        let mut state = root.section("state");
        raw.persist = state.list("persist");
        raw.volatile = state.list("volatile");
        check_each(&state, "persist", &raw.persist, faults, is_absolute, "not an absolute path without `..`");
        check_each(&state, "volatile", &raw.volatile, faults, is_absolute, "not an absolute path without `..`");
        state.finish();
        let mut health = root.section("health");
        raw.health_units = health.list("units");
        raw.state_free_min = health.string("state-free-min");
        health.finish();
        let mut disk = root.section("disk");
        raw.slot_size = disk.parsed("slot-size");
        raw.raw_size = disk.parsed("raw-size");
        disk.finish();
        let mut install = root.section("install");
        raw.role = install.parsed("role");
        raw.pool = install.string("pool");
        install.finish();
        let mut upgrade = root.section("upgrade");
        raw.lowest_replaces = upgrade.parsed("lowest-replaces");
        raw.upgrade_checks = upgrade.list("checks");
        check_each(&upgrade, "checks", &raw.upgrade_checks, faults, is_service, "not the name of a .service");
        upgrade.finish();
        root.finish();
        raw
    }

    fn overlaid(self, over: RawProfile) -> RawProfile {
        fn joined(mut below: Vec<String>, over: Vec<String>) -> Vec<String> {
            for item in over {
                if !below.contains(&item) {
                    below.push(item);
                }
            }
            below
        }
        RawProfile {
            extends: self.extends,
            product: over.product.or(self.product),
            lock: over.lock.or(self.lock),
            suite: over.suite.or(self.suite),
            mirror: over.mirror.or(self.mirror),
            components: joined(self.components, over.components),
            packages: joined(self.packages, over.packages),
            unpack: joined(self.unpack, over.unpack),
            kernel: over.kernel.or(self.kernel),
            kernel_options: joined(self.kernel_options, over.kernel_options),
            trees: joined(self.trees, over.trees),
            remove: joined(self.remove, over.remove),
            enable: joined(self.enable, over.enable),
            disable: joined(self.disable, over.disable),
            mask: joined(self.mask, over.mask),
            persist: joined(self.persist, over.persist),
            volatile: joined(self.volatile, over.volatile),
            health_units: joined(self.health_units, over.health_units),
            state_free_min: over.state_free_min.or(self.state_free_min),
            slot_size: over.slot_size.or(self.slot_size),
            raw_size: over.raw_size.or(self.raw_size),
            role: over.role.or(self.role),
            pool: over.pool.or(self.pool),
            upgrade_checks: joined(self.upgrade_checks, over.upgrade_checks),
            lowest_replaces: over.lowest_replaces.or(self.lowest_replaces),
        }
    }

    fn resolve(self, name: &str, faults: &Faults) -> Option<Profile> {
        fn need<T>(name: &str, path: &str, value: Option<T>, faults: &Faults) -> Option<T> {
            if value.is_none() && !faults.has(path) {
                faults.add(format!("{name}.toml: {path}"), "missing, here and in what it extends");
            }
            value
        }
        let product = need(name, "product", self.product, faults);
        let suite = need(name, "distribution.suite", self.suite, faults);
        let kernel = need(name, "kernel.package", self.kernel, faults);
        let slot_size = need(name, "disk.slot-size", self.slot_size, faults);
        let raw_size = need(name, "disk.raw-size", self.raw_size, faults);
        let role = need(name, "install.role", self.role, faults);
        let state_free_min = need(name, "health.state-free-min", self.state_free_min, faults);
        let lowest_replaces = need(name, "upgrade.lowest-replaces", self.lowest_replaces, faults);
        let mut packages = self.packages;
        packages.sort();
        Some(Profile {
            name: name.to_owned(),
            lock: self.lock.unwrap_or_else(|| name.to_owned()),
            product: product?,
            suite: suite?,
            mirror: self.mirror.unwrap_or_else(|| "host".into()),
            components: self.components,
            packages,
            unpack: self.unpack,
            kernel: kernel?,
            kernel_options: self.kernel_options,
            trees: self.trees,
            remove: self.remove,
            enable: self.enable,
            disable: self.disable,
            mask: self.mask,
            persist: self.persist,
            volatile: self.volatile,
            health_units: self.health_units,
            state_free_min: state_free_min?,
            slot_size: slot_size?,
            raw_size: raw_size?,
            role: role?,
            pool: self.pool.unwrap_or_else(|| "homePool".into()),
            upgrade_checks: self.upgrade_checks,
            lowest_replaces: lowest_replaces?,
        })
    }
}

fn check_each(section: &Section<'_>, key: &str, items: &[String], faults: &Faults, ok: fn(&str) -> bool, what: &str) {
    for (n, item) in items.iter().enumerate().filter(|(_, item)| !ok(item)) {
        faults.add(section.path_of(&format!("{key}[{n}]")), format!("`{item}`: {what}"));
    }
}

fn is_package(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.len() > 1
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

fn is_service(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || "@-_.:".contains(c);
    name.len() > ".service".len() && name.ends_with(".service") && name.chars().all(valid)
}

fn is_absolute(path: &str) -> bool {
    path.len() > 1
        && path.starts_with('/')
        && !path.ends_with('/')
        && path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}
