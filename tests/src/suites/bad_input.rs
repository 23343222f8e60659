//! Bad input and bad luck of a build: one clear error that says what to do, nothing half-made under a final name, and
//! a rerun that works. No machine is booted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::must_contain;
use crate::case::Case;
use crate::deadline;
use crate::lab::Bench;
use crate::sources::{Sources, names_in};

const GROUP: &str = "bad input";

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case::quick(GROUP, "a profile with three faults is told all three, with their paths", three_faults),
        Case::quick(GROUP, "an unknown package is named", unknown_package),
        Case::quick(GROUP, "an unreachable mirror is named", unreachable_mirror),
        Case::quick(GROUP, "a missing tool is named, with its package", missing_tool),
        Case::full(GROUP, "a full disk is told as such, and leaves nothing half-made", full_disk),
        Case::full(GROUP, "an interrupted build leaves nothing half-made, and a rerun works", interrupted).alone(),
    ]
}

fn sources(bench: &Bench<'_>) -> Result<Sources> {
    Sources::copy(bench.lab.repository(), bench.dir().join("checkout"))
}

/// One error, at the end, that does not dump anything.
fn is_one_error(said: &str) -> Result<()> {
    let errors = said.lines().filter(|line| line.to_lowercase().starts_with("error")).count();
    ensure!(errors == 1, "{errors} errors were told: {said}");
    ensure!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "it panicked: {said}");
    Ok(())
}

fn three_faults(bench: &Bench<'_>) -> Result<()> {
    let sources = sources(bench)?;
    let text = "schema = 1\nextends = \"base\"\nproduct = \"faulty\"\n\n[packages]\ninclued = [\"rsync\"]\n\n\
                [disk]\nslot-size = \"lots\"\n\n[install]\nrole = \"submarine\"\n";
    fs::write(sources.profile("faulty"), text)?;
    let said = sources.refused("$XTASK image faulty")?;
    is_one_error(&said)?;
    for path in ["packages.inclued", "disk.slot-size", "install.role"] {
        must_contain(&said, path, "the error")?;
    }
    ensure!(names_in(&sources.dir().join("target/siris/faulty")).is_empty(), "something was built");
    Ok(())
}

fn unknown_package(bench: &Bench<'_>) -> Result<()> {
    let sources = sources(bench)?;
    let text =
        "schema = 1\nextends = \"base\"\nproduct = \"alto\"\n\n[packages]\ninclude = [\"no-such-package-here\"]\n";
    fs::write(sources.profile("unknown"), text)?;
    let said = sources.refused("$XTASK update unknown")?;
    is_one_error(&said)?;
    must_contain(&said, "no-such-package-here", "the error")?;
    ensure!(!sources.dir().join("image-profiles/unknown.lock").exists(), "a lock was written all the same");
    let said = sources.refused("$XTASK image unknown")?;
    is_one_error(&said)?;
    must_contain(&said, "update", "the error of a build without a lock")
}

fn unreachable_mirror(bench: &Bench<'_>) -> Result<()> {
    let sources = sources(bench)?;
    let mirror = "http://127.0.0.1:9/debian";
    let text = format!(
        "schema = 1\nextends = \"base\"\nproduct = \"alto\"\n\n[distribution]\nsuite = \"trixie\"\nmirror = \"{mirror}\"\n"
    );
    fs::write(sources.profile("unreachable"), text)?;
    let said = sources.refused("$XTASK update unreachable")?;
    is_one_error(&said)?;
    must_contain(&said, "127.0.0.1", "the error")
}

fn missing_tool(bench: &Bench<'_>) -> Result<()> {
    let sources = sources(bench)?;
    // Over a copy-on-write /usr/bin: without apt-get nothing can be installed instead of being named.
    let script = "d=$(mktemp -d); mount -t tmpfs none \"$d\"; mkdir \"$d/upper\" \"$d/work\"; \
                  mount -t overlay -o lowerdir=/usr/bin,upperdir=\"$d/upper\",workdir=\"$d/work\" none /usr/bin; \
                  rm /usr/bin/mmdebstrap /usr/bin/apt-get; exec \"$XTASK\" image alto";
    let said = sources.refused(script)?;
    is_one_error(&said)?;
    must_contain(&said, "mmdebstrap", "the error")
}

fn full_disk(bench: &Bench<'_>) -> Result<()> {
    let sources = sources(bench)?;
    let small = bench.dir().join("small");
    fs::create_dir(&small)?;
    let script = format!(
        "mount -t tmpfs -o size=48m none {small}; export SIRIS_CACHE={small}; \"$XTASK\" image alto --out {out}; s=$?; \
         ls {small}/layers >&2; exit $s",
        small = small.display(),
        out = bench.dir().join("out").display()
    );
    let said = sources.refused(&script)?;
    is_one_error(&said)?;
    must_contain(&said.to_lowercase(), "space", "the error")?;
    ensure!(names_in(&bench.dir().join("out")).is_empty(), "something was built");
    Ok(())
}

fn interrupted(bench: &Bench<'_>) -> Result<()> {
    let sources = sources(bench)?;
    let out = bench.dir().join("out");
    // Another version is another root image: everything before it is there already.
    // One that no earlier run has left in the cache.
    let version = format!("0.9.{}", std::time::UNIX_EPOCH.elapsed()?.as_secs());
    // Whoever started these tests in the background had SIGINT ignored, for all that comes after.
    let build =
        format!("exec env --default-signal=INT \"$XTASK\" image siris --version {version} --out {}", out.display());
    let log = bench.dir().join("build.log");
    let mut running = sources.shell(&build).log(&log).spawn()?;
    deadline::until(Duration::from_secs(300), "the build to be busy with the root", || {
        ensure!(running.try_wait()?.is_none(), "the build ended before it could be interrupted");
        Ok(fs::read_to_string(&log).unwrap_or_default().contains("root image").then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(2));
    kill(Pid::from_raw(i32::try_from(running.id())?), Signal::SIGINT)?;
    deadline::until(Duration::from_secs(60), "the build to stop", || Ok(running.try_wait()?))?;
    let left = names_in(&out);
    ensure!(!left.iter().any(|name| name.contains(&version) || name.starts_with("latest")), "it left {left:?}");

    sources.shell(&build).run().context("the rerun")?;
    let made = names_in(&out);
    for name in [&format!("siris-{version}.raw"), "latest.raw", "manifest.toml", "manifest.sig"] {
        ensure!(made.iter().any(|made| made == name), "the rerun made no {name}: {made:?}");
    }
    ensure!(fs::metadata(out.join("latest.raw"))?.permissions().mode() & 0o400 != 0, "the image cannot be read");
    Ok(())
}
