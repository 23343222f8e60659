//! The pipeline: which layer needs which, and where artefacts go.

use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};

use siris_host::cmd::Root;
use siris_ibu::Version;

use crate::archive::{Mirrors, Store, Wish};
use crate::cache::{Cache, Layer};
use crate::error::BuildError;
use crate::keys::{Signer, Signing};
use crate::lock::Lock;
use crate::parts::{Parts, kernel_release, zfs_sources};
use crate::payload::{Artefacts, PayloadInput};
use crate::profile::{Profile, Profiles};
use crate::progress::Progress;
use crate::rootfs::RootInput;
use crate::roots::{Roots, builder};
use crate::sbom;

/// The root that everything is compiled in.
pub(crate) const BUILDER: &str = "builder";
/// The root of [`bmc`]: the machine room of the tests.
const BMC: &str = "bmc";
/// The root of [`peers`]: what upgrades are measured beside.
const PEERS: &str = "peers";

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct Request {
    /// The checkout the sources and profiles are in.
    pub checkout: PathBuf,
    /// The profile's name.
    pub profile: String,
    /// The image's version.
    pub version: Version,
    /// Where artefacts go: a directory of this profile's own.
    pub out: PathBuf,
    /// Who signs.
    pub signing: Signing,
}

impl Request {
    /// Artefacts under `target/siris/PROFILE` of the checkout.
    pub fn new(checkout: impl Into<PathBuf>, profile: &str, version: Version) -> Self {
        let checkout = checkout.into();
        let out = checkout.join("target/siris").join(profile);
        Request { checkout, profile: profile.to_owned(), version, out, signing: Signing::default() }
    }
}

/// Whether this process may make root file systems.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything opened that a build needs.
pub(crate) struct Session {
    pub(crate) profiles: Profiles,
    pub(crate) profile: Profile,
    pub(crate) cache: Cache,
    pub(crate) store: Store,
}

impl Session {
    pub(crate) fn open(checkout: &Path, profile: &str, progress: &Progress) -> Result<Session, BuildError> {
        let profiles = Profiles::new(checkout.join("image-profiles"));
        let profile = profiles.load(profile)?;
        if !is_root() {
            return Err(BuildError::NotRoot);
        }
        // What is built must not depend on the caller's.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let cache = Cache::open(&Cache::default_dir()?, || progress.line("waiting for another build to end ..."))?;
        let store = Store::new(cache.dir().join("store"), Mirrors::find(&profile.mirror)?);
        Ok(Session { profiles, profile, cache, store })
    }

    pub(crate) fn wanted(&self) -> Vec<String> {
        let mut wanted = self.profile.packages.clone();
        wanted.push(self.profile.kernel.clone());
        wanted.sort();
        wanted
    }

    /// A root of tools, which never ships: `builder`, or another one.
    pub(crate) fn tools(&self, name: &str, progress: &Progress) -> Result<(Layer, Lock), BuildError> {
        let (install, unpack) = self.profiles.tools(name)?;
        let wanted: Vec<String> = install.iter().chain(&unpack).cloned().collect();
        let lock = Lock::load(self.profiles.dir(), name, &self.profile.suite, &wanted)?;
        let roots = Roots { cache: &self.cache, store: &self.store, progress };
        Ok((roots.make(name, &lock, &install)?, lock))
    }

    pub(crate) fn builder(&self, progress: &Progress) -> Result<(Layer, Lock), BuildError> {
        self.tools(BUILDER, progress)
    }
}

/// What a build writes at most, in MiB: into the cache when its roots have to be made, else, and beside the image.
const COLD: u64 = 7000;
const WARM: u64 = 2000;
const ARTEFACTS: u64 = 2000;

/// Refuses a build that would run out of space half-way.
fn check_space(session: &Session, out: &Path) -> Result<(), BuildError> {
    let has = |name: &str| session.cache.has_layer(name);
    let cold = !has("builder") || !has("zfs") || !has(&session.profile.lock);
    room(session.cache.dir(), if cold { COLD } else { WARM }, "SIRIS_CACHE elsewhere")?;
    // The directory itself may not be there yet; the first that is has the same file system.
    let existing = out.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    room(existing, ARTEFACTS, "--out elsewhere")
}

fn room(path: &Path, need: u64, elsewhere: &'static str) -> Result<(), BuildError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| BuildError::Io {
        what: "look at",
        path: path.to_owned(),
        source: e.into(),
    })?;
    let free = stat.f_bavail * stat.f_frsize / (1 << 20);
    if free < need { Err(BuildError::NoSpace { path: path.to_owned(), free, need, elsewhere }) } else { Ok(()) }
}

/// Resolves the packages of a profile and of the builder anew and writes their locks. Returns what changed, a line
/// each.
///
/// # Errors
/// When the archive cannot be reached or a package cannot be installed.
pub fn update(checkout: &Path, profile: &str, progress: &Progress) -> Result<Vec<String>, BuildError> {
    let session = Session::open(checkout, profile, progress)?;
    let dir = session.profiles.dir();
    let mut roots = vec![(session.profile.lock.as_str(), session.wanted())];
    for name in [BUILDER, BMC, PEERS] {
        let (install, unpack) = session.profiles.tools(name)?;
        roots.push((name, install.into_iter().chain(unpack).collect()));
    }
    let mut changes = Vec::new();
    for (name, packages) in roots {
        let step = progress.step(&format!("resolving {name}"));
        let old = Lock::load(dir, name, &session.profile.suite, &packages).ok();
        let wish =
            Wish { name, suite: &session.profile.suite, components: &session.profile.components, packages: &packages };
        let mut new = session.store.resolve(&wish)?;
        if let Some(old) = &old {
            if old.packages == new.packages {
                // Nothing moved: the old time stamp keeps every byte built from it.
                new.epoch = old.epoch;
            }
            changes.extend(differences(name, old, &new));
        }
        new.save(dir, name)?;
        let bytes: u64 = new.packages.iter().map(|p| p.size).sum();
        step.done(format!("{} packages, {}", new.packages.len(), crate::roots::megabytes(bytes)));
    }
    Ok(changes)
}

fn differences(name: &str, old: &Lock, new: &Lock) -> Vec<String> {
    let mut lines = Vec::new();
    for package in &new.packages {
        match old.package(&package.name) {
            None => lines.push(format!("{name}: + {} {}", package.name, package.version)),
            Some(before) if before.version != package.version => {
                lines.push(format!("{name}:   {} {} -> {}", package.name, before.version, package.version));
            }
            Some(_) => {}
        }
    }
    let gone = old.packages.iter().filter(|p| new.package(&p.name).is_none());
    lines.extend(gone.map(|p| format!("{name}: - {} {}", p.name, p.version)));
    lines
}

/// The builder root, for running QEMU and other tools out of it.
///
/// # Errors
/// When it has to be made and cannot be.
pub fn tools(checkout: &Path, progress: &Progress) -> Result<Root, BuildError> {
    let session = Session::open(checkout, "siris", progress)?;
    Ok(builder(&session.builder(progress)?.0))
}

/// The machine room of the tests: libvirt, what a Redfish service needs, and nginx.
///
/// # Errors
/// When it has to be made and cannot be.
pub fn bmc(checkout: &Path, progress: &Progress) -> Result<Root, BuildError> {
    let session = Session::open(checkout, "siris", progress)?;
    Ok(builder(&session.tools(BMC, progress)?.0))
}

/// What upgrades are measured beside: RAUC and xdelta3.
///
/// # Errors
/// When it has to be made and cannot be.
pub fn peers(checkout: &Path, progress: &Progress) -> Result<Root, BuildError> {
    let session = Session::open(checkout, "siris", progress)?;
    Ok(builder(&session.tools(PEERS, progress)?.0))
}

/// All layers of a profile, up to date.
pub(crate) struct Layers {
    pub(crate) session: Session,
    pub(crate) lock: Lock,
    pub(crate) signer: Signer,
    pub(crate) kernel: String,
    pub(crate) builder: Layer,
    pub(crate) base: Layer,
    pub(crate) agent: Layer,
    pub(crate) initrd: Layer,
    pub(crate) grub: Layer,
    pub(crate) root: Layer,
    pub(crate) boot: Layer,
}

impl Layers {
    /// Makes what is not there yet.
    pub(crate) fn make(request: &Request, progress: &Progress) -> Result<Layers, BuildError> {
        let session = Session::open(&request.checkout, &request.profile, progress)?;
        let (version, lowest) = (&request.version, &session.profile.lowest_replaces);
        if version < lowest {
            return Err(BuildError::Version { version: version.clone(), lowest: lowest.clone() });
        }
        let wanted = session.wanted();
        let lock = Lock::load(session.profiles.dir(), &session.profile.lock, &session.profile.suite, &wanted)?;
        check_space(&session, &request.out)?;
        let signer = Signer::find(&request.signing, progress)?;
        let Compiled { builder, base, kernel, zfs, agent, initrd, grub } =
            compile(&session, request, &lock, &wanted, progress)?;
        let root = RootInput {
            profile: &session.profile,
            version: &request.version,
            kernel: &kernel,
            profiles: session.profiles.dir(),
            builder: &builder,
            base: &base,
            zfs: &zfs,
            agent: &agent,
            grub: &grub,
            keys: &signer.public_files,
            epoch: lock.epoch,
        };
        let root = root.image(&session.cache, progress)?;
        let boot = {
            let input = PayloadInput {
                profile: &session.profile,
                base: &base,
                kernel: &kernel,
                initrd: &initrd,
                root: &root,
                grub: &grub,
                builder: &builder,
                version: &request.version,
                epoch: lock.epoch,
            };
            input.boot(&session.cache, progress)?
        };
        Ok(Layers { session, lock, signer, kernel, builder, base, agent, initrd, grub, root, boot })
    }

    /// What parts are made with.
    pub(crate) fn parts<'a>(&'a self, progress: &'a Progress) -> Parts<'a> {
        Parts { cache: &self.session.cache, progress, builder: &self.builder, epoch: self.lock.epoch }
    }

    /// What the payload is made of.
    pub(crate) fn payload<'a>(&'a self, request: &'a Request) -> PayloadInput<'a> {
        PayloadInput {
            profile: &self.session.profile,
            base: &self.base,
            kernel: &self.kernel,
            initrd: &self.initrd,
            root: &self.root,
            grub: &self.grub,
            builder: &self.builder,
            version: &request.version,
            epoch: self.lock.epoch,
        }
    }
}

/// Everything that the root image is put together from.
struct Compiled {
    builder: Layer,
    base: Layer,
    kernel: String,
    zfs: Layer,
    agent: Layer,
    initrd: Layer,
    grub: Layer,
}

/// The roots beside each other; then, in the builder, all that is compiled, beside each other too: configuring ZFS and
/// linking our programs each leave most of a machine idle.
fn compile(
    session: &Session,
    request: &Request,
    lock: &Lock,
    wanted: &[String],
    progress: &Progress,
) -> Result<Compiled, BuildError> {
    let roots = Roots { cache: &session.cache, store: &session.store, progress };
    thread::scope(|scope| {
        let base = scope.spawn(|| roots.make(&session.profile.lock, lock, wanted));
        let (builder, builder_lock) = session.builder(progress)?;
        let of = |epoch| Parts { cache: &session.cache, progress, builder: &builder, epoch };
        let (parts, zfs_parts) = (of(lock.epoch), of(builder_lock.epoch));
        thread::scope(|scope| {
            let zfs = scope.spawn(|| -> Result<Layer, BuildError> {
                let kernel = kernel_release(&builder)?;
                zfs_parts.zfs_modules(&zfs_sources(&session.store, &builder_lock)?, &kernel)
            });
            let agent = scope.spawn(|| parts.agent(&request.checkout, &request.checkout.join("target/siris/cargo")));
            let base = joined(base)?;
            let kernel = kernel_release(&base)?;
            let initrd = parts.initrd(&base, &kernel, &session.profiles.dir().join("base/initrd/90siris"))?;
            let grub = parts.grub()?;
            let (agent, zfs) = (joined(agent)?, joined(zfs)?);
            if !zfs.path.join("modules").join(&kernel).exists() {
                return Err(BuildError::Incomplete {
                    what: format!("ZFS modules for its kernel {kernel}: run `cargo xtask update`"),
                });
            }
            Ok((base, kernel, zfs, agent, initrd, grub))
        })
        .map(|(base, kernel, zfs, agent, initrd, grub)| Compiled {
            builder,
            base,
            kernel,
            zfs,
            agent,
            initrd,
            grub,
        })
    })
}

/// What a thread came to. A panic in it is this program's own fault and goes on here.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Builds an image.
///
/// # Errors
/// [`BuildError`]; nothing is then left under an artefact's final name.
pub fn build(request: &Request, progress: &Progress) -> Result<Artefacts, BuildError> {
    let layers = Layers::make(request, progress)?;
    let profile = &layers.session.profile;
    let sbom = sbom::cyclonedx(&profile.product, &request.version, &layers.lock);
    let input = layers.payload(request);
    input.artefacts(&layers.boot, &layers.signer, &sbom, &request.out, &layers.session.cache, progress)
}
