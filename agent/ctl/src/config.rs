//! `sirisctl config`.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use siris_api::{ManagerProxy, Options};
use zbus::{Connection, OwnedVariant, Variant};

use crate::cli::ConfigCommand;
use crate::failure::Failure;

/// Keys that take a list even of one item. The agent has the last word on what a key takes.
const LISTS: [&str; 3] = ["ssh.authorized-keys", "ntp.servers", "dns.servers"];

/// Runs a command on the configuration.
pub async fn run(connection: &Connection, command: ConfigCommand) -> Result<(), Failure> {
    let manager = ManagerProxy::new(connection).await?;
    match command {
        ConfigCommand::Show { json } => show(&manager, json).await,
        ConfigCommand::Get { key } => get(&manager, &key).await,
        ConfigCommand::Set { force, key, values } => {
            let value = if LISTS.contains(&key.as_str()) || values.len() > 1 {
                Variant::from(values)
            } else {
                Variant::from(values.concat())
            };
            let value = OwnedVariant::try_from(value)?;
            say(&manager.set_config(&key, &value, options(force)).await?);
            Ok(())
        }
        ConfigCommand::Unset { force, key } => {
            say(&manager.unset_config(&key, options(force)).await?);
            Ok(())
        }
    }
}

fn options(force: bool) -> Options<'static> {
    if force { HashMap::from([("force", Variant::from(true))]) } else { HashMap::new() }
}

fn say(takes: &str) {
    match takes {
        "" => eprintln!("Done."),
        "reboot" => eprintln!("Kept. It takes effect at the next boot."),
        other => eprintln!("Kept. It takes effect after: {other}."),
    }
}

async fn ask(manager: &ManagerProxy<'_>) -> Result<BTreeMap<String, serde_json::Value>, Failure> {
    let values = manager.get_config(HashMap::new()).await?;
    let plain = |value: OwnedVariant| match Variant::from(value) {
        Variant::Str(text) => serde_json::Value::from(text.as_str()),
        other => match Vec::<String>::try_from(other) {
            Ok(items) => items.into(),
            Err(_) => serde_json::Value::Null,
        },
    };
    Ok(values.into_iter().map(|(key, value)| (key, plain(value))).collect())
}

async fn show(manager: &ManagerProxy<'_>, json: bool) -> Result<(), Failure> {
    let values = ask(manager).await?;
    let mut text = String::new();
    if json {
        text = serde_json::to_string_pretty(&values).map_err(|e| Failure::local("cannot write JSON", &e))?;
        text.push('\n');
    } else {
        for (key, value) in &values {
            text += &format!("{key} = {value}\n");
        }
    }
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

async fn get(manager: &ManagerProxy<'_>, key: &str) -> Result<(), Failure> {
    let values = ask(manager).await?;
    let Some(value) = values.get(key) else { return Err(Failure::input(format!("{key} is not set"))) };
    let lines: Vec<&str> = match value {
        serde_json::Value::Array(items) => items.iter().filter_map(|i| i.as_str()).collect(),
        value => value.as_str().into_iter().collect(),
    };
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}
