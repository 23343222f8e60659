//! `siris-agent peer`: what another machine may ask of this one, over SSH, with the key that was registered for it.
//!
//! Owns: what a key may do. It is the only command of its key: whatever is asked for arrives as a request of a few fixed
//! kinds, about datasets below one prefix. Never: runs anything else; destroys a snapshot; sends for a key that may only
//! receive, which is told names and digests.

use std::io::{BufReader, Read, Write};

use siris_zfs::{Base, DatasetName, Datasets, Label, Notes, Stream};
use uuid::Uuid;

use super::VectorId;
use super::digest::{Amount, Scope};
use super::end::{End, EndError, Local, may_leave};
use super::travel::{self, VectorRecord};
use super::wire::{Answer, Fault, Mark, Request, entries_out, parse};
use crate::root::Root;

/// Bytes of a stream that are on their way at once.
const BUFFER: usize = 256 << 10;
/// Longest request, in bytes.
const REQUEST_MAX: usize = 64 * 1024;

/// The code of [`Refused::NotARequest`]: also an older agent's, of a request that it does not know.
pub(super) const NOT_A_REQUEST: &str = "peer-not-a-request";

/// What a key may do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Device id of the machine that has the key.
    pub device: Uuid,
    /// Datasets below this one, and no others.
    pub prefix: DatasetName,
    /// It may have streams received.
    pub may_receive: bool,
    /// It may have streams sent.
    pub may_send: bool,
}

/// Why a request is refused before anything is done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is no request.
    #[error("this key runs requests of siris-agent only")]
    NotARequest,
    /// The dataset is another one's business.
    #[error("this key is for datasets below {prefix} only, not for {asked}")]
    Elsewhere {
        /// Where it may.
        prefix: DatasetName,
        /// What it asked for.
        asked: String,
    },
    /// It may not do that at all.
    #[error("this key may not {0}")]
    NotAllowed(&'static str),
    /// It is written to here.
    #[error("{0} is the primary here: nothing is received into it")]
    Primary(String),
    /// The vector is another machine's.
    #[error("vector {0} is none of this key's machine, nor of this one")]
    ForeignVector(String),
}

impl Refused {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::NotARequest => NOT_A_REQUEST,
            Refused::Elsewhere { .. } => "peer-outside-prefix",
            Refused::NotAllowed(_) => "peer-not-allowed",
            Refused::Primary(_) => "target-is-primary",
            Refused::ForeignVector(_) => "peer-foreign-vector",
        }
    }
}

impl From<Refused> for EndError {
    fn from(refused: Refused) -> Self {
        EndError::Peer { code: refused.code().to_owned(), text: refused.to_string() }
    }
}

/// One session: what was asked for is done, if the key may.
#[derive(Debug)]
pub struct Session<'a> {
    /// This machine's datasets.
    pub zfs: &'a dyn Datasets,
    /// Where what is read for a proof is kept; `None` keeps nothing.
    pub root: Option<&'a Root>,
    /// The key's rights.
    pub rights: &'a Rights,
}

impl Session<'_> {
    /// Does what `request` asks for, the text of an SSH command. Answers on `output`: a line of JSON, or the stream that
    /// was asked for, and in that case what went wrong is a line on `errors`. Says whether it went well.
    pub fn run(&self, request: &str, input: &mut dyn Read, output: &mut dyn Write, errors: &mut dyn Write) -> bool {
        let asked = if request.len() > REQUEST_MAX { None } else { serde_json::from_str::<Request>(request).ok() };
        let Some(asked) = asked else {
            let fault = Fault::of(&Refused::NotARequest.into());
            // Some person with the wrong key, most likely.
            let _ = writeln!(errors, "{}", fault.text);
            return answer(output, &Answer::Failed(fault));
        };
        if let Request::Send { dataset, stream } = asked {
            let sent =
                stream.try_into().map_err(EndError::from).and_then(|stream| self.send(&dataset, &stream, output));
            return sent.map_err(|error| answer(errors, &Answer::Failed(Fault::of(&error)))).is_ok();
        }
        let done = self.answered(asked, input).unwrap_or_else(|error| Answer::Failed(Fault::of(&error)));
        answer(output, &done)
    }

    fn answered(&self, request: Request, input: &mut dyn Read) -> Result<Answer, EndError> {
        let end = self.root.map_or_else(|| Local::new(self.zfs), |root| Local::keeping(self.zfs, root));
        match request {
            Request::Look { dataset } => {
                let view = end.look(&self.below(&dataset)?)?;
                return Ok(Answer::View(view.as_ref().map(|view| Box::new(view.into()))));
            }
            Request::Pin(Mark { dataset, vector, guid }) => {
                end.pin(&self.below(&dataset)?, &self.vector(&vector)?, siris_zfs::Guid::new(guid), None)?;
            }
            Request::Keep(Mark { dataset, vector, guid }) => {
                end.keep(&self.below(&dataset)?, &self.vector(&vector)?, siris_zfs::Guid::new(guid), None)?;
            }
            Request::Forget { dataset, vector } => end.forget(&self.below(&dataset)?, &self.vector(&vector)?)?,
            Request::Size { dataset, stream } => {
                let stream = stream.try_into()?;
                self.may_be_sent(&dataset, &stream)?;
                return Ok(Answer::Size(self.zfs.send_size(&stream)?));
            }
            Request::Receive { dataset } => {
                self.may(self.rights.may_receive, "have streams received")?;
                let dataset = self.below(&dataset)?;
                self.is_no_primary(&dataset)?;
                end.receive(&dataset, input)?;
            }
            Request::Land { to: Mark { dataset, vector, guid }, from } => {
                self.may(self.rights.may_receive, "have streams received")?;
                let (dataset, id) = (self.below(&dataset)?, self.vector(&vector)?);
                self.is_no_primary(&dataset)?;
                let between = (from.map(siris_zfs::Guid::new), siris_zfs::Guid::new(guid));
                let view = end.land(&dataset, &id, between, input)?;
                return Ok(Answer::View(view.as_ref().map(|view| Box::new(view.into()))));
            }
            Request::Abort { dataset } => {
                self.may(self.rights.may_receive, "have streams received")?;
                end.abort_receive(&self.below(&dataset)?)?;
            }
            Request::Digest { dataset, guid } => {
                let digests = end.digest(&self.below(&dataset)?, siris_zfs::Guid::new(guid), Scope::Whole)?;
                return Ok(Answer::Digests(entries_out(&digests.entries)));
            }
            Request::Prove { dataset, guid, whole } => {
                let scope = if whole { Scope::Whole } else { Scope::Changed };
                let digests = end.digest(&self.below(&dataset)?, siris_zfs::Guid::new(guid), scope)?;
                let Amount { read, data } = digests.amount.unwrap_or_default();
                return Ok(Answer::Proven { digests: entries_out(&digests.entries), read, data });
            }
            Request::Enter { dataset, record } => {
                let id = self.vector(&record.id)?;
                let text = serde_json::to_string(&[&record]).ok();
                self.are_sound(&Notes { vectors: text, ..Notes::default() })?;
                end.enter(&self.below(&dataset)?, &VectorRecord { id: id.to_string(), ..record })?;
            }
            Request::Tell { dataset, notes } => {
                self.may(self.rights.may_receive, "have streams received")?;
                let dataset = self.below(&dataset)?;
                self.are_sound(&notes)?;
                self.is_no_primary(&dataset)?;
                end.tell(&dataset, &notes)?;
            }
            // Whoever may both send and receive may have the two change places.
            Request::StepDown { dataset, vector } => {
                let (dataset, id) = self.may_change_places(&dataset, &vector)?;
                end.step_down(&dataset, &id)?;
            }
            Request::TakeOver(Mark { dataset, vector, guid }) => {
                let (dataset, id) = self.may_change_places(&dataset, &vector)?;
                end.take_over(&dataset, &id, siris_zfs::Guid::new(guid))?;
            }
            Request::Send { .. } => return Err(Refused::NotARequest.into()),
        }
        Ok(Answer::Done)
    }

    /// What cannot be listed is kept by nobody.
    fn are_sound(&self, notes: &Notes) -> Result<(), EndError> {
        if travel::are_sound(notes) { Ok(()) } else { Err(Refused::NotARequest.into()) }
    }

    fn is_no_primary(&self, dataset: &DatasetName) -> Result<(), EndError> {
        match self.zfs.dataset(dataset)?.and_then(|found| found.primary) {
            Some(true) => Err(Refused::Primary(dataset.to_string()).into()),
            _ => Ok(()),
        }
    }

    fn may_be_sent(&self, dataset: &str, stream: &Stream) -> Result<(), EndError> {
        self.may(self.rights.may_send, "have streams sent")?;
        let dataset = self.below(dataset)?;
        if let Stream::Snapshot { snapshot, base, .. } = stream {
            self.below(snapshot.dataset.as_str())?;
            if let Base::Snapshot(base) = base {
                self.below(base.dataset.as_str())?;
            }
        }
        may_leave(self.zfs, &dataset, stream)
    }

    fn send(&self, dataset: &str, stream: &Stream, output: &mut dyn Write) -> Result<(), EndError> {
        self.may_be_sent(dataset, stream)?;
        let mut sending = self.zfs.send(stream)?;
        let mut buffered = BufReader::with_capacity(BUFFER, &mut sending);
        let copied = std::io::copy(&mut buffered, output).and_then(|_| output.flush());
        // A reader that is gone is the other machine's business; what ZFS says goes first.
        sending.finish()?;
        copied.map_err(|error| siris_zfs::ZfsError::Stream(error).into())
    }

    /// A dataset that this key's machine may have change places: its own vector has marked it.
    fn may_change_places(&self, dataset: &str, vector: &str) -> Result<(DatasetName, VectorId), EndError> {
        self.may(self.rights.may_receive && self.rights.may_send, "have datasets change places")?;
        let (dataset, id) = (self.below(dataset)?, self.vector(vector)?);
        let is_its_own = id.device == self.rights.device
            && self.zfs.bookmarks(&dataset)?.iter().any(|bookmark| id.owns(&bookmark.label));
        if is_its_own { Ok((dataset, id)) } else { Err(Refused::ForeignVector(vector.to_owned()).into()) }
    }

    fn may(&self, right: bool, what: &'static str) -> Result<(), EndError> {
        if right { Ok(()) } else { Err(Refused::NotAllowed(what).into()) }
    }

    fn below(&self, dataset: &str) -> Result<DatasetName, EndError> {
        let prefix = &self.rights.prefix;
        let is_below = dataset.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let elsewhere =
            || Refused::Elsewhere { prefix: prefix.clone(), asked: dataset.chars().take(Label::MAX).collect() };
        if is_below { Ok(parse(dataset)?) } else { Err(elsewhere().into()) }
    }

    fn vector(&self, vector: &str) -> Result<VectorId, EndError> {
        let id: VectorId = parse(vector)?;
        if id.device == self.rights.device { Ok(id) } else { Err(Refused::ForeignVector(vector.to_owned()).into()) }
    }
}

fn answer(output: &mut dyn Write, answer: &Answer) -> bool {
    // Its own types serialise; a reader that is gone needs no answer.
    let line = serde_json::to_string(answer).unwrap_or_default();
    let said = writeln!(output, "{line}").and_then(|()| output.flush()).is_ok();
    said && !matches!(answer, Answer::Failed(_))
}
