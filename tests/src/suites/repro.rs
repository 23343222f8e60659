//! The same inputs make the same bytes, whatever surrounds the build.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use siris_host::cmd::{Cmd, Tool};
use siris_ibu::Manifest;

use crate::case::Case;
use crate::lab::Bench;
use crate::slots;
use crate::sources::Sources;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let name = "a build elsewhere, from nothing but the packages, has the same digests";
    vec![Case::full("repro", name, rebuilt).alone()]
}

/// Compares the image under test with one built from an empty layer cache, in another path, under another host name,
/// umask and time zone, and at another time.
fn rebuilt(bench: &Bench<'_>) -> Result<()> {
    let first = slots::manifest(bench.lab)?;
    let sources = Sources::copy(bench.lab.repository(), bench.dir().join("some where else"))?;
    let (cache, out) = (bench.dir().join("cache"), bench.dir().join("out"));
    fs::create_dir(&cache)?;
    let store = siris_build::cache::Cache::default_dir()?.join("store");
    Cmd::new(Tool::Cp).args(["-a", "--reflink=auto"]).arg(&store).arg(&cache).run().context("copy the packages")?;
    // The library by way of this shell's root, so that programs in other roots find it too.
    let script = format!(
        "hostname elsewhere.example; umask 027; export TZ=Pacific/Chatham LC_ALL=C SIRIS_CACHE='{}'
         shifted=(/usr/lib/*/faketime/libfaketime.so.1)
         export LD_PRELOAD=/proc/$$/root${{shifted[0]}} FAKETIME=+1d NO_FAKE_STAT=1 FAKETIME_DONT_FAKE_MONOTONIC=1
         # Its shared memory is a race between processes that begin at once.
         export FAKETIME_DISABLE_SHM=1
         [ $(( $(date +%s) - $(LD_PRELOAD= date +%s) )) -ge 86399 ]
         \"$XTASK\" image siris --version {} --out '{}'",
        cache.display(),
        first.version,
        out.display()
    );
    sources.shell(&script).log(bench.dir().join("build.log")).run()?;
    let second = Manifest::parse(&fs::read(out.join("manifest.toml"))?)?;
    ensure!(
        first.root.sha256 == second.root.sha256,
        "the roots differ: {} and {}",
        first.root.sha256,
        second.root.sha256
    );
    ensure!(first == second, "the manifests differ: {first:?} and {second:?}");
    let (ours, theirs) = (digest(bench.lab.image().path())?, digest(&out.join("latest.raw"))?);
    ensure!(ours == theirs, "the raw images differ: {ours} and {theirs}");
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}
