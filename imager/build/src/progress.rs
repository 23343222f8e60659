//! What a person sees of a build: one line a step with its time, and a spinner on a terminal while it runs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Tells of steps as they start and end. Lines go to standard error, so that `--json` keeps standard output.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    quiet: bool,
}

impl Progress {
    /// With a spinner where standard error is a terminal.
    pub fn new() -> Self {
        Progress { terminal: std::io::stderr().is_terminal(), quiet: false }
    }

    /// Tells nothing.
    pub fn quiet() -> Self {
        Progress { terminal: false, quiet: true }
    }

    /// A line by itself.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Starts a step; it ends with [`Step::done`], or, dropped, as failed.
    pub fn step(&self, what: &str) -> Step {
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            // The template is a constant that parses.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if !self.terminal && !self.quiet {
            eprintln!("         {what} ...");
        }
        Step { what: what.to_owned(), start: Instant::now(), bar, quiet: self.quiet }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}

/// A running step.
#[derive(Debug)]
pub struct Step {
    what: String,
    start: Instant,
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Step {
    /// Ends it with what it came to, such as a size.
    pub fn done(mut self, result: impl AsRef<str>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !self.quiet {
            eprintln!("{:7.1}s {}: {}", self.start.elapsed().as_secs_f64(), self.what, result.as_ref());
        }
    }

    /// Ends it without a line: there was nothing to do.
    pub fn unchanged(mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
