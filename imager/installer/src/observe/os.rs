//! Which OS lies on a file system, found without mounting it.
//!
//! `debugfs` reads ext2, 3 and 4 on a device that refuses writes, and replays no journal: what it shows is as old as
//! the last checkpoint, which is good enough to name an OS by.

use std::path::Path;

use siris_host::cmd::{Cmd, Tool};

use crate::facts::{Content, Os};
use crate::state::{INSTALL, RECEIPT};

/// The OS on the ext file system that `content` names, on the device at `path` from byte `start` on.
pub fn find(path: &Path, start: u64, content: &[Content]) -> Option<Content> {
    let at = content.iter().find_map(|content| match content {
        Content::FileSystem(fs) if fs.kind.starts_with("ext") => Some(start),
        // A mirror's half is a file system with something before it.
        Content::Md(md) if md.level == 1 && md.data_start > 0 => Some(start + md.data_start),
        _ => None,
    })?;
    let release = ["/usr/lib/os-release", "/etc/os-release"].iter().find_map(|file| cat(path, at, file))?;
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    let name = value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "an unnamed OS".to_owned());
    let hostname = cat(path, at, "/etc/hostname").map(|text| text.trim().to_owned()).filter(|name| is_plain(name));
    Some(Content::Os(Os { name: printable(&name), hostname }))
}

/// The id of the install that made the state partition at `start`, and whether its receipt is there.
pub fn install(path: &Path, start: u64) -> (Option<String>, bool) {
    let record = cat(path, start, &format!("/persist{INSTALL}"));
    let id = record.and_then(|text| {
        let table: toml::Table = text.parse().ok()?;
        Some(table.get("id")?.as_str()?.to_owned()).filter(|id| is_plain(id))
    });
    let receipt = cat(path, start, &format!("/persist{RECEIPT}")).is_some_and(|text| text.starts_with('{'));
    (id, receipt)
}

/// A file of the ext file system on the device at `path` from byte `start` on.
pub fn cat(path: &Path, start: u64, file: &str) -> Option<String> {
    let device = format!("{}?offset={start}", path.display());
    // It ends with 0 whether there is such a file or not.
    let text = Cmd::new(Tool::Debugfs).args(["-R", &format!("cat {file}"), &device]).text().ok()?;
    let text = text.strip_prefix(RETRIED).unwrap_or(&text);
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// The names in a directory of that file system, sorted.
pub fn list(path: &Path, start: u64, dir: &str) -> Vec<String> {
    let device = format!("{}?offset={start}", path.display());
    // Lines of `/inode/mode/uid/gid/name/size/`.
    let text = Cmd::new(Tool::Debugfs).args(["-R", &format!("ls -p {dir}"), &device]).text().unwrap_or_default();
    let name = |line: &str| line.split('/').nth(5).map(str::to_owned);
    let mut names: Vec<String> = text.lines().filter(|l| l.starts_with('/')).filter_map(name).collect();
    // A name with a blank would be read as two arguments, and there is none that matters.
    names.retain(|name| !name.is_empty() && !name.starts_with('.') && !name.contains([' ', '"']));
    names.sort();
    names
}

/// What debugfs says on standard output, of all places, before it goes on without checksums.
const RETRIED: &str = "Checksum errors in superblock!  Retrying...\n";

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// What a foreign disk says goes on a person's screen.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
