//! A machine without an agent as an end of a vector: its `zfs` tool, over SSH.
//!
//! Owns: how a command gets through the shell there as it is, and that a link that breaks is told apart from a tool that
//! refuses. What is in a snapshot cannot be read there: such a vector is not proven.

use std::io::Read;

use siris_host::cmd::{Cmd, CmdError};
use siris_zfs::{DatasetName, Guid, Notes, RunsZfs, Sending, Stream, ZfsError};

use super::VectorId;
use super::digest::{Digests, Scope};
use super::end::{End, EndError, Local};
use super::plan::View;
use super::remote::{Shell, Ssh, unreachable};
use super::travel::VectorRecord;

/// What SSH exits with when it did not get through; no command of ZFS's does.
const NOT_THROUGH: i32 = 255;

/// The tool of another machine.
#[derive(Debug)]
struct FarZfs(Ssh);

impl RunsZfs for FarZfs {
    fn zfs(&self, arguments: &[String]) -> Cmd {
        let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        self.0.run(&format!("zfs {}", words.join(" ")))
    }

    fn is_here(&self) -> bool {
        false
    }
}

/// A word that a shell takes as it is.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A machine without an agent.
#[derive(Debug)]
pub struct Server(FarZfs);

impl Server {
    /// The machine that is reached in this way.
    pub fn new(ssh: Ssh) -> Self {
        Server(FarZfs(ssh))
    }

    fn end(&self) -> Local<'_> {
        Local::new(&self.0)
    }
}

fn is_not_through(error: &CmdError) -> bool {
    matches!(error, CmdError::Failed { status, .. } if status.code() == Some(NOT_THROUGH))
}

/// What SSH says is about the link, and not ZFS's.
fn of_link(error: EndError) -> EndError {
    match error {
        EndError::Zfs(ZfsError::Refused { source, .. }) if is_not_through(&source) => unreachable(source),
        other => other,
    }
}

impl End for Server {
    fn look(&self, dataset: &DatasetName) -> Result<Option<View>, EndError> {
        self.end().look(dataset).map_err(of_link)
    }

    fn pin(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError> {
        self.end().pin(dataset, id, guid, seen).map_err(of_link)
    }

    fn keep(&self, dataset: &DatasetName, id: &VectorId, guid: Guid, seen: Option<&View>) -> Result<(), EndError> {
        self.end().keep(dataset, id, guid, seen).map_err(of_link)
    }

    fn forget(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        self.end().forget(dataset, id).map_err(of_link)
    }

    fn enter(&self, dataset: &DatasetName, record: &VectorRecord) -> Result<(), EndError> {
        self.end().enter(dataset, record).map_err(of_link)
    }

    fn tell(&self, dataset: &DatasetName, notes: &Notes) -> Result<(), EndError> {
        self.end().tell(dataset, notes).map_err(of_link)
    }

    fn send(&self, dataset: &DatasetName, stream: &Stream) -> Result<Box<dyn Sending>, EndError> {
        let sending = self.end().send(dataset, stream).map_err(of_link)?;
        Ok(Box::new(Coming(sending)))
    }

    fn size(&self, dataset: &DatasetName, stream: &Stream) -> Result<u64, EndError> {
        self.end().size(dataset, stream).map_err(of_link)
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), EndError> {
        self.end().receive(dataset, stream).map_err(of_link)
    }

    fn digest(&self, dataset: &DatasetName, guid: Guid, scope: Scope) -> Result<Digests, EndError> {
        self.end().digest(dataset, guid, scope).map_err(of_link)
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), EndError> {
        self.end().abort_receive(dataset).map_err(of_link)
    }

    fn step_down(&self, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        self.end().step_down(dataset, id).map_err(of_link)
    }

    fn take_over(&self, dataset: &DatasetName, id: &VectorId, newest: Guid) -> Result<(), EndError> {
        self.end().take_over(dataset, id, newest).map_err(of_link)
    }
}

/// A stream from there.
#[derive(Debug)]
struct Coming(Box<dyn Sending>);

impl Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Sending for Coming {
    fn finish(self: Box<Self>) -> Result<(), ZfsError> {
        match self.0.finish() {
            Err(ZfsError::Refused { source, .. }) if is_not_through(&source) => {
                Err(ZfsError::Stream(std::io::Error::other(source)))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_each_word_as_it_is() {
        for word in ["tank/a@1", "", "a b", "it's", "$(id)", "`id`;&|<>*?", "a\\b\"c"] {
            let echoed = Cmd::new(siris_host::cmd::Tool::Bash).args(["-c", &format!("printf %s {}", quoted(word))]);
            assert_eq!(echoed.text().unwrap(), word);
        }
    }
}
