//! Another machine as an end of a vector: its `siris-agent peer`, over SSH.
//!
//! Owns: how SSH is called. The machine's host key is pinned; the key used is the one that was registered there. One
//! connection is kept for a while, so that the next request costs no handshake. Never: asks anybody anything; trusts a
//! host key that is not the pinned one.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use siris_host::cmd::{Cmd, CmdError, Running, Tool};
use siris_zfs::{DatasetName, Guid, Notes, Refusal, Sending, Stream, ZfsError};

use super::VectorId;
use super::digest::{Amount, Digests, Scope};
use super::end::{End, EndError};
use super::peer::NOT_A_REQUEST;
use super::plan::View;
use super::travel::VectorRecord;
use super::wire::{Answer, Fault, Mark, Request, ViewText, broken, entries_in};

/// Seconds until a machine that does not answer is given up.
const CONNECT: u32 = 20;
/// Seconds between the questions whether it is still there, and how many may go unanswered.
const ALIVE: (u32, u32) = (10, 3);
/// Seconds that a connection is kept for the next request.
const KEPT: u32 = 60;
/// Bytes on their way from one pipe to the other at once.
const BUFFER: usize = 256 * 1024;

/// How a machine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Its host key, as in a `known_hosts` file: type and key.
    pub host_key: String,
}

/// SSH to a machine.
#[derive(Debug)]
pub struct Ssh {
    address: Address,
    /// The private key.
    key: PathBuf,
    /// What lives as long as this does: the pinned key, the connection that is kept.
    dir: tempfile::TempDir,
}

/// The name that the host key is pinned under, whatever the machine is called.
const ALIAS: &str = "siris-peer";

impl Ssh {
    /// To a machine at that address, with this private key.
    ///
    /// # Errors
    /// When a temporary directory cannot be made.
    pub fn new(address: Address, key: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("siris-ssh-").tempdir()?;
        std::fs::write(dir.path().join("known_hosts"), format!("{ALIAS} {}\n", address.host_key))?;
        Ok(Ssh { address, key: key.to_owned(), dir })
    }

    /// The arguments up to the machine's name.
    fn arguments(&self) -> Vec<String> {
        let option = |name: &str, value: String| ["-o".to_owned(), format!("{name}={value}")];
        let options = [
            option("BatchMode", "yes".to_owned()),
            option("IdentitiesOnly", "yes".to_owned()),
            option("StrictHostKeyChecking", "yes".to_owned()),
            option("UserKnownHostsFile", self.dir.path().join("known_hosts").display().to_string()),
            option("GlobalKnownHostsFile", "/dev/null".to_owned()),
            option("HostKeyAlias", ALIAS.to_owned()),
            option("UpdateHostKeys", "no".to_owned()),
            option("ConnectTimeout", CONNECT.to_string()),
            option("ServerAliveInterval", ALIVE.0.to_string()),
            option("ServerAliveCountMax", ALIVE.1.to_string()),
            option("ControlMaster", "auto".to_owned()),
            option("ControlPath", self.dir.path().join("control").display().to_string()),
            option("ControlPersist", KEPT.to_string()),
        ];
        let (key, port) = (self.key.display().to_string(), self.address.port.to_string());
        let first = ["-F", "none", "-T", "-x", "-a", "-i", &key, "-p", &port, "-l", "root"].map(str::to_owned);
        first.into_iter().chain(options.into_iter().flatten()).collect()
    }
}

impl Ssh {
    /// Connects, and ends when the connection is there for others.
    fn connect(&self) -> Cmd {
        Cmd::new(Tool::Ssh).args(self.arguments()).args(["-f", "-N", "--", &self.address.host])
    }
}

/// A shell on another machine.
pub trait Shell: std::fmt::Debug + Send + Sync {
    /// Runs a command in it.
    fn run(&self, command: &str) -> Cmd;

    /// The words of the program that reaches it, for those who add a name, which means nothing, and a command.
    fn carrier(&self) -> Vec<String>;
}

impl Shell for Ssh {
    fn run(&self, command: &str) -> Cmd {
        Cmd::new(Tool::Ssh).args(self.arguments()).args(["--", &self.address.host, command])
    }

    fn carrier(&self) -> Vec<String> {
        let mut words = vec![Tool::Ssh.program().to_owned()];
        words.extend(self.arguments());
        // ssh takes a percent sign there, as in an address of a link's own, for the begin of something else.
        words.extend(["-o".to_owned(), format!("HostName={}", self.address.host.replace('%', "%%"))]);
        words
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // The connection that is kept; where there is none, there is nothing to end.
        let control = format!("ControlPath={}", self.dir.path().join("control").display());
        let _ =
            Cmd::new(Tool::Ssh).args(["-F", "none", "-o", &control, "-O", "exit", "--", &self.address.host]).output();
    }
}

/// Another machine.
#[derive(Debug)]
pub struct Remote {
    ssh: Ssh,
    /// The connection on its way, until somebody has waited for it.
    coming: Mutex<Option<Running>>,
    /// It was asked, and did not say that it knows [`Request::Land`]: it may be an agent of an older version.
    is_old: AtomicBool,
}

impl Remote {
    /// The machine that is reached in this way. It is being connected to meanwhile.
    pub fn new(ssh: Ssh) -> Self {
        // What keeps it from being started keeps the first request from it too, which says so.
        let coming = Mutex::new(ssh.connect().log(ssh.dir.path().join("connect")).spawn().ok());
        Remote { ssh, coming, is_old: AtomicBool::new(false) }
    }

    fn log(&self) -> PathBuf {
        self.ssh.dir.path().join("log")
    }

    fn session(&self, request: &Request) -> Result<Cmd, EndError> {
        let coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner).take();
        coming.map_or(Ok(()), Running::wait).map_err(unreachable)?;
        let request = serde_json::to_string(request).map_err(EndError::Answer)?;
        Ok(self.ssh.run(&request).log(self.log()))
    }

    /// Asks, hands over `input`, and waits for the answer.
    fn ask(&self, request: &Request, input: &mut dyn Read) -> Result<Answer, EndError> {
        // Each session's words on their own.
        let _ = std::fs::remove_file(self.log());
        let mut running = self.session(request)?.spawn().map_err(EndError::Link)?;
        let (stdin, stdout) = (running.stdin(), running.stdout());
        let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) else {
            return Err(ZfsError::Stream(io::ErrorKind::BrokenPipe.into()).into());
        };
        let copied = io::copy(&mut BufReader::with_capacity(BUFFER, input), &mut stdin);
        drop(stdin);
        let mut answer = Vec::new();
        let read = stdout.read_to_end(&mut answer);
        let ended = running.wait();
        match (answer.is_empty(), ended) {
            // What the other machine said goes before the pipe that it closed.
            (false, ended) => match (serde_json::from_slice(&answer), ended) {
                (Ok(Answer::Failed(Fault { code, text })), _) => Err(EndError::Peer { code, text }),
                (Ok(answer), _) => {
                    copied.and(read).map_err(ZfsError::Stream)?;
                    Ok(answer)
                }
                // It broke off in the middle.
                (Err(_), Err(error)) => Err(unreachable(error)),
                (Err(error), Ok(())) => Err(EndError::Answer(error)),
            },
            (true, Err(error)) => Err(unreachable(error)),
            (true, Ok(())) => Err(ZfsError::Stream(io::ErrorKind::UnexpectedEof.into()).into()),
        }
    }

    fn done(&self, request: &Request) -> Result<(), EndError> {
        self.ask(request, &mut io::empty()).map(drop)
    }
}

/// Why SSH did not get through, by the words of its messages.
pub(super) fn unreachable(error: CmdError) -> EndError {
    let says = |words: &str| matches!(&error, CmdError::Failed { tail, .. } if tail.contains(words));
    if says("Host key verification failed") {
        EndError::HostKey(error)
    } else if says("Permission denied (") {
        EndError::Denied(error)
    } else {
        EndError::Link(error)
    }
}

fn view(answer: Answer) -> Result<Option<ViewText>, EndError> {
    match answer {
        Answer::View(view) => Ok(view.map(|view| *view)),
        _ => Err(EndError::Answer(serde::de::Error::custom("no view"))),
    }
}

impl End for Remote {
    fn is_far(&self) -> bool {
        true
    }

    fn look(&self, dataset: &DatasetName) -> Result<Option<View>, EndError> {
        let view = view(self.ask(&Request::Look { dataset: dataset.to_string() }, &mut io::empty())?)?;
        // One that has no such dataset says nothing of itself: it is asked as an older one is.
        self.is_old.store(view.as_ref().is_none_or(|view| !view.lands), Ordering::Relaxed);
        Ok(view.map(TryInto::try_into).transpose()?)
    }

    fn pin(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, _seen: Option<&View>) -> Result<(), EndError> {
        self.done(&Request::Pin(Mark::new(dataset, id, guid)))
    }

    fn keep(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, _seen: Option<&View>) -> Result<(), EndError> {
        self.done(&Request::Keep(Mark::new(dataset, id, guid)))
    }

    fn forget(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        self.done(&Request::Forget { dataset: dataset.to_string(), vector: id.to_string() })
    }

    fn enter(&self, dataset: &DatasetName, record: &VectorRecord) -> Result<(), EndError> {
        self.done(&Request::Enter { dataset: dataset.to_string(), record: record.clone() })
    }

    fn tell(&self, dataset: &DatasetName, notes: &Notes) -> Result<(), EndError> {
        self.done(&Request::Tell { dataset: dataset.to_string(), notes: notes.clone() })
    }

    fn send(&self, dataset: &DatasetName, stream: &Stream) -> Result<Box<dyn Sending>, EndError> {
        let log = tempfile::NamedTempFile::new_in(self.ssh.dir.path()).map_err(ZfsError::Stream)?;
        let request = Request::Send { dataset: dataset.to_string(), stream: stream.into() };
        let mut running = self.session(&request)?.log(log.path()).spawn().map_err(EndError::Link)?;
        drop(running.stdin());
        let output = running.stdout().ok_or_else(|| ZfsError::Stream(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Box::new(Coming { output, running, _log: log }))
    }

    fn size(&self, dataset: &DatasetName, stream: &Stream) -> Result<u64, EndError> {
        let request = Request::Size { dataset: dataset.to_string(), stream: stream.into() };
        match self.ask(&request, &mut io::empty())? {
            Answer::Size(bytes) => Ok(bytes),
            _ => Err(EndError::Answer(serde::de::Error::custom("no size"))),
        }
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), EndError> {
        self.ask(&Request::Receive { dataset: dataset.to_string() }, stream).map(drop)
    }

    fn land(
        &self,
        dataset: &DatasetName,
        id: &VectorId,
        (from, to): (Option<Guid>, Guid),
        stream: &mut dyn Read,
    ) -> Result<Option<View>, EndError> {
        if self.is_old.load(Ordering::Relaxed) {
            return self.receive(dataset, stream).map(|()| None);
        }
        let view = view(self.ask(&Request::land(dataset, id, from, to), stream)?)?;
        Ok(view.map(TryInto::try_into).transpose()?)
    }

    fn digest(&self, dataset: &DatasetName, guid: Guid, scope: Scope) -> Result<Digests, EndError> {
        let (dataset, guid) = (dataset.to_string(), guid.as_u64());
        let prove = Request::Prove { dataset: dataset.clone(), guid, whole: scope == Scope::Whole };
        let answer = match self.ask(&prove, &mut io::empty()) {
            // An agent of an older version, which always reads all of it.
            Err(EndError::Peer { code, .. }) if code == NOT_A_REQUEST => {
                self.ask(&Request::Digest { dataset, guid }, &mut io::empty())
            }
            other => other,
        };
        match answer? {
            Answer::Proven { digests, read, data } => {
                Ok(Digests { entries: entries_in(digests)?, amount: Some(Amount { read, data }) })
            }
            Answer::Digests(digests) => Ok(Digests { entries: entries_in(digests)?, amount: None }),
            _ => Err(EndError::Answer(serde::de::Error::custom("no digests"))),
        }
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), EndError> {
        self.done(&Request::Abort { dataset: dataset.to_string() })
    }

    fn step_down(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        self.done(&Request::StepDown { dataset: dataset.to_string(), vector: id.to_string() })
    }

    fn take_over(&self, dataset: &DatasetName, id: &VectorId, newest: Guid) -> Result<(), EndError> {
        self.done(&Request::TakeOver(Mark::new(dataset, id, newest)))
    }
}

/// A stream from the other machine.
#[derive(Debug)]
struct Coming {
    output: std::process::ChildStdout,
    running: Running,
    /// What is said beside the stream; lives as long as it does.
    _log: tempfile::NamedTempFile,
}

impl Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Sending for Coming {
    fn finish(self: Box<Self>) -> Result<(), ZfsError> {
        drop(self.output);
        let Err(error) = self.running.wait() else { return Ok(()) };
        let CmdError::Failed { tail, .. } = &error else { return Err(error.into()) };
        match tail.lines().rev().find_map(|line| serde_json::from_str(line).ok()) {
            Some(Answer::Failed(Fault { code, text })) => match Refusal::with_code(&code) {
                Some(why) => Err(ZfsError::Refused { why, source: error }),
                None => Err(broken(text)),
            },
            _ => Err(broken(error.to_string())),
        }
    }
}
