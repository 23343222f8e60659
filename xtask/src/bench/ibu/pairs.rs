//! The pairs of systems that upgrades are measured between, and their bundles.
//!
//! The newer one of all pairs is the checkout as it is; the older one is built from a copy with one thing changed. Both
//! are signed with a release key of the bench's own, and the newer one is built as a release is (`--release`): it is what
//! boxes would fetch. How hard the older one is compressed does not matter to anybody.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use siris_build::{Earlier, Packages, Progress};
use siris_ibu::keys::{Epoch, PublicKey, Role, SecretKey};
use siris_tests::sources::Sources;

/// What lies between the two systems of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pair {
    /// The updates of a week: a few packages
    Week,
    /// Our programs alone
    Agent,
    /// Every package that the archive still has an earlier version of, the kernel too
    Month,
    /// The kernel, its modules and those of ZFS
    Kernel,
}

/// What a quiet week brings: libraries that several programs use, and two programs.
const WEEK: &[&str] = &[
    "dnsmasq-base",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkrb5-3",
    "libkrb5support0",
    "libnghttp2-14",
    "libssh2-1t64",
    "rsync",
];

/// A line of the agent that is another one in the older system.
const AGENT: (&str, &str, &str) = (
    "agent/daemon/src/main.rs",
    "fn main(",
    "#[used]\nstatic BENCH: [u8; 25] = *b\"one release ago, measured\";\n\nfn main(",
);

/// The version of the newer system.
pub const NEW: &str = "0.9.9";

impl Pair {
    /// As it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Pair::Week => "week",
            Pair::Agent => "agent",
            Pair::Month => "month",
            Pair::Kernel => "kernel",
        }
    }

    /// The version of its older system: one each, since patches beside a bundle are told apart by it.
    pub fn version(self) -> &'static str {
        match self {
            Pair::Week => "0.9.1",
            Pair::Agent => "0.9.2",
            Pair::Month => "0.9.3",
            Pair::Kernel => "0.9.4",
        }
    }

    /// Changes a copy of the checkout to what it was before. Returns what that is, in words.
    fn put_back(self, copy: &Path) -> Result<String> {
        let earlier = |packages, kernel| -> Result<Vec<String>> {
            Ok(siris_build::earlier(copy, "siris", Earlier { packages, kernel }, &Progress::new())?)
        };
        let changes = match self {
            Pair::Week => earlier(Packages::Named(WEEK), false)?,
            Pair::Month => earlier(Packages::All, true)?,
            Pair::Kernel => earlier(Packages::None, true)?,
            Pair::Agent => {
                let (file, from, to) = AGENT;
                let path = copy.join(file);
                let text = fs::read_to_string(&path)?;
                anyhow::ensure!(text.contains(from), "{file} has no `{from}`");
                fs::write(&path, text.replacen(from, to, 1))?;
                return Ok("our programs alone".to_owned());
            }
        };
        changes.iter().for_each(|change| eprintln!("bench: {}: {change}", self.name()));
        match changes.as_slice() {
            [one] => Ok(one.clone()),
            many => Ok(format!("{} packages", many.len())),
        }
    }
}

/// Builds the systems.
#[derive(Debug)]
pub struct Builder {
    checkout: PathBuf,
    work: PathBuf,
    secret: PathBuf,
    public: PathBuf,
}

/// A pair, built.
#[derive(Debug)]
pub struct Built {
    /// Which one.
    pub pair: Pair,
    /// What lies between its systems, in words.
    pub about: String,
    /// The older system's bundle.
    pub old: PathBuf,
    /// The checkout that the older system is built from.
    sources: Sources,
    /// The newer system's bundle; blocks and patches lie beside it.
    pub new: PathBuf,
}

impl Builder {
    /// Builds from `checkout`, into `work`.
    ///
    /// # Errors
    /// When its key cannot be made.
    pub fn new(checkout: &Path, work: &Path) -> Result<Self> {
        // Kept from run to run: the key is in the root image.
        let (secret, public) = (work.join("bench.secret.toml"), work.join("bench.pub.toml"));
        if !public.exists() {
            let key = SecretKey::generate("bench", Role::Release, Epoch(1))?;
            fs::write(&secret, key.to_bytes())?;
            fs::write(&public, key.public().to_bytes())?;
        }
        Ok(Builder { checkout: checkout.to_owned(), work: work.to_owned(), secret, public })
    }

    /// The key that everything is signed with.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn trusted(&self) -> Result<Vec<PublicKey>> {
        Ok(vec![siris_build::keys::read_public(&self.public)?])
    }

    /// Builds both systems of a pair, and the patch between them.
    ///
    /// # Errors
    /// When something cannot be built.
    pub fn build(&self, pair: Pair) -> Result<Built> {
        let dir = self.work.join(pair.name());
        let sources = Sources::copy(&self.checkout, dir.join("checkout"))?;
        // What the compiler has made already is the same for all copies.
        let (target, cargo) = (self.checkout.join("target/siris/cargo"), sources.dir().join("target/siris/cargo"));
        fs::create_dir_all(&target)?;
        fs::create_dir_all(sources.dir().join("target/siris"))?;
        std::os::unix::fs::symlink(&target, &cargo).with_context(|| format!("link {}", cargo.display()))?;
        let about = pair.put_back(sources.dir())?;
        let old =
            self.make(&sources, "ibu", pair.version(), &dir.join("old"), "")?.join("latest.ibu").canonicalize()?;
        let beside = format!("--release --key '{}' --patch-from '{}'", self.public.display(), old.display());
        let new = self.make(&Sources::here(&self.checkout)?, "ibu", NEW, &self.work.join("new"), &beside)?;
        Ok(Built { pair, about, old, sources, new: new.join(format!("siris-{NEW}.ibu")) })
    }

    /// The disk image of a pair's older system.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn disk(&self, built: &Built) -> Result<PathBuf> {
        let out = self.work.join(built.pair.name()).join("disk");
        Ok(self.make(&built.sources, "image", built.pair.version(), &out, "")?.join("latest.raw").canonicalize()?)
    }

    fn make(&self, from: &Sources, what: &str, version: &str, out: &Path, options: &str) -> Result<PathBuf> {
        eprintln!("bench: building {what} {version}");
        let (out_text, secret, public) = (out.display(), self.secret.display(), self.public.display());
        let script = format!(
            "\"$XTASK\" {what} siris --version {version} --out '{out_text}' --trust '{public}' \
             --signer \"'$XTASK' keys sign --key '{secret}'\" {options}"
        );
        let log = self.work.join("build.log");
        from.shell(&script)
            .log(&log)
            .run()
            .with_context(|| format!("building {what} {version}; see {}", log.display()))?;
        Ok(out.to_owned())
    }
}
