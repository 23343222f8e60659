//! Why ZFS refused, told from the words of its tool, which has one exit status for everything.
//!
//! The words are those of OpenZFS 2.3's libzfs (libzfs_util.c, libzfs_dataset.c, libzfs_sendrecv.c). Words that are not
//! known are [`Refusal::Other`]: what the tool said is in the error all the same.

/// Why ZFS refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such dataset, snapshot or bookmark.
    Missing,
    /// There is one of that name already.
    Exists,
    /// It is held, mounted and in use, or has clones or children.
    Busy,
    /// The pool or a quota is full.
    NoSpace,
    /// The receiver has been changed since its newest snapshot.
    Modified,
    /// The receiver's newest snapshot is not the stream's base.
    NotTheBase,
    /// The stream broke off.
    Incomplete,
    /// The stream is damaged, or is none.
    Corrupt,
    /// A name is too long.
    NameTooLong,
    /// Something else.
    Other,
}

const WORDS: [(Refusal, &[&str]); 9] = [
    (Refusal::Modified, &["has been modified"]),
    (
        Refusal::NotTheBase,
        &[
            "does not match incremental source",
            "incremental source",
            "must specify -F to overwrite",
            "the same snapshot used in the initial send",
        ],
    ),
    (Refusal::Incomplete, &["incomplete stream", "checksum mismatch or incomplete", "failed to read from stream"]),
    (Refusal::Corrupt, &["checksum mismatch", "invalid stream", "invalid backup stream", "resume token is corrupt"]),
    (Refusal::NoSpace, &["out of space", "No space left", "quota exceeded"]),
    (Refusal::NameTooLong, &["too long"]),
    (
        Refusal::Busy,
        &[
            "is busy",
            "dependent clones",
            "is cloned",
            "being held",
            "has children",
            "property may be set but unable to remount",
            "contains partially-complete state",
        ],
    ),
    (
        Refusal::Missing,
        &["does not exist", "no longer exists", "could not find any snapshots", "no such", "No such", "not found"],
    ),
    (Refusal::Exists, &["already exists", "exists"]),
];

impl Refusal {
    /// Reads it from what the tool said.
    pub(super) fn of(said: &str) -> Self {
        let known = WORDS.iter().find(|(_, words)| words.iter().any(|word| said.contains(word)));
        known.map_or(Refusal::Other, |(refusal, _)| *refusal)
    }

    /// All of them.
    const ALL: [Refusal; 10] = [
        Refusal::Missing,
        Refusal::Exists,
        Refusal::Busy,
        Refusal::NoSpace,
        Refusal::Modified,
        Refusal::NotTheBase,
        Refusal::Incomplete,
        Refusal::Corrupt,
        Refusal::NameTooLong,
        Refusal::Other,
    ];

    /// The one with this code.
    pub fn with_code(code: &str) -> Option<Self> {
        Refusal::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Missing => "zfs-missing",
            Refusal::Exists => "zfs-exists",
            Refusal::Busy => "zfs-busy",
            Refusal::NoSpace => "zfs-no-space",
            Refusal::Modified => "zfs-modified",
            Refusal::NotTheBase => "zfs-not-the-base",
            Refusal::Incomplete => "zfs-stream-incomplete",
            Refusal::Corrupt => "zfs-stream-corrupt",
            Refusal::NameTooLong => "zfs-name-too-long",
            Refusal::Other => "zfs-refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_names_one() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::with_code(refusal.code()), Some(refusal));
        }
        assert_eq!(Refusal::with_code("zfs"), None);
    }

    #[test]
    fn the_tools_words_are_told_apart() {
        for (said, refusal) in [
            ("cannot open 'tank/x': dataset does not exist", Refusal::Missing),
            ("cannot create snapshot 'tank/a@1': dataset already exists", Refusal::Exists),
            ("cannot destroy snapshot tank/a@1: dataset is busy", Refusal::Busy),
            ("cannot destroy 'tank/a@1': snapshot has dependent clones", Refusal::Busy),
            (
                "cannot receive incremental stream: destination tank/b has been modified\nsince most recent snapshot",
                Refusal::Modified,
            ),
            (
                "cannot receive incremental stream: most recent snapshot of tank/b does not\nmatch incremental source",
                Refusal::NotTheBase,
            ),
            (
                "cannot receive new filesystem stream: destination 'tank/b' exists\nmust specify -F to overwrite it",
                Refusal::NotTheBase,
            ),
            (
                "cannot receive new filesystem stream: checksum mismatch or incomplete stream.\nPartially received snapshot is saved.",
                Refusal::Incomplete,
            ),
            ("cannot receive new filesystem stream: out of space", Refusal::NoSpace),
            ("cannot receive: invalid stream (bad magic number)", Refusal::Corrupt),
            ("cannot receive new filesystem stream: destination tank/b space quota exceeded.", Refusal::NoSpace),
            ("cannot resume send: 'tank/a@1' used in the initial send no longer exists", Refusal::Missing),
            (
                "cannot resume send: 'tank/a@1' is no longer the same snapshot used in the initial send",
                Refusal::NotTheBase,
            ),
            (
                "cannot receive incremental stream: destination tank/b contains partially-complete state from \"zfs receive -s\".",
                Refusal::Busy,
            ),
            ("permission denied", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(said), refusal, "{said}");
        }
    }
}
