//! Parts of a file: what is fetched in a row, and putting what several workers fetch in its order again.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::mpsc::Receiver;

use super::{GAP, SEGMENT};

/// What is fetched in a row, and the parts of it that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) all: Range<u64>,
    parts: Vec<Range<u64>>,
}

impl Span {
    /// Puts parts together that lie near each other, and takes long ones apart.
    pub(super) fn of(parts: &[Range<u64>]) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for part in parts {
            let mut start = part.start;
            while start < part.end {
                let end = part.end.min(start + SEGMENT);
                match spans.last_mut() {
                    Some(span) if start - span.all.end <= GAP && end - span.all.start <= SEGMENT => {
                        span.all.end = end;
                        span.parts.push(start..end);
                    }
                    _ => spans.push(Span { all: start..end, parts: std::iter::once(start..end).collect() }),
                }
                start = end;
            }
        }
        spans
    }

    /// The wanted bytes among those that were read at `at`.
    pub(super) fn wanted(&self, at: u64, bytes: &[u8]) -> Vec<u8> {
        let end = at + bytes.len() as u64;
        let mut wanted = Vec::new();
        for part in &self.parts {
            let (from, to) = (part.start.max(at), part.end.min(end));
            if from < to {
                wanted.extend_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        }
        wanted
    }
}

/// Parts that several workers fetch, in their order.
pub(super) struct Parts {
    mouths: Vec<Receiver<io::Result<Vec<u8>>>>,
    /// Spans that are not read to their end.
    left: usize,
    turn: usize,
    piece: Vec<u8>,
    given: usize,
}

impl Parts {
    /// Reads so many spans, each from the channel of the worker whose turn it is, to the empty piece that ends it.
    pub(super) fn new(mouths: Vec<Receiver<io::Result<Vec<u8>>>>, spans: usize) -> Self {
        Parts { mouths, left: spans, turn: 0, piece: Vec::new(), given: 0 }
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.piece.len() {
            if self.left == 0 {
                return Ok(0);
            }
            let next = self.mouths[self.turn].recv();
            self.piece = next.map_err(|_| io::Error::other("the thread that fetches ended"))??;
            self.given = 0;
            if self.piece.is_empty() {
                self.left -= 1;
                self.turn = (self.turn + 1) % self.mouths.len();
            }
        }
        let left = &self.piece[self.given..];
        let n = left.len().min(buffer.len());
        buffer[..n].copy_from_slice(&left[..n]);
        self.given += n;
        Ok(n)
    }
}
