//! The machine's serial console: what it said, and a keyboard.
//!
//! Owns: the socket QEMU gives it, and the log of all that came through it. (QEMU's own log of a socket says things
//! twice when the reader is slow.)

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::deadline;

/// One machine's console.
#[derive(Debug)]
pub struct Serial {
    log: PathBuf,
    keyboard: UnixStream,
    ended: Arc<AtomicBool>,
    mark: usize,
    heard: RefCell<Heard>,
}

/// What was read of the log. It is looked at ten times a second, and is long: each line is made plain once.
#[derive(Debug, Default)]
struct Heard {
    /// Bytes of the log.
    bytes: u64,
    /// Of these, what whole lines have.
    in_lines: u64,
    /// The text of the whole lines.
    lines: String,
    /// All of the text.
    text: String,
}

impl Heard {
    /// Reads on.
    fn listen(&mut self, log: &Path) -> io::Result<()> {
        let mut file = File::open(log)?;
        if file.metadata()?.len() == self.bytes {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.in_lines))?;
        let mut more = Vec::new();
        file.read_to_end(&mut more)?;
        self.bytes = self.in_lines + more.len() as u64;
        let (lines, rest) = more.split_at(more.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        self.in_lines += lines.len() as u64;
        self.lines.push_str(&plain(&String::from_utf8_lossy(lines)));
        self.text = format!("{}{}", self.lines, plain(&String::from_utf8_lossy(rest)));
        Ok(())
    }
}

impl Serial {
    /// Connects to the socket QEMU is about to make.
    ///
    /// # Errors
    /// When it does not appear.
    pub fn connect(socket: &Path, log: PathBuf) -> Result<Self> {
        let keyboard =
            deadline::until(Duration::from_secs(20), "QEMU's serial console", || Ok(UnixStream::connect(socket).ok()))?;
        let mut screen = keyboard.try_clone()?;
        let mut file = File::options().create(true).append(true).open(&log)?;
        let ended = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&ended);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                if file.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
            tell.store(true, Ordering::SeqCst);
        });
        Ok(Serial { log, keyboard, ended, mark: 0, heard: RefCell::default() })
    }

    /// Everything said so far, without terminal control sequences.
    pub fn text(&self) -> String {
        let mut heard = self.heard.borrow_mut();
        // It is there since the machine was switched on.
        let _ = heard.listen(&self.log);
        heard.text.clone()
    }

    /// What was said since the last [`Serial::forget`].
    pub fn since_mark(&self) -> String {
        let text = self.text();
        text.get(self.mark..).unwrap_or_default().to_owned()
    }

    /// Later waits look only at what is said from here on.
    pub fn forget(&mut self) {
        self.mark = self.text().len();
    }

    /// Waits until one of the texts was said since the mark, and moves the mark behind it. Returns its index.
    ///
    /// # Errors
    /// When none was within the limit.
    pub fn wait_any(&mut self, texts: &[&str], limit: Duration) -> Result<usize> {
        let (index, end) = deadline::until(limit, &format!("{texts:?} on the console"), || {
            let said = self.since_mark();
            let found = texts.iter().enumerate().filter_map(|(i, t)| said.find(t).map(|at| (at + t.len(), i))).min();
            ensure!(found.is_some() || !self.ended.load(Ordering::SeqCst), "QEMU ended");
            Ok(found.map(|(end, index)| (index, self.mark + end)))
        })?;
        self.mark = end;
        Ok(index)
    }

    /// Waits until `text` was said since the mark.
    ///
    /// # Errors
    /// When it was not within the limit.
    pub fn wait(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_any(&[text], limit).map(drop)
    }

    /// Types, as a person would: the receiver of a boot loader's keystrokes has a tiny buffer.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        for byte in text.bytes() {
            self.keyboard.write_all(&[byte]).context("type on the serial console")?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// `text` without ANSI control sequences, carriage returns and other control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
                _ => {}
            },
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Heard, plain};

    #[test]
    fn a_line_is_heard_once_and_a_prompt_before_it_ends() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut heard = Heard::default();
        for (bytes, text) in [
            ("a\r\nlog", "a\nlog"),
            ("a\r\nlogin: \u{1b}[", "a\nlogin: "),
            ("a\r\nlogin: \u{1b}[0mb\n", "a\nlogin: b\n"),
        ] {
            std::fs::write(log.path(), bytes).unwrap();
            heard.listen(log.path()).unwrap();
            assert_eq!(heard.text, text);
        }
    }

    #[test]
    fn control_sequences_do_not_hide_words() {
        assert_eq!(plain("[\u{1b}[0;32m  OK  \u{1b}[0m] Reached\r\n"), "[  OK  ] Reached\n");
        assert_eq!(plain("\u{1b}]3008;start=1\u{7}x\u{1b}[2J\u{1b}[1;1Hlogin:"), "xlogin:");
    }
}
