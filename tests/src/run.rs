//! The runner: takes cases, runs two at a time, keeps what a failure needs, counts.
//!
//! Two machines at once is what two cores of emulation carry. Cases that need the whole machine come last, one
//! after the other.

use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::case::Case;
use crate::deadline;
use crate::lab::{Bench, Lab};

/// How many lines of a failed machine's console are printed.
const TAIL_LINES: usize = 25;

/// A case whose disks fill up the host hangs until its time is over: it is not begun with less than this, in bytes.
const ROOM: u64 = 4 << 30;

/// How often a case is tried whose emulator dies.
const ATTEMPTS: u32 = 3;

/// How one case went.
#[derive(Debug)]
pub struct Outcome {
    /// Its title.
    pub title: String,
    /// What did not hold.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs the cases, at most `jobs` at a time, and prints each as it ends. Interrupted ([`deadline::interrupted`]), it returns
/// what it has come to.
pub fn run(lab: &Lab, cases: &[Case], jobs: usize) -> Vec<Outcome> {
    let outcomes = Mutex::new(Vec::new());
    let (alone, beside): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.alone);
    for (queue, workers) in [(beside, jobs.max(1)), (alone, 1)] {
        let queue = Mutex::new(queue.into_iter());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(case) = next(&queue) {
                        let outcome = run_one(lab, case);
                        // What was cut off says nothing of the case.
                        if outcome.failure.is_some() && deadline::interrupted() {
                            return;
                        }
                        report(&outcome);
                        outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(outcome);
                    }
                });
            }
        });
    }
    outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn next<'c>(queue: &Mutex<impl Iterator<Item = &'c Case>>) -> Option<&'c Case> {
    if deadline::interrupted() {
        return None;
    }
    queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next()
}

fn run_one(lab: &Lab, case: &Case) -> Outcome {
    let start = Instant::now();
    let mut attempts = 0;
    let failure = loop {
        attempts += 1;
        if let Err(full) = room(lab) {
            break Some(full);
        }
        let bench = match Bench::new(lab) {
            Err(error) => break Some(format!("{error:#}")),
            Ok(bench) => bench,
        };
        let result =
            catch_unwind(AssertUnwindSafe(|| (case.check)(&bench))).unwrap_or_else(|_| Err(anyhow!("panicked")));
        let Err(error) = result else { break None };
        match emulator_fault(&bench) {
            Some(fault) if attempts < ATTEMPTS && !deadline::interrupted() => {
                println!("again           {}: the emulator itself died: {fault}", case.title());
            }
            _ => break Some(with_consoles(&bench, case, format!("{error:#}"))),
        }
    };
    Outcome { title: case.title(), failure, took: start.elapsed() }
}

/// Fails where there is hardly any room left for the machines' disks.
fn room(lab: &Lab) -> Result<(), String> {
    let fs = nix::sys::statvfs::statvfs(lab.cache()).map_err(|error| error.to_string())?;
    let free = fs.blocks_available() * fs.fragment_size();
    if free >= ROOM {
        return Ok(());
    }
    let (free, dir) = (free >> 20, lab.cache().display());
    Err(format!("only {free} MiB are free for {dir}: the quick tier takes up to 20 GiB there, the full one 30"))
}

/// An assertion of QEMU's own that failed, as its log says it.
///
/// Software emulation with several processors has races of its own (QEMU's issue 1921 is one: `iotlb_to_section`,
/// seen here once in some hundred boots). Nothing a guest does may trip them, so that they say nothing of the image.
fn emulator_fault(bench: &Bench<'_>) -> Option<String> {
    let logs = bench.logs().into_iter().filter(|log| log.ends_with("qemu.log"));
    let mut texts = logs.map(|log| String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned());
    texts.find_map(|text| text.lines().find(|line| is_assertion(line)).map(str::to_owned))
}

fn is_assertion(line: &str) -> bool {
    line.starts_with("qemu-system-x86_64: ") && line.contains(": Assertion `") && line.ends_with("' failed.")
}

fn with_consoles(bench: &Bench<'_>, case: &Case, mut failure: String) -> String {
    let folder: String = case.title().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    match bench.keep_logs(&bench.lab.failed().join(folder)) {
        Err(error) => failure.push_str(&format!("\n(its logs are lost: {error:#})")),
        Ok(logs) => {
            for log in logs {
                let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
                // Writing to a string cannot fail.
                let _ = write!(failure, "\n--- the end of {} ---\n{tail}", log.display());
            }
        }
    }
    failure
}

fn report(outcome: &Outcome) {
    let seconds = outcome.took.as_secs_f64();
    match &outcome.failure {
        None => println!("ok     {seconds:6.1} s  {}", outcome.title),
        Some(failure) => println!("FAILED {seconds:6.1} s  {}\n{}", outcome.title, indented(failure)),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// What a proof says of the cases that cargo runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Left out.
    pub skipped: usize,
}

#[cfg(test)]
mod tests {
    use super::is_assertion;

    #[test]
    fn only_an_assertion_of_the_emulator_is_its_fault() {
        assert!(is_assertion(
            "qemu-system-x86_64: system/physmem.c:2671: iotlb_to_section: Assertion `section_index < d->map.sections_nb' failed."
        ));
        assert!(!is_assertion("qemu-system-x86_64: terminating on signal 15 from pid 1 (<unknown process>)"));
        assert!(!is_assertion("SIRIS: no slot of this disk can be booted"));
    }
}
