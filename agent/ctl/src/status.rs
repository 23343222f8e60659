//! `sirisctl status`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use siris_api::{ManagerProxy, UpgradeProxy};
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedVariant, Variant};

use crate::failure::Failure;
use crate::pools::{self, PoolView};
use crate::text;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    product: String,
    version: String,
    hostname: String,
    device_id: String,
    role: String,
    uptime: u64,
    health: String,
    reasons: Vec<Reason>,
    slots: Slots,
    pools: Vec<PoolView>,
    missing_pools: Vec<MissingPool>,
}

#[derive(Debug, Serialize)]
struct Reason {
    code: String,
    text: String,
}

#[derive(Debug, Default, Serialize)]
struct Slots {
    booted: Option<String>,
    next: Option<String>,
    all: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct MissingPool {
    guid: u64,
    name: String,
}

/// Prints what the box is and how it is.
pub async fn status(connection: &Connection, json: bool) -> Result<(), Failure> {
    let status = ask(connection).await?;
    let text = if json {
        let text = serde_json::to_string_pretty(&status).map_err(|e| Failure::local("cannot write JSON", &e))?;
        format!("{text}\n")
    } else {
        table(&status)
    };
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

async fn ask(connection: &Connection) -> Result<Status, Failure> {
    let manager = ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
    let pools = pools::ask(connection).await?;
    let expected = manager.expected_pools().await?;
    let missing = expected.into_iter().filter(|e| !pools.iter().any(|p| p.guid == e.guid));
    let reasons = manager.health_reasons().await?;
    Ok(Status {
        product: manager.product().await?,
        version: manager.version().await?,
        hostname: manager.hostname().await?,
        device_id: manager.device_id().await?,
        role: manager.role().await?,
        uptime: manager.uptime().await?,
        health: manager.health().await?,
        reasons: reasons.into_iter().map(|r| Reason { code: r.code, text: r.text }).collect(),
        slots: ask_slots(connection).await?,
        missing_pools: missing.map(|e| MissingPool { guid: e.guid, name: e.name }).collect(),
        pools,
    })
}

/// A box whose slots cannot be read still has a status.
async fn ask_slots(connection: &Connection) -> Result<Slots, Failure> {
    let upgrade = UpgradeProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
    let booted = upgrade.boot_slot().await?;
    let mut slots = Slots { booted: Some(booted).filter(|b| !b.is_empty()), ..Slots::default() };
    match upgrade.get_slot_status().await {
        Ok(all) => {
            for slot in all {
                let details = slot.details.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
                slots.all.insert(slot.name, details);
            }
            slots.next = upgrade.get_primary().await.ok().filter(|n| !n.is_empty());
        }
        Err(error) => slots.error = Some(siris_api::message_of(&error).unwrap_or_else(|| error.to_string())),
    }
    Ok(slots)
}

/// A value of the bus as JSON has it.
pub fn plain(value: &OwnedVariant) -> serde_json::Value {
    match &**value {
        Variant::Str(text) => text.as_str().into(),
        Variant::U32(number) => (*number).into(),
        Variant::U64(number) => (*number).into(),
        Variant::Bool(yes) => (*yes).into(),
        other => other.to_string().into(),
    }
}

fn table(status: &Status) -> String {
    let mut text = format!("{} {} on {}\n\n", status.product, status.version, status.hostname);
    let row = |key: &str, value: String| vec![format!("  {key}"), value];
    let rows = vec![
        row("Health", status.health.clone()),
        row("Role", status.role.clone()),
        row("Device", status.device_id.clone()),
        row("Slot", slot_line(&status.slots)),
        row("Uptime", text::duration(status.uptime)),
    ];
    text += &text::table(&rows, &[]);
    for reason in &status.reasons {
        text += &format!("\n  {}\n", reason.code);
        for line in text::wrap(&reason.text, 92) {
            text += &format!("    {line}\n");
        }
    }
    text.push('\n');
    text += &pools::table(&status.pools, false);
    for missing in &status.missing_pools {
        text += &format!("  {}  missing (guid {})\n", missing.name, missing.guid);
    }
    text
}

fn slot_line(slots: &Slots) -> String {
    let Some(booted) = &slots.booted else { return "not booted from a slot".into() };
    if let Some(error) = &slots.error {
        return format!("{booted} ({error})");
    }
    let word = |slot: &BTreeMap<String, serde_json::Value>, key: &str| {
        slot.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    let describe = |name: &str| {
        let slot = slots.all.get(name)?;
        let mut parts = vec![word(slot, "state").unwrap_or_else(|| "unknown".into())];
        parts.extend(word(slot, "version").filter(|v| !v.is_empty()));
        parts.extend(word(slot, "tries").map(|t| format!("{t} tries left")).filter(|_| parts[0] != "empty"));
        Some(parts.join(", "))
    };
    let mut line = format!("{booted}: {}", describe(booted).unwrap_or_default());
    for name in slots.all.keys().filter(|n| *n != booted) {
        line += &format!("; {name}: {}", describe(name).unwrap_or_default());
    }
    if let Some(next) = slots.next.as_ref().filter(|n| *n != booted) {
        line += &format!("; next boot: {next}");
    }
    line
}
