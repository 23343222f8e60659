//! A copy of the checkout, to build from in ways that must not touch the checkout itself.
//!
//! Owns: the copy, and the command lines that run the xtask of this run on it (`SIRIS_CHECKOUT` tells it where).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use siris_host::cmd::{Cmd, Tool};

/// A copied checkout.
#[derive(Debug)]
pub struct Sources {
    dir: PathBuf,
    xtask: PathBuf,
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
        // A copy, since a build may replace the program while it runs.
        let xtask = dir.join("target/xtask");
        fs::create_dir_all(dir.join("target"))?;
        fs::copy("/proc/self/exe", &xtask)?;
        Ok(Sources { dir, xtask })
    }

    /// The checkout itself, for what changes nothing in it.
    ///
    /// # Errors
    /// When this program cannot find itself.
    pub fn here(checkout: &Path) -> Result<Self> {
        Ok(Sources { dir: checkout.to_owned(), xtask: std::env::current_exe().context("find this program")? })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A profile of this copy's.
    pub fn profile(&self, name: &str) -> PathBuf {
        self.dir.join("image-profiles").join(format!("{name}.toml"))
    }

    /// A shell that runs `script` with `$XTASK`, in mount and host name spaces of its own.
    pub fn shell(&self, script: &str) -> Cmd {
        let spaces = ["--mount", "--uts", "--propagation", "private", "--", "bash", "-euc", script];
        let shell = Cmd::new(Tool::Unshare).args(spaces).cwd(&self.dir);
        shell.env("XTASK", &self.xtask).env("SIRIS_CHECKOUT", &self.dir)
    }

    /// Runs `script`, which must fail, and returns what it printed.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn refused(&self, script: &str) -> Result<String> {
        let script = format!("( {script}\n) 2>&1 || echo \"status $?\"");
        let text = self.shell(&script).text()?;
        let Some((said, _)) = text.rsplit_once("status ") else { bail!("`{script}` was not refused: {text}") };
        Ok(said.to_owned())
    }
}

/// What stands under `dir`, by name; empty if it is not there.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
