//! `cargo xtask bench`: figures, each beside a peer's or a limit's from the same run.
//!
//! Builds from a copy of the checkout with a cache of its own, so that cold is cold and nothing of the user's is
//! touched. Only the programs are warm: xtask is compiled, and mkosi's own root is made, before a clock starts.

mod ibu;
mod install;
mod mkosi;
mod replicate;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use siris_host::cmd::{Cmd, Tool};
use siris_tests::case::Tier;
use siris_tests::lab::{Bench, Lab, LabOptions};
use siris_tests::machine::{Bus, Firmware, Spec};
use siris_tests::sources::Sources;
use siris_tests::vm::Machine;

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The measurements
    #[arg(value_enum, required = true)]
    what: Vec<What>,
    /// Leave out the peer
    #[arg(long)]
    no_peer: bool,
    /// Of `ibu`, only these pairs of systems
    #[arg(long, value_enum, value_name = "PAIR")]
    pair: Vec<ibu::Pair>,
    /// Of `ibu`, only this part
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<ibu::Part>,
    /// Of `replicate`, only these parts
    #[arg(long, value_enum, value_name = "PART")]
    part: Vec<replicate::Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Building `siris`: cold, agent changed, nothing changed; beside mkosi
    Build,
    /// Booting what `cargo xtask image siris` made last: time to boot-complete.target, and the agent's memory
    Boot,
    /// Installing what `cargo xtask iso siris` made last; beside a bare copy of the same bytes
    Install,
    /// Upgrading: bundles as they are released, beside RAUC and xdelta3
    Ibu,
    /// Replicating between two boxes of what `cargo xtask image siris` made last; beside the tools alone, and syncoid
    Replicate,
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    what: String,
    ours: String,
    beside: String,
}

/// Measures and prints a table.
///
/// # Errors
/// When something cannot be measured.
pub fn run(args: BenchArgs) -> Result<()> {
    let checkout = crate::checkout();
    let mut rows = Vec::new();
    if args.what.contains(&What::Build) {
        rows.extend(build(&checkout, !args.no_peer)?);
    }
    if args.what.contains(&What::Boot) {
        rows.extend(boot(&checkout)?);
    }
    if args.what.contains(&What::Install) {
        rows.push(install(&checkout)?);
    }
    if args.what.contains(&What::Ibu) {
        let pairs = if args.pair.is_empty() { ibu::Pair::value_variants() } else { &args.pair };
        rows.extend(ibu::measure(&checkout, pairs, args.only)?);
    }
    if args.what.contains(&What::Replicate) {
        let parts = if args.part.is_empty() { replicate::Part::value_variants() } else { &args.part };
        rows.extend(replicate::measure(&checkout, &lab(&checkout, false)?, parts)?);
    }
    println!("\n| what | ours | limit or peer |\n|---|---|---|");
    rows.iter().for_each(|row| println!("| {} | {} | {} |", row.what, row.ours, row.beside));
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn build(checkout: &Path, peer: bool) -> Result<Vec<Row>> {
    let work = fresh(&checkout.join("target/siris/bench"))?;
    let sources = Sources::copy(checkout, work.join("checkout"))?;
    let script = format!("exec \"$XTASK\" image siris --out '{}'", work.join("out").display());
    let timed = |what: &str| -> Result<Duration> {
        eprintln!("bench: {what}");
        let start = Instant::now();
        let build = sources.shell(&script).env("SIRIS_CACHE", work.join("cache"));
        build.log(work.join("build.log")).run().with_context(|| what.to_owned())?;
        Ok(start.elapsed())
    };
    let cold = timed("building with nothing but the network")?;
    let same = timed("building with nothing changed")?;
    let main = sources.dir().join("agent/daemon/src/main.rs");
    let text = fs::read_to_string(&main)?;
    fs::write(&main, format!("{text}\n// changed\n"))?;
    let changed = timed("building with the agent changed")?;
    let peers = if peer { Some(mkosi::measure(checkout, &work)?) } else { None };
    let beside = |limit: &str, theirs: fn(&mkosi::Times) -> Duration| match &peers {
        Some(times) => format!("{limit}; mkosi {}", seconds(theirs(times))),
        None => limit.to_owned(),
    };
    Ok(vec![
        Row { what: "build, cold".to_owned(), ours: seconds(cold), beside: beside("720 s", |t| t.cold) },
        Row { what: "build, agent changed".to_owned(), ours: seconds(changed), beside: beside("60 s", |t| t.warm) },
        Row { what: "build, nothing changed".to_owned(), ours: seconds(same), beside: beside("3 s", |t| t.warm) },
    ])
}

/// What was built last; with the medium, where that is wanted.
fn lab(checkout: &Path, with_iso: bool) -> Result<Lab> {
    let made = |name: &str, command: &str| {
        let path = checkout.join("target/siris/siris").join(name);
        if !path.exists() {
            bail!("{} does not exist: run `cargo xtask {command} siris`", path.display());
        }
        Ok(path)
    };
    let image = made("latest.raw", "image")?;
    let iso = with_iso.then(|| made("latest.iso", "iso")).transpose()?;
    let tools = siris_build::tools(checkout, &siris_build::Progress::new())?;
    Lab::open(LabOptions { tools, image, iso, repository: checkout.to_owned(), tier: Tier::Quick })
}

fn install(checkout: &Path) -> Result<Row> {
    // Of this checkout, and of no earlier one.
    crate::test::cargo_xtask(checkout, &["image", "siris"])?;
    crate::test::cargo_xtask(checkout, &["iso", "siris"])?;
    let times = install::measure(&lab(checkout, true)?)?;
    let ratio = times.ours.as_secs_f64() / times.bare.as_secs_f64();
    let beside = format!("zstd -dc, dd, fsync, direct read-back {}: {ratio:.2}x, limit 1.15x", seconds(times.bare));
    let ours = format!("{} for {:.1} MB", seconds(times.ours), times.bytes as f64 / 1e6);
    Ok(Row { what: "install".to_owned(), ours, beside })
}

fn boot(checkout: &Path) -> Result<Vec<Row>> {
    let lab = lab(checkout, false)?;
    let mut rows = Vec::new();
    for (firmware, what) in [(Firmware::Bios, "boot to boot-complete.target, BIOS"), (Firmware::Uefi, "the same, UEFI")]
    {
        let bench = Bench::new(&lab)?;
        let spec = Spec::bare(firmware, Bus::Virtio).with("ssh.authorized_keys.root", &lab.public_key()?);
        let start = Instant::now();
        let mut vm = Machine::new(&bench, spec)?.start()?;
        vm.wait_healthy()?;
        let all = start.elapsed();
        let reached = vm.guest.ok("systemctl show -P ActiveEnterTimestampMonotonic boot-complete.target")?;
        let reached = Duration::from_micros(reached.parse()?);
        let beside = format!("{} from power-on to a shell and back, {}", seconds(all), lab.accel().name());
        rows.push(Row {
            what: what.to_owned(),
            ours: format!("{} after the kernel's start", seconds(reached)),
            beside,
        });
        if firmware == Firmware::Bios {
            let memory = vm.guest.ok("grep RssAnon: /proc/$(systemctl show -P MainPID siris-agent.service)/status")?;
            let memory = memory.trim_start_matches("RssAnon:").trim().to_owned();
            rows.push(Row {
                what: "the agent's anonymous memory".to_owned(),
                ours: memory,
                beside: "8192 kB".to_owned(),
            });
        }
        drop(vm.power_off()?);
    }
    Ok(rows)
}

/// An empty folder.
fn fresh(dir: &Path) -> Result<PathBuf> {
    remove(dir)?;
    fs::create_dir_all(dir)?;
    Ok(dir.canonicalize()?)
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        // Trees made in it may belong to other users: only rm knows them all.
        Cmd::new(Tool::Bash).args(["-c", "rm -rf --one-file-system \"$0\""]).arg(dir).run()?;
    }
    Ok(())
}
