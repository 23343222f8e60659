//! `cargo xtask test`: everything that proves the project, in one run and one count.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use siris_host::cmd::{Cmd, Tool};
use siris_tests::case::{Case, Tier};
use siris_tests::lab::{Lab, LabOptions};
use siris_tests::proof::Proof;
use siris_tests::run::{self, Counts, Outcome};
use siris_tests::{deadline, suites};

/// What to run.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Only cases whose name contains this; with several, any of them
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Leave out the cases that boot machines or build images whose name contains this; may be given more than once
    #[arg(long, value_name = "TEXT")]
    skip: Vec<String>,
    /// Every case that needs no boot, and a sample of those that do (the default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Every case, not a sample; brings tests/PROOF.md up to date for those that are run
    #[arg(long)]
    full: bool,
    /// Print the names of the cases that boot machines or build images, and run nothing
    #[arg(long)]
    list: bool,
    /// Leave out what `cargo test` runs
    #[arg(long)]
    booted: bool,
    /// Test this raw image, as it is, instead of building `siris`
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Machines at a time
    #[arg(long, default_value_t = 2, value_name = "N")]
    jobs: usize,
}

impl TestArgs {
    fn tier(&self) -> Tier {
        if self.full { Tier::Full } else { Tier::Quick }
    }
}

/// Runs it.
///
/// # Errors
/// When a case fails, or the cases cannot be run.
pub fn run(args: TestArgs) -> Result<()> {
    let start = Instant::now();
    let tier = args.tier();
    let mut cases = suites::all();
    let wanted = |case: &Case, filter: Option<&str>| case.is_selected(tier, filter);
    cases.retain(|case| match args.filters.as_slice() {
        [] => wanted(case, None),
        filters => filters.iter().any(|filter| wanted(case, Some(filter))),
    });
    cases.retain(|case| !args.skip.iter().any(|skip| case.is_selected(tier, Some(skip))));
    if args.list {
        cases.iter().for_each(|case| println!("{:5}  {}", case.tier.name(), case.title()));
        return Ok(());
    }
    let checkout = crate::checkout();
    crate::setup::ensure(false)?;
    let counts = if args.booted { Counts::default() } else { cargo_test(&checkout, &args.filters)? };
    let cargo_took = start.elapsed();
    let outcomes = if cases.is_empty() { Vec::new() } else { booted(&checkout, &args, &cases, counts, cargo_took)? };

    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    println!();
    failed.iter().for_each(|outcome| println!("FAILED {}", outcome.title));
    let passed = counts.passed + outcomes.len() - failed.len();
    let failures = counts.failed + failed.len();
    let skipped = if counts.skipped > 0 { format!(", {} skipped", counts.skipped) } else { String::new() };
    println!("{} in {} s", tier.name(), start.elapsed().as_secs());
    println!("{passed} passed, {failures} failed{skipped}");
    if failures > 0 {
        std::process::exit(1);
    }
    if passed == 0 {
        bail!("no case has that in its name");
    }
    Ok(())
}

fn booted(
    checkout: &Path,
    args: &TestArgs,
    cases: &[Case],
    counts: Counts,
    cargo_took: Duration,
) -> Result<Vec<Outcome>> {
    let image = match &args.image {
        Some(image) => image.clone(),
        None => {
            cargo_xtask(checkout, &["image", "siris"])?;
            checkout.join("target/siris/siris/latest.raw")
        }
    };
    let iso = match cases.iter().any(|case| case.needs_iso) {
        true => {
            cargo_xtask(checkout, &["iso", "siris"])?;
            Some(checkout.join("target/siris/siris/latest.iso"))
        }
        false => None,
    };
    deadline::catch_interrupts()?;
    let tools = siris_build::tools(checkout, &siris_build::Progress::new())?;
    let tier = args.tier();
    let lab = Lab::open(LabOptions { tools, image, iso, repository: checkout.to_owned(), tier })?;
    println!("\n{} cases on {} ({})", cases.len(), lab.image().name(), lab.accel().name());
    let outcomes = run::run(&lab, cases, args.jobs);
    if args.full {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let machine = format!("{cores} cores, QEMU with {}", lab.accel().name());
        let path = checkout.join("tests/PROOF.md");
        let mut proof = Proof::parse(&std::fs::read_to_string(&path).unwrap_or_default());
        let cargo = (args.filters.is_empty() && !args.booted).then_some((counts, cargo_took));
        proof.update(&outcomes, cargo, &commit(checkout)?);
        std::fs::write(&path, proof.to_text(&suites::all(), &machine)).context("write tests/PROOF.md")?;
    }
    if deadline::interrupted() {
        bail!("interrupted");
    }
    Ok(outcomes)
}

/// The commit that is checked out; marked where something was changed since, this table aside.
fn commit(checkout: &Path) -> Result<String> {
    let git = |args: &[&str]| Cmd::new(Tool::Git).args(args).cwd(checkout).text();
    let head = git(&["rev-parse", "--short=10", "HEAD"])?.trim().to_owned();
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!tests/PROOF.md"])?;
    Ok(if changed.trim().is_empty() { head } else { format!("{head}, changed") })
}

/// Runs another command of this program, on the caller's terminal.
///
/// # Errors
/// When it fails.
pub fn cargo_xtask(checkout: &Path, args: &[&str]) -> Result<()> {
    let status = Cmd::new(Tool::Cargo).arg("xtask").args(args).cwd(checkout).interactive()?;
    if !status.success() {
        bail!("`cargo xtask {}` ended with {status}", args.join(" "));
    }
    Ok(())
}

/// Runs `cargo test` over the workspace, passes on what it prints, and adds up its closing lines.
fn cargo_test(checkout: &Path, filters: &[String]) -> Result<Counts> {
    let log = checkout.join("target/siris/cargo-test.log");
    std::fs::create_dir_all(checkout.join("target/siris"))?;
    std::fs::write(&log, "")?;
    // What follows `--` may be several, and each test program takes any of them.
    let cargo = Cmd::new(Tool::Cargo).args(["test", "--workspace", "--no-fail-fast", "--"]).args(filters);
    let mut cargo = cargo.cwd(checkout).log(&log).spawn()?;
    let mut counts = Counts::default();
    for line in BufReader::new(cargo.stdout().context("cargo has no output")?).lines() {
        let line = line?;
        if let Some(more) = closing_line(&line) {
            counts.passed += more.passed;
            counts.failed += more.failed;
            counts.skipped += more.skipped;
        } else if !line.trim().is_empty() && !line.starts_with("running ") {
            println!("{line}");
        }
    }
    if let Err(error) = cargo.wait()
        && counts.failed == 0
    {
        // Not a failed case: what the cases are in does not compile, or a test process died.
        println!("{error}");
        counts.failed += 1;
    }
    Ok(counts)
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn closing_line(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = rest.split("; ").find_map(|part| part.strip_suffix(word));
        part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    Some(Counts { passed: count("passed"), failed: count("failed"), skipped: count("ignored") })
}

#[cfg(test)]
mod tests {
    use super::closing_line;

    #[test]
    fn a_closing_line_of_cargo_test_is_counted() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let counts = closing_line(line).unwrap();
        assert_eq!((counts.passed, counts.failed, counts.skipped), (12, 2, 1));
        assert!(closing_line("test a::b ... ok").is_none());
    }
}
