//! A web server on this machine, for tests: it does what servers do, good and bad.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Serves ranges.
    Ranges,
    /// Serves ranges, and hangs up after so many bytes of every answer.
    Breaks(usize),
    /// Knows no ranges.
    Whole,
    /// Serves ranges of a file that is another one at each request.
    Changes,
    /// Has trouble of its own, so many times.
    Trouble(u32),
}

type Files = HashMap<String, Vec<u8>>;

/// A web server of some files; the ranges that were asked for are noted.
pub(crate) struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves these files until the test is over.
    pub(crate) fn start(manner: Manner, files: Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (notes, files) = (asked.clone(), Arc::new(files));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (files, notes) = (files.clone(), notes.clone());
                thread::spawn(move || while answer(connection.as_ref().unwrap(), &files, manner, &notes).is_some() {});
            }
        });
        Server { address, asked }
    }

    pub(crate) fn url(&self, file: &str) -> String {
        format!("http://{}/{file}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers one request; `None` when the connection is over.
fn answer(mut connection: &TcpStream, files: &Files, manner: Manner, notes: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let first = lines.next().filter(|line| !line.is_empty())?;
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        headers
            .iter()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let range = header("range:").unwrap_or_default();
    let count = {
        let mut notes = notes.lock().unwrap();
        notes.push(range.clone());
        notes.len()
    };
    let name = first.strip_prefix("GET /")?.split(' ').next()?;
    let Some(file) = files.get(name) else {
        return connection.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").ok();
    };
    if matches!(manner, Manner::Trouble(times) if count <= times as usize) {
        return connection.write_all(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let tag = if manner == Manner::Changes { format!("\"{count}\"") } else { "\"one\"".to_owned() };
    let same = header("if-range:").is_none_or(|wanted| wanted == tag);
    let asked = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let (status, body, more) = match asked {
        Some((from, to)) if manner != Manner::Whole && same => {
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse::<usize>().unwrap().min(file.len() - 1));
            ("206 Part", &file[from..=to], format!("Content-Range: bytes {from}-{to}/{}\r\n", file.len()))
        }
        _ => ("200 Fine", &file[..], String::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nETag: {tag}\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    connection.write_all(head.as_bytes()).ok()?;
    match manner {
        Manner::Breaks(after) if after < body.len() => {
            connection.write_all(&body[..after]).ok()?;
            connection.shutdown(Shutdown::Both).ok()?;
            None
        }
        _ => connection.write_all(body).ok(),
    }
}
