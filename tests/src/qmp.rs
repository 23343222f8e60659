//! QEMU's control socket.
//!
//! Owns: the protocol (QEMU's docs/interop/qmp-spec). Never: knows what a machine is for.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::deadline;

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Connects to a socket that QEMU is about to make.
    ///
    /// # Errors
    /// When it does not appear or does not speak the protocol.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream =
            deadline::until(Duration::from_secs(20), "QEMU's control socket", || Ok(UnixStream::connect(path).ok()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut qmp = Qmp { reader: BufReader::new(stream.try_clone()?), writer: stream };
        qmp.message().context("read QEMU's greeting")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer; events that come in between are passed over.
    ///
    /// # Errors
    /// When QEMU refuses it or is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.writer, "{request}").with_context(|| format!("send {command} to QEMU"))?;
        loop {
            let mut message = self.message().with_context(|| format!("read QEMU's answer to {command}"))?;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                bail!("QEMU refused {command}: {}", error["desc"].as_str().unwrap_or_default());
            }
        }
    }

    /// Saves RAM and device states to a file and leaves the machine stopped.
    ///
    /// # Errors
    /// When the machine holds something that cannot be saved (an NVMe disk), or the file cannot be written.
    pub fn save_state(&mut self, path: &Path) -> Result<()> {
        self.execute("stop", json!({}))?;
        self.execute("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 40 }))?;
        self.execute("migrate", json!({ "uri": format!("file:{}", path.display()) }))?;
        self.await_migration()
    }

    /// Loads what [`Qmp::save_state`] saved into a machine started with `-incoming defer`, and lets it run.
    ///
    /// # Errors
    /// When the state does not fit the machine.
    pub fn load_state(&mut self, path: &Path) -> Result<()> {
        self.execute("migrate-incoming", json!({ "uri": format!("file:{}", path.display()) }))?;
        self.await_migration()?;
        self.execute("cont", json!({}))?;
        Ok(())
    }

    fn await_migration(&mut self) -> Result<()> {
        deadline::until(Duration::from_secs(120), "the machine's state", || {
            let answer = self.execute("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => Ok(Some(())),
                Some("failed" | "cancelled") => bail!("state not carried over: {answer}"),
                _ => Ok(None),
            }
        })
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU closed its control socket");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
