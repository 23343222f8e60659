//! A shell on the machine, over SSH.
//!
//! One connection is kept by a child process (killed with the machine, never left behind), and commands share it: a
//! handshake costs seconds under emulation.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use siris_host::cmd::{Cmd, Running, Tool};

use crate::deadline::{self, Deadline};
use crate::lab::Lab;

/// How long one command may take unless the case says otherwise.
const LIMIT: Duration = Duration::from_secs(120);

/// What a command on the machine did.
#[derive(Debug)]
pub struct Done {
    /// Its exit status; `None` if the connection broke.
    pub status: Option<i32>,
    /// What it printed on both outputs.
    pub text: String,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {:?}: {}", self.status, self.text.trim_end())
    }
}

/// The way into one machine.
pub struct Guest<'a> {
    lab: &'a Lab,
    port: u16,
    socket: PathBuf,
    log: PathBuf,
    connection: Option<Running>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(lab: &'a Lab, port: u16, socket: PathBuf, log: PathBuf) -> Self {
        Guest { lab, port, socket, log, connection: None }
    }

    /// The port of the host's loopback that leads to the machine's SSH.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `ssh`'s options for reaching the machine as root with the run's key.
    pub fn ssh_options(&self) -> Vec<String> {
        let mut args = vec!["-F".to_owned(), "/dev/null".to_owned()];
        let options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "ConnectTimeout=30",
            "LogLevel=ERROR",
            "IdentitiesOnly=yes",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=6",
        ];
        for option in options {
            args.extend(["-o".to_owned(), option.to_owned()]);
        }
        args.extend(["-i".to_owned(), self.lab.key().display().to_string()]);
        args.extend(["-p".to_owned(), self.port.to_string()]);
        args
    }

    fn ssh(&self) -> Cmd {
        self.lab.tool(Tool::Ssh).args(self.ssh_options()).arg("-S").arg(&self.socket).log(&self.log)
    }

    /// Waits until the machine lets us in.
    ///
    /// # Errors
    /// When it did not within the limit.
    pub fn connect(&mut self, limit: Duration) -> Result<()> {
        self.disconnect();
        let deadline = Deadline::after(limit);
        let mut attempt = None;
        while !self.socket.exists() {
            deadline.pause("the machine's SSH")?;
            let running = match attempt.take() {
                Some(running) => running,
                None => self.ssh().args(["-M", "-N", "root@127.0.0.1"]).spawn()?,
            };
            let mut running = running;
            if running.try_wait()?.is_none() {
                attempt = Some(running);
            } else {
                for _ in 0..10 {
                    deadline.pause("the machine's SSH")?;
                }
            }
        }
        self.connection = attempt;
        Ok(())
    }

    /// Leads a port of the machine's own loopback to one of the host's, as long as the connection is kept.
    ///
    /// # Errors
    /// When the machine's SSH refuses.
    pub fn forward(&self, port: u16, to: u16) -> Result<()> {
        let way = format!("127.0.0.1:{port}:127.0.0.1:{to}");
        Ok(self.ssh().args(["-O", "forward", "-R", &way, "root@127.0.0.1"]).run()?)
    }

    /// Drops the connection.
    pub fn disconnect(&mut self) {
        drop(self.connection.take());
        // Absent unless the connection was killed before it could remove it.
        let _ = fs::remove_file(&self.socket);
    }

    /// What `ssh` says to one fresh try with the run's key that must not be let in.
    ///
    /// # Errors
    /// When it is let in.
    pub fn denial(&self, user: &str) -> Result<String> {
        let log = self.log.with_extension("denied");
        let try_once = self.lab.tool(Tool::Ssh).args(self.ssh_options()).arg(format!("{user}@127.0.0.1")).arg("true");
        let mut ssh = try_once.log(&log).spawn()?;
        let status = deadline::until(Duration::from_secs(90), "one SSH try", || Ok(ssh.try_wait()?))?;
        if status.success() {
            bail!("SSH let {user} in");
        }
        Ok(fs::read_to_string(&log)?)
    }

    /// Runs a command of the shell and tells how it went.
    ///
    /// # Errors
    /// When it did not end within two minutes, or `ssh` cannot be run.
    pub fn run(&self, command: &str) -> Result<Done> {
        self.run_for(LIMIT, command, b"")
    }

    /// As [`Guest::run`], with a limit and something on its standard input.
    ///
    /// # Errors
    /// When it did not end within the limit, or `ssh` cannot be run.
    pub fn run_for(&self, limit: Duration, command: &str, input: &[u8]) -> Result<Done> {
        let mut ssh = self.ssh().arg("root@127.0.0.1").arg(format!("{{ {command}\n}} 2>&1")).spawn()?;
        let mut output = ssh.stdout().context("ssh has no output")?;
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            // A broken connection ends what can be read; the status tells of it.
            let _ = output.read_to_end(&mut bytes);
            bytes
        });
        if let Some(mut stdin) = ssh.stdin() {
            // A command that does not read its input may be gone already.
            let _ = stdin.write_all(input);
        }
        let status = deadline::until(limit, &format!("`{command}` on the machine"), || Ok(ssh.try_wait()?))?;
        let text = String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
        Ok(Done { status: status.code().filter(|&code| code != 255), text })
    }

    /// Runs a command that must succeed, and returns what it printed, without the last line end.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok(&self, command: &str) -> Result<String> {
        let done = self.run(command)?;
        if done.status != Some(0) {
            bail!("`{command}` on the machine: {done}");
        }
        Ok(done.text.trim_end().to_owned())
    }

    /// Runs a command that must fail by itself, and returns what it printed.
    ///
    /// # Errors
    /// When it succeeds or the connection breaks.
    pub fn refused(&self, command: &str) -> Result<String> {
        let done = self.run(command)?;
        match done.status {
            Some(0) => bail!("`{command}` on the machine was not refused: {}", done.text.trim_end()),
            None => bail!("the machine was lost during `{command}`"),
            Some(_) => Ok(done.text),
        }
    }

    /// Asks again and again until the command succeeds.
    ///
    /// # Errors
    /// When it did not within the limit; with what it said last.
    pub fn eventually(&self, limit: Duration, command: &str) -> Result<String> {
        let deadline = Deadline::after(limit);
        loop {
            let done = self.run(command)?;
            if done.status == Some(0) {
                return Ok(done.text.trim_end().to_owned());
            }
            for _ in 0..5 {
                deadline.pause(&format!("`{command}` to succeed on the machine")).with_context(|| done.to_string())?;
            }
        }
    }
}
