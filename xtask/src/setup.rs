//! `cargo xtask setup`: what the host itself must have. Everything else lies in the builder root.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use siris_host::cmd::{Cmd, Tool};

/// The programs of the host that building and testing use.
const NEEDED: &[Tool] = &[
    Tool::AptGet,
    Tool::AptHelper,
    Tool::Bash,
    Tool::DbusDaemon,
    Tool::DpkgDeb,
    Tool::Git,
    Tool::MkfsExt4,
    Tool::Mmdebstrap,
    Tool::Rsync,
    Tool::Ssh,
    Tool::SshKeygen,
    Tool::Unshare,
];

/// Without it the archive's signatures cannot be checked.
const KEYRING: (&str, &str) = ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring");

/// With it a test builds a day later than it is.
const SHIFTED_CLOCK: (&str, &str) = ("/usr/bin/faketime", "faketime");

/// The Debian packages this host lacks.
pub fn missing() -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        NEEDED.iter().filter(|tool| !tool.is_present(None)).map(|tool| tool.package()).collect();
    let files = [KEYRING, SHIFTED_CLOCK].into_iter();
    packages.extend(files.filter(|(file, _)| !std::path::Path::new(file).exists()).map(|(_, package)| package));
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs what is missing, as root or through sudo; asks once on a terminal unless `yes`.
///
/// # Errors
/// When it may not or cannot be installed: the message says what to install by hand.
pub fn ensure(yes: bool) -> anyhow::Result<()> {
    ensure_packages(yes)?;
    ensure_private_mounts()
}

/// In a chroot whose root is an ordinary directory there is no mount to be made private, so that whatever the build
/// mounts would show outside, and stay. Said here, and not when minutes of downloads are done.
fn ensure_private_mounts() -> anyhow::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let tried = Cmd::new(Tool::Unshare).args(["--mount", "--propagation", "private", "--", "true"]).run();
    tried.context(
        "no private mounts can be made here; in a chroot, its directory must be a mount point: leave it, run \
         `mount --bind DIR DIR` on its directory, and come back",
    )
}

fn ensure_packages(yes: bool) -> anyhow::Result<()> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !Tool::AptGet.is_present(None) {
        bail!(
            "this host lacks {list}, and has no apt-get to install them with: SIRIS OS is built on Debian or a relative of it"
        );
    }
    eprintln!("This host lacks: {list}");
    if !yes && std::io::stdin().is_terminal() {
        eprint!("Install them with apt-get now? [Y/n] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "" | "y" | "Y" | "yes") {
            bail!("not installed; install them yourself: apt-get install --no-install-recommends {list}");
        }
    }
    let apt = |args: &[&str]| -> anyhow::Result<()> {
        let command = if is_root() {
            Cmd::new(Tool::AptGet)
        } else if Tool::Sudo.is_present(None) {
            Cmd::new(Tool::Sudo).arg(Tool::AptGet.program())
        } else {
            bail!(
                "neither root nor sudo here; have an administrator run: apt-get install --no-install-recommends {list}"
            );
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args).run().context("apt-get failed")
    };
    apt(&["update", "-q"])?;
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(&packages);
    apt(&install)?;
    match missing().as_slice() {
        [] => Ok(()),
        still => bail!("apt-get installed {list}, and still missing is {}", still.join(" ")),
    }
}

/// Whether this process may make root file systems.
pub fn is_root() -> bool {
    siris_build::is_root()
}
