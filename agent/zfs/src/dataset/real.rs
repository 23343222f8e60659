//! The real ones: the `zfs` tool, of this machine or another one.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use siris_host::cmd::{Cmd, CmdError, Running, Tool};

use super::lines;
use super::types::{
    ASSET_ID, ASSET_NAME, Bookmark, Dataset, FETCHED_BY, Guid, Hold, Label, Newest, PRIMARY, RETENTION, Rest, Snapshot,
    SnapshotName, VECTORS,
};
use super::{Base, Datasets, Refusal, Sending, Stream};
use crate::types::{DatasetName, PoolName};
use crate::{OpenZfs, UserProperties, ZfsError};

/// Bytes of a stream that are on their way at once.
const BUFFER: usize = 256 << 10;

/// Properties that a stream which brings some has no say in where the tool receives it, on a machine without an agent: where a
/// replica is seen and who may, and what SIRIS keeps with it.
const NOT_FROM_STREAMS: [&str; 10] =
    ["mountpoint", "canmount", "sharenfs", "sharesmb", PRIMARY, ASSET_ID, ASSET_NAME, VECTORS, RETENTION, FETCHED_BY];

/// Who runs the `zfs` tool, and where.
pub trait RunsZfs: Send + Sync + std::fmt::Debug {
    /// The command that runs it with these arguments.
    fn zfs(&self, arguments: &[String]) -> Cmd;

    /// Whether it is this machine's, whose file systems can be mounted and read here.
    fn is_here(&self) -> bool;
}

impl RunsZfs for OpenZfs {
    fn zfs(&self, arguments: &[String]) -> Cmd {
        Cmd::new(Tool::Zfs).args(arguments)
    }

    fn is_here(&self) -> bool {
        true
    }
}

/// A command of the tool being put together.
struct Call<'a> {
    who: &'a dyn RunsZfs,
    arguments: Vec<String>,
}

impl Call<'_> {
    fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    fn cmd(&self) -> Cmd {
        self.who.zfs(&self.arguments)
    }
}

fn zfs<'a, 'w>(who: &'w dyn RunsZfs, arguments: impl IntoIterator<Item = &'a str>) -> Call<'w> {
    Call { who, arguments: arguments.into_iter().map(str::to_owned).collect() }
}

/// Runs what mounts. Here by the service manager: whoever calls may have mounts of its own, and these are for all.
fn for_all(who: &dyn RunsZfs, arguments: &[&str]) -> Result<(), ZfsError> {
    if !who.is_here() {
        return run(zfs(who, arguments.iter().copied()));
    }
    let run =
        Cmd::new(Tool::SystemdRun).args(["--quiet", "--wait", "--collect", "--pipe", "--", "zfs"]).args(arguments);
    run.output().map(drop).map_err(refused)
}

fn refused(error: CmdError) -> ZfsError {
    match error {
        CmdError::Failed { ref tail, .. } => ZfsError::Refused { why: Refusal::of(tail), source: error },
        other => other.into(),
    }
}

fn run(call: Call<'_>) -> Result<(), ZfsError> {
    call.cmd().output().map(drop).map_err(refused)
}

fn read<T>(call: Call<'_>, parse: impl Fn(&str) -> Result<T, lines::LineError>) -> Result<T, ZfsError> {
    let cmd = call.cmd();
    let command = cmd.to_string();
    let text = cmd.text().map_err(refused)?;
    parse(&text).map_err(|source| ZfsError::ReadLines { command, source })
}

/// Those that did what was to be done already.
fn unless(result: Result<(), ZfsError>, fine: Refusal) -> Result<(), ZfsError> {
    match result {
        Err(ZfsError::Refused { why, .. }) if why == fine => Ok(()),
        other => other,
    }
}

fn labelled(dataset: &DatasetName, labels: &[Label]) -> String {
    let labels: Vec<&str> = labels.iter().map(Label::as_str).collect();
    format!("{dataset}@{}", labels.join(","))
}

/// `zfs send` and its arguments but for `-nP`.
fn send_arguments(stream: &Stream) -> Vec<String> {
    match stream {
        Stream::Rest { token } => vec!["-t".to_owned(), token.clone()],
        Stream::Snapshot { snapshot, base, between, raw } => {
            // Large blocks and compressed ones travel as they are: nothing is inflated to be deflated again. Not so blocks that
            // are embedded in their pointers (-e): they save next to nothing, and no encrypted dataset takes them.
            let mut arguments = vec![if *raw { "-w".to_owned() } else { "-Lc".to_owned() }];
            let from = match base {
                Base::Nothing => None,
                Base::Snapshot(base) => Some(base.to_string()),
                Base::Bookmark(label) => Some(format!("{}#{label}", snapshot.dataset)),
            };
            let flag = if *between { "-I" } else { "-i" };
            arguments.extend(from.into_iter().flat_map(|from| [flag.to_owned(), from]));
            arguments.push(snapshot.to_string());
            arguments
        }
    }
}

/// Mounts a file system or a snapshot for as long as `look` runs.
fn mounted(
    who: &dyn RunsZfs,
    name: String,
    flags: MsFlags,
    look: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
) -> Result<(), ZfsError> {
    if !who.is_here() {
        let source = io::Error::new(io::ErrorKind::Unsupported, "it is on a machine without an agent");
        return Err(ZfsError::Show { snapshot: name, source });
    }
    let dir = tempfile::Builder::new().prefix("siris-snapshot-").tempdir().map_err(ZfsError::Stream)?;
    let shown = std::thread::scope(|scope| {
        // In a mount namespace of the thread's own: whatever ends the process, nothing stays mounted.
        let thread = scope.spawn(|| -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            let quiet = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some(name.as_str()), dir.path(), Some("zfs"), quiet, None::<&str>)?;
            let looked = look(dir.path());
            umount2(dir.path(), MntFlags::MNT_DETACH)?;
            looked
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))
    });
    shown.map_err(|source| ZfsError::Show { snapshot: name, source })
}

impl<R: RunsZfs> Datasets for R {
    fn datasets(&self, pools: &[PoolName]) -> Result<Vec<Dataset>, ZfsError> {
        // Without a name the tool lists what is there, and says so with an error where that is nothing.
        if pools.is_empty() {
            return Ok(Vec::new());
        }
        let list = ["list", "-Hp", "-r", "-t", "filesystem,volume", "-s", "name", "-o", lines::DATASET];
        read(zfs(self, list).args(pools.iter().map(PoolName::as_str)), lines::datasets)
    }

    fn newest(&self, pools: &[PoolName]) -> Result<BTreeMap<DatasetName, Newest>, ZfsError> {
        if pools.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Sorted by name, as they come: the tool keeps nothing back to sort.
        let list = zfs(self, ["list", "-Hp", "-r", "-t", "snapshot", "-o", lines::SNAPSHOT]);
        let list = list.args(pools.iter().map(PoolName::as_str));
        let list = list.cmd();
        let (command, log) = (list.to_string(), tempfile::NamedTempFile::new().map_err(ZfsError::Stream)?);
        let mut running = list.log(log.path()).spawn()?;
        let output = running.stdout().ok_or_else(|| ZfsError::Stream(io::ErrorKind::BrokenPipe.into()))?;
        let found = match lines::newest(BufReader::new(output).lines()) {
            Err(lines::ReadRowsError::Line(source)) => return Err(ZfsError::ReadLines { command, source }),
            Err(lines::ReadRowsError::Read(source)) => return Err(ZfsError::Stream(source)),
            Ok(found) => found,
        };
        running.wait().map_err(refused)?;
        Ok(found)
    }

    fn dataset(&self, name: &DatasetName) -> Result<Option<Dataset>, ZfsError> {
        let list = ["list", "-Hp", "-d", "1", "-t", "filesystem,volume", "-o", lines::DATASET, name.as_str()];
        match read(zfs(self, list), lines::datasets) {
            Err(ZfsError::Refused { why: Refusal::Missing, .. }) => Ok(None),
            other => Ok(other?.into_iter().find(|found| found.name == *name)),
        }
    }

    fn snapshots(&self, dataset: &DatasetName) -> Result<Vec<Snapshot>, ZfsError> {
        let list = ["list", "-Hp", "-d", "1", "-t", "snapshot", "-s", "createtxg", "-o", lines::SNAPSHOT];
        read(zfs(self, list).arg(dataset.as_str()), lines::snapshots)
    }

    fn bookmarks(&self, dataset: &DatasetName) -> Result<Vec<Bookmark>, ZfsError> {
        let list = ["list", "-Hp", "-d", "1", "-t", "bookmark", "-s", "createtxg", "-o", lines::SNAPSHOT];
        read(zfs(self, list).arg(dataset.as_str()), lines::bookmarks)
    }

    fn guid_of(&self, snapshot: &SnapshotName) -> Result<Option<Guid>, ZfsError> {
        let get = zfs(self, ["get", "-Hpo", "value", "guid"]).arg(snapshot.to_string());
        match read(get, lines::guid) {
            Err(ZfsError::Refused { why: Refusal::Missing, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn all_snapshots(&self, datasets: &[DatasetName]) -> Result<BTreeMap<DatasetName, Vec<Snapshot>>, ZfsError> {
        // Without a name the tool lists what is there.
        if datasets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let list = zfs(self, ["list", "-Hp", "-d", "1", "-t", "snapshot", "-o", lines::SNAPSHOT]);
        read(list.args(datasets.iter().map(DatasetName::as_str)), lines::all_snapshots)
    }

    fn marks(&self, dataset: &DatasetName) -> Result<(Vec<Snapshot>, Vec<Bookmark>), ZfsError> {
        let list = ["list", "-Hp", "-d", "1", "-t", "snapshot,bookmark", "-s", "createtxg", "-o", lines::SNAPSHOT];
        read(zfs(self, list).arg(dataset.as_str()), lines::marks)
    }

    fn holds(&self, dataset: &DatasetName, labels: &[Label]) -> Result<Vec<Hold>, ZfsError> {
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        let names = labels.iter().map(|label| format!("{dataset}@{label}"));
        let mut holds = read(zfs(self, ["holds", "-Hp"]).args(names), lines::holds)?;
        holds.sort();
        Ok(holds)
    }

    fn create(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let above: Vec<&str> = dataset.from_the_top().collect();
        for (n, name) in above.iter().enumerate() {
            // One by one, not with `-p`, which says that all is well where the dataset is there already.
            let made = run(zfs(self, ["create", name]));
            if n + 1 < above.len() { unless(made, Refusal::Exists)? } else { made? }
        }
        Ok(())
    }

    fn property(&self, dataset: &DatasetName, name: &str) -> Result<Option<String>, ZfsError> {
        let value = zfs(self, ["get", "-Hpo", "value", name, dataset.as_str()]).cmd().text().map_err(refused)?;
        let value = value.trim_end_matches('\n');
        Ok((value != "-").then(|| value.to_owned()))
    }

    fn own_properties(&self, dataset: &DatasetName) -> Result<UserProperties, ZfsError> {
        let get = ["get", "-Hp", "-s", "local", "-o", "property,value", "all", dataset.as_str()];
        read(zfs(self, get), lines::properties)
    }

    fn set_property(&self, dataset: &DatasetName, name: &str, value: Option<&str>) -> Result<(), ZfsError> {
        match value {
            Some(value) => run(zfs(self, ["set", &format!("{name}={value}"), dataset.as_str()])),
            None => run(zfs(self, ["inherit", name, dataset.as_str()])),
        }
    }

    fn mount(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let columns = ["get", "-Hpo", "value,source", "mounted,mountpoint,canmount", dataset.as_str()];
        let said = zfs(self, columns).cmd().text().map_err(refused)?;
        let lines: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once('\t')).collect();
        let [(mounted, _), (mut place, from), (may, _)] = lines[..] else { return Ok(()) };
        if from == "received" {
            // Where it was elsewhere is nothing to go by here.
            run(zfs(self, ["inherit", "mountpoint", dataset.as_str()]))?;
            place = "/";
        }
        if mounted == "yes" || may == "off" || !place.starts_with('/') {
            return Ok(());
        }
        for_all(self, &["mount", dataset.as_str()])
    }

    fn unmount(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        let mounted = zfs(self, ["get", "-Hpo", "value", "mounted", dataset.as_str()]).cmd().text().map_err(refused)?;
        if mounted.trim() == "yes" { for_all(self, &["unmount", dataset.as_str()]) } else { Ok(()) }
    }

    fn snapshot(&self, datasets: &[DatasetName], label: &Label, properties: &UserProperties) -> Result<(), ZfsError> {
        let mut cmd = zfs(self, ["snapshot"]);
        for (name, value) in properties {
            cmd = cmd.arg("-o").arg(format!("{name}={value}"));
        }
        run(cmd.args(datasets.iter().map(|dataset| format!("{dataset}@{label}"))))
    }

    fn bookmark(&self, snapshot: &SnapshotName, label: &Label) -> Result<(), ZfsError> {
        run(zfs(self, ["bookmark"]).arg(snapshot.to_string()).arg(format!("{}#{label}", snapshot.dataset)))
    }

    fn destroy_bookmark(&self, dataset: &DatasetName, label: &Label) -> Result<(), ZfsError> {
        unless(run(zfs(self, ["destroy"]).arg(format!("{dataset}#{label}"))), Refusal::Missing)
    }

    fn hold(&self, snapshot: &SnapshotName, tag: &Label) -> Result<(), ZfsError> {
        unless(run(zfs(self, ["hold", "--", tag.as_str()]).arg(snapshot.to_string())), Refusal::Exists)
    }

    fn release(&self, snapshot: &SnapshotName, tag: &Label) -> Result<(), ZfsError> {
        unless(run(zfs(self, ["release", "--", tag.as_str()]).arg(snapshot.to_string())), Refusal::Missing)
    }

    fn destroy_snapshots(&self, dataset: &DatasetName, labels: &[Label]) -> Result<(), ZfsError> {
        if labels.is_empty() {
            return Ok(());
        }
        run(zfs(self, ["destroy"]).arg(labelled(dataset, labels)))
    }

    fn clone_snapshot(
        &self,
        snapshot: &SnapshotName,
        target: &DatasetName,
        properties: &UserProperties,
    ) -> Result<(), ZfsError> {
        let mut cmd = zfs(self, ["clone", "-o", "canmount=noauto"]);
        for (name, value) in properties {
            cmd = cmd.arg("-o").arg(format!("{name}={value}"));
        }
        run(cmd.arg(snapshot.to_string()).arg(target.as_str()))
    }

    fn promote(&self, clone: &DatasetName) -> Result<(), ZfsError> {
        run(zfs(self, ["promote", clone.as_str()]))
    }

    fn rename(&self, dataset: &DatasetName, name: &DatasetName) -> Result<(), ZfsError> {
        run(zfs(self, ["rename", dataset.as_str(), name.as_str()]))
    }

    fn rename_snapshot(&self, snapshot: &SnapshotName, label: &Label) -> Result<(), ZfsError> {
        run(zfs(self, ["rename"]).arg(snapshot.to_string()).arg(format!("{}@{label}", snapshot.dataset)))
    }

    fn destroy(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        run(zfs(self, ["destroy", dataset.as_str()]))
    }

    fn send_size(&self, stream: &Stream) -> Result<u64, ZfsError> {
        read(zfs(self, ["send", "-nP"]).args(send_arguments(stream)), lines::send_size)
    }

    fn leads_to(&self, token: &str) -> Option<Rest> {
        lines::rest(token)
    }

    fn send(&self, stream: &Stream) -> Result<Box<dyn Sending>, ZfsError> {
        let log = tempfile::NamedTempFile::new().map_err(ZfsError::Stream)?;
        let mut running = zfs(self, ["send"]).args(send_arguments(stream)).cmd().log(log.path()).spawn()?;
        let output = running.stdout().ok_or_else(|| ZfsError::Stream(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Box::new(SendProcess { output, running, _log: log }))
    }

    fn receive(&self, dataset: &DatasetName, stream: &mut dyn Read) -> Result<(), ZfsError> {
        #[cfg(feature = "libzetta")]
        if self.is_here() {
            return super::incoming::receive(dataset, stream, &crate::lzc::receive);
        }
        let log = tempfile::NamedTempFile::new().map_err(ZfsError::Stream)?;
        let kept = NOT_FROM_STREAMS.iter().flat_map(|property| ["-x", property]);
        let receive = zfs(self, ["receive", "-s", "-u"]).args(kept).arg(dataset.as_str());
        let mut running = receive.cmd().log(log.path()).spawn()?;
        let mut input = running.stdin().ok_or_else(|| ZfsError::Stream(io::ErrorKind::BrokenPipe.into()))?;
        let copied = io::copy(&mut BufReader::with_capacity(BUFFER, stream), &mut input);
        drop(input);
        // What the tool says goes before the pipe that it closed; a source that broke off leaves it content, at times.
        running.wait().map_err(refused)?;
        copied.map(drop).map_err(ZfsError::Stream)
    }

    fn show(
        &self,
        snapshot: &SnapshotName,
        look: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        mounted(self, snapshot.to_string(), MsFlags::MS_RDONLY, look)
    }

    fn open(
        &self,
        dataset: &DatasetName,
        work: &mut (dyn FnMut(&Path) -> io::Result<()> + Send),
    ) -> Result<(), ZfsError> {
        mounted(self, dataset.to_string(), MsFlags::MS_NOATIME, work)
    }

    fn is_changed(&self, dataset: &DatasetName) -> Result<bool, ZfsError> {
        if self.is_here() {
            // What it says counts what is on the disks.
            Cmd::new(Tool::Zpool).args(["sync", dataset.pool_name().as_str()]).run()?;
        }
        if self.snapshots(dataset)?.is_empty() {
            return Ok(true);
        }
        let written = self.property(dataset, "written")?;
        Ok(written.as_deref() != Some("0"))
    }

    fn abort_receive(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        match self.dataset(dataset)? {
            Some(found) if found.resume.is_some() => run(zfs(self, ["receive", "-A", dataset.as_str()])),
            _ => Ok(()),
        }
    }
}

/// `zfs send`, running.
#[derive(Debug)]
struct SendProcess {
    output: std::process::ChildStdout,
    running: Running,
    /// What it says on standard error; lives as long as it does.
    _log: tempfile::NamedTempFile,
}

impl Read for SendProcess {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Sending for SendProcess {
    fn finish(self: Box<Self>) -> Result<(), ZfsError> {
        drop(self.output);
        self.running.wait().map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_a_stream() {
        let snapshot: SnapshotName = "tank/a@2".parse().unwrap();
        let stream = |base, raw: bool| Stream::Snapshot { snapshot: snapshot.clone(), base, between: !raw, raw };
        let bookmark = Base::Bookmark("v1".parse().unwrap());
        for (stream, arguments) in [
            (stream(Base::Nothing, false), "-Lc tank/a@2"),
            (stream(Base::Snapshot("tank/a@1".parse().unwrap()), false), "-Lc -I tank/a@1 tank/a@2"),
            (stream(bookmark, true), "-w -i tank/a#v1 tank/a@2"),
            (Stream::Rest { token: "1-a-b".to_owned() }, "-t 1-a-b"),
        ] {
            assert_eq!(send_arguments(&stream).join(" "), arguments);
        }
    }
}
