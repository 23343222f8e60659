//! The streams of the model: what they consist of, what they do to a dataset, and what one that broke off leaves.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::{Snap, State, refuse};
use crate::dataset::types::{Guid, Rest, Resume, SnapshotName, Stands};
use crate::dataset::{Base, Refusal, Sending, Stream};
use crate::types::DatasetName;
use crate::{UserProperties, ZfsError};

/// What a receive that broke off has left.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    header: Header,
    records: Vec<Record>,
    /// The dataset was made by it, and goes with it.
    pub(super) is_fresh: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    to: u64,
    /// Its full name on the sender.
    name: String,
    from: Option<u64>,
    /// It begins from the origin of a clone.
    of_clone: bool,
    encrypted: bool,
    /// Records that come before the first one.
    skipped: usize,
}

/// A path, and what is there now; nothing where it is gone.
pub(super) type Record = (String, Option<Vec<u8>>);

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Line {
    Begin(Header),
    Record(Record),
    End,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token {
    to: u64,
    from: Option<u64>,
    received: usize,
    #[serde(default)]
    raw: bool,
}

impl Partial {
    pub(super) fn resume(&self) -> Resume {
        let Header { to, from, encrypted, .. } = self.header;
        let token = Token { to, from, received: self.records.len(), raw: encrypted };
        // Its own types serialise.
        let token = serde_json::to_string(&token).unwrap_or_default();
        let stands = Stands { to: Guid::new(to), from: from.map(Guid::new) };
        Resume { token, stands: Some(stands) }
    }
}

/// What a token would have sent.
pub(super) fn leads_to(token: &str) -> Option<Rest> {
    serde_json::from_str::<Token>(token).ok().map(|token| Rest { to: Guid::new(token.to), raw: token.raw })
}

impl State {
    /// The streams that a stream consists of, one behind the other.
    pub(super) fn streams(&self, stream: &Stream) -> Result<Vec<(Header, Vec<Record>)>, ZfsError> {
        match stream {
            Stream::Snapshot { snapshot, base, between, raw } => {
                let set = self.set(&snapshot.dataset)?;
                if set.encrypted != *raw {
                    return refuse(Refusal::Other, "an encrypted dataset travels raw, and no other does");
                }
                let from = match base {
                    Base::Snapshot(base) => Some(self.snap(base)?.guid),
                    _ if *between => return refuse(Refusal::Other, "from a snapshot only"),
                    Base::Nothing => None,
                    Base::Bookmark(label) => {
                        let found = set.bookmarks.iter().find(|b| b.label == *label);
                        Some(found.map_or_else(|| refuse(Refusal::Missing, label), Ok)?.guid)
                    }
                };
                let to = self.snap(snapshot)?;
                let after = from.and_then(|from| set.snaps.iter().find(|snap| snap.guid == from));
                let after = after.map_or(0, |snap| snap.createtxg);
                let passed = set.snaps.iter().filter(|s| *between && after < s.createtxg && s.createtxg < to.createtxg);
                let steps = passed.map(|snap| snap.guid).chain([to.guid]);
                let step = |from: &mut Option<Guid>, to: Guid| Some((from.replace(to), to));
                steps.scan(from, step).map(|(from, to)| self.stream(to, from, 0)).collect()
            }
            Stream::Rest { token } => {
                let Ok(token) = serde_json::from_str::<Token>(token) else { return refuse(Refusal::Corrupt, "token") };
                // Whatever it is called now.
                Ok(vec![self.stream(Guid::new(token.to), token.from.map(Guid::new), token.received)?])
            }
        }
    }

    /// What one stream consists of, without the records that came before.
    fn stream(&self, to: Guid, from: Option<Guid>, skipped: usize) -> Result<(Header, Vec<Record>), ZfsError> {
        let Some((name, set, snap)) = self.by_guid(to) else { return refuse(Refusal::Missing, to) };
        let createtxg = |guid: Guid| {
            let own = set.snaps.iter().find(|s| s.guid == guid).map(|s| s.createtxg);
            own.or_else(|| set.bookmarks.iter().find(|b| b.guid == guid).map(|b| b.createtxg))
        };
        let of_clone = from.is_some() && from == set.origin;
        let before = match from {
            None => Content::new(),
            Some(from) => {
                if !of_clone && createtxg(from).is_none_or(|txg| txg >= snap.createtxg) {
                    return refuse(Refusal::NotTheBase, format!("{from} of {name}"));
                }
                self.past.get(&from).map(|content| content.as_ref().clone()).unwrap_or_default()
            }
        };
        let header = Header {
            to: to.as_u64(),
            name: format!("{name}@{}", snap.label),
            from: from.map(Guid::as_u64),
            of_clone,
            encrypted: set.encrypted,
            skipped,
        };
        let mut records = differences(&before, &snap.content);
        if skipped > records.len() {
            return refuse(Refusal::Corrupt, "token");
        }
        Ok((header, records.split_off(skipped)))
    }

    pub(super) fn receive(
        &mut self,
        name: &DatasetName,
        mut header: Header,
        records: Vec<Record>,
        is_whole: bool,
    ) -> Result<(), ZfsError> {
        let mut before = Vec::new();
        let mut fresh = false;
        match self.sets.get_mut(name).map(|set| (set.partial.clone(), set)) {
            Some((Some(partial), set)) => {
                let continues = (partial.header.to, partial.header.from) == (header.to, header.from)
                    && header.skipped == partial.records.len();
                if !continues {
                    return refuse(Refusal::Busy, format!("{name}: another receive has left something"));
                }
                set.partial = None;
                (before, fresh) = (partial.records, partial.is_fresh);
            }
            _ if header.skipped > 0 => return refuse(Refusal::Missing, format!("{name}: nothing to continue")),
            Some((None, set)) => {
                if header.from.is_none() || header.of_clone {
                    return refuse(Refusal::NotTheBase, name);
                }
                if set.snaps.iter().any(|snap| header.name.ends_with(&format!("@{}", snap.label))) {
                    return refuse(Refusal::Exists, name);
                }
                let Some(at) = set.snaps.iter().position(|snap| Some(snap.guid.as_u64()) == header.from) else {
                    return refuse(Refusal::NotTheBase, name);
                };
                let base = &set.snaps[at].content;
                // Snapshots behind the base that hold nothing new are no hindrance, unless the stream is raw.
                let hinders = |snap: &Snap| header.encrypted || snap.content != *base;
                if set.snaps[at + 1..].iter().any(hinders) || **base != set.content {
                    return refuse(Refusal::Modified, name);
                }
            }
            None => {
                if header.from.is_some() {
                    return refuse(Refusal::Missing, name);
                }
                self.may_make(name)?;
                let set = self.fresh(header.encrypted);
                self.sets.insert(name.clone(), set);
                fresh = true;
            }
        }
        before.extend(records);
        header.skipped = 0;
        let txg = self.txg();
        let set = self.set_mut(name)?;
        if !is_whole {
            set.partial = Some(Partial { header, records: before, is_fresh: fresh });
            return refuse(Refusal::Incomplete, name);
        }
        for (path, bytes) in before {
            match bytes {
                Some(bytes) => set.content.insert(path, bytes),
                None => set.content.remove(&path),
            };
        }
        let Ok(SnapshotName { label, .. }) = header.name.parse() else { return refuse(Refusal::Corrupt, name) };
        let (guid, content) = (Guid::new(header.to), Arc::new(set.content.clone()));
        set.snaps.push(Snap {
            label,
            guid,
            createtxg: txg,
            content: content.clone(),
            holds: BTreeSet::new(),
            properties: UserProperties::new(),
        });
        self.past.insert(guid, content);
        Ok(())
    }
}

fn differences(before: &Content, now: &Content) -> Vec<Record> {
    let gone = before.keys().filter(|path| !now.contains_key(*path)).map(|path| (path.clone(), None));
    let changed = now.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes));
    gone.chain(changed.map(|(path, bytes)| (path.clone(), Some(bytes.clone())))).collect()
}

/// The bytes that these streams travel as, one behind the other.
pub(super) fn sending(streams: Vec<(Header, Vec<Record>)>) -> Result<Box<dyn Sending>, ZfsError> {
    let lines = streams.into_iter().flat_map(|(header, records)| {
        [Line::Begin(header)].into_iter().chain(records.into_iter().map(Line::Record)).chain([Line::End])
    });
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, &line).map_err(|error| ZfsError::Stream(error.into()))?;
        bytes.push(b'\n');
    }
    Ok(Box::new(ModelSending(Cursor::new(bytes))))
}

/// Reads the streams behind one another; `take` has each, and whether it is whole.
pub(super) fn read(
    from: &mut dyn Read,
    mut take: impl FnMut(Header, Vec<Record>, bool) -> Result<(), ZfsError>,
) -> Result<(), ZfsError> {
    let mut lines = BufReader::new(from).split(b'\n');
    // A line that was cut off, or is none, ends the stream; a source that fails does too.
    let mut next = || lines.next()?.ok().and_then(|line| serde_json::from_slice::<Line>(&line).ok());
    let Some(Line::Begin(mut header)) = next() else { return refuse(Refusal::Corrupt, "no stream") };
    let mut records = Vec::new();
    loop {
        match next() {
            Some(Line::Record(record)) => records.push(record),
            Some(Line::End) => {
                take(header, std::mem::take(&mut records), true)?;
                // Another one behind it; where that is missing nobody can tell.
                match next() {
                    None => return Ok(()),
                    Some(Line::Begin(following)) => header = following,
                    Some(_) => return refuse(Refusal::Corrupt, "no stream"),
                }
            }
            Some(Line::Begin(_)) => return refuse(Refusal::Corrupt, "two streams"),
            None => return take(header, records, false),
        }
    }
}

#[derive(Debug)]
struct ModelSending(Cursor<Vec<u8>>);

impl Read for ModelSending {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Sending for ModelSending {
    fn finish(self: Box<Self>) -> Result<(), ZfsError> {
        Ok(())
    }
}
