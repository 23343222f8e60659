//! `sirisctl pools`, and the pools' part of the status.

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;
use siris_api::{ManagerProxy, POOL_INTERFACE, PoolMember};
use zbus::Connection;

use crate::cli::PoolsCommand;
use crate::failure::Failure;
use crate::objects::{Properties, take, with_interface};
use crate::text;

/// A pool as the agent shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PoolView {
    /// Its guid.
    pub guid: u64,
    /// Its name.
    pub name: String,
    state: String,
    size: u64,
    free: u64,
    errors: u64,
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct MemberView {
    name: String,
    group: String,
    class: String,
    state: String,
    read_errors: u64,
    write_errors: u64,
    checksum_errors: u64,
}

/// Runs a command on the pools; without one, shows them.
pub async fn run(connection: &Connection, command: Option<PoolsCommand>, json: bool) -> Result<(), Failure> {
    let manager = ManagerProxy::new(connection).await?;
    match command {
        None => show(connection, json).await,
        Some(PoolsCommand::Refresh) => Ok(manager.refresh_pools(HashMap::new()).await?),
        Some(PoolsCommand::Forget { guid }) => Ok(manager.forget_pool(guid, HashMap::new()).await?),
    }
}

async fn show(connection: &Connection, json: bool) -> Result<(), Failure> {
    let pools = ask(connection).await?;
    let text = if json {
        let text = serde_json::to_string_pretty(&pools).map_err(|e| Failure::local("cannot write JSON", &e))?;
        format!("{text}\n")
    } else {
        table(&pools, true)
    };
    io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::local("cannot write", &e))
}

/// Asks for every pool, in one call.
pub async fn ask(connection: &Connection) -> Result<Vec<PoolView>, Failure> {
    let mut pools =
        with_interface(connection, POOL_INTERFACE).await?.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pools)
}

fn view(mut properties: Properties) -> Result<PoolView, Failure> {
    let members: Vec<PoolMember> = take(&mut properties, "Members")?;
    let member = |m: PoolMember| MemberView {
        name: m.name,
        group: m.group,
        class: m.class,
        state: m.state,
        read_errors: m.read_errors,
        write_errors: m.write_errors,
        checksum_errors: m.checksum_errors,
    };
    Ok(PoolView {
        guid: take(&mut properties, "Guid")?,
        name: take(&mut properties, "Name")?,
        state: take(&mut properties, "State")?,
        size: take(&mut properties, "Size")?,
        free: take(&mut properties, "Free")?,
        errors: take(&mut properties, "Errors")?,
        members: members.into_iter().map(member).collect(),
    })
}

/// The pools as a table, with or without their devices.
pub fn table(pools: &[PoolView], devices: bool) -> String {
    if pools.is_empty() {
        return "  No pools are imported.\n".into();
    }
    let cells = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![cells(["  POOL", "STATE", "SIZE", "FREE", "ERRORS"])];
    for pool in pools {
        let name = format!("  {}", pool.name);
        rows.push(vec![
            name,
            pool.state.clone(),
            text::size(pool.size),
            text::size(pool.free),
            pool.errors.to_string(),
        ]);
    }
    let mut out = text::table(&rows, &[2, 3, 4]);
    if devices {
        let mut rows = vec![
            ["  POOL", "DEVICE", "GROUP", "USE", "STATE", "READ", "WRITE", "CHECKSUM"].map(str::to_owned).to_vec(),
        ];
        for pool in pools {
            for m in &pool.members {
                let counts = [m.read_errors, m.write_errors, m.checksum_errors].map(|n| n.to_string());
                let mut row =
                    vec![format!("  {}", pool.name), m.name.clone(), m.group.clone(), m.class.clone(), m.state.clone()];
                row.extend(counts);
                rows.push(row);
            }
        }
        out.push('\n');
        out += &text::table(&rows, &[5, 6, 7]);
    }
    out
}
