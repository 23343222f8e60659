//! Parsers of what `zfs list -Hp`, `zfs holds -Hp` and `zfs send -nP` print: one row a line, fields parted by tabs, `-`
//! for what is not there. A row that cannot be read is an error: one that is left out would be taken for destroyed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use siris_zfs_label::ResumeToken;

use crate::UserProperties;
use crate::dataset::types::{
    Bookmark, Dataset, Guid, Hold, Kind, Label, Newest, Notes, Rest, Resume, Snapshot, Stands,
};
use crate::types::DatasetName;

/// A row that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown row \"{0}\"")]
pub struct LineError(String);

/// Why rows could not be read as they came.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadRowsError {
    /// One is unknown.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The tool's output broke off.
    #[error(transparent)]
    Read(#[from] std::io::Error),
}

/// Columns asked of `zfs list` for [`datasets`].
pub(super) const DATASET: &str = "name,guid,type,used,encryption,origin,receive_resume_token,org.siris:primary,\
                                  org.siris:asset-id,org.siris:asset-name,org.siris:vectors";
/// Columns asked of `zfs list` for [`snapshots`] and [`bookmarks`].
pub(super) const SNAPSHOT: &str = "name,guid,createtxg";

fn rows<'t, T>(text: &'t str, row: impl Fn(&'t str) -> Option<T>) -> Result<Vec<T>, LineError> {
    text.lines().map(|line| row(line).ok_or_else(|| LineError(line.to_owned()))).collect()
}

fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    let fields: Vec<&str> = line.split('\t').collect();
    fields.try_into().ok()
}

/// `None` where a dash stands: nothing there. The outer one where it cannot be read.
fn optional<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    if text == "-" { Some(None) } else { text.parse().ok().map(Some) }
}

/// A user property; `None` where a dash stands for it.
fn noted(text: &str) -> Option<String> {
    (text != "-").then(|| text.to_owned())
}

/// Rows of a property and its value, which may have tabs in it.
pub(super) fn properties(text: &str) -> Result<UserProperties, LineError> {
    let all = rows(text, |line| line.split_once('\t').map(|(name, value)| (name.to_owned(), value.to_owned())))?;
    Ok(all.into_iter().collect())
}

/// Rows of [`DATASET`], with at least one level of what lies below those that are asked for. A pool's own root dataset, which the
/// name of no [`Dataset`] can be, is left out.
pub(super) fn datasets(text: &str) -> Result<Vec<Dataset>, LineError> {
    let row = |line: &str| {
        let [name, guid, kind, used, encryption, origin, token, primary, id, label, vectors] = fields(line)?;
        if !name.contains('/') {
            return Some(None);
        }
        let kind = match kind {
            "filesystem" => Kind::Filesystem,
            "volume" => Kind::Volume,
            _ => return None,
        };
        Some(Some(Dataset {
            name: name.parse().ok()?,
            guid: guid.parse().ok()?,
            kind,
            used: used.parse().ok()?,
            encrypted: !matches!(encryption, "off" | "-"),
            origin: optional(origin)?,
            // A token of a kind that is not known is no reason to know nothing of all the datasets.
            resume: (token != "-").then(|| Resume { token: token.to_owned(), stands: stands(token) }),
            primary: match primary {
                "on" => Some(true),
                "off" => Some(false),
                _ => None,
            },
            has_children: false,
            notes: Notes { asset_id: noted(id), asset_name: noted(label), vectors: noted(vectors) },
        }))
    };
    let mut all: Vec<Dataset> = rows(text, row)?.into_iter().flatten().collect();
    let parents: BTreeSet<&str> =
        text.lines().filter_map(|line| Some(line.split('\t').next()?.rsplit_once('/')?.0)).collect();
    all.iter_mut().for_each(|dataset| dataset.has_children = parents.contains(dataset.name.as_str()));
    Ok(all)
}

/// What a resume token says; `None` where it cannot be read.
pub(super) fn stands(token: &str) -> Option<Stands> {
    let said = token.parse::<ResumeToken>().ok()?;
    Some(Stands { to: Guid::new(said.to), from: said.from.map(Guid::new) })
}

/// What a resume token would have sent; `None` where it cannot be read, or that is no snapshot.
pub(super) fn rest(token: &str) -> Option<Rest> {
    let said = token.parse::<ResumeToken>().ok().filter(|said| !said.saved)?;
    Some(Rest { to: Guid::new(said.to), raw: said.raw })
}

fn labelled(line: &str, mark: char) -> Option<(Label, Guid, u64)> {
    let [name, guid, createtxg] = fields(line)?;
    Some((name.split_once(mark)?.1.parse().ok()?, guid.parse().ok()?, createtxg.parse().ok()?))
}

/// Rows of [`SNAPSHOT`] with `-t snapshot`.
pub(super) fn snapshots(text: &str) -> Result<Vec<Snapshot>, LineError> {
    rows(text, |line| labelled(line, '@').map(|(label, guid, createtxg)| Snapshot { label, guid, createtxg }))
}

/// The one row of `zfs get -Hpo value guid`.
pub(super) fn guid(text: &str) -> Result<Guid, LineError> {
    text.trim_end().parse().map_err(|_| LineError(text.to_owned()))
}

/// Rows of [`SNAPSHOT`] with `-t snapshot`, of any datasets.
pub(super) fn all_snapshots(text: &str) -> Result<BTreeMap<DatasetName, Vec<Snapshot>>, LineError> {
    let mut all: BTreeMap<DatasetName, Vec<Snapshot>> = BTreeMap::new();
    // Those of one dataset come one after the other: its name is read once.
    let mut of_one: Option<(&str, &mut Vec<Snapshot>)> = None;
    for line in text.lines() {
        let unknown = || LineError(line.to_owned());
        let (dataset, _) = line.split_once('@').ok_or_else(unknown)?;
        let (label, guid, createtxg) = labelled(line, '@').ok_or_else(unknown)?;
        let snapshots = match of_one {
            Some((name, snapshots)) if name == dataset => snapshots,
            _ => all.entry(dataset.parse().map_err(|_| unknown())?).or_default(),
        };
        snapshots.push(Snapshot { label, guid, createtxg });
        of_one = Some((dataset, snapshots));
    }
    all.values_mut().for_each(|snapshots| snapshots.sort_by_key(|snapshot| snapshot.createtxg));
    Ok(all)
}

/// Counts the rows of [`SNAPSHOT`] with `-r -t snapshot`, as they come: they may be very many. Those of a pool's own root
/// dataset are left out.
pub(super) fn newest(
    rows: impl Iterator<Item = std::io::Result<String>>,
) -> Result<BTreeMap<DatasetName, Newest>, ReadRowsError> {
    let mut found: BTreeMap<DatasetName, Newest> = BTreeMap::new();
    for row in rows {
        let row = row?;
        let unknown = || LineError(row.clone());
        let (dataset, _) = row.split_once('@').ok_or_else(unknown)?;
        if !dataset.contains('/') {
            continue;
        }
        let (label, guid, createtxg) = labelled(&row, '@').ok_or_else(unknown)?;
        let snapshot = Snapshot { label, guid, createtxg };
        let dataset = dataset.parse().map_err(|_| unknown())?;
        match found.entry(dataset) {
            Entry::Vacant(entry) => {
                entry.insert(Newest { count: 1, snapshot });
            }
            Entry::Occupied(mut entry) => {
                let newest = entry.get_mut();
                newest.count += 1;
                if newest.snapshot.createtxg < snapshot.createtxg {
                    newest.snapshot = snapshot;
                }
            }
        }
    }
    Ok(found)
}

/// Rows of [`SNAPSHOT`] with `-t bookmark`.
pub(super) fn bookmarks(text: &str) -> Result<Vec<Bookmark>, LineError> {
    rows(text, |line| labelled(line, '#').map(|(label, guid, createtxg)| Bookmark { label, guid, createtxg }))
}

/// Rows of [`SNAPSHOT`] with `-t snapshot,bookmark`.
pub(super) fn marks(text: &str) -> Result<(Vec<Snapshot>, Vec<Bookmark>), LineError> {
    let (mut snapshots, mut bookmarks) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mark = line.chars().find(|c| ['@', '#'].contains(c));
        match mark.and_then(|mark| Some((mark, labelled(line, mark)?))) {
            Some(('@', (label, guid, createtxg))) => snapshots.push(Snapshot { label, guid, createtxg }),
            Some((_, (label, guid, createtxg))) => bookmarks.push(Bookmark { label, guid, createtxg }),
            None => return Err(LineError(line.to_owned())),
        }
    }
    Ok((snapshots, bookmarks))
}

/// Rows of `zfs holds -Hp`: the snapshot, the tag, the time of the hold.
pub(super) fn holds(text: &str) -> Result<Vec<Hold>, LineError> {
    rows(text, |line| {
        let [name, tag, _] = fields(line)?;
        Some(Hold { label: name.split_once('@')?.1.parse().ok()?, tag: tag.parse().ok()? })
    })
}

/// The bytes that `zfs send -nP` expects of a stream: its line `size`.
pub(super) fn send_size(text: &str) -> Result<u64, LineError> {
    let size = text.lines().find_map(|line| line.strip_prefix("size\t")?.trim().parse().ok());
    size.ok_or_else(|| LineError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_or_refused() {
        let text = "tank\t1\tfilesystem\t99\toff\t-\t-\t-\t-\t-\t-\n\
                    tank/a\t2\tfilesystem\t50\toff\t-\t1-abc-def\toff\t123\ta file server\t[]\n\
                    tank/a-1\t4\tfilesystem\t1\toff\t-\t-\t-\t-\t-\t-\n\
                    tank/a/x\t5\tfilesystem\t1\toff\t-\t-\t-\t-\t-\t-\n\
                    tank/b\t3\tvolume\t7\taes-256-gcm\ttank/a@1568402268\t-\t-\t-\t-\t-\n";
        let found = datasets(text).unwrap();
        assert_eq!(
            found.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(),
            ["tank/a", "tank/a-1", "tank/a/x", "tank/b"]
        );
        assert_eq!(found.iter().map(|d| d.has_children).collect::<Vec<_>>(), [true, false, false, false]);
        let [first, .., last] = &found[..] else { panic!("{found:?}") };
        assert_eq!(first.resume, Some(Resume { token: "1-abc-def".to_owned(), stands: None }));
        assert!(last.encrypted && last.kind == Kind::Volume);
        assert_eq!(last.origin.as_ref().unwrap().to_string(), "tank/a@1568402268");
        let notes = Notes {
            asset_id: Some("123".to_owned()),
            asset_name: Some("a file server".to_owned()),
            vectors: Some("[]".to_owned()),
        };
        assert_eq!((&first.notes, &last.notes), (&notes, &Notes::default()));
        assert_eq!([first.primary, last.primary], [Some(false), None]);
        let notes = |id: &str| format!("tank/a\t{id}\tfilesystem\t50\toff\t-\t-\t-\t-\t-\t-");
        assert!(datasets(&notes("2")).is_ok());
        for bad in ["tank/a\t2\tfilesystem\t50\toff\t-\t-\t-\n", &notes("x"), &format!("{}\tx", notes("2")), "\n"] {
            assert!(datasets(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_with_colons_are_whole() {
        let text = "tank/a@2024-01-01T10:00:00\t18446744073709551615\t12\ntank/a@1568402268\t5\t13\n";
        let found = snapshots(text).unwrap();
        assert_eq!(found[0].label.as_str(), "2024-01-01T10:00:00");
        assert_eq!((found[0].guid.as_u64(), found[1].createtxg), (u64::MAX, 13));
        assert!(snapshots("tank/a#x\t1\t2\n").is_err());
        let of_two = all_snapshots(&format!("{text}tank/b@2\t7\t9\ntank/b@1\t6\t8\ntank/a@x\t8\t14\n")).unwrap();
        let labels =
            |name: &str| of_two[&name.parse().unwrap()].iter().map(|s| s.label.to_string()).collect::<Vec<_>>();
        assert_eq!((of_two.len(), labels("tank/b")), (2, vec!["1".to_owned(), "2".to_owned()]));
        assert_eq!(labels("tank/a"), ["2024-01-01T10:00:00", "1568402268", "x"]);
        assert!(all_snapshots("tank/a@1\t1\t2\ntank/a\t1\t2\n").is_err());
        assert_eq!(bookmarks("tank/a#v:1\t5\t13\n").unwrap()[0].label.as_str(), "v:1");
        assert_eq!(marks(&format!("{text}tank/a#v:1\t5\t13\n")).unwrap().1[0].label.as_str(), "v:1");
        for bad in ["tank/a\t1\t2\n", "tank/a@x#y\t1\t2\n", "tank/a#x\t1\n"] {
            assert!(marks(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_newest_is_so_by_its_transaction_group() {
        let text = "tank@x\t1\t1\ntank/a@9\t5\t14\ntank/b@1\t7\t20\ntank/a@8\t6\t15\n";
        let found = newest(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        assert_eq!(found.len(), 2);
        let a = &found[&"tank/a".parse().unwrap()];
        assert_eq!((a.count, a.snapshot.label.as_str(), a.snapshot.guid.as_u64()), (2, "8", 6));
        assert!(newest(["tank/a".to_owned()].into_iter().map(Ok)).is_err());
    }

    #[test]
    fn holds_and_sizes() {
        let found = holds("tank/a@1568402268\tsiris:vector:7\t1568402300\n").unwrap();
        assert_eq!(found[0].tag.as_str(), "siris:vector:7");
        assert_eq!(send_size("full\ttank/a@1\t1234\nsize\t1234\n").unwrap(), 1234);
        assert!(send_size("full\ttank/a@1\n").is_err());
    }
}
