//! The daemon: puts the agent on the bus, follows what its health is made of, answers the watchdog.
//!
//! Idle, it sleeps in one epoll and wakes once per watchdog ping: the ping, and a look at the state partition.

use std::sync::Arc;
use std::time::Duration;

use siris_zfs::Zfs;
use tokio::signal::unix::{SignalKind, signal};
use zbus::Connection;

use crate::agent::{Agent, POOLS_UNIT};
use crate::bus::{self, Authority, Publisher};
use crate::notify::{Notifier, watchdog_period};
use crate::root::Root;
use crate::ticker::Ticker;
use crate::units::{self, Watch};

/// How often the state partition is looked at where no watchdog asks.
const PERIOD: Duration = Duration::from_secs(30);

/// Serves until the bus is gone or the process is told to end.
///
/// # Errors
/// When the bus cannot be had or breaks; the service manager starts the agent again.
pub async fn serve(connection: Connection, root: Root, zfs: Arc<dyn Zfs>, authority: Authority) -> anyhow::Result<()> {
    let notifier = Notifier::from_environment()?;
    let agent = Arc::new(tokio::task::spawn_blocking(move || Agent::load(root, zfs)).await?);
    let publisher = Publisher::new(connection.clone(), agent.clone(), authority);
    let watches = watch_units(&connection, &agent).await;
    bus::serve(&connection, agent.clone(), publisher.clone(), authority).await?;
    for (unit, watch) in watches {
        tokio::spawn(follow(watch, unit, agent.clone(), publisher.clone()));
    }
    publisher.publish_health().await?;
    let mut status = status_line(&agent);
    notifier.send(&format!("READY=1\n{status}"));

    let mut end = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ticker = Ticker::new(watchdog_period().unwrap_or(PERIOD))?;
    loop {
        tokio::select! {
            ticked = ticker.tick() => {
                ticked?;
                agent.look_at_state();
                publisher.take_turns();
                publisher.publish_health().await?;
                let now = status_line(&agent);
                if now == status {
                    notifier.send("WATCHDOG=1");
                } else {
                    notifier.send(&format!("WATCHDOG=1\n{now}"));
                    status = now;
                }
            }
            () = connection.closed() => anyhow::bail!("the bus closed the connection"),
            _ = end.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notifier.send("STOPPING=1");
    Ok(())
}

fn status_line(agent: &Agent) -> String {
    format!("STATUS=health {}", agent.shown().verdict.health)
}

/// Looks at every unit of interest, and listens from then on.
async fn watch_units(connection: &Connection, agent: &Agent) -> Vec<(String, Watch)> {
    let mut watches = Vec::new();
    if let Err(error) = units::subscribe(connection).await {
        // Where there is no service manager (a test's private bus) no unit is listed either; where one should be, the
        // listed units stay unknown, and the health says so.
        eprintln!("the service manager does not answer: {error}");
        return watches;
    }
    for unit in agent.units.iter().map(String::as_str).chain([POOLS_UNIT]) {
        match Watch::start(connection, unit).await {
            Ok(watch) => {
                agent.note_unit(unit, watch.fact().clone());
                watches.push((unit.to_owned(), watch));
            }
            Err(error) => eprintln!("cannot follow {unit}: {error}"),
        }
    }
    watches
}

async fn follow(mut watch: Watch, unit: String, agent: Arc<Agent>, publisher: Publisher) {
    loop {
        if let Err(error) = watch.changed().await {
            eprintln!("cannot follow {unit} any longer: {error}");
            return;
        }
        agent.note_unit(&unit, watch.fact().clone());
        let told = if unit == POOLS_UNIT && !watch.fact().has_job {
            publisher.refresh_pools().await
        } else {
            publisher.publish_health().await
        };
        if let Err(error) = told {
            eprintln!("cannot tell the bus: {error}");
        }
    }
}
