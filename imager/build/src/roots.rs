//! Root file systems made from a lock: the image's base and the builder.
//!
//! Owns: how a set of locked package files becomes a directory tree.
//! Never: installs anything the lock does not name. The tree is the same whatever the host, path, umask or clock.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, Root, Tool};

use crate::archive::{STAND_IN, Store};
use crate::cache::{Cache, Key, Layer};
use crate::error::BuildError;
use crate::lock::Lock;
use crate::progress::Progress;

/// Raised when the way roots are made changes, so that no old layer is taken for a new one.
const RECIPE: u32 = 3;

/// What of a package's files stays out of a root.
const IMAGE_EXCLUDES: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/doc/*/changelog.Debian*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
    "path-exclude=/usr/share/vim/vim*/doc/*",
];

/// Makes roots from locks.
#[derive(Debug, Clone, Copy)]
pub struct Roots<'a> {
    /// Where they are kept.
    pub cache: &'a Cache,
    /// Where package files are.
    pub store: &'a Store,
    /// Whom to tell.
    pub progress: &'a Progress,
}

impl Roots<'_> {
    /// The root `name` with the packages `include` of `lock`, everything they depend on, and what is essential.
    ///
    /// # Errors
    /// When package files cannot be fetched, or the package manager fails.
    pub fn make(&self, name: &str, lock: &Lock, include: &[String]) -> Result<Layer, BuildError> {
        let key = Key::new().with("recipe", RECIPE).with("lock", lock.digest()).with("include", include.join(" "));
        self.cache.layer(name, &key, |half| {
            let step = self.progress.step(&format!("{name} root: {} packages", lock.packages.len()));
            let fetched = self.store.fetch(name, lock)?;
            let work = tempfile::tempdir_in(half).map_err(BuildError::io("make a directory in", half))?;
            let repo = work.path().join("repo");
            self.repository(lock, &repo)?;
            let root = half.join("root");
            let log = half.join("log");
            let mut make = Cmd::new(Tool::Mmdebstrap)
                .clean_env()
                .env("SOURCE_DATE_EPOCH", lock.epoch.to_string())
                .env("TZ", "UTC")
                .env("TMPDIR", work.path())
                .args(["--mode=root", "--format=directory", "--variant=essential", "--architectures=amd64"])
                .arg(format!("--include={STAND_IN},{}", include.join(",")))
                .args(["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=APT::Sandbox::User \"root\""])
                .arg("--dpkgopt=force-unsafe-io");
            for exclude in IMAGE_EXCLUDES.iter().filter(|_| name != "builder") {
                make = make.arg(format!("--dpkgopt={exclude}"));
            }
            make.arg(&lock.suite)
                .arg(&root)
                .arg(format!("deb [trusted=yes] copy://{} ./", repo.display()))
                .log(&log)
                .run()
                .map_err(|source| BuildError::Step { step: "root", log: log.clone(), source })?;
            drop(work);
            step.done(format!("{} fetched", megabytes(fetched)));
            Ok(())
        })
    }

    /// A flat archive of exactly the lock's packages, and the stand-in.
    fn repository(&self, lock: &Lock, dir: &Path) -> Result<(), BuildError> {
        fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
        let index_path = dir.join("Packages");
        let mut index = File::create(&index_path).map_err(BuildError::io("make", &index_path))?;
        let stand_in = stand_in(dir, lock.epoch)?;
        let own = [(stand_in, None)].into_iter();
        let files = own.chain(lock.packages.iter().map(|p| (self.store.file(p), Some(p))));
        for (file, package) in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let link = dir.join(&name);
            if package.is_some() {
                std::os::unix::fs::symlink(&file, &link).map_err(BuildError::io("link", &link))?;
            }
            let control = Cmd::new(Tool::DpkgDeb).arg("--field").arg(&file).text();
            let control = control.map_err(|source| BuildError::Tool { what: "reading a package file", source })?;
            let (size, sha256) = match package {
                Some(p) => (p.size, p.sha256),
                None => {
                    let bytes = fs::read(&file).map_err(BuildError::io("read", &file))?;
                    (bytes.len() as u64, siris_ibu::Sha256::of(&bytes))
                }
            };
            writeln!(index, "{}\nFilename: ./{name}\nSize: {size}\nSHA256: {sha256}\n", control.trim_end())
                .map_err(BuildError::io("write", &index_path))?;
        }
        // Essential packages are looked for by the suite's name, which only a release file gives an archive.
        let index = fs::read(&index_path).map_err(BuildError::io("read", &index_path))?;
        let release = dir.join("Release");
        let (suite, digest, size) = (&lock.suite, siris_ibu::Sha256::of(&index), index.len());
        let text = format!("Suite: {suite}\nCodename: {suite}\nSHA256:\n {digest} {size} Packages\n");
        fs::write(&release, text).map_err(BuildError::io("write", &release))
    }
}

fn stand_in(dir: &Path, epoch: u64) -> Result<PathBuf, BuildError> {
    use std::os::unix::fs::PermissionsExt;
    let tree = dir.join("stand-in");
    let control = tree.join("DEBIAN/control");
    fs::create_dir_all(tree.join("DEBIAN")).map_err(BuildError::io("make", &tree))?;
    for path in [&tree, &tree.join("DEBIAN")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(BuildError::io("set the mode of", path))?;
    }
    let text = format!(
        "Package: {STAND_IN}\nVersion: 1\nArchitecture: all\nMaintainer: SIRIS OS\nProvides: linux-initramfs-tool\n\
         Description: stands in for an initrd tool\n"
    );
    fs::write(&control, text).map_err(BuildError::io("write", &control))?;
    fs::set_permissions(&control, fs::Permissions::from_mode(0o644))
        .map_err(BuildError::io("set the mode of", &control))?;
    let file = dir.join(format!("{STAND_IN}_1_all.deb"));
    Cmd::new(Tool::DpkgDeb)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .args(["--root-owner-group", "--build"])
        .args([&tree, &file])
        .run()
        .map_err(|source| BuildError::Tool { what: "making the stand-in package", source })?;
    Ok(file)
}

/// The builder root, with the places the build binds into it.
pub fn builder(layer: &Layer) -> Root {
    Root::new(layer.path.join("root"))
}

/// `12.3 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
