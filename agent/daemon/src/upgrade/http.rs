//! A file on a web server, read in parts, and read on where a connection broke.
//!
//! Owns: which requests are made, how often one is made again, and how many bytes came in. Never: believes what it reads.
//! A file that changes on the server while it is read is an error (its entity tag or date is sent along): parts of two
//! files are no file.

mod address;
mod parts;
mod tries;

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use siris_ibu::delta::Remote;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

pub use address::{beside, shown};
pub use tries::Patience;

use parts::{Parts, Span};
use tries::{Failed, Tries};

/// What is asked for first: manifest and signatures, as a rule.
const HEAD: u64 = 16 * 1024;
/// Parts with no more between them are fetched as one: a request costs about as much.
const GAP: u64 = 4096;
/// At most so much is asked for at once, so that a server that falls silent is noticed.
const SEGMENT: u64 = 4 << 20;
/// Requests under way at once: what waits for one does not wait for the other.
const WORKERS: usize = 4;
/// Pieces that wait to be read, of each request.
const AHEAD: usize = 4;
const PIECE: usize = 64 * 1024;
/// A connection slower than this counts as broken, and is made anew.
const SLOWEST: u64 = 16 * 1024;
/// The certificates that a Debian system trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const CONNECT: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(60);
/// For a whole file from a server that cannot be asked for the rest.
const WHOLE: Duration = Duration::from_secs(6 * 3600);

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is none of a file on a web server.
    #[error("{0} is not an address that starts with http:// or https://")]
    Address(String),
    /// There is no such file.
    #[error("{0} is not there")]
    NotFound(String),
    /// The server, or the way to it, failed.
    #[error("{url} cannot be fetched")]
    Fetch {
        /// The file.
        url: String,
        /// Why.
        source: io::Error,
    },
}

impl HttpError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            HttpError::Address(_) => "no-such-address",
            HttpError::NotFound(_) => "bundle-not-found",
            HttpError::Fetch { .. } => "download-failed",
        }
    }
}

/// A way to a server, with what came in over it.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    patience: Patience,
    received: Arc<AtomicU64>,
}

impl Client {
    /// A client that trusts the certificates that this system trusts.
    pub fn new(patience: Patience) -> Self {
        // Where there is none, no https address works, and says so.
        let bundle = std::fs::read(CERTIFICATES).unwrap_or_default();
        let trusted = parse_pem(&bundle).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let tls = TlsConfig::builder().root_certs(RootCerts::from(trusted)).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("siris-agent/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .max_idle_connections_per_host(WORKERS)
            .build();
        Client { agent: config.new_agent(), patience, received: Arc::default() }
    }

    /// Bytes of files that came in so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// A file that can be had in parts.
#[derive(Debug, Clone)]
pub struct Ranged {
    client: Client,
    url: String,
    /// What says that it is still the same file.
    stamp: Option<String>,
}

/// The beginning of a file, and how the rest is had.
pub enum Opened {
    /// In parts.
    Ranged {
        /// The file.
        file: Ranged,
        /// Its first bytes.
        head: Vec<u8>,
        /// All its bytes.
        len: u64,
    },
    /// All at once only: the server does not do parts.
    Whole(Box<dyn Read + Send>),
}

impl Opened {
    /// All of it, from its first byte on; the rest is asked for when it is read.
    pub fn into_reader(self) -> Box<dyn Read> {
        match self {
            Opened::Ranged { file, head, len } => {
                let rest = Rest { file, from: head.len() as u64, len, body: None };
                Box::new(io::Cursor::new(head).chain(rest))
            }
            Opened::Whole(body) => body,
        }
    }
}

/// Opens a file.
///
/// # Errors
/// [`HttpError`].
pub fn open(client: &Client, url: &str) -> Result<Opened, HttpError> {
    if !super::is_url(url) {
        return Err(HttpError::Address(shown(url)));
    }
    let mut file = Ranged { client: client.clone(), url: url.to_owned(), stamp: None };
    let fetch = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => HttpError::NotFound(shown(url)),
        _ => HttpError::Fetch { url: shown(url), source },
    };
    let mut tries = Tries::new(client.patience);
    loop {
        match file.head() {
            Ok(opened) => return Ok(opened),
            Err(failed) => tries.wait(failed).map_err(fetch)?,
        }
    }
}

fn said(response: &Response<Body>, name: header::HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// First byte and length of the whole, as `bytes 0-99/1234` says.
fn content_range(response: &Response<Body>) -> Option<(u64, u64)> {
    let text = said(response, header::CONTENT_RANGE)?;
    let (range, len) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, len.parse().ok()?))
}

impl Ranged {
    fn ask(&self, part: &Range<u64>, time: Duration) -> Result<Response<Body>, Failed> {
        let range = format!("bytes={}-{}", part.start, part.end - 1);
        let mut request = self.client.agent.get(&self.url).header(header::RANGE, range);
        if let Some(stamp) = &self.stamp {
            request = request.header(header::IF_RANGE, stamp);
        }
        Ok(request.config().timeout_recv_body(Some(time)).build().call()?)
    }

    fn head(&mut self) -> Result<Opened, Failed> {
        let response = self.ask(&(0..HEAD), WHOLE)?;
        // A weak tag says that two files mean the same, not that they are the same.
        let tag = said(&response, header::ETAG).filter(|tag| !tag.starts_with("W/"));
        self.stamp = tag.or_else(|| said(&response, header::LAST_MODIFIED));
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let received = self.client.received.clone();
            return Ok(Opened::Whole(Box::new(Counted { body: response.into_body().into_reader(), received })));
        }
        let Some((0, len)) = content_range(&response) else {
            return Err(Failed::finally(
                io::ErrorKind::InvalidData,
                "the server sent another part than it was asked for",
            ));
        };
        let mut head = Vec::new();
        let read = response.into_body().into_reader().take(HEAD).read_to_end(&mut head);
        self.client.received.fetch_add(head.len() as u64, Ordering::Relaxed);
        match read {
            // The rest is asked for from where this ended, wherever that was.
            _ if !head.is_empty() => Ok(Opened::Ranged { file: self.clone(), head, len }),
            Ok(_) => Err(Failed { error: io::ErrorKind::UnexpectedEof.into(), is_final: false }),
            Err(error) => Err(Failed { error, is_final: false }),
        }
    }

    /// Reads one part, and gives it away piece by piece, from where it broke off when it did. Ends early when nobody
    /// wants it any more.
    fn fetch(&self, span: &Span, to: &SyncSender<io::Result<Vec<u8>>>) {
        let (mut at, mut tries) = (span.all.start, Tries::new(self.client.patience));
        while at < span.all.end {
            let before = at;
            let failed = match self.fetch_some(span, &mut at, to) {
                Ok(true) => continue,
                Ok(false) => return,
                Err(failed) => failed,
            };
            if at > before {
                tries.again();
            }
            if let Err(error) = tries.wait(failed) {
                // Nobody may be there to hear it.
                let _ = to.send(Err(error));
                return;
            }
        }
    }

    /// One request; `false` when nobody wants its bytes.
    fn fetch_some(&self, span: &Span, at: &mut u64, to: &SyncSender<io::Result<Vec<u8>>>) -> Result<bool, Failed> {
        let part = *at..span.all.end.min(*at + SEGMENT);
        let time = Duration::from_secs(60 + (part.end - part.start) / SLOWEST);
        let response = self.ask(&part, time)?;
        if response.status() != StatusCode::PARTIAL_CONTENT
            || content_range(&response).map(|(at, _)| at) != Some(part.start)
        {
            return Err(Failed::finally(
                io::ErrorKind::InvalidData,
                "the file on the server changed while it was read",
            ));
        }
        let mut body = response.into_body().into_reader().take(part.end - part.start);
        let mut piece = vec![0; PIECE];
        while *at < part.end {
            let n = body.read(&mut piece).map_err(|error| Failed { error, is_final: false })?;
            if n == 0 {
                return Err(Failed { error: io::ErrorKind::UnexpectedEof.into(), is_final: false });
            }
            self.client.received.fetch_add(n as u64, Ordering::Relaxed);
            let wanted = span.wanted(*at, &piece[..n]);
            *at += n as u64;
            if !wanted.is_empty() && to.send(Ok(wanted)).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Counted<R> {
    body: R,
    received: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.body.read(buffer)?;
        self.received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Remote for Ranged {
    fn parts(&self, parts: &[Range<u64>]) -> io::Result<Box<dyn Read>> {
        let spans = Arc::new(Span::of(parts));
        let workers = WORKERS.min(spans.len());
        let mut mouths = Vec::new();
        for worker in 0..workers {
            let (file, spans) = (self.clone(), spans.clone());
            // Each worker's spans come through its own channel, and an empty piece ends each.
            let (to, mouth) = sync_channel(AHEAD);
            thread::Builder::new().spawn(move || {
                for span in spans.iter().skip(worker).step_by(workers) {
                    file.fetch(span, &to);
                    if to.send(Ok(Vec::new())).is_err() {
                        return;
                    }
                }
            })?;
            mouths.push(mouth);
        }
        Ok(Box::new(Parts::new(mouths, spans.len())))
    }
}

/// A file from where its head ends; nothing is asked for before it is read.
struct Rest {
    file: Ranged,
    from: u64,
    len: u64,
    body: Option<Box<dyn Read>>,
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.body.is_none() {
            let rest = self.from..self.len;
            self.body = Some(self.file.parts(if rest.is_empty() { &[] } else { std::slice::from_ref(&rest) })?);
        }
        self.body.as_mut().map_or(Ok(0), |body| body.read(buffer))
    }
}

/// A file of which nothing is known yet, to be had in parts.
pub fn unopened(client: &Client, url: String) -> Ranged {
    Ranged { client: client.clone(), url, stamp: None }
}

#[cfg(test)]
pub(crate) mod served;
#[cfg(test)]
mod tests;
