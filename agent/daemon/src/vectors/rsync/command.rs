//! The rsync program: its command line, what it says on its way, how it is stopped.
//!
//! Owns: which of rsync's options are used, and why. Files are written in place: an image that changes in a few blocks costs
//! a recovery point those blocks, and one that was cut off in the middle goes on from there.

use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use siris_host::cmd::{Cmd, CmdError, Running, Tool};

use super::super::limit::Rate;
use super::super::remote::Shell;
use super::super::sync::Watch;
use super::Way;
use super::error::MirrorError;

/// The mark of a copy on another machine; never part of what is transferred, either way.
pub(super) const MARK: &str = ".siris-vector";
/// The way into a file system's snapshots, where that is shown; no part of it either.
pub(super) const SNAPSHOTS: &str = ".zfs";
/// The name of the other machine in rsync's words; see [`Shell::carrier`].
const THERE: &str = "siris-peer";
/// How often one looks whether it has to stop, and says how far it is.
const LOOK: Duration = Duration::from_secs(1);
/// How long rsync may take to end when it was told to.
const END: Duration = Duration::from_secs(5);
/// What a line about a path begins with.
const ITEM: &str = "siris-item ";

/// What rsync is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Bring the target into line.
    Transfer(Rate),
    /// Only say how much that would be.
    Count,
    /// Only say what differs, by reading both.
    Compare,
}

/// One run of rsync.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// Where the other end is.
    pub(super) shell: &'a dyn Shell,
    /// The command there that becomes rsync in the right directory.
    pub(super) there: String,
    /// The directory here.
    pub(super) here: &'a Path,
    /// Which way the data goes.
    pub(super) way: Way,
    /// A directory there, whose files are linked to where they are the same.
    pub(super) link_dest: Option<&'a str>,
}

/// What rsync said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Bytes in the files that it transferred, or would.
    pub(super) transferred: u64,
    /// How many paths it looked at.
    pub(super) paths: u64,
    /// Those that it names as other than they should be.
    pub(super) differing: Vec<String>,
}

/// How a transfer ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself.
    Done(Outcome),
    /// It was stopped, as its rate is another one now.
    RateChanged,
    /// It was stopped by who watches.
    Stopped,
}

/// A word among those of a command line that rsync takes apart itself.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A rate as rsync counts, in KiB a second; 0 would be none at all.
fn kib(rate: Rate) -> Option<u64> {
    match rate {
        Rate::Bytes(bytes) => Some((bytes.get() / 1024).max(1)),
        Rate::Free | Rate::Stop => None,
    }
}

impl Run<'_> {
    /// The command line.
    pub(super) fn command(&self, work: Work) -> Cmd {
        let carrier: Vec<String> = self.shell.carrier().iter().map(|text| word(text)).collect();
        let mut cmd = Cmd::new(Tool::Rsync)
            // Archive, and what that leaves out: hard links, ACLs, all extended attributes. Holes stay holes. Ids as numbers:
            // names mean others there.
            .args(["-aHAXXS", "--numeric-ids"])
            // Of a file that is other, only what is other. Whole seconds would not do to tell: an image never changes its size.
            .args(["--no-whole-file", "--partial", "--modify-window=-1"])
            // Behind all the rest, and not at all where something could not be read.
            .args(["--delete-delay"])
            // Nothing that a shell there could understand but what we quoted, and nothing that it expands.
            .args(["--secluded-args", "--no-human-readable", "--8-bit-output", "--outbuf=L", "--stats"])
            .args([format!("--exclude=/{MARK}"), format!("--exclude=/{SNAPSHOTS}")])
            .args(["-e", &carrier.join(" "), "--rsync-path", &self.there])
            .env("LC_ALL", "C.UTF-8")
            .cwd(self.here);
        match work {
            Work::Count => cmd = cmd.arg("--dry-run"),
            Work::Compare => cmd = cmd.args(["--dry-run", "--checksum", &format!("--out-format={ITEM}%i %n")]),
            Work::Transfer(rate) => {
                cmd = cmd.arg("--info=progress2");
                if let Some(rate) = kib(rate) {
                    cmd = cmd.arg(format!("--bwlimit={rate}"));
                }
            }
        }
        if let Some(dir) = self.link_dest {
            cmd = cmd.arg(format!("--link-dest={dir}"));
        }
        let there = format!("{THERE}:./");
        match self.way {
            // In place, which the copy that grows has to itself; and on the disks before the time of change says that it is there.
            Way::Push => cmd.args(["--inplace", "--fsync", "--", "./", &there]),
            // Not in place: what was one file with two names may be two by now, and both would have what the second one has.
            Way::Pull => cmd.args(["--", &there, "./"]),
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When rsync fails.
    pub(super) fn complete(&self, work: Work) -> Result<Outcome, MirrorError> {
        match self.watched(work, &mut ())? {
            Ended::Done(outcome) => Ok(outcome),
            // Nobody who watches stops it.
            Ended::RateChanged | Ended::Stopped => Ok(Outcome::default()),
        }
    }

    /// Transfers, as fast as `watch` has it. To be run again where the rate changed: it goes on.
    ///
    /// # Errors
    /// When rsync fails.
    pub(super) fn transfer(&self, watch: &mut dyn Watch) -> Result<Ended, MirrorError> {
        match watch.rate() {
            Rate::Stop => Ok(Ended::Stopped),
            rate => self.watched(Work::Transfer(rate), watch),
        }
    }

    fn watched(&self, work: Work, watch: &mut dyn Watch) -> Result<Ended, MirrorError> {
        let log = tempfile::NamedTempFile::new().map_err(MirrorError::Run)?;
        let mut running = self.command(work).log(log.path()).spawn().map_err(MirrorError::of)?;
        drop(running.stdin());
        let Some(output) = running.stdout() else {
            return Err(MirrorError::Run(std::io::ErrorKind::BrokenPipe.into()));
        };
        let (sender, said) = mpsc::channel();
        let reader = std::thread::spawn(move || pieces(output, |piece| sender.send(piece).is_ok()));
        let (mut outcome, mut passed, mut looked) = (Outcome::default(), 0, Instant::now());
        let stopped = loop {
            match said.recv_timeout(LOOK) {
                Ok(piece) => outcome.take(&piece, &mut passed),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            let Work::Transfer(rate) = work else { continue };
            if !watch.passed(std::mem::take(&mut passed)) {
                break Some(Ended::Stopped);
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                match watch.rate() {
                    Rate::Stop => break Some(Ended::Stopped),
                    other if other != rate => break Some(Ended::RateChanged),
                    _ => {}
                }
            }
        };
        if let Some(stopped) = stopped {
            end(running);
            return Ok(stopped);
        }
        let ended = running.wait();
        // It has nothing more to read.
        let _ = reader.join();
        ended.map_err(MirrorError::of)?;
        Ok(Ended::Done(outcome))
    }
}

/// Has rsync end, which tells those who belong to it.
fn end(mut running: Running) {
    if let Some(pid) = i32::try_from(running.id()).ok().and_then(Pid::from_raw) {
        // Gone by itself, it needs no telling.
        let _ = kill_process(pid, Signal::TERM);
    }
    let told = Instant::now();
    while told.elapsed() < END && matches!(running.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(50));
    }
    running.kill();
}

/// Cuts what rsync says at ends of lines and where it goes back to their beginning; until `take` wants no more.
fn pieces(mut output: impl Read, mut take: impl FnMut(String) -> bool) {
    let (mut piece, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = output.read(&mut buffer) {
        for byte in &buffer[..n] {
            if !matches!(byte, b'\r' | b'\n') {
                piece.push(*byte);
            } else if !piece.is_empty() && !take(String::from_utf8_lossy(&std::mem::take(&mut piece)).into_owned()) {
                return;
            }
        }
    }
}

impl Outcome {
    /// Takes what one line says; `passed` is what has passed since it was asked last.
    fn take(&mut self, line: &str, passed: &mut u64) {
        if let Some((_, path)) = line.strip_prefix(ITEM).and_then(|item| item.split_once(' ')) {
            self.differing.push(path.trim_start().to_owned());
            return;
        }
        let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
        if let Some(found) = line.strip_prefix("Number of files: ").and_then(number) {
            self.paths = found;
        } else if let Some(found) = line.strip_prefix("Total transferred file size: ").and_then(number) {
            self.transferred = found;
        } else if line.contains("% ")
            && let Some(so_far) = number(line)
        {
            // From then on `transferred` is what the progress says.
            *passed += so_far.saturating_sub(self.transferred);
            self.transferred = self.transferred.max(so_far);
        }
    }
}

/// What a command in the shell there said.
///
/// # Errors
/// When it failed.
pub(super) fn said(cmd: Cmd) -> Result<String, MirrorError> {
    cmd.text().map_err(|error: CmdError| MirrorError::of(error))
}
