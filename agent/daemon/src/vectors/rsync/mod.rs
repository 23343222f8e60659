//! Vectors to and from a machine without ZFS and without an agent: a directory there, and the rsync program over SSH.
//!
//! Owns: what is asked before anything is written, and in which order, so that wherever it is cut the next run goes on.
//! Pushed, the newest recovery point grows beside the copy that is there and takes its place when it is whole (the script
//! `there.sh`); the point is held and bookmarked here as another vector's base is. Fetched, the dataset is brought into line
//! with the directory, and a recovery point is taken when that went well. Never: deletes here because there is nothing there;
//! touches there what this vector has not made.

mod command;
mod error;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use siris_zfs::{DatasetName, Datasets, FETCHED_BY, Guid, Snapshot, SnapshotName, ZfsError};

use super::VectorId;
use super::end::{End, EndError, Local};
use super::limit::Rate;
use super::plan::{Obstacle, View};
use super::prove::Proof;
use super::record::FarPath;
use super::remote::Shell;
use super::server::quoted;
use super::sync::{SyncError, Watch};
use crate::datasets::take_point;
use command::{Ended, MARK, Run, Work, said};
pub use error::MirrorError;

/// What runs on the other machine.
const THERE: &str = include_str!("there.sh");
/// What it says behind the vector when that has come to its end.
const WHOLE: &str = "whole";

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From here to the directory.
    Push,
    /// From the directory to here.
    Pull,
}

/// A vector between a dataset here and a directory there.
#[derive(Debug)]
pub struct Mirror<'a> {
    /// The vector.
    pub id: VectorId,
    /// The dataset here.
    pub dataset: &'a DatasetName,
    /// The directory there.
    pub path: &'a FarPath,
    /// Which way the data goes.
    pub way: Way,
    /// This machine's datasets.
    pub zfs: &'a dyn Datasets,
    /// The other machine.
    pub shell: &'a dyn Shell,
}

/// What the other machine has of a vector that pushes: guids of recovery points, as the script prints them.
#[derive(Debug, Default, PartialEq, Eq)]
struct There {
    whole: Option<String>,
    partial: Option<String>,
}

impl Mirror<'_> {
    /// Brings the target into line with the source; gives the recovery point that the target has then.
    ///
    /// # Errors
    /// When it does not come to its end. Run again, it goes on.
    pub fn sync(&self, watch: &mut dyn Watch) -> Result<Snapshot, SyncError> {
        match self.way {
            Way::Push => self.push(watch),
            Way::Pull => self.pull(watch),
        }
    }

    /// Compares both ends, each of which reads its own disks: what is pushed with the point it was made of, what is fetched
    /// with the newest point here.
    ///
    /// # Errors
    /// When there is nothing to compare, or an end fails.
    pub fn verify(&self) -> Result<Proof, SyncError> {
        let view = self.view(MirrorError::TargetMissing(self.dataset.clone()))?;
        let (base, there) = match self.way {
            Way::Push => {
                let whole = self.look()?.whole;
                let base = view.snapshots.into_iter().find(|snapshot| Some(point(snapshot)) == whole);
                (base.ok_or(MirrorError::NothingInCommon)?, self.script("compare", &[]))
            }
            Way::Pull => {
                let newest = view.snapshots.into_iter().next_back();
                (newest.ok_or(MirrorError::NothingInCommon)?, self.script("fetch", &["no"]))
            }
        };
        let found = self.shown(&base, |here| {
            let run = Run { shell: self.shell, there: there.clone(), here, way: self.way, link_dest: None };
            Ok(run.complete(Work::Compare)?)
        })?;
        let paths = usize::try_from(found.paths).unwrap_or(usize::MAX);
        let differing = found.differing.into_iter().map(Into::into).collect();
        Ok(Proof { base, paths, digest: String::new(), differing, source: None, target: None })
    }

    /// Takes back what the vector has marked here. The copy there, or what was fetched, stays.
    ///
    /// # Errors
    /// When ZFS refuses.
    pub fn forget(zfs: &dyn Datasets, dataset: &DatasetName, id: &VectorId) -> Result<(), EndError> {
        Local::new(zfs).forget(dataset, id)?;
        let is_there = zfs.dataset(dataset)?.is_some();
        if is_there && zfs.property(dataset, FETCHED_BY)?.is_some_and(|by| Fetched::by(&by, id).is_ours) {
            zfs.set_property(dataset, FETCHED_BY, None)?;
        }
        Ok(())
    }

    /// The command there that does one thing of the script.
    fn script(&self, todo: &str, more: &[&str]) -> String {
        let id = self.id.to_string();
        let words = ["sh", todo, self.path.as_str(), &id].into_iter().chain(more.iter().copied());
        format!("sh -c {} {}", quoted(THERE), words.map(quoted).collect::<Vec<_>>().join(" "))
    }

    fn look(&self) -> Result<There, MirrorError> {
        let mut there = There::default();
        let text = said(self.shell.run(&self.script("look", &[])))?;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("whole", point)) => there.whole = Some(point.to_owned()),
                Some(("partial", point)) => there.partial = Some(point.to_owned()),
                _ => return Err(MirrorError::Answer(line.to_owned())),
            }
        }
        Ok(there)
    }

    /// What there is of the dataset here, in which nothing else may lie.
    fn view(&self, missing: impl Into<SyncError>) -> Result<View, SyncError> {
        let view = Local::new(self.zfs).look(self.dataset).map_err(MirrorError::from)?.ok_or_else(|| missing.into())?;
        if view.dataset.has_children {
            return Err(MirrorError::HasChildren(self.dataset.clone()).into());
        }
        Ok(view)
    }

    fn push(&self, watch: &mut dyn Watch) -> Result<Snapshot, SyncError> {
        loop {
            let view = self.view(Obstacle::SourceMissing(self.dataset.to_string()))?;
            let newest = view.snapshots.last().ok_or(Obstacle::NoPoints)?;
            let There { whole, partial } = self.look()?;
            let have = |there: &Option<String>| view.snapshots.iter().find(|snapshot| Some(point(snapshot)) == *there);
            if let Some(base) = have(&whole) {
                Local::new(self.zfs).keep(self.dataset, &self.id, base.guid, Some(&view)).map_err(SyncError::Source)?;
                if base.guid == newest.guid {
                    return Ok(base.clone());
                }
            } else if let Some(known) = whole.as_ref().filter(|known| !is_marked(&view, known)) {
                return Err(MirrorError::CopyUnknown(self.path.to_string(), known.clone()).into());
            } else if whole.is_none()
                && let Some(base) = view.base(&self.id)
            {
                let name = view.snapshot(base.guid).map_or(&base.label, |snapshot| &snapshot.label);
                return Err(MirrorError::CopyMissing(name.clone(), self.path.to_string()).into());
            }
            // What was begun is brought to its end: a copy that is of two points would have files of the older one written to
            // that the whole copy shares.
            let next = have(&partial).unwrap_or(newest);
            Local::new(self.zfs).pin(self.dataset, &self.id, next.guid, Some(&view)).map_err(SyncError::Source)?;
            self.send(next, whole.is_some(), watch)?;
        }
    }

    /// Has one point take the place of the copy there, where there is one.
    fn send(&self, next: &Snapshot, has_copy: bool, watch: &mut dyn Watch) -> Result<(), SyncError> {
        let named = point(next);
        said(self.shell.run(&self.script("begin", &[&named])))?;
        self.shown(next, |here| {
            if here.join(MARK).symlink_metadata().is_ok() {
                return Err(MirrorError::MarkTaken(MARK).into());
            }
            let link_dest = has_copy.then_some(self.path.as_str());
            let there = self.script("fill", &[]);
            transfer(&Run { shell: self.shell, there, here, way: Way::Push, link_dest }, watch)
        })?;
        said(self.shell.run(&self.script("finish", &[&named])))?;
        Ok(())
    }

    fn pull(&self, watch: &mut dyn Watch) -> Result<Snapshot, SyncError> {
        let view = self.view(MirrorError::TargetMissing(self.dataset.clone()))?;
        let role = match view.dataset.primary {
            Some(true) => Some("the primary"),
            Some(false) => Some("a replica that another machine sends"),
            None => None,
        };
        if let Some(role) = role {
            return Err(MirrorError::TargetHasRole(self.dataset.clone(), role).into());
        }
        let is_empty_there = match said(self.shell.run(&self.script("source", &[])))?.trim() {
            "full" => false,
            "empty" => true,
            other => return Err(MirrorError::Answer(other.to_owned()).into()),
        };
        let id = self.id.to_string();
        let fetched = self.zfs.property(self.dataset, FETCHED_BY).map_err(MirrorError::from)?;
        let Fetched { is_ours, is_whole } = fetched.map(|by| Fetched::by(&by, &self.id)).unwrap_or_default();
        // What all is in a recovery point is not lost where it is written over.
        let is_changed = self.zfs.is_changed(self.dataset).map_err(MirrorError::from)?;
        let is_safe = is_ours || !is_changed;
        let mark =
            |value: &str| self.zfs.set_property(self.dataset, FETCHED_BY, Some(value)).map_err(MirrorError::from);
        if is_ours && is_whole && is_changed {
            // What somebody has written here since is kept.
            take_point(self.zfs, self.dataset, crate::now()).map_err(MirrorError::from)?;
        }
        let work = |here: &Path| {
            let is_empty = is_empty(here).map_err(MirrorError::Run)?;
            if !is_empty && is_empty_there {
                return Err(MirrorError::refused("source-empty", self.path.as_str()).into());
            }
            if !is_empty && !is_safe {
                return Err(MirrorError::TargetNotOurs(self.dataset.clone()).into());
            }
            if !is_ours || is_whole {
                mark(&id)?;
            }
            let there = self.script("fetch", &[if is_empty { "yes" } else { "no" }]);
            let run = Run { shell: self.shell, there, here, way: Way::Pull, link_dest: None };
            match transfer(&run, watch) {
                // A directory that is written to meanwhile would give no point ever; what is there is all here.
                Err(SyncError::Mirror(error)) if error.is_of_vanished() => {
                    eprintln!("vector {id}: files vanished while they were fetched: {}", crate::chain(&error));
                    Ok(())
                }
                other => other,
            }
        };
        within(work, |look| self.zfs.open(self.dataset, look))?;
        if self.zfs.is_changed(self.dataset).map_err(MirrorError::from)? {
            take_point(self.zfs, self.dataset, crate::now()).map_err(MirrorError::from)?;
        }
        mark(&format!("{id} {WHOLE}"))?;
        let newest = self.zfs.snapshots(self.dataset).map_err(MirrorError::from)?.pop();
        Ok(newest.ok_or(Obstacle::NoPoints)?)
    }

    /// Runs `work` where what is in a recovery point is to be seen.
    fn shown<T: Send>(
        &self,
        base: &Snapshot,
        work: impl FnMut(&Path) -> Result<T, SyncError> + Send,
    ) -> Result<T, SyncError> {
        let name = SnapshotName::new(self.dataset.clone(), base.label.clone());
        within(work, |look| self.zfs.show(&name, look))
    }
}

/// Work in a directory that is there only meanwhile.
type Look<'a> = dyn FnMut(&Path) -> io::Result<()> + Send + 'a;

fn within<T: Send>(
    mut work: impl FnMut(&Path) -> Result<T, SyncError> + Send,
    enter: impl FnOnce(&mut Look<'_>) -> Result<(), ZfsError>,
) -> Result<T, SyncError> {
    let mut done = None;
    let entered = enter(&mut |dir| {
        done = Some(work(dir));
        Ok(())
    });
    // Why the work failed goes before what came of that.
    match done {
        Some(Err(error)) => Err(error),
        Some(Ok(value)) => entered.map(|()| value).map_err(|error| MirrorError::from(error).into()),
        None => {
            entered.map_err(MirrorError::from)?;
            Err(MirrorError::Run(io::ErrorKind::NotFound.into()).into())
        }
    }
}

/// Transfers to the end, anew whenever the rate is another one.
fn transfer(run: &Run<'_>, watch: &mut dyn Watch) -> Result<(), SyncError> {
    loop {
        if watch.rate() == Rate::Stop {
            return Err(SyncError::Stopped);
        }
        match run.complete(Work::Count) {
            Ok(counted) => watch.begins(Some(counted.transferred)),
            // Only to be told; what it is about comes again.
            Err(MirrorError::Partial(_)) => watch.begins(None),
            Err(error) => return Err(error.into()),
        }
        match run.transfer(watch)? {
            Ended::Done(_) => return Ok(()),
            Ended::RateChanged => {}
            Ended::Stopped => return Err(SyncError::Stopped),
        }
    }
}

/// What [`FETCHED_BY`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Fetched {
    /// This vector fetches into it.
    is_ours: bool,
    /// All that was fetched is in a recovery point: what differs from that was written by somebody else.
    is_whole: bool,
}

impl Fetched {
    fn by(text: &str, id: &VectorId) -> Self {
        let (by, is_whole) = text.strip_suffix(WHOLE).map_or((text, false), |by| (by.trim_end(), true));
        Fetched { is_ours: by == id.to_string(), is_whole }
    }
}

/// Whether the dataset had this recovery point, which is gone by now: its bookmark says so.
fn is_marked(view: &View, point: &str) -> bool {
    let guid = point.split(' ').next().and_then(|guid| guid.parse::<Guid>().ok());
    view.bookmarks.iter().any(|bookmark| Some(bookmark.guid) == guid)
}

/// A recovery point as the other machine has it written down.
fn point(snapshot: &Snapshot) -> String {
    format!("{} {}", snapshot.guid, snapshot.label)
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    for entry in dir.read_dir()? {
        if entry?.file_name() != command::SNAPSHOTS {
            return Ok(false);
        }
    }
    Ok(true)
}
