//! Starts the workers that write and mark slots: on a box each as a unit of its own, which may write the OS disk as the agent may
//! not; below another root, where there is no service manager, on a thread.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use zbus::Connection;

use crate::agent::Agent;
use crate::bus::transient::{Devices, Network, Unit, lines, manager};
use crate::upgrade::worker::{self, Said};
use crate::upgrade::{Allowed, is_url};

/// Where a bundle comes from.
pub(super) enum Source {
    /// A file or a pipe.
    Bundle(OwnedFd),
    /// An address or a path.
    Address(String),
}

const UNIT: &str = "siris-upgrade.service";
const MARK_UNIT: &str = "siris-mark-slot.service";
const INSPECT_UNIT: &str = "siris-inspect-bundle.service";

/// Says to a worker on a thread that it is to stop; one in a unit is stopped with its unit.
pub(super) type Stop = Arc<AtomicBool>;

/// A source that ends in an error once somebody wants it to.
struct Stoppable {
    bundle: File,
    stop: Stop,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stop.load(Ordering::SeqCst) {
            true => Err(io::Error::other("stopped")),
            false => self.bundle.read(buffer),
        }
    }
}

/// Stops it. What it has written boots nothing.
///
/// # Errors
/// When the service manager does not stop it.
pub(super) async fn stop(connection: &Connection, agent: &Agent, stop: &Stop) -> zbus::Result<()> {
    stop.store(true, Ordering::SeqCst);
    if agent.root.is_machine() {
        manager(connection, "StopUnit", &(UNIT, "replace")).await?;
    }
    Ok(())
}

/// Starts it with this bundle; what it says comes out of the channel, which ends when the worker does.
///
/// # Errors
/// When it cannot be started; or one is running, after the agent was started anew.
pub(super) async fn start(
    connection: &Connection,
    agent: &Arc<Agent>,
    source: Source,
    allowed: Allowed,
    stop: &Stop,
) -> zbus::Result<mpsc::Receiver<Said>> {
    let (said, mouth) = std::io::pipe()?;
    if agent.root.is_machine() {
        unit(connection, source, &OwnedFd::from(mouth), allowed).await?;
    } else {
        let (agent, stop) = (agent.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut mouth = mouth;
            let source = match source {
                Source::Bundle(bundle) => worker::Source::Stream(Stoppable { bundle: File::from(bundle), stop }),
                Source::Address(address) => worker::Source::Address(address),
            };
            worker::run(&agent.root, agent.zfs.as_ref(), source, allowed, &mut mouth)
        });
    }
    Ok(lines(said))
}

/// Marks a slot, in a unit that may write the OS disk; `None` when it ended without a word.
///
/// # Errors
/// When it cannot be started.
pub(super) async fn mark(
    connection: &Connection,
    agent: &Arc<Agent>,
    state: &str,
    slot: &str,
) -> zbus::Result<Option<Said>> {
    let (said, mouth) = std::io::pipe()?;
    if agent.root.is_machine() {
        let nothing = OwnedFd::from(File::open("/dev/null")?);
        let arguments = vec!["mark-slot", state, slot];
        slots(MARK_UNIT, arguments, Network::None).start(connection, &nothing, &OwnedFd::from(mouth)).await?;
    } else {
        let (agent, state, slot) = (agent.clone(), state.to_owned(), slot.to_owned());
        std::thread::spawn(move || {
            let mut mouth = mouth;
            worker::mark(&agent.root, &state, &slot, &mut mouth)
        });
    }
    only_word(said).await
}

/// What the bundle at an address is; `None` when the worker ended without a word.
///
/// # Errors
/// When it cannot be started.
pub(super) async fn inspect(connection: &Connection, agent: &Arc<Agent>, address: &str) -> zbus::Result<Option<Said>> {
    let (said, mouth) = std::io::pipe()?;
    if agent.root.is_machine() {
        let nothing = OwnedFd::from(File::open("/dev/null")?);
        let arguments = vec!["inspect-worker", "--from", address];
        let network = network_for(address);
        slots(INSPECT_UNIT, arguments, network).start(connection, &nothing, &OwnedFd::from(mouth)).await?;
    } else {
        let (agent, address) = (agent.clone(), address.to_owned());
        std::thread::spawn(move || {
            let mut mouth = mouth;
            worker::inspect(&agent.root, agent.zfs.as_ref(), &address, &mut mouth)
        });
    }
    only_word(said).await
}

/// The one line that a worker says.
async fn only_word(said: io::PipeReader) -> zbus::Result<Option<Said>> {
    let line = tokio::task::spawn_blocking(move || BufReader::new(said).lines().next()).await;
    Ok(line.ok().flatten().and_then(Result::ok).and_then(|line| serde_json::from_str(&line).ok()))
}

fn network_for(address: &str) -> Network {
    if is_url(address) { Network::Internet } else { Network::None }
}

fn slots<'a>(name: &'a str, arguments: Vec<&'a str>, network: Network) -> Unit<'a> {
    let description = "Change the slots of the OS disk";
    Unit { name, description, arguments, network, devices: Devices::Disks, writes: None }
}

async fn unit(connection: &Connection, source: Source, mouth: &OwnedFd, allowed: Allowed) -> zbus::Result<()> {
    let mut arguments = vec!["upgrade-worker"];
    if allowed.downgrade {
        arguments.push("--allow-downgrade");
    }
    match source {
        Source::Bundle(bundle) => slots(UNIT, arguments, Network::None).start(connection, &bundle, mouth).await,
        Source::Address(address) => {
            let nothing = OwnedFd::from(File::open("/dev/null")?);
            arguments.extend(["--from", &address]);
            slots(UNIT, arguments, network_for(&address)).start(connection, &nothing, mouth).await
        }
    }
}
