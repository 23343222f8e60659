//! `sirisctl vector`.

use std::collections::HashMap;
use std::io::{self, Write};

use futures_util::StreamExt;
use serde::Serialize;
use siris_api::{BUS_NAME, Options, ReplicationProxy, VECTOR_INTERFACE, VectorProxy, vector_path};
use zbus::Connection;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;

use crate::cli::VectorCommand;
use crate::failure::Failure;
use crate::objects::{Properties, take, with_interface};
use crate::text;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct VectorView {
    id: String,
    machine: String,
    direction: String,
    source: String,
    target: String,
    tier: String,
    state: String,
    last_error: String,
    sent: u64,
    base: String,
    proven_to: String,
    synced_at: u64,
}

/// Runs a command on the vectors.
pub async fn run(connection: &Connection, command: VectorCommand) -> Result<(), Failure> {
    match command {
        VectorCommand::Add { dataset, machine, pull, other, secondary } => {
            let mut vector: Options<'_> = HashMap::from([
                ("dataset", dataset.as_str().into()),
                ("machine", machine.as_str().into()),
                ("direction", if pull { "pull" } else { "push" }.into()),
                ("tier", if secondary { "secondary" } else { "primary" }.into()),
            ]);
            if let Some(other) = &other {
                vector.insert("other", other.as_str().into());
            }
            let path = ReplicationProxy::new(connection).await?.add_vector(vector).await?;
            let made =
                VectorProxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await?;
            print(&format!("{}\n", made.id().await?))
        }
        VectorCommand::List { json } => {
            let all = ask(connection).await?;
            if json {
                let text = serde_json::to_string_pretty(&all).map_err(|e| Failure::local("cannot write JSON", &e))?;
                return print(&format!("{text}\n"));
            }
            print(&table(&all))
        }
        VectorCommand::Sync { vector, no_wait } => sync(&find(connection, &vector).await?, no_wait).await,
        VectorCommand::Verify { vector } => {
            let (base, paths, differing) = find(connection, &vector).await?.verify(HashMap::new()).await?;
            if differing.is_empty() {
                return print(&format!("{base} is the same on both: {paths} paths\n"));
            }
            Err(Failure::of_agent(
                "replica-differs",
                &format!("{base} is not the same on both: {}", differing.join(", ")),
            ))
        }
        VectorCommand::Pause { vector } => Ok(find(connection, &vector).await?.pause().await?),
        VectorCommand::Resume { vector } => Ok(find(connection, &vector).await?.resume().await?),
        VectorCommand::Remove { vector, here_only } => {
            let options: Options<'_> = HashMap::from([("here-only", here_only.into())]);
            Ok(find(connection, &vector).await?.remove(options).await?)
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

/// The vector with that id, or the only one with that number.
async fn find<'c>(connection: &'c Connection, asked: &str) -> Result<VectorProxy<'c>, Failure> {
    let all = ask(connection).await?;
    let is_it = |vector: &&VectorView| {
        vector.id == asked || vector.id.rsplit_once('_').is_some_and(|(_, number)| number == asked)
    };
    let found: Vec<&VectorView> = all.iter().filter(is_it).collect();
    let [one] = found[..] else {
        let what = if found.is_empty() { "there is no vector" } else { "more than one vector is" };
        return Err(Failure::input(format!("{what} {asked}: see sirisctl vector list")));
    };
    let path = vector_path(&one.id);
    Ok(VectorProxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await?)
}

async fn ask(connection: &Connection) -> Result<Vec<VectorView>, Failure> {
    let view = |mut properties: Properties| {
        Ok(VectorView {
            id: take(&mut properties, "Id")?,
            machine: take(&mut properties, "Machine")?,
            direction: take(&mut properties, "Direction")?,
            source: take(&mut properties, "Source")?,
            target: take(&mut properties, "Target")?,
            tier: take(&mut properties, "Tier")?,
            state: take(&mut properties, "State")?,
            last_error: take(&mut properties, "LastError")?,
            sent: take(&mut properties, "Sent")?,
            base: take(&mut properties, "Base")?,
            proven_to: take(&mut properties, "ProvenTo")?,
            synced_at: take(&mut properties, "SyncedAt")?,
        })
    };
    let found = with_interface(connection, VECTOR_INTERFACE).await?;
    let mut vectors = found.into_iter().map(view).collect::<Result<Vec<_>, Failure>>()?;
    // By number: ids begin with the same device.
    vectors.sort_by_key(|vector| vector.id.rsplit_once('_').and_then(|(_, number)| number.parse::<u64>().ok()));
    Ok(vectors)
}

/// Asks for a sync, and waits until it is over.
async fn sync(vector: &VectorProxy<'_>, no_wait: bool) -> Result<(), Failure> {
    // Any change of its properties is a reason to ask for its state; what is asked for is never old.
    let (bus, path) = (vector.inner().connection(), vector.inner().path());
    let properties = PropertiesProxy::builder(bus).destination(BUS_NAME).path(path).build().await?;
    let mut changes = properties.receive_properties_changed().await?;
    vector.sync(HashMap::new()).await?;
    if no_wait {
        return Ok(());
    }
    loop {
        match vector.state().await?.as_str() {
            "waiting" | "syncing" => {
                if changes.next().await.is_none() {
                    return Err(Failure::unreachable(
                        "the agent is gone; the vector goes on when it is back".to_owned(),
                    ));
                }
            }
            "idle" => {
                let (base, sent) = (vector.base().await?, vector.sent().await?);
                return print(&format!("{} of {base}\n", text::size(sent)));
            }
            _ => {
                let why = vector.last_error().await?;
                let (code, text) = why.split_once(": ").unwrap_or(("vector-paused", "the vector was paused"));
                return Err(Failure::of_agent(code, text));
            }
        }
    }
}

fn table(all: &[VectorView]) -> String {
    if all.is_empty() {
        return "  There are no vectors.\n".to_owned();
    }
    let mut rows = vec![["  VECTOR", "FROM", "TO", "STATE", "BOTH HAVE", "PROVEN TO"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|v| {
        let (from, to) = match v.direction.as_str() {
            "pull" => (format!("{}:{}", v.machine, v.source), v.target.clone()),
            _ => (v.source.clone(), format!("{}:{}", v.machine, v.target)),
        };
        let number = v.id.rsplit_once('_').map_or("", |(_, number)| number);
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![format!("  {number}"), from, to, v.state.clone(), or_dash(&v.base), or_dash(&v.proven_to)]
    }));
    let mut text = text::table(&rows, &[]);
    for vector in all.iter().filter(|vector| !vector.last_error.is_empty()) {
        let number = vector.id.rsplit_once('_').map_or("", |(_, number)| number);
        text += &format!("  {number}: {}\n", vector.last_error);
    }
    text
}
