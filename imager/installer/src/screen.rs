//! What a person sees: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use siris_installer::run::Progress;

/// How often a plain line is printed at most.
const PERIOD: Duration = Duration::from_secs(10);

/// Progress on standard error.
pub struct Screen {
    bar: Option<ProgressBar>,
    terminal: bool,
    what: String,
    total: u64,
    told: Instant,
}

impl Screen {
    /// A screen on which nothing was told yet.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { bar: None, terminal, what: String::new(), total: 0, told: Instant::now() }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Screen {
    fn step(&mut self, what: &str, total: u64) {
        self.clear();
        (self.what, self.total, self.told) = (what.to_owned(), total, Instant::now());
        if !self.terminal || total == 0 {
            eprintln!("{what} ...");
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
        // The template is this one, and right.
        let style = ProgressStyle::with_template("{msg} [{bar:24}] {percent:>3}% {binary_bytes_per_sec} {eta}");
        bar.set_style(style.expect("a template").progress_chars("=> "));
        bar.set_message(what.to_owned());
        self.bar = Some(bar);
    }

    fn at(&mut self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.total > 0 && self.told.elapsed() >= PERIOD => {
                self.told = Instant::now();
                eprintln!("{}: {}%", self.what, done * 100 / self.total);
            }
            None => {}
        }
    }

    fn done(&mut self) {
        self.clear();
    }

    fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}
