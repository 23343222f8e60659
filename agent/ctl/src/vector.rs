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
    /// Of a relay, the machine that the data comes from.
    #[serde(skip_serializing_if = "String::is_empty")]
    from: String,
    mode: String,
    source: String,
    target: String,
    tier: String,
    priority: u32,
    limits: String,
    when: String,
    /// In seconds since 1970; 0 where there is no such time.
    next_at: u64,
    state: String,
    last_error: String,
    sent: u64,
    rate: u64,
    remaining: u64,
    base: String,
    proven_to: String,
    synced_at: u64,
}

/// Runs a command on the vectors.
pub async fn run(connection: &Connection, command: VectorCommand) -> Result<(), Failure> {
    match command {
        VectorCommand::Add { dataset, machine, pull, from, other, rsync, secondary } => {
            let direction = match &from {
                Some(_) => "relay",
                None if pull => "pull",
                None => "push",
            };
            let mut vector: Options<'_> = HashMap::from([
                ("dataset", dataset.as_str().into()),
                ("machine", machine.as_str().into()),
                ("direction", direction.into()),
                ("tier", if secondary { "secondary" } else { "primary" }.into()),
            ]);
            if let Some(from) = &from {
                vector.insert("from", from.as_str().into());
            }
            if let Some(other) = &other {
                vector.insert("other", other.as_str().into());
            }
            if let Some(path) = &rsync {
                vector.extend([("mode", "rsync".into()), ("path", path.as_str().into())]);
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
        VectorCommand::Show { vector, json } => show(connection, &vector, json).await,
        VectorCommand::Set { vector, priority, limit, when } => {
            let [limit, when] = [limit, when].map(|words| words.map(|words| words.join(" ")));
            let priority = priority.map(|number| ("priority", number.into()));
            let limit = limit.as_deref().map(|text| ("limits", text.into()));
            let when = when.as_deref().map(|text| ("when", text.into()));
            let options: Options<'_> = priority.into_iter().chain(limit).chain(when).collect();
            Ok(find(connection, &vector).await?.configure(options).await?)
        }
        VectorCommand::AtOnce { count: None } => {
            let count = ReplicationProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
            print(&format!("{}\n", count.at_once().await?))
        }
        VectorCommand::AtOnce { count: Some(count) } => {
            let options: Options<'_> = HashMap::from([("at-once", count.into())]);
            Ok(ReplicationProxy::new(connection).await?.configure(options).await?)
        }
        VectorCommand::Sync { vector, no_wait } => sync(&find(connection, &vector).await?, no_wait).await,
        VectorCommand::Verify { vector, whole } => {
            let options: Options<'_> = whole.then(|| ("whole", true.into())).into_iter().collect();
            let (base, paths, differing, amounts) = find(connection, &vector).await?.verify(options).await?;
            let read = amounts_read(&amounts);
            if differing.is_empty() {
                return print(&format!("{base} is the same on both: {paths} paths; {read}\n"));
            }
            let differing = differing.join(", ");
            Err(Failure::of_agent(
                "replica-differs",
                &format!("{base} is not the same on both: {differing} ({read}; --whole reads all again)"),
            ))
        }
        VectorCommand::Turn { vector } => {
            let vector = the_one(connection, &vector).await?;
            proxy(connection, &vector).await?.turn(HashMap::new()).await?;
            let (from, to) = ends(&the_one(connection, &vector.id).await?);
            print(&format!("from {from} to {to} now\n"))
        }
        VectorCommand::Pause { vector } => Ok(find(connection, &vector).await?.pause().await?),
        VectorCommand::Resume { vector } => Ok(find(connection, &vector).await?.resume().await?),
        VectorCommand::Remove { vector, here_only } => {
            let options: Options<'_> = HashMap::from([("here-only", here_only.into())]);
            let vector = the_one(connection, &vector).await?;
            proxy(connection, &vector).await?.remove(options).await?;
            if vector.mode == "rsync" && vector.direction == "push" {
                return print(&format!("the copy in {} is left as it is\n", ends(&vector).1));
            }
            Ok(())
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

/// How much each end has read, for people.
fn amounts_read(amounts: &HashMap<String, u64>) -> String {
    let of = |end: &str| {
        let bytes = |what: &str| amounts.get(&format!("{end}-{what}")).copied();
        match (bytes("read"), bytes("data")) {
            (Some(read), Some(data)) => format!("{} of {} {end}", text::size(read), text::size(data)),
            _ => format!("an amount that it does not say {end}"),
        }
    };
    format!("read {}, {}", of("here"), of("there"))
}

/// How far the target is behind.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LagView {
    points: u64,
    seconds: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    vector: VectorView,
    /// Absent where the source cannot be asked.
    lag: Option<LagView>,
}

async fn show(connection: &Connection, asked: &str, json: bool) -> Result<(), Failure> {
    let vector = the_one(connection, asked).await?;
    let lag = proxy(connection, &vector).await?.lag().await;
    let lag = lag.map(|(points, seconds, bytes)| LagView { points, seconds, bytes });
    let unknown = lag.as_ref().err().map(|error| Failure::from(error.clone()).to_string());
    let shown = Shown { vector, lag: lag.ok() };
    if json {
        let text = serde_json::to_string_pretty(&shown).map_err(|e| Failure::local("cannot write JSON", &e))?;
        return print(&format!("{text}\n"));
    }
    print(&details(&shown.vector, &behind(shown.lag.as_ref(), unknown)))
}

/// How far the target is behind, for people.
fn behind(lag: Option<&LagView>, unknown: Option<String>) -> String {
    match lag {
        Some(LagView { points: 0, .. }) => "not at all".to_owned(),
        Some(LagView { points, seconds, bytes }) => {
            let points = if *points == 1 { "1 point".to_owned() } else { format!("{points} points") };
            format!("{points}, {}, {}", text::size(*bytes), text::duration(*seconds))
        }
        None => format!("not known: {}", unknown.unwrap_or_default()),
    }
}

fn details(vector: &VectorView, behind: &str) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let (from, to) = ends(vector);
    let mut rows = vec![
        ("vector", vector.id.clone()),
        ("from", from),
        ("to", to),
        ("mode", vector.mode.clone()),
        ("tier", vector.tier.clone()),
        ("priority", vector.priority.to_string()),
        ("limit", vector.limits.clone()),
        ("when", vector.when.clone()),
        ("state", vector.state.clone()),
        ("behind", behind.to_owned()),
        ("both have", or_dash(&vector.base)),
        ("proven to", or_dash(&vector.proven_to)),
    ];
    let next = i64::try_from(vector.next_at).ok().filter(|next| *next > 0).and_then(text::time);
    rows.extend(next.map(|next| ("next", next)));
    if vector.state == "syncing" {
        let (sent, rate) = (text::size(vector.sent), text::size(vector.rate));
        let left = vector.remaining.checked_div(vector.rate).filter(|_| vector.remaining > 0);
        let left = left
            .map_or(String::new(), |left| format!(", {} left: {}", text::size(vector.remaining), text::duration(left)));
        rows.push(("sending", format!("{sent} sent, {rate}/s{left}")));
    }
    if !vector.last_error.is_empty() {
        rows.push(("last error", vector.last_error.clone()));
    }
    rows.iter().map(|(name, value)| format!("  {name:<10}  {value}\n")).collect()
}

/// Source and target; the other machine's with its name.
fn ends(vector: &VectorView) -> (String, String) {
    match vector.direction.as_str() {
        "pull" => (format!("{}:{}", vector.machine, vector.source), vector.target.clone()),
        "relay" => (format!("{}:{}", vector.from, vector.source), format!("{}:{}", vector.machine, vector.target)),
        _ => (vector.source.clone(), format!("{}:{}", vector.machine, vector.target)),
    }
}

async fn proxy<'c>(connection: &'c Connection, vector: &VectorView) -> Result<VectorProxy<'c>, Failure> {
    let path = vector_path(&vector.id);
    Ok(VectorProxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await?)
}

/// The vector with that id, or the only one with that number.
async fn find<'c>(connection: &'c Connection, asked: &str) -> Result<VectorProxy<'c>, Failure> {
    let vector = the_one(connection, asked).await?;
    proxy(connection, &vector).await
}

async fn the_one(connection: &Connection, asked: &str) -> Result<VectorView, Failure> {
    let mut all = ask(connection).await?;
    let is_it = |vector: &&VectorView| {
        vector.id == asked || vector.id.rsplit_once('_').is_some_and(|(_, number)| number == asked)
    };
    all.retain(|vector| is_it(&vector));
    let what = if all.is_empty() { "there is no vector" } else { "more than one vector is" };
    match (all.pop(), all.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(Failure::input(format!("{what} {asked}: see sirisctl vector list"))),
    }
}

async fn ask(connection: &Connection) -> Result<Vec<VectorView>, Failure> {
    let view = |mut properties: Properties| {
        Ok(VectorView {
            id: take(&mut properties, "Id")?,
            machine: take(&mut properties, "Machine")?,
            direction: take(&mut properties, "Direction")?,
            from: take(&mut properties, "From")?,
            mode: take(&mut properties, "Mode")?,
            source: take(&mut properties, "Source")?,
            target: take(&mut properties, "Target")?,
            tier: take(&mut properties, "Tier")?,
            priority: take(&mut properties, "Priority")?,
            limits: take(&mut properties, "Limits")?,
            when: take(&mut properties, "When")?,
            next_at: take(&mut properties, "NextAt")?,
            state: take(&mut properties, "State")?,
            last_error: take(&mut properties, "LastError")?,
            sent: take(&mut properties, "Sent")?,
            rate: take(&mut properties, "Rate")?,
            remaining: take(&mut properties, "Remaining")?,
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
    let mut rows =
        vec![["  VECTOR", "FROM", "TO", "MODE", "STATE", "BOTH HAVE", "PROVEN TO"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|v| {
        let (from, to) = ends(v);
        let number = v.id.rsplit_once('_').map_or("", |(_, number)| number);
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![format!("  {number}"), from, to, v.mode.clone(), v.state.clone(), or_dash(&v.base), or_dash(&v.proven_to)]
    }));
    let mut text = text::table(&rows, &[]);
    for vector in all.iter().filter(|vector| !vector.last_error.is_empty()) {
        let number = vector.id.rsplit_once('_').map_or("", |(_, number)| number);
        text += &format!("  {number}: {}\n", vector.last_error);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(state: &str) -> VectorView {
        let text = str::to_owned;
        VectorView {
            id: text("0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55_3"),
            machine: text("vault"),
            direction: text("push"),
            from: String::new(),
            mode: text("zfs"),
            source: text("tank/home/agents/x"),
            target: text("vault/home/agents/x"),
            tier: text("primary"),
            priority: 3,
            limits: text("mon-fri/08:00-18:00=2MiB none"),
            when: text("points"),
            next_at: 0,
            state: text(state),
            last_error: String::new(),
            sent: 3 << 20,
            rate: 1 << 20,
            remaining: 90 << 20,
            base: text("1568402268"),
            proven_to: String::new(),
            synced_at: 0,
        }
    }

    #[test]
    fn what_is_sent_is_shown_with_what_is_left() {
        let text = details(&vector("syncing"), "1 point, 90 MiB, 1 h 0 min");
        assert!(text.contains("mode        zfs\n"), "{text}");
        assert!(text.contains("to          vault:vault/home/agents/x\n"), "{text}");
        assert!(text.contains("sending     3.00 MiB sent, 1.00 MiB/s, 90.0 MiB left: 1 min 30 s\n"), "{text}");
        assert!(text.contains("proven to   -\n") && !text.contains("last error"), "{text}");
        assert!(!details(&vector("idle"), "").contains("sending"));
    }

    #[test]
    fn a_time_that_comes_is_shown() {
        let nightly = VectorView { when: "02:00".to_owned(), next_at: 1_568_426_400, ..vector("idle") };
        let text = details(&nightly, "");
        assert!(text.contains("when        02:00\n") && text.contains("next        2019-09-14T02:00:00Z\n"), "{text}");
        assert!(!details(&vector("idle"), "").contains("next "), "with each point there is none");
    }

    #[test]
    fn how_much_each_end_has_read() {
        let mut amounts = HashMap::from([("here-read".to_owned(), 6 << 20), ("here-data".to_owned(), 1 << 30)]);
        assert_eq!(amounts_read(&amounts), "read 6.00 MiB of 1.00 GiB here, an amount that it does not say there");
        amounts.extend([("there-read".to_owned(), 0), ("there-data".to_owned(), 5)]);
        assert_eq!(amounts_read(&amounts), "read 6.00 MiB of 1.00 GiB here, 0 B of 5 B there");
    }

    #[test]
    fn a_relay_has_both_ends_elsewhere() {
        let relay = VectorView { direction: "relay".to_owned(), from: "office".to_owned(), ..vector("idle") };
        let (from, to) = ends(&relay);
        assert_eq!((from.as_str(), to.as_str()), ("office:tank/home/agents/x", "vault:vault/home/agents/x"));
    }

    #[test]
    fn how_far_it_is_behind() {
        let lag = |points| Some(LagView { points, seconds: 60, bytes: 1 << 20 });
        assert_eq!(behind(lag(0).as_ref(), None), "not at all");
        assert_eq!(behind(lag(1).as_ref(), None), "1 point, 1.00 MiB, 1 min 0 s");
        assert_eq!(behind(None, Some("no".to_owned())), "not known: no");
    }
}
