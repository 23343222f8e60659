//! The peer: mkosi, from the same distribution, with the same packages, to the same kind of output.
//!
//! It is given zfs-dkms and the headers beside the list, since it has no other way to the ZFS modules that our image
//! has.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use siris_build::Profiles;
use siris_build::archive::Mirrors;
use siris_host::cmd::{Cmd, Root, Tool};

/// How long it took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// With nothing but the network.
    pub cold: Duration,
    /// Again, with its incremental image and its packages cached.
    pub warm: Duration,
}

/// Builds twice.
///
/// # Errors
/// When mkosi cannot be installed, or fails.
pub fn measure(checkout: &Path, work: &Path) -> Result<Times> {
    let profile = Profiles::new(checkout.join("image-profiles")).load("siris")?;
    // The same archive as ours, the whole of it, and nothing else.
    let mirrors = Mirrors::find(&profile.mirror)?;
    let components = profile.components.join(" ");
    let source = |uri: &str, suites: &str| {
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {components}\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
    };
    let suite = &profile.suite;
    let sources = format!(
        "{}\n{}",
        source(&mirrors.main, &format!("{suite} {suite}-updates")),
        source(&mirrors.security, &format!("{suite}-security"))
    );
    let root = work.join("mkosi-root");
    eprintln!("bench: making a root with mkosi in it");
    let packages = "mkosi,apt,ca-certificates,cpio,debian-archive-keyring,e2fsprogs,erofs-utils,kmod,systemd,\
                    systemd-container,systemd-repart,udev,util-linux,zstd";
    Cmd::new(Tool::Mmdebstrap)
        .args(["--mode=root", "--variant=apt", "--aptopt=APT::Install-Recommends \"false\""])
        .arg(format!("--include={packages}"))
        .arg(suite)
        .arg(&root)
        .arg(&mirrors.main)
        .log(work.join("mkosi-root.log"))
        .run()?;

    let dir = work.join("mkosi");
    fs::create_dir_all(dir.join("mkosi.repart"))?;
    fs::create_dir_all(dir.join("packages"))?;
    let mut list = profile.packages.clone();
    list.extend([profile.kernel.clone(), "linux-headers-amd64".to_owned(), "zfs-dkms".to_owned()]);
    let conf = format!(
        "[Distribution]\nDistribution=debian\nRelease={}\nRepositories={}\n\n[Output]\nFormat=disk\nOutputDirectory=out\n\n\
         [Content]\nPackages={}\nBootable=no\n\n[Build]\nIncremental=yes\nPackageCacheDirectory=packages\n\
         CacheDirectory=cache\nWorkspaceDirectory=/var/tmp\nBuildSources=\n",
        profile.suite,
        profile.components.join(","),
        list.join("\n         ")
    );
    fs::write(dir.join("mkosi.conf"), conf)?;
    let lists = dir.join("mkosi.sandbox/etc/apt/sources.list.d");
    fs::create_dir_all(&lists)?;
    fs::write(lists.join("mkosi.sources"), sources)?;
    for name in ["cache", "out"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let data = "[Partition]\nType=root\nFormat=erofs\nCopyFiles=/\nVerity=data\nVerityMatchKey=root\nMinimize=best\n";
    let hash = "[Partition]\nType=root-verity\nVerity=hash\nVerityMatchKey=root\nMinimize=best\n";
    fs::write(dir.join("mkosi.repart/10-root.conf"), data)?;
    fs::write(dir.join("mkosi.repart/20-root-verity.conf"), hash)?;

    let inside = Root::new(&root).bind(&dir, "/work");
    // It wants its root to be a mount of its own, which that of a chroot is not.
    let script = "mkdir -p /again && mount --rbind / /again && exec chroot /again bash -c 'cd /work && exec mkosi --force build'";
    let timed = |what: &str| -> Result<Duration> {
        eprintln!("bench: mkosi, {what}");
        let start = Instant::now();
        let run = Cmd::new(Tool::Bash).in_root(&inside).args(["-c", script]);
        run.log(work.join("mkosi.log")).run().with_context(|| format!("mkosi, {what}"))?;
        Ok(start.elapsed())
    };
    Ok(Times { cold: timed("cold")?, warm: timed("again")? })
}
