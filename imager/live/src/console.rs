//! What a person sees: on every console of the kernel at once, screen and serial line alike.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The consoles the kernel was told of.
#[derive(Debug, Default)]
pub struct Consoles {
    ttys: Vec<File>,
    /// A progress line is on the screen, and the next line must not go over it.
    unfinished: bool,
}

impl Consoles {
    /// All that are there; one that cannot be opened is a port the machine does not have.
    pub fn open(root: &Path) -> Self {
        let names = fs::read_to_string(root.join("sys/class/tty/console/active")).unwrap_or_default();
        let open = |name: &str| OpenOptions::new().write(true).open(root.join("dev").join(name)).ok();
        Consoles { ttys: names.split_whitespace().filter_map(open).collect(), unfinished: false }
    }

    fn write(&mut self, text: &str) {
        for tty in &mut self.ttys {
            // Nobody may be listening; that is no reason not to load.
            let _ = tty.write_all(text.as_bytes()).and_then(|()| tty.flush());
        }
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        let start = if self.unfinished { "\r\n" } else { "\r" };
        self.unfinished = false;
        self.write(&format!("{start}SIRIS: {text}\r\n"));
    }

    /// A line that the next one goes over.
    pub fn over(&mut self, text: &str) {
        self.unfinished = true;
        self.write(&format!("\rSIRIS: {text}"));
    }
}

/// How far a read of known length has come, told at most once a second.
#[derive(Debug)]
pub struct Bar {
    what: &'static str,
    total: u64,
    start: Instant,
    told: Option<Instant>,
}

const WIDTH: u64 = 12;

impl Bar {
    /// A bar for `total` bytes.
    pub fn new(what: &'static str, total: u64) -> Self {
        Bar { what, total, start: Instant::now(), told: None }
    }

    /// The line to show now, if one is due.
    pub fn line(&mut self, done: u64) -> Option<String> {
        let now = Instant::now();
        if done < self.total && self.told.is_some_and(|told| now - told < Duration::from_secs(1)) {
            return None;
        }
        self.told = Some(now);
        Some(line(self.what, done, self.total, now - self.start))
    }
}

fn line(what: &str, done: u64, total: u64, took: Duration) -> String {
    let total = total.max(1);
    let filled = (done.min(total) * WIDTH / total) as usize;
    let seconds = took.as_secs_f64();
    let rate = if seconds > 0.5 { done as f64 / seconds } else { 0.0 };
    let left = match rate > 0.0 && done < total {
        true => format!(", {} left ", duration((total - done) as f64 / rate)),
        // What stood there before is on the same line of the screen.
        false => " ".repeat(13),
    };
    format!(
        "{what} [{}{}] {:3} %  {:.1} of {:.1} MB, {:.0} KB/s{left}",
        "#".repeat(filled),
        "-".repeat(WIDTH as usize - filled),
        done.min(total) * 100 / total,
        done as f64 / 1e6,
        total as f64 / 1e6,
        rate / 1e3,
    )
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.min(359_999.0) as u64;
    match seconds {
        0..3600 => format!("{:2}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_a_screen_and_says_how_long_it_takes() {
        let text = line("reading", 75_000_000, 300_000_000, Duration::from_secs(300));
        assert_eq!(text, "reading [###---------]  25 %  75.0 of 300.0 MB, 250 KB/s, 15:00 left ");
        for (done, total, took) in [(0, 0, 0), (5, 3, 1), (1, u64::MAX / 100, 4)] {
            let text = line("reading", done, total, Duration::from_secs(took));
            assert!(text.starts_with("reading ["), "{text}");
        }
        assert!(line("reading", 299_999_999, 300_000_000, Duration::from_secs(9000)).len() <= 72);
    }

    #[test]
    fn every_console_is_written_and_absent_ones_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["sys/class/tty/console", "dev"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("sys/class/tty/console/active"), "tty1 ttyS0 ttyS1\n").unwrap();
        for tty in ["tty1", "ttyS0"] {
            fs::write(dir.path().join("dev").join(tty), "").unwrap();
        }
        let mut consoles = Consoles::open(dir.path());
        consoles.over("12 %");
        consoles.say("done");
        for tty in ["tty1", "ttyS0"] {
            assert_eq!(
                fs::read_to_string(dir.path().join("dev").join(tty)).unwrap(),
                "\rSIRIS: 12 %\r\nSIRIS: done\r\n"
            );
        }
    }
}
