//! Where a run happens: the image under test, the tools, the folders, and what one case may use of them.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use siris_host::cmd::{Cmd, Root, Tool};
use tempfile::TempDir;

use crate::accel::Accel;
use crate::case::Tier;
use crate::image::Image;

/// What a run works with.
#[derive(Debug)]
pub struct Lab {
    tools: Root,
    image: Image,
    iso: Option<PathBuf>,
    accel: Accel,
    work: TempDir,
    sockets: TempDir,
    cache: PathBuf,
    failed: PathBuf,
    repository: PathBuf,
    tier: Tier,
    /// Held while a snapshot of a booted machine is made, so that it is made once.
    pub(crate) snapshots: Mutex<()>,
}

/// What a run is made of.
#[derive(Debug)]
pub struct LabOptions {
    /// The builder root; QEMU, its firmware and `ssh` are run from there.
    pub tools: Root,
    /// The raw disk image under test.
    pub image: PathBuf,
    /// The installer's medium under test, where a case needs one.
    pub iso: Option<PathBuf>,
    /// The checkout.
    pub repository: PathBuf,
    /// How much is wanted: some cases watch longer in the full tier.
    pub tier: Tier,
}

impl Lab {
    /// Prepares the folders (`target/siris/tests`, `target/siris/vm-cache`) and finds the accelerator.
    ///
    /// # Errors
    /// When the image is missing or a folder cannot be made.
    pub fn open(options: LabOptions) -> Result<Self> {
        let base = options.repository.join("target/siris");
        let tests = base.join("tests");
        let cache = base.join("vm-cache");
        let failed = tests.join("failed");
        for dir in [&tests, &cache] {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        remove_dir(&failed)?;
        let base = base.canonicalize()?;
        let image = Image::hold(&options.image, &base.join("vm-cache"))?;
        let work = tempfile::Builder::new().prefix("run-").tempdir_in(base.join("tests"))?;
        // A socket's path has 107 bytes at most, which a checkout's own path may use up.
        let sockets = tempfile::Builder::new().prefix("siris-").tempdir()?;
        let mut tools = options.tools.bind(&base, &base).bind(sockets.path(), sockets.path());
        for file in std::iter::once(image.path()).chain(options.iso.as_deref()) {
            if let Some(dir) = file.parent().filter(|dir| !dir.starts_with(&base)) {
                tools = tools.bind(dir, dir);
            }
        }
        let accel = Accel::find(&tools, &base.join("vm-cache"))?;
        let lab = Lab {
            tools,
            image,
            iso: options
                .iso
                .map(|iso| iso.canonicalize().with_context(|| format!("find {}", iso.display())))
                .transpose()?,
            accel,
            work,
            sockets,
            cache: base.join("vm-cache"),
            failed: base.join("tests/failed"),
            repository: options.repository,
            tier: options.tier,
            snapshots: Mutex::new(()),
        };
        lab.ensure_key()?;
        Ok(lab)
    }

    /// A program of the builder root.
    pub fn tool(&self, tool: Tool) -> Cmd {
        Cmd::new(tool).in_root(&self.tools)
    }

    /// The folder that holds everything of this run, and the one of its sockets: the same in every root.
    pub(crate) fn shared(&self) -> Result<[PathBuf; 2]> {
        Ok([self.repository.join("target/siris").canonicalize()?, self.sockets.path().to_owned()])
    }

    /// Where the builder root lies on the host.
    pub fn tools_path(&self) -> &Path {
        self.tools.path()
    }

    /// The image under test.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The installer's medium under test.
    ///
    /// # Errors
    /// When this run has none.
    pub fn iso(&self) -> Result<&Path> {
        self.iso.as_deref().context("this run has no installer medium")
    }

    /// How QEMU runs the guest's instructions.
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// The checkout.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// The tier of this run.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// What outlives a run: booted snapshots, disks made from the image, the key.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Where the consoles of failed cases are kept.
    pub fn failed(&self) -> &Path {
        &self.failed
    }

    /// The private key that machines are given the public half of.
    pub fn key(&self) -> PathBuf {
        self.cache.join("id_ed25519")
    }

    /// Its public half, one line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn public_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.key().with_extension("pub"))?.trim_end().to_owned())
    }

    fn ensure_key(&self) -> Result<()> {
        if !self.key().exists() {
            let key = Cmd::in_root(Cmd::new(Tool::SshKeygen), &self.tools);
            key.args(["-q", "-t", "ed25519", "-N", "", "-C", "siris-tests", "-f"]).arg(self.key()).run()?;
        }
        fs::set_permissions(self.key(), fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The empty mount point that entering the builder root has made there.
        if let Ok(inside) = self.sockets.path().strip_prefix("/") {
            let _ = fs::remove_dir(self.tools.path().join(inside));
        }
    }
}

/// What one case works with: folders of its own, which vanish with it.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The run.
    pub lab: &'a Lab,
    dir: TempDir,
    sockets: TempDir,
    machines: Cell<u32>,
}

impl<'a> Bench<'a> {
    /// A bench with nothing on it.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("case-").tempdir_in(lab.work.path())?;
        let sockets = tempfile::Builder::new().prefix("").tempdir_in(lab.sockets.path())?;
        Ok(Bench { lab, dir, sockets, machines: Cell::new(0) })
    }

    /// The case's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A number for a new machine, and folders for its disks and its sockets.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) fn place(&self) -> Result<(PathBuf, PathBuf)> {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        let places = (self.dir().join(number.to_string()), self.sockets.path().join(number.to_string()));
        fs::create_dir(&places.0)?;
        fs::create_dir(&places.1)?;
        Ok(places)
    }

    /// Copies the logs of the case's machines to `to`, and returns where they are.
    ///
    /// # Errors
    /// When one cannot be copied.
    pub fn keep_logs(&self, to: &Path) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        for from in self.logs() {
            let name = from.strip_prefix(self.dir()).unwrap_or(&from).to_string_lossy().replace('/', "-");
            fs::create_dir_all(to)?;
            fs::copy(&from, to.join(&name))?;
            kept.push(to.join(name));
        }
        Ok(kept)
    }

    /// The logs of the case's machines that say something.
    pub fn logs(&self) -> Vec<PathBuf> {
        let machines = (1..=self.machines.get()).map(|number| self.dir().join(number.to_string()));
        let logs = machines.flat_map(|dir| ["serial.log", "qemu.log", "ssh.log"].map(|name| dir.join(name)));
        logs.filter(|log| fs::metadata(log).is_ok_and(|meta| meta.len() > 0)).collect()
    }
}

pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
