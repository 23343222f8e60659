//! `sirisctl dataset`.

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;
use siris_api::{
    DATASET_INTERFACE, DatasetProxy, HoldRow, ManagerProxy, Options, PruneRow, ReplicationProxy, SnapshotRow,
    SnapshotRows,
};
use zbus::Connection;
use zbus::proxy::CacheProperties;

use crate::cli::{At, DatasetCommand};
use crate::failure::Failure;
use crate::objects::{Properties, take, with_interface};
use crate::text;

/// Snapshots asked for at a time.
const PAGE: u32 = 20_000;
/// Snapshots whose holds are asked for at a time: the agent looks at each.
const HOLDS: usize = 2_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct DatasetView {
    guid: u64,
    name: String,
    asset: String,
    /// 0 where it has none.
    asset_id: u64,
    asset_name: String,
    used: u64,
    snapshots: u64,
    newest: String,
    role: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct PointView {
    name: String,
    guid: u64,
    createtxg: u64,
    /// As RFC 3339 has it; nothing for a snapshot that is no recovery point.
    time: Option<String>,
    /// Ids of vectors, and the tags of all others.
    held_by: Vec<String>,
}

/// A snapshot of any dataset.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct AnyPointView {
    dataset: String,
    name: String,
    guid: u64,
    createtxg: u64,
    /// As in [`PointView`].
    time: Option<String>,
}

/// Runs a command on the datasets.
pub async fn run(connection: &Connection, command: DatasetCommand) -> Result<(), Failure> {
    match command {
        DatasetCommand::List { json } => {
            let all = ask(connection).await?;
            print(if json { as_json(&all)? } else { table(&all) })
        }
        DatasetCommand::Show { dataset, json } => {
            let shown = show(connection, &dataset).await?;
            print(if json { as_json(&shown)? } else { details(&shown) })
        }
        DatasetCommand::Describe { dataset, id, name } => {
            let options = called(id.as_deref(), name.as_deref())?;
            Ok(find(connection, &dataset).await?.describe(options).await?)
        }
        DatasetCommand::Points { dataset: None, json } => {
            let points = all_points(connection).await?;
            print(if json { as_json(&points)? } else { all_points_table(&points) })
        }
        DatasetCommand::Points { dataset: Some(dataset), json } => {
            let points = points(&find(connection, &dataset).await?).await?;
            print(if json { as_json(&points)? } else { point_table(&points) })
        }
        DatasetCommand::Snapshot { dataset } => {
            let name = find(connection, &dataset).await?.snapshot(HashMap::new()).await?;
            print(format!("{name}\n"))
        }
        DatasetCommand::Hold { point: At { dataset, point }, tag } => {
            let name = find(connection, &dataset).await?.hold(&point, &tag, HashMap::new()).await?;
            print(format!("{name}\n"))
        }
        DatasetCommand::Release { point: At { dataset, point }, tag } => {
            let name = find(connection, &dataset).await?.release(&point, &tag, HashMap::new()).await?;
            print(format!("{name}\n"))
        }
        DatasetCommand::Clone { point: At { dataset, point }, target } => {
            Ok(find(connection, &dataset).await?.clone_point(&point, &target, HashMap::new()).await?)
        }
        DatasetCommand::Destroy { what, yes } => destroy(connection, &what, yes).await,
        DatasetCommand::TakeOver { dataset } => Ok(find(connection, &dataset).await?.take_over(HashMap::new()).await?),
        DatasetCommand::SetAside { dataset } => {
            let (dataset, back_to) = match dataset.split_once('@') {
                Some((dataset, back_to)) => (dataset, Some(("back-to", back_to.into()))),
                None => (dataset.as_str(), None),
            };
            let options = back_to.into_iter().collect();
            let aside = ReplicationProxy::new(connection).await?.set_aside(dataset, options).await?;
            print(format!("{aside}\n"))
        }
        DatasetCommand::Prune { dataset: Some(dataset), dry_run, .. } => {
            print(pruned(&prune(&find(connection, &dataset).await?, dry_run).await?, dry_run))
        }
        DatasetCommand::Prune { dataset: None, dry_run, .. } => prune_all(connection, dry_run).await,
        DatasetCommand::Retention { dataset, policy } => {
            let dataset = find(connection, &dataset).await?;
            if !policy.is_empty() {
                let policy = policy.join(" ");
                dataset.set_retention(if policy == "none" { "" } else { &policy }, HashMap::new()).await?;
            }
            let policy = dataset.get_retention().await?;
            print(if policy.is_empty() { "none: everything stays\n".to_owned() } else { format!("{policy}\n") })
        }
    }
}

/// Destroys a recovery point or a clone; without `yes` it is said what would go, and nothing does.
async fn destroy(connection: &Connection, what: &str, yes: bool) -> Result<(), Failure> {
    let options = HashMap::from([("dry-run", (!yes).into())]);
    let goes = if yes { "is gone" } else { "would go" };
    let text: String = if what.contains('@') {
        let At { dataset, point } = what.parse::<At>().map_err(Failure::input)?;
        let gone = find(connection, &dataset).await?.destroy_point(&point, options).await?;
        gone.iter().map(|name| format!("{name} {goes}\n")).collect()
    } else {
        let (origin, used) = ManagerProxy::new(connection).await?.destroy_clone(what, options).await?;
        format!("{what} {goes}: a clone of {origin}, {} of its own\n", text::size(used))
    };
    print(text)?;
    if yes { Ok(()) } else { Err(Failure::input("nothing was destroyed: say it again with --yes")) }
}

async fn prune(dataset: &DatasetProxy<'_>, dry_run: bool) -> Result<Vec<PruneRow>, Failure> {
    Ok(dataset.prune(HashMap::from([("dry-run", dry_run.into())])).await?)
}

/// Each dataset that has a policy. One that fails keeps no other from its turn.
async fn prune_all(connection: &Connection, dry_run: bool) -> Result<(), Failure> {
    let mut failed = None;
    for view in ask(connection).await? {
        let dataset = find(connection, &view.name).await?;
        if dataset.get_retention().await?.is_empty() {
            continue;
        }
        match prune(&dataset, dry_run).await {
            Ok(rows) => print(format!("{}\n{}", view.name, pruned(&rows, dry_run)))?,
            Err(failure) => {
                eprintln!("{}: {failure}", view.name);
                failed = Some(failure);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn pruned(rows: &[PruneRow], dry_run: bool) -> String {
    let goes = if dry_run { "would go" } else { "is gone" };
    let line = |row: &PruneRow| {
        let what = if row.goes { goes.to_owned() } else { format!("stays: {}", row.why.join("; ")) };
        vec![format!("  {}", row.name), time_of(&row.name).unwrap_or_default(), what]
    };
    text::table(&rows.iter().map(line).collect::<Vec<_>>(), &[])
}

fn print(text: String) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

fn as_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::local("cannot write JSON", &e))?;
    Ok(format!("{text}\n"))
}

async fn find<'c>(connection: &'c Connection, name: &str) -> Result<DatasetProxy<'c>, Failure> {
    let path = ManagerProxy::new(connection).await?.find_dataset(name).await?;
    Ok(DatasetProxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await?)
}

async fn ask(connection: &Connection) -> Result<Vec<DatasetView>, Failure> {
    let view = |mut properties: Properties| {
        Ok(DatasetView {
            guid: take(&mut properties, "Guid")?,
            name: take(&mut properties, "Name")?,
            asset: take(&mut properties, "Asset")?,
            asset_id: take(&mut properties, "AssetId")?,
            asset_name: take(&mut properties, "AssetName")?,
            used: take(&mut properties, "Used")?,
            snapshots: take(&mut properties, "SnapshotCount")?,
            newest: take(&mut properties, "NewestSnapshot")?,
            role: take(&mut properties, "Role")?,
        })
    };
    let found = with_interface(connection, DATASET_INTERFACE).await?;
    let mut datasets = found.into_iter().map(view).collect::<Result<Vec<_>, Failure>>()?;
    datasets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(datasets)
}

/// What an asset is to be called, as it travels.
fn called<'t>(id: Option<&str>, name: Option<&'t str>) -> Result<Options<'t>, Failure> {
    let id = match id {
        None => None,
        Some("next") => Some(("next-id", true.into())),
        Some("none") => Some(("id", 0u64.into())),
        Some(digits) => match digits.parse::<u64>() {
            Ok(id) if id > 0 => Some(("id", id.into())),
            _ => return Err(Failure::input(format!("\"{digits}\" is not a number from 1 on, next or none"))),
        },
    };
    Ok(id.into_iter().chain(name.map(|name| ("name", name.into()))).collect())
}

/// A dataset, and the vectors that have to do with it.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    dataset: DatasetView,
    vectors: Vec<HashMap<String, String>>,
}

async fn show(connection: &Connection, name: &str) -> Result<Shown, Failure> {
    let found = find(connection, name).await?;
    let (guid, vectors) = (found.guid().await?, found.get_vectors().await?);
    let dataset = ask(connection).await?.into_iter().find(|dataset| dataset.guid == guid);
    let gone = || Failure::of_agent("dataset-not-found", &format!("{name} is not there any more"));
    Ok(Shown { dataset: dataset.ok_or_else(gone)?, vectors })
}

fn details(shown: &Shown) -> String {
    let Shown { dataset, vectors } = shown;
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut rows = vec![
        ("dataset", dataset.name.clone()),
        ("asset", dataset.asset.clone()),
        ("number", number(dataset.asset_id)),
        ("name", or_dash(&dataset.asset_name)),
        ("role", or_dash(&dataset.role)),
        ("used", text::size(dataset.used)),
        ("snapshots", dataset.snapshots.to_string()),
        ("newest", time_of(&dataset.newest).unwrap_or_else(|| or_dash(&dataset.newest))),
    ];
    rows.extend(vectors.iter().map(|vector| {
        let of = |key: &str| vector.get(key).cloned().unwrap_or_default();
        let ends = format!("{}:{} to {}:{}", of("from"), of("source"), of("to"), of("target"));
        ("vector", format!("{}, {}: {ends}", of("id"), of("tier")))
    }));
    text::table(&rows.into_iter().map(|(name, value)| vec![format!("  {name}"), value]).collect::<Vec<_>>(), &[])
}

/// An asset's number.
fn number(id: u64) -> String {
    if id == 0 { "-".to_owned() } else { id.to_string() }
}

async fn points(dataset: &DatasetProxy<'_>) -> Result<Vec<PointView>, Failure> {
    let view = |row: SnapshotRow| PointView {
        time: time_of(&row.name),
        name: row.name,
        guid: row.guid,
        createtxg: row.createtxg,
        held_by: Vec::new(),
    };
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = dataset.list_snapshots(after, PAGE, HashMap::new()).await?;
        let full = page.len() >= PAGE as usize;
        after = page.last().map_or(after, |last| last.createtxg);
        all.extend(page.into_iter().map(view));
        if !full {
            break;
        }
    }
    for some in all.chunks_mut(HOLDS) {
        let names: Vec<&str> = some.iter().map(|point| point.name.as_str()).collect();
        let mut held: HashMap<String, Vec<String>> = HashMap::new();
        for HoldRow { point, tag, vector } in dataset.list_holds(&names, HashMap::new()).await? {
            held.entry(point).or_default().push(if vector.is_empty() { tag } else { vector });
        }
        some.iter_mut().for_each(|point| point.held_by = held.remove(&point.name).unwrap_or_default());
    }
    Ok(all)
}

/// The snapshots of all datasets, by the datasets' names and oldest first.
async fn all_points(connection: &Connection) -> Result<Vec<AnyPointView>, Failure> {
    let manager = ManagerProxy::new(connection).await?;
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = manager.list_snapshots(&after, PAGE, HashMap::new()).await?;
        let Some(SnapshotRows { dataset, .. }) = page.last() else { return Ok(all) };
        after.clone_from(dataset);
        for SnapshotRows { dataset, snapshots, .. } in page {
            all.extend(snapshots.into_iter().map(|SnapshotRow { name, guid, createtxg }| AnyPointView {
                dataset: dataset.clone(),
                time: time_of(&name),
                name,
                guid,
                createtxg,
            }));
        }
    }
}

/// The time of a recovery point, in UTC.
fn time_of(name: &str) -> Option<String> {
    let digits = name.bytes().all(|b| b.is_ascii_digit()) && !name.starts_with('0');
    let seconds = digits.then(|| name.parse().ok()).flatten()?;
    text::time(seconds)
}

fn table(all: &[DatasetView]) -> String {
    if all.is_empty() {
        return "  There are no datasets of assets.\n".to_owned();
    }
    let mut rows =
        vec![["  DATASET", "NUMBER", "NAME", "USED", "SNAPSHOTS", "NEWEST", "ROLE"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|d| {
        let newest = time_of(&d.newest).unwrap_or_else(|| d.newest.clone());
        let (number, called) = (number(d.asset_id), d.asset_name.clone());
        let (used, snapshots) = (text::size(d.used), d.snapshots.to_string());
        vec![format!("  {}", d.name), number, called, used, snapshots, newest, d.role.clone()]
    }));
    text::table(&rows, &[1, 3, 4])
}

fn point_table(points: &[PointView]) -> String {
    if points.is_empty() {
        return "  There are no snapshots.\n".to_owned();
    }
    let mut rows = vec![["  SNAPSHOT", "TIME", "GUID", "HELD BY"].map(str::to_owned).to_vec()];
    rows.extend(points.iter().map(|p| {
        let time = p.time.clone().unwrap_or_else(|| "-".to_owned());
        vec![format!("  {}", p.name), time, p.guid.to_string(), p.held_by.join(", ")]
    }));
    text::table(&rows, &[2])
}

fn all_points_table(points: &[AnyPointView]) -> String {
    if points.is_empty() {
        return "  There are no snapshots.\n".to_owned();
    }
    let mut rows = vec![["  SNAPSHOT", "TIME", "GUID"].map(str::to_owned).to_vec()];
    rows.extend(points.iter().map(|point| {
        let time = point.time.clone().unwrap_or_else(|| "-".to_owned());
        vec![format!("  {}@{}", point.dataset, point.name), time, point.guid.to_string()]
    }));
    text::table(&rows, &[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recovery_points_have_a_time() {
        assert_eq!(time_of("1568402268").as_deref(), Some("2019-09-13T19:17:48Z"));
        for none in ["", "daily", "01568402268", "-1", "99999999999999999999"] {
            assert_eq!(time_of(none), None, "{none}");
        }
    }
}
