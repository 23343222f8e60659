//! siris-agent, the daemon on every box, and the steps of the boot that are its own.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use siris_agent::bus::Authority;
use siris_agent::escrow::{self, Restored};
use siris_agent::gate::{self, Patience};
use siris_agent::host_keys::ensure_host_key;
use siris_agent::pools::import::{self, import_pools};
use siris_agent::pools::memory;
use siris_agent::provision::{self, Credentials};
use siris_agent::root::{ESCROW_FAULT, ESCROW_WANTED, Root};
use siris_agent::store::Store;
use siris_agent::trial::{self, Outcome};
use siris_agent::upgrade::worker::Source;
use siris_agent::upgrade::{Allowed, worker};
use siris_agent::vectors::digest::Scope;
use siris_agent::vectors::peer::Session;
use siris_agent::{checks, observe, reboot, run, slots, vectors};
use siris_host::cmd::{Cmd, Tool};
use siris_zfs::OpenZfs;

/// The agent of a SIRIS box. Without a command it is the daemon.
#[derive(Debug, Parser)]
#[command(name = "siris-agent", version)]
struct Arguments {
    /// Root directory of the files it reads and writes.
    #[arg(long, global = true, default_value = "/")]
    root: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Applies configuration and credentials to /etc and /root, early in the boot.
    Provision,
    /// Makes the SSH host key, unless there is one.
    SshHostKeys,
    /// Keeps the booted slot: marks it good and gives it its tries back.
    Bless,
    /// Waits until the box is healthy, or degraded only; fails with the reasons when it is not.
    ///
    /// Healthy and degraded pass. Failed must last a while, so that a service that is started again does not cost a
    /// boot.
    HealthGate {
        /// Seconds to wait for the boot to be over.
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// Seconds for which failed is not believed yet.
        #[arg(long, default_value_t = 45)]
        settle: u64,
    },
    /// In a slot on trial: starts the services that the image's profile wants to end well before the slot is kept.
    ///
    /// Fails when one of them does. Does nothing in a slot that is not on trial.
    TrialChecks,
    /// In a slot on trial: gives it up, keeps the reasons and the journal, and reboots into the slot it came from.
    ///
    /// Does nothing in a slot that is not on trial.
    TrialFailed,
    /// Keeps a copy of what makes the box itself on each of its pools; a box that was installed anew beside its pools
    /// first takes on what they know of it.
    Escrow,
    /// Writes a bundle into the slot that is not booted, and arms it; the agent starts it.
    #[command(hide = true)]
    UpgradeWorker {
        /// Address or path of the bundle; without, it comes in on standard input.
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        /// Also a version that is not newer than the running one.
        #[arg(long)]
        allow_downgrade: bool,
    },
    /// Says what a bundle is; the agent starts it.
    #[command(hide = true)]
    InspectWorker {
        /// Address or path of the bundle.
        #[arg(long, value_name = "ADDRESS")]
        from: String,
    },
    /// Marks a slot; the agent starts it.
    #[command(hide = true)]
    MarkSlot {
        /// good, bad or active.
        state: String,
        /// a, b, booted or other.
        slot: String,
    },
    /// Reboots when nothing is running that must not be cut off; the agent starts it.
    #[command(hide = true)]
    RebootWhenIdle,
    /// Does what another machine asks for over SSH; the one command of its key.
    #[command(hide = true)]
    Peer {
        /// The machine, as it is known here.
        name: String,
    },
    /// Syncs a vector; the agent starts it.
    #[command(hide = true)]
    SyncWorker {
        /// The vector's number here.
        number: u64,
    },
    /// Compares both ends of a vector; the agent starts it.
    #[command(hide = true)]
    VerifyWorker {
        /// The vector's number here.
        number: u64,
        /// Read all, not only what changed.
        #[arg(long)]
        whole: bool,
    },
    /// Says how far a vector's target is behind; the agent starts it.
    #[command(hide = true)]
    LagWorker {
        /// The vector's number here.
        number: u64,
    },
    /// Has both ends of a vector change places; the agent starts it.
    #[command(hide = true)]
    TurnWorker {
        /// The vector's number here.
        number: u64,
    },
    /// Takes back what a vector has marked; the agent starts it.
    #[command(hide = true)]
    ForgetWorker {
        /// The vector's number here.
        number: u64,
        /// The other machine stays as it is.
        #[arg(long)]
        here_only: bool,
    },
    /// Imports the pools the box is to have; once per boot.
    ImportPools {
        /// Seconds to wait for late devices.
        #[arg(long, default_value_t = 60)]
        wait: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let root = Root::new(arguments.root);
    match arguments.command {
        None => daemon(root),
        Some(Command::Provision) => {
            // A box that could not be provisioned in full still has to boot, so that it can be mended.
            for fault in provision::provision(&root, &Credentials::from_environment()) {
                eprintln!("{fault}");
            }
            Ok(())
        }
        Some(Command::SshHostKeys) => Ok(ensure_host_key(&root).map(drop)?),
        Some(Command::Bless) => {
            let slot = observe::booted_slot(&root).slot.ok_or(slots::SlotsError::NoSlot)?;
            let what = if slots::bless(&root, slot)? {
                "is good from now on, and has all its tries"
            } else {
                "is good already"
            };
            eprintln!("slot {slot} {what}");
            Ok(())
        }
        Some(Command::HealthGate { timeout, settle }) => {
            let patience = Patience { limit: Duration::from_secs(timeout), settle: Duration::from_secs(settle) };
            runtime()?.block_on(async {
                let reasons = gate::gate(&system_bus().await?, patience).await?;
                for reason in reasons {
                    eprintln!("degraded: {}: {}", reason.code, reason.text);
                }
                Ok(())
            })
        }
        Some(Command::RebootWhenIdle) => {
            runtime()?.block_on(async { reboot::when_idle(&system_bus().await?).await.context("cannot ask logind") })
        }
        Some(Command::TrialChecks) => Ok(checks::run(&root).map(drop)?),
        Some(Command::TrialFailed) => trial_failed(&root),
        Some(Command::Escrow) => {
            // Before the look: what changes from now on is looked at again.
            root.remove(ESCROW_WANTED)?;
            let kept = keep_escrow(&root);
            // The agent says it as one of the box's faults.
            let fault =
                kept.as_ref().err().map(|error| format!("cannot keep the box's identity on its pools: {error:#}\n"));
            root.ensure(ESCROW_FAULT, fault.unwrap_or_default().as_bytes(), 0o644)?;
            kept
        }
        Some(Command::UpgradeWorker { from, allow_downgrade }) => {
            let allowed = Allowed { downgrade: allow_downgrade };
            let source = from.map_or_else(|| Source::Stream(std::io::stdin().lock()), Source::Address);
            said(worker::run(&root, &OpenZfs, source, allowed, &mut std::io::stdout()))
        }
        Some(Command::InspectWorker { from }) => said(worker::inspect(&root, &OpenZfs, &from, &mut std::io::stdout())),
        Some(Command::MarkSlot { state, slot }) => said(worker::mark(&root, &state, &slot, &mut std::io::stdout())),
        Some(Command::Peer { name }) => said(peer(&root, &name)?),
        Some(Command::SyncWorker { number }) => {
            said(vectors::worker::run(&root, &OpenZfs, number, &mut std::io::stdout()))
        }
        Some(Command::VerifyWorker { number, whole }) => {
            let scope = if whole { Scope::Whole } else { Scope::Changed };
            said(vectors::worker::verify(&root, &OpenZfs, number, scope, &mut std::io::stdout()))
        }
        Some(Command::LagWorker { number }) => {
            said(vectors::worker::lag(&root, &OpenZfs, number, &mut std::io::stdout()))
        }
        Some(Command::TurnWorker { number }) => {
            said(vectors::worker::turn(&root, &OpenZfs, number, &mut std::io::stdout()))
        }
        Some(Command::ForgetWorker { number, here_only }) => {
            said(vectors::worker::forget(&root, &OpenZfs, number, here_only, &mut std::io::stdout()))
        }
        Some(Command::ImportPools { wait }) => {
            // Disks that are known by now are looked at by udev first; later ones are waited for below.
            // A box without pools has nothing to wait for.
            let expects = memory::load(&root).is_ok_and(|memory| !memory.is_empty());
            if expects && let Err(error) = Cmd::new(Tool::Udevadm).args(["settle", "--timeout=30"]).run() {
                eprintln!("{error}");
            }
            let outcome = import_pools(&root, &OpenZfs, Duration::from_secs(wait), &mut std::thread::sleep)?;
            if let import::Outcome::Done(failed) = outcome {
                for (guid, why) in failed {
                    eprintln!("pool with guid {guid} was not imported: {why}");
                }
            }
            Ok(())
        }
    }
}

/// How long the agent may take to say what is wrong.
const ASK: Duration = Duration::from_secs(20);

fn trial_failed(root: &Root) -> anyhow::Result<()> {
    // An agent that does not answer is a reason by itself.
    let mut reasons = checks::failed(root);
    reasons.extend(runtime()?.block_on(async {
        let ask = async { anyhow::Ok(gate::reasons(&system_bus().await?).await?) };
        tokio::time::timeout(ASK, ask).await.ok().and_then(Result::ok).unwrap_or_default()
    }));
    match trial::take_back(root, &reasons)? {
        Outcome::NotOnTrial => Ok(()),
        Outcome::NoWayBack => {
            eprintln!("this slot is on trial and not well, but the other one holds nothing good: it stays");
            Ok(())
        }
        Outcome::TakenBack(slot) => {
            let why = reasons.first().map_or("the agent does not answer", |reason| reason.text.as_str());
            eprintln!("slot {slot} is given up ({why}): the box reboots into the slot it came from");
            Ok(Cmd::new(Tool::Systemctl).arg("reboot").run()?)
        }
    }
}

/// What SSH has the key of a machine run: what was asked for stands in the environment (sshd(8)).
fn peer(root: &Root, name: &str) -> anyhow::Result<bool> {
    let known = Store::read(root)?.map(|store| store.peers()).transpose()?.unwrap_or_default();
    let peer = known.iter().find(|peer| peer.name.as_str() == name);
    let rights = &peer.with_context(|| format!("no machine {name} is known here"))?.rights;
    let request = std::env::var("SSH_ORIGINAL_COMMAND").unwrap_or_default();
    let session = Session { zfs: &OpenZfs, root: Some(root), rights };
    // As files: the standard library's own ones buffer by the line, and streams have none.
    let file = |fd: std::os::fd::BorrowedFd<'_>| anyhow::Ok(std::fs::File::from(fd.try_clone_to_owned()?));
    let (mut input, mut output) = (file(std::io::stdin().as_fd())?, file(std::io::stdout().as_fd())?);
    Ok(session.run(&request, &mut input, &mut output, &mut std::io::stderr()))
}

/// A worker has said why it failed, if it did.
fn said(went_well: bool) -> anyhow::Result<()> {
    if went_well { Ok(()) } else { std::process::exit(1) }
}

fn keep_escrow(root: &Root) -> anyhow::Result<()> {
    match escrow::restore(root, &OpenZfs)? {
        Restored::Nothing => {}
        Restored::Later => {
            eprintln!("pools are missing: they may know who this box is, and nothing is kept on the others before");
            return Ok(());
        }
        Restored::Again(id) => {
            eprintln!("this box is {id} again, as its pools know it: it reboots once, to be so in everything");
            return Ok(Cmd::new(Tool::Systemctl).arg("reboot").run()?);
        }
    }
    match escrow::store(root, &OpenZfs)? {
        0 => {}
        written => eprintln!("what makes this box itself is kept on {written} of its pools"),
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        // A thread that waits for work wakes up in vain.
        .thread_keep_alive(Duration::from_millis(100))
        .build()?;
    Ok(runtime)
}

async fn system_bus() -> anyhow::Result<zbus::Connection> {
    zbus::connection::Builder::system().build().await.context("cannot reach the system bus")
}

fn daemon(root: Root) -> anyhow::Result<()> {
    runtime()?.block_on(async { run::serve(system_bus().await?, root, Arc::new(OpenZfs), Authority::Polkit).await })
}
