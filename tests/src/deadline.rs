//! Waiting: every loop of the harness that waits for a machine goes through here.
//!
//! Owns: time limits, and the one flag that says the run was interrupted. Never: decides what to do about it; the
//! caller's values drop, and take their processes and files along.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a waiting loop looks again.
const PAUSE: Duration = Duration::from_millis(100);

/// Turns SIGINT and SIGTERM into a flag from here on; a second one ends the process at once.
///
/// Call it before any other thread is started: threads inherit the blocked signals, children do not.
///
/// # Errors
/// When the signals cannot be blocked.
pub fn catch_interrupts() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            eprintln!("interrupted: stopping the machines (once more to leave them)");
        }
    });
    Ok(())
}

/// Whether the run was interrupted.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// A time limit for one wait.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// From now on.
    pub fn after(limit: Duration) -> Self {
        Deadline { end: Instant::now() + limit, limit }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Sleeps for one look.
    ///
    /// # Errors
    /// When the limit is over or the run was interrupted.
    pub fn pause(&self, waiting_for: &str) -> Result<()> {
        if interrupted() {
            bail!("interrupted while waiting for {waiting_for}");
        }
        if self.left().is_zero() {
            bail!("waited {} s for {waiting_for}", self.limit.as_secs());
        }
        thread::sleep(PAUSE);
        Ok(())
    }
}

/// Looks again and again until `look` has an answer.
///
/// # Errors
/// When `look` fails, the limit is over or the run was interrupted.
pub fn until<T>(limit: Duration, waiting_for: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        deadline.pause(waiting_for)?;
    }
}
