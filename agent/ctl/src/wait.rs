//! `sirisctl wait`.

use std::time::Duration;

use futures_util::StreamExt;
use siris_api::{BUS_NAME, Health, ManagerProxy};
use zbus::Connection;
use zbus::fdo::DBusProxy;

use crate::cli::Awaited;
use crate::failure::Failure;

/// Waits until the health is the awaited one. An agent that is not on the bus yet is waited for, too.
pub async fn wait(connection: &Connection, awaited: Awaited, seconds: u64) -> Result<(), Failure> {
    let limit = Duration::from_secs(seconds);
    match tokio::time::timeout(limit, reach(connection, awaited)).await {
        Ok(reached) => reached,
        Err(_) => Err(Failure::not_reached(why_not(connection, seconds).await)),
    }
}

async fn reach(connection: &Connection, awaited: Awaited) -> Result<(), Failure> {
    let bus = DBusProxy::new(connection).await?;
    let mut owners = bus.receive_name_owner_changed_with_args(&[(0, BUS_NAME)]).await?;
    loop {
        if bus.name_has_owner(BUS_NAME.try_into()?).await? {
            // An agent that goes away while it is asked comes back: its service restarts it.
            if let Ok(true) = follow(connection, awaited, &mut owners).await {
                return Ok(());
            }
        } else if owners.next().await.is_none() {
            return Err(Failure::unreachable("the bus is gone"));
        }
    }
}

async fn follow(
    connection: &Connection,
    awaited: Awaited,
    owners: &mut zbus::fdo::NameOwnerChangedStream,
) -> Result<bool, Failure> {
    let manager = ManagerProxy::new(connection).await?;
    let mut changes = manager.receive_health_changed().await;
    loop {
        let health: Health = manager
            .health()
            .await?
            .parse()
            .map_err(|e: siris_api::UnknownHealth| Failure::unreachable(e.to_string()))?;
        let reached = match awaited {
            Awaited::Healthy => health == Health::Healthy,
            Awaited::Usable => matches!(health, Health::Healthy | Health::Degraded),
            Awaited::Started => health != Health::Starting,
        };
        if reached {
            return Ok(true);
        }
        tokio::select! {
            _ = changes.next() => {}
            _ = owners.next() => return Ok(false),
        }
    }
}

async fn why_not(connection: &Connection, seconds: u64) -> String {
    let ask = async {
        let manager = ManagerProxy::new(connection).await?;
        Ok::<_, zbus::Error>((manager.health().await?, manager.health_reasons().await?))
    };
    match tokio::time::timeout(Duration::from_secs(5), ask).await {
        Ok(Ok((health, reasons))) => {
            let reasons: String = reasons.iter().map(|r| format!("\n  {}: {}", r.code, r.text)).collect();
            format!("after {seconds} s the box is {health}{reasons}")
        }
        _ => format!("after {seconds} s the agent is not on the bus: see `systemctl status siris-agent`"),
    }
}
