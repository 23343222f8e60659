//! `siris-agent health-gate`: holds `boot-complete.target` back until the agent says that the OS does its work.
//!
//! Passes at `healthy` and at `degraded` (see the table in `health`). `failed` must last a while to count: a service
//! that the service manager starts again is no reason to leave a slot.

use std::time::Duration;

use futures_util::StreamExt;
use siris_api::{BUS_NAME, Health, HealthReason, ManagerProxy};
use tokio::time::{Instant, timeout_at};
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;

/// Why the boot is not complete.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The bus cannot be used.
    #[error("cannot ask the bus")]
    AskBus(#[from] zbus::Error),
    /// The agent's health is a word unknown to this very release.
    #[error(transparent)]
    Word(#[from] siris_api::UnknownHealth),
    /// The agent never came.
    #[error("the agent is not on the bus")]
    NoAgent,
    /// The box is not well.
    #[error("the box is {health}:{}", list(.reasons))]
    NotWell {
        /// Its health.
        health: Health,
        /// Why.
        reasons: Vec<HealthReason>,
    },
}

fn list(reasons: &[HealthReason]) -> String {
    reasons.iter().map(|r| format!("\n  {}: {}", r.code, r.text)).collect()
}

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the boot to be over.
    pub limit: Duration,
    /// For `failed` to be taken back.
    pub settle: Duration,
}

/// Waits until the box is well; returns what is wrong all the same.
///
/// # Errors
/// When it is not well and patience is at its end.
pub async fn gate(connection: &Connection, patience: Patience) -> Result<Vec<HealthReason>, GateError> {
    let limit = Instant::now() + patience.limit;
    let bus = DBusProxy::new(connection).await?;
    let mut owners = bus.receive_name_owner_changed_with_args(&[(0, BUS_NAME)]).await?;
    let manager = ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
    let properties = zbus::fdo::PropertiesProxy::builder(connection)
        .destination(BUS_NAME)
        .path(siris_api::ROOT_PATH)
        .build()
        .await?;
    let mut changes = properties.receive_properties_changed().await?;
    let mut failed_since: Option<Instant> = None;
    loop {
        let seen = look(&manager).await;
        let until = match &seen {
            Ok((Health::Healthy | Health::Degraded, reasons)) => return Ok(reasons.clone()),
            Ok((Health::Failed, _)) => limit.min(*failed_since.get_or_insert_with(Instant::now) + patience.settle),
            // Starting; or an agent that is not there yet, or again.
            Ok((Health::Starting, _)) | Err(GateError::AskBus(_)) => {
                failed_since = None;
                limit
            }
            Err(_) => limit,
        };
        if Instant::now() >= until {
            return match seen {
                Ok((health, reasons)) => Err(GateError::NotWell { health, reasons }),
                Err(GateError::AskBus(_)) => Err(GateError::NoAgent),
                Err(error) => Err(error),
            };
        }
        let news = async {
            tokio::select! {
                _ = changes.next() => {}
                _ = owners.next() => {}
            }
        };
        // Either there is news, or it is time to decide: both are seen at the top.
        let _ = timeout_at(until, news).await;
    }
}

/// What the agent says is wrong now.
///
/// # Errors
/// When it does not answer.
pub async fn reasons(connection: &Connection) -> Result<Vec<HealthReason>, GateError> {
    let manager = ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
    Ok(look(&manager).await?.1)
}

async fn look(manager: &ManagerProxy<'_>) -> Result<(Health, Vec<HealthReason>), GateError> {
    let health = manager.health().await?.parse()?;
    Ok((health, manager.health_reasons().await?))
}
