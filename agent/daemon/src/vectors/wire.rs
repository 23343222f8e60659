//! What two agents say to each other: a request as the command of an SSH session, an answer as a line of JSON.
//!
//! Owns: the words. In both directions texts of ZFS are parse into names before anything is done with them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};
use siris_zfs::{
    Base, Bookmark, Dataset, DatasetName, Guid, Kind, Notes, Resume, Snapshot, SnapshotName, Stands, Stream, ZfsError,
};

use super::VectorId;
use super::digest::Entry;
use super::end::EndError;
use super::plan::View;
use super::travel::VectorRecord;

/// Something of another version, or made up: names that are none, kinds that do not exist.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not what it should be")]
pub(super) struct Unknown(String);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    Look {
        dataset: String,
    },
    Pin(Mark),
    Keep(Mark),
    Forget {
        dataset: String,
        vector: String,
    },
    Send {
        dataset: String,
        stream: StreamText,
    },
    Size {
        dataset: String,
        stream: StreamText,
    },
    Receive {
        dataset: String,
    },
    /// As [`Request::Receive`], where `from` is the newest snapshot, if it is told; the one that the stream leads to is marked, and
    /// what there is then is the answer.
    Land {
        to: Mark,
        from: Option<u64>,
    },
    Abort {
        dataset: String,
    },
    /// Of all that is in the snapshot: what an agent asks for that does not know [`Request::Prove`].
    Digest {
        dataset: String,
        guid: u64,
    },
    /// Digests for a proof, where less may be read unless all is wanted.
    Prove {
        dataset: String,
        guid: u64,
        whole: bool,
    },
    StepDown {
        dataset: String,
        vector: String,
    },
    /// Keeps a vector's record with a dataset.
    Enter {
        dataset: String,
        record: VectorRecord,
    },
    /// Keeps with a replica what its source has of the asset and its vectors.
    Tell {
        dataset: String,
        notes: Notes,
    },
    /// The snapshot is to be the newest one.
    TakeOver(Mark),
}

/// A snapshot that a vector marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub dataset: String,
    pub vector: String,
    pub guid: u64,
}

impl Request {
    pub(super) fn land(dataset: &DatasetName, id: &VectorId, from: Option<Guid>, to: Guid) -> Self {
        Request::Land { to: Mark::new(dataset, id, to), from: from.map(Guid::as_u64) }
    }
}

impl Mark {
    pub(super) fn new(dataset: &DatasetName, id: &VectorId, guid: Guid) -> Self {
        Mark { dataset: dataset.to_string(), vector: id.to_string(), guid: guid.as_u64() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum StreamText {
    Snapshot { snapshot: String, base: BaseText, between: bool, raw: bool },
    Rest { token: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum BaseText {
    Nothing,
    Snapshot(String),
    Bookmark(String),
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Answer {
    Done,
    /// Bytes.
    Size(u64),
    View(Option<Box<ViewText>>),
    /// Paths in hexadecimal digits (a path may be any bytes), and their digests.
    Digests(Vec<(String, String)>),
    /// Such digests, and how many bytes were read for them, of how many.
    Proven {
        digests: Vec<(String, String)>,
        read: u64,
        data: u64,
    },
    Failed(Fault),
}

/// Why it did not go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub code: String,
    pub text: String,
}

impl Fault {
    pub(super) fn of(error: &EndError) -> Self {
        Fault { code: error.code().to_owned(), text: crate::chain(error) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ViewText {
    name: String,
    guid: u64,
    is_volume: bool,
    used: u64,
    encrypted: bool,
    origin: Option<String>,
    origin_guid: Option<u64>,
    token: Option<String>,
    /// Of the token: to and from.
    stands: Option<(u64, Option<u64>)>,
    #[serde(default)]
    primary: Option<bool>,
    #[serde(default)]
    has_children: bool,
    #[serde(default)]
    notes: Notes,
    /// Whoever tells this knows [`Request::Land`].
    #[serde(default)]
    pub(super) lands: bool,
    /// Name, guid and transaction group.
    snapshots: Vec<(String, u64, u64)>,
    bookmarks: Vec<(String, u64, u64)>,
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Unknown> {
    text.parse().map_err(|_| Unknown(text.to_owned()))
}

impl From<&View> for ViewText {
    fn from(view: &View) -> Self {
        let Dataset { name, guid, kind, used, encrypted, origin, resume, primary, has_children, notes } = &view.dataset;
        let stands = resume.as_ref().and_then(|resume| resume.stands.as_ref());
        ViewText {
            name: name.to_string(),
            guid: guid.as_u64(),
            is_volume: *kind == Kind::Volume,
            used: *used,
            encrypted: *encrypted,
            origin: origin.as_ref().map(ToString::to_string),
            origin_guid: view.origin.map(Guid::as_u64),
            token: resume.as_ref().map(|resume| resume.token.clone()),
            stands: stands.map(|stands| (stands.to.as_u64(), stands.from.map(Guid::as_u64))),
            primary: *primary,
            has_children: *has_children,
            notes: notes.clone(),
            lands: true,
            snapshots: view.snapshots.iter().map(|s| (s.label.to_string(), s.guid.as_u64(), s.createtxg)).collect(),
            bookmarks: view.bookmarks.iter().map(|b| (b.label.to_string(), b.guid.as_u64(), b.createtxg)).collect(),
        }
    }
}

impl TryFrom<ViewText> for View {
    type Error = Unknown;

    fn try_from(text: ViewText) -> Result<Self, Unknown> {
        let stands = text.stands.map(|(to, from)| Stands { to: Guid::new(to), from: from.map(Guid::new) });
        let snapshot = |(label, guid, createtxg): &(String, u64, u64)| {
            Ok(Snapshot { label: parse(label)?, guid: Guid::new(*guid), createtxg: *createtxg })
        };
        let bookmark = |(label, guid, createtxg): &(String, u64, u64)| {
            Ok(Bookmark { label: parse(label)?, guid: Guid::new(*guid), createtxg: *createtxg })
        };
        Ok(View {
            dataset: Dataset {
                name: parse(&text.name)?,
                guid: Guid::new(text.guid),
                kind: if text.is_volume { Kind::Volume } else { Kind::Filesystem },
                used: text.used,
                encrypted: text.encrypted,
                origin: text.origin.as_deref().map(parse).transpose()?,
                resume: text.token.map(|token| Resume { token, stands }),
                primary: text.primary,
                has_children: text.has_children,
                notes: text.notes,
            },
            origin: text.origin_guid.map(Guid::new),
            snapshots: text.snapshots.iter().map(snapshot).collect::<Result<_, _>>()?,
            bookmarks: text.bookmarks.iter().map(bookmark).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Stream> for StreamText {
    fn from(stream: &Stream) -> Self {
        match stream {
            Stream::Rest { token } => StreamText::Rest { token: token.clone() },
            Stream::Snapshot { snapshot, base, between, raw } => StreamText::Snapshot {
                snapshot: snapshot.to_string(),
                base: match base {
                    Base::Nothing => BaseText::Nothing,
                    Base::Snapshot(name) => BaseText::Snapshot(name.to_string()),
                    Base::Bookmark(label) => BaseText::Bookmark(label.to_string()),
                },
                between: *between,
                raw: *raw,
            },
        }
    }
}

impl TryFrom<StreamText> for Stream {
    type Error = Unknown;

    fn try_from(text: StreamText) -> Result<Self, Unknown> {
        Ok(match text {
            // A token is an argument behind its option, and is read before it is used.
            StreamText::Rest { token } => Stream::Rest { token },
            StreamText::Snapshot { snapshot, base, between, raw } => Stream::Snapshot {
                snapshot: parse::<SnapshotName>(&snapshot)?,
                base: match base {
                    BaseText::Nothing => Base::Nothing,
                    BaseText::Snapshot(name) => Base::Snapshot(parse(&name)?),
                    BaseText::Bookmark(label) => Base::Bookmark(parse(&label)?),
                },
                between,
                raw,
            },
        })
    }
}

impl From<Unknown> for EndError {
    fn from(unknown: Unknown) -> Self {
        EndError::Peer { code: "peer-unknown-request".to_owned(), text: unknown.to_string() }
    }
}

pub(super) fn entries_out(entries: &[Entry]) -> Vec<(String, String)> {
    entries.iter().map(|entry| (hex::encode(entry.path.as_os_str().as_bytes()), entry.digest.clone())).collect()
}

pub(super) fn entries_in(texts: Vec<(String, String)>) -> Result<Vec<Entry>, Unknown> {
    let entry = |(path, digest): (String, String)| match hex::decode(&path) {
        Ok(bytes) => Ok(Entry { path: OsString::from_vec(bytes).into(), digest }),
        Err(_) => Err(Unknown(path)),
    };
    texts.into_iter().map(entry).collect()
}

/// A stream that ended in an error of the other machine's.
pub(super) fn broken(text: String) -> ZfsError {
    ZfsError::Stream(std::io::Error::other(text))
}
