//! `sirisctl dataset`.

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;
use siris_api::{DATASET_INTERFACE, DatasetProxy, ManagerProxy, PruneRow, ReplicationProxy, SnapshotRow};
use zbus::Connection;
use zbus::proxy::CacheProperties;

use crate::cli::DatasetCommand;
use crate::failure::Failure;
use crate::objects::{Properties, take, with_interface};
use crate::text;

/// Snapshots asked for at a time.
const PAGE: u32 = 20_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct DatasetView {
    guid: u64,
    name: String,
    asset: String,
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
}

/// Runs a command on the datasets.
pub async fn run(connection: &Connection, command: DatasetCommand) -> Result<(), Failure> {
    match command {
        DatasetCommand::List { json } => {
            let all = ask(connection).await?;
            print(if json { as_json(&all)? } else { table(&all) })
        }
        DatasetCommand::Points { dataset, json } => {
            let points = points(&find(connection, &dataset).await?).await?;
            print(if json { as_json(&points)? } else { point_table(&points) })
        }
        DatasetCommand::Snapshot { dataset } => {
            let name = find(connection, &dataset).await?.snapshot(HashMap::new()).await?;
            print(format!("{name}\n"))
        }
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

async fn points(dataset: &DatasetProxy<'_>) -> Result<Vec<PointView>, Failure> {
    let view = |row: SnapshotRow| PointView {
        time: time_of(&row.name),
        name: row.name,
        guid: row.guid,
        createtxg: row.createtxg,
    };
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = dataset.list_snapshots(after, PAGE, HashMap::new()).await?;
        let full = page.len() >= PAGE as usize;
        after = page.last().map_or(after, |last| last.createtxg);
        all.extend(page.into_iter().map(view));
        if !full {
            return Ok(all);
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
    let mut rows = vec![["  DATASET", "USED", "SNAPSHOTS", "NEWEST", "ROLE"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|d| {
        let newest = time_of(&d.newest).unwrap_or_else(|| d.newest.clone());
        vec![format!("  {}", d.name), text::size(d.used), d.snapshots.to_string(), newest, d.role.clone()]
    }));
    text::table(&rows, &[1, 2])
}

fn point_table(points: &[PointView]) -> String {
    if points.is_empty() {
        return "  There are no snapshots.\n".to_owned();
    }
    let mut rows = vec![["  SNAPSHOT", "TIME", "GUID"].map(str::to_owned).to_vec()];
    rows.extend(
        points.iter().map(|p| {
            vec![format!("  {}", p.name), p.time.clone().unwrap_or_else(|| "-".to_owned()), p.guid.to_string()]
        }),
    );
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
