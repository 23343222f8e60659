//! A copy of the checkout, to build from in ways that must not touch the checkout itself.
//!
//! Owns: the copy and the command lines that run its `cargo xtask`. What it compiles goes into a folder of the cache,
//! so that only our own crates are compiled again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use siris_host::cmd::{Cmd, Tool};

/// A copied checkout.
#[derive(Debug)]
pub struct Sources {
    dir: PathBuf,
    target: PathBuf,
}

impl Sources {
    /// Copies what git tracks or would track in `checkout`, as it is now, to `dir`.
    ///
    /// # Errors
    /// When git or a copy fails.
    pub fn copy(checkout: &Path, dir: PathBuf) -> Result<Self> {
        let list = Cmd::new(Tool::Git).args(["ls-files", "-coz", "--exclude-standard"]).cwd(checkout).output()?;
        for name in String::from_utf8_lossy(&list).split_terminator('\0') {
            let (from, to) = (checkout.join(name), dir.join(name));
            let Ok(meta) = fs::symlink_metadata(&from) else { continue };
            fs::create_dir_all(to.parent().unwrap_or(&dir))?;
            if meta.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
            } else {
                fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
            }
        }
        Ok(Sources { dir, target: checkout.join("target/siris/vm-cache/cargo") })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A profile of this copy's.
    pub fn profile(&self, name: &str) -> PathBuf {
        self.dir.join("image-profiles").join(format!("{name}.toml"))
    }

    /// Compiles its xtask and returns the program.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn xtask(&self) -> Result<PathBuf> {
        let build = Cmd::new(Tool::Cargo).args(["build", "--quiet", "--package", "xtask"]).cwd(&self.dir);
        build.env("CARGO_TARGET_DIR", &self.target).run()?;
        Ok(self.target.join("debug/xtask"))
    }

    /// A shell that runs `script` with `$XTASK`, in mount and host name spaces of its own.
    ///
    /// # Errors
    /// When its xtask does not compile.
    pub fn shell(&self, script: &str) -> Result<Cmd> {
        let unshare = Cmd::new(Tool::Unshare).args([
            "--mount",
            "--uts",
            "--propagation",
            "private",
            "--",
            "bash",
            "-euc",
            script,
        ]);
        Ok(unshare.cwd(&self.dir).env("XTASK", self.xtask()?))
    }

    /// Runs `script`, which must fail, and returns what it printed.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn refused(&self, script: &str) -> Result<String> {
        let script = format!("{{ {script}\n}} 2>&1 || echo \"status $?\"");
        let text = self.shell(&script)?.text()?;
        let Some((said, _)) = text.rsplit_once("status ") else { bail!("`{script}` was not refused: {text}") };
        Ok(said.to_owned())
    }
}

/// What stands under `dir`, by name; empty if it is not there.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
