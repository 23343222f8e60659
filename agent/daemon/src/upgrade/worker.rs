//! The process that writes a slot: it ends when it has, and its memory with it.
//!
//! In: the bundle on its standard input, or its address. Out: a line of JSON for each [`Said`], on its standard output.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use siris_zfs::Zfs;

use super::about::About;
use super::http::{Client, Patience};
use super::{Allowed, Fetched, Told, install, install_from, is_url, open};
use crate::root::Root;
use crate::{observe, slots};

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "said")]
pub enum Said {
    /// So many bytes of the payload are on the disk.
    Progress {
        /// Bytes.
        done: u64,
        /// All of them.
        total: u64,
    },
    /// It is over, well.
    Armed {
        /// The slot that the next boot tries.
        slot: String,
        /// What it holds.
        version: String,
        /// How it got there over the network.
        fetched: Option<Fetched>,
    },
    /// What a bundle is.
    Bundle(About),
    /// A slot was marked.
    Marked {
        /// The slot.
        slot: String,
        /// What was done to it, in words.
        done: String,
    },
    /// It is over, and nothing is armed.
    Failed {
        /// Stable code.
        code: String,
        /// What, why, and what to do.
        text: String,
    },
}

/// Marks a slot, and says what was done. Says whether it went well.
pub fn mark(root: &Root, state: &str, slot: &str, out: &mut dyn Write) -> bool {
    let result = slots::mark(root, observe::booted_slot(root).slot, state, slot);
    let said = match &result {
        Ok(marked) => Said::Marked { slot: marked.slot.to_string(), done: marked.done.to_owned() },
        Err(error) => Said::Failed { code: error.code().to_owned(), text: crate::chain(error) },
    };
    // Who started it waits for this line.
    let _ = writeln!(out, "{}", serde_json::to_string(&said).unwrap_or_default());
    result.is_ok()
}

/// Where a bundle comes from.
pub enum Source<R> {
    /// From its first byte on.
    Stream(R),
    /// A web server's, or a file's.
    Address(String),
}

/// Says what the bundle at an address is. Says whether that went well.
pub fn inspect(root: &Root, zfs: &dyn Zfs, address: &str, out: &mut dyn Write) -> bool {
    let about = open(&Client::new(Patience::short()), address).and_then(|source| About::look(root, zfs, source));
    let said = match &about {
        Ok(about) => Said::Bundle(about.clone()),
        Err(error) => Said::Failed { code: error.code().to_owned(), text: crate::chain(error) },
    };
    // Who started it waits for this line.
    let _ = writeln!(out, "{}", serde_json::to_string(&said).unwrap_or_default());
    about.is_ok()
}

/// Writes the other slot, and says how it goes. Says whether it went well.
pub fn run<R: Read>(root: &Root, zfs: &dyn Zfs, source: Source<R>, allowed: Allowed, out: &mut dyn Write) -> bool {
    let mut percent = None;
    let mut say = |said: &Said| {
        let line = serde_json::to_string(said).unwrap_or_default();
        // Who started it may be gone, being restarted: the slot is written all the same.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    let mut told = |Told { done, total }: Told| {
        let now = done * 100 / total.max(1);
        if percent.replace(now) != Some(now) {
            say(&Said::Progress { done, total });
        }
    };
    let client = Client::new(Patience::default());
    let result = match source {
        Source::Stream(source) => install(root, zfs, source, allowed, &mut told),
        Source::Address(url) if is_url(&url) => install_from(root, zfs, &client, &url, allowed, &mut told),
        Source::Address(path) => open(&client, &path).and_then(|source| install(root, zfs, source, allowed, &mut told)),
    };
    match &result {
        Ok(armed) => {
            let (slot, version) = (armed.slot.to_string(), armed.version.to_string());
            say(&Said::Armed { slot, version, fetched: armed.fetched })
        }
        Err(error) => say(&Said::Failed { code: error.code().to_owned(), text: crate::chain(error) }),
    }
    result.is_ok()
}
