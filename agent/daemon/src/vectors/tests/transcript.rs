//! One script of calls to ZFS, and what is answered, in words that are the same wherever it is played: guids are numbered in the
//! order in which they are met, refusals are their codes.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io::Read;

use siris_zfs::{Base, Content, DatasetName, Guid, Label, Resume, SnapshotName, Stream, UserProperties, ZfsError};

use super::world::{Machine, name};

/// Plays the script on a machine with the empty pools a, b and c.
pub(super) fn transcript(zfs: &impl Machine) -> Vec<String> {
    let play = Play { zfs, met: RefCell::default(), lines: RefCell::default() };
    play.makes_and_marks();
    play.sends();
    play.breaks_off();
    play.clones();
    play.lines.into_inner()
}

struct Play<'a, Z> {
    zfs: &'a Z,
    met: RefCell<Vec<Guid>>,
    lines: RefCell<Vec<String>>,
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn at(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

/// Bytes that do not compress, other ones for each seed.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

fn stream(snapshot: &str, base: Base, between: bool) -> Stream {
    Stream::Snapshot { snapshot: at(snapshot), base, between, raw: false }
}

fn full(snapshot: &str) -> Stream {
    stream(snapshot, Base::Nothing, false)
}

fn increment(base: &str, snapshot: &str) -> Stream {
    stream(snapshot, Base::Snapshot(at(base)), false)
}

impl<Z: Machine> Play<'_, Z> {
    fn line(&self, text: String) {
        self.lines.borrow_mut().push(text);
    }

    fn say<T: Debug>(&self, what: &str, answer: Result<T, ZfsError>) {
        match answer {
            Ok(answer) => self.line(format!("{what}: {answer:?}")),
            Err(error) => self.line(format!("{what}: {}", error.code())),
        }
    }

    fn number(&self, guid: Guid) -> usize {
        let mut met = self.met.borrow_mut();
        met.iter().position(|known| *known == guid).unwrap_or_else(|| {
            met.push(guid);
            met.len() - 1
        })
    }

    /// Says all that is known of a dataset.
    fn look(&self, dataset: &str) {
        let look = || -> Result<String, ZfsError> {
            let dataset = name(dataset);
            let Some(found) = self.zfs.dataset(&dataset)? else { return Ok("not there".to_owned()) };
            let snapshots = self.zfs.snapshots(&dataset)?;
            let labels: Vec<Label> = snapshots.iter().map(|snapshot| snapshot.label.clone()).collect();
            let shown: Vec<String> =
                snapshots.iter().map(|s| format!("@{}={}", s.label, self.number(s.guid))).collect();
            let marks = self.zfs.bookmarks(&dataset)?;
            let marks: Vec<String> =
                marks.iter().map(|mark| format!("#{}={}", mark.label, self.number(mark.guid))).collect();
            let holds = self.zfs.holds(&dataset, &labels)?;
            let holds: Vec<String> = holds.iter().map(|hold| format!("{} {}", hold.label, hold.tag)).collect();
            let rest = found
                .resume
                .and_then(|rest| rest.stands)
                .map(|stands| (self.number(stands.to), stands.from.map(|from| self.number(from))));
            let origin = found.origin.map(|origin| origin.to_string());
            Ok(format!(
                "{} {} {holds:?} rest {rest:?} origin {origin:?} encrypted {} primary {:?}",
                shown.join(" "),
                marks.join(" "),
                found.encrypted,
                found.primary
            ))
        };
        self.say(dataset, look());
    }

    fn point(&self, dataset: &str, point: &str) {
        let answer = self.zfs.snapshot(&[name(dataset)], &label(point), &UserProperties::new());
        self.say(&format!("snapshot {dataset}@{point}"), answer);
    }

    fn write(&self, dataset: &str, file: &str) {
        let seed = file.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte));
        self.say(&format!("write {file}"), self.zfs.write(&name(dataset), file, Some(&noise(seed, 100_000))));
    }

    /// What a stream is made of, if all of it is sent.
    fn bytes(&self, stream: &Stream) -> Result<Vec<u8>, ZfsError> {
        let (mut sending, mut bytes) = (self.zfs.send(stream)?, Vec::new());
        sending.read_to_end(&mut bytes).map_err(ZfsError::Stream)?;
        sending.finish()?;
        Ok(bytes)
    }

    fn receive(&self, what: &str, stream: &Stream, target: &str) {
        let came = self.bytes(stream).and_then(|bytes| self.zfs.receive(&name(target), &mut &bytes[..]));
        self.say(&format!("receive {what} into {target}"), came);
    }

    /// Only the first half of it arrives.
    fn receive_half(&self, stream: &Stream, target: &str) {
        let half = |bytes: Vec<u8>| self.zfs.receive(&name(target), &mut &bytes[..bytes.len() / 2]);
        self.say(&format!("receive half into {target}"), self.bytes(stream).and_then(half));
    }

    fn rest(&self, target: &str) -> Stream {
        let found = self.zfs.dataset(&name(target)).ok().flatten();
        let rest: Option<Resume> = found.and_then(|found| found.resume);
        Stream::Rest { token: rest.map(|rest| rest.token).unwrap_or_default() }
    }

    fn content(&self, snapshot: &str) {
        let lengths = |content: Content| -> Vec<(String, usize, u8)> {
            content.into_iter().map(|(file, bytes)| (file, bytes.len(), bytes[bytes.len() / 2])).collect()
        };
        self.say(&format!("content of {snapshot}"), self.zfs.content_at(&at(snapshot)).map(lengths));
    }

    fn makes_and_marks(&self) {
        let zfs = self.zfs;
        for dataset in ["a/x", "a/x", "nope/x", "a/deep/below"] {
            self.say(&format!("create {dataset}"), zfs.create(&name(dataset)));
        }
        self.write("a/x", "f1");
        self.point("a/x", "1");
        self.write("a/x", "f2");
        self.point("a/x", "2");
        self.point("a/x", "1");
        let both: [DatasetName; 2] = [name("a/deep"), name("a/x")];
        self.say("snapshot both", zfs.snapshot(&both, &label("2"), &UserProperties::new()));
        self.look("a/deep");
        self.look("a/x");

        for (snapshot, mark) in [("a/x@1", "v"), ("a/x@1", "v"), ("a/x@nope", "w")] {
            self.say(&format!("bookmark {snapshot} {mark}"), zfs.bookmark(&at(snapshot), &label(mark)));
        }
        self.say("destroy bookmark nope", zfs.destroy_bookmark(&name("a/x"), &label("nope")));
        for snapshot in ["a/x@1", "a/x@1", "a/x@nope"] {
            self.say(&format!("hold {snapshot}"), zfs.hold(&at(snapshot), &label("t")));
        }
        self.look("a/x");
        for labels in [&["1"][..], &["2", "1"], &["nope"]] {
            let wanted: Vec<Label> = labels.iter().map(|text| label(text)).collect();
            self.say(&format!("destroy {labels:?}"), zfs.destroy_snapshots(&name("a/x"), &wanted));
        }
        self.look("a/x");
        for snapshot in ["a/x@1", "a/x@1", "a/x@nope"] {
            self.say(&format!("release {snapshot}"), zfs.release(&at(snapshot), &label("t")));
        }
        for (snapshot, to) in [("a/x@2", "two"), ("a/x@1", "two"), ("a/x@nope", "n"), ("a/x@two", "2")] {
            self.say(&format!("rename {snapshot} {to}"), zfs.rename_snapshot(&at(snapshot), &label(to)));
        }
        self.look("a/x");
        self.say("destroy a/x", zfs.destroy(&name("a/x")));
        let key = "org.siris:test";
        self.say("set", zfs.set_property(&name("a/deep"), key, Some("some thing")));
        for dataset in ["a/deep", "a/deep/below", "a/x", "a/nope"] {
            self.say(&format!("property of {dataset}"), zfs.property(&name(dataset), key));
        }
        self.say("inherit", zfs.set_property(&name("a/deep"), key, None));
        self.say("property of a/deep", zfs.property(&name("a/deep"), key));
    }

    fn sends(&self) {
        self.receive("1", &full("a/x@1"), "b/x");
        self.look("b/x");
        self.receive("1 again", &full("a/x@1"), "b/x");
        self.receive("1 to 2", &increment("a/x@1", "a/x@2"), "b/new");
        self.write("a/x", "f3");
        self.point("a/x", "3");
        self.receive("2 to 3", &increment("a/x@2", "a/x@3"), "b/x");
        self.receive("1 to 3", &stream("a/x@3", Base::Snapshot(at("a/x@1")), true), "b/x");
        self.look("b/x");
        self.content("b/x@2");
        self.content("b/x@3");
        // From a bookmark whose snapshot is gone.
        self.say("bookmark a/x@3", self.zfs.bookmark(&at("a/x@3"), &label("v3")));
        self.say("destroy 3", self.zfs.destroy_snapshots(&name("a/x"), &[label("3")]));
        self.write("a/x", "f4");
        self.point("a/x", "4");
        self.receive("#v3 to 4", &stream("a/x@4", Base::Bookmark(label("v3")), false), "b/x");
        self.look("b/x");
        self.content("b/x@4");
        // A target that was written to.
        self.write("b/x", "own");
        self.write("a/x", "f5");
        self.point("a/x", "5");
        self.receive("4 to 5", &increment("a/x@4", "a/x@5"), "b/x");
        self.say("roll back", self.zfs.roll_back(&name("b/x")));
        self.receive("4 to 5", &increment("a/x@4", "a/x@5"), "b/x");
        self.look("b/x");
        self.say("receive noise", self.zfs.receive(&name("b/noise"), &mut &noise(5, 5000)[..]));
        self.look("b/noise");
    }

    fn breaks_off(&self) {
        for file in ["f6", "g6", "h6", "i6"] {
            self.write("a/x", file);
        }
        self.point("a/x", "6");
        let stream = increment("a/x@5", "a/x@6");
        self.receive_half(&stream, "b/x");
        self.look("b/x");
        self.receive("5 to 6", &stream, "b/x");
        self.receive("the rest", &self.rest("b/x"), "b/x");
        self.look("b/x");
        self.content("b/x@6");

        // Of a dataset that is made by it; and a snapshot that has another name meanwhile.
        self.receive_half(&full("a/x@6"), "b/y");
        self.look("b/y");
        self.receive("6", &full("a/x@6"), "b/y");
        self.say("rename", self.zfs.rename_snapshot(&at("a/x@6"), &label("six")));
        self.receive("the rest of a renamed one", &self.rest("b/y"), "b/y");
        self.say("rename back", self.zfs.rename_snapshot(&at("a/x@six"), &label("6")));
        self.look("b/y");
        self.content("b/y@six");

        self.receive_half(&full("a/x@6"), "b/z");
        self.look("b/z");
        for _ in 0..2 {
            self.say("abort", self.zfs.abort_receive(&name("b/z")));
            self.look("b/z");
        }
    }

    fn clones(&self) {
        let zfs = self.zfs;
        for (snapshot, clone) in [("a/x@6", "a/c"), ("a/x@6", "a/c"), ("a/x@nope", "a/d")] {
            let marked = UserProperties::from([("org.siris:mark".to_owned(), "its own".to_owned())]);
            self.say(&format!("clone {snapshot} {clone}"), zfs.clone_snapshot(&at(snapshot), &name(clone), &marked));
        }
        self.say("the clone's mark", zfs.property(&name("a/c"), "org.siris:mark"));
        self.say("destroy 6", zfs.destroy_snapshots(&name("a/x"), &[label("6")]));
        self.write("a/c", "f7");
        self.point("a/c", "7");
        self.look("a/c");
        self.receive("what a clone begins with", &increment("a/x@6", "a/c@7"), "b/x");
        self.say("promote a/c", zfs.promote(&name("a/c")));
        self.say("promote a/c again", zfs.promote(&name("a/c")));
        self.look("a/c");
        self.look("a/x");
        self.receive("6 to 7", &increment("a/c@6", "a/c@7"), "b/x");
        self.look("b/x");
        self.content("b/x@7");
        // A snapshot of its own in between, with nothing new in it.
        self.point("b/x", "own");
        self.write("a/c", "f8");
        self.point("a/c", "8");
        for what in ["7 to 8", "7 to 8 again"] {
            self.receive(what, &increment("a/c@7", "a/c@8"), "b/x");
        }
        self.look("b/x");
        self.content("b/x@8");
        let pools = ["a", "b"].map(|pool| pool.parse().unwrap());
        let names = zfs.datasets(&pools).map(|all| {
            let mut names: Vec<String> = all.into_iter().map(|found| found.name.to_string()).collect();
            names.sort();
            names
        });
        self.say("datasets", names);
        let newest = zfs.newest(&pools).map(|all| {
            let shown =
                all.into_iter().map(|(name, newest)| format!("{name} {} {}", newest.count, newest.snapshot.label));
            shown.collect::<Vec<_>>()
        });
        self.say("newest", newest);
    }
}

#[cfg(test)]
mod tests {
    use siris_zfs::ModelDatasets;

    use super::*;

    /// So that a machine that is not there, or a script that stops early, is not taken for one that answers alike.
    #[test]
    fn the_script_comes_to_its_end_on_the_model_and_meets_every_refusal() {
        let lines = transcript(&ModelDatasets::new(1, &["a", "b", "c"]));
        let all = lines.join("\n");
        for code in [
            "zfs-missing",
            "zfs-exists",
            "zfs-busy",
            "zfs-modified",
            "zfs-not-the-base",
            "zfs-stream-incomplete",
            "zfs-stream-corrupt",
            "zfs-refused",
        ] {
            assert!(all.contains(code), "{code} is not met:\n{all}");
        }
        let says = |line: &str| assert!(lines.iter().any(|said| said == line), "not said: {line}\n{all}");
        says("receive #v3 to 4 into b/x: ()");
        says("receive the rest into b/x: ()");
        says("receive the rest of a renamed one into b/y: ()");
        says("receive 6 to 7 into b/x: ()");
    }
}
