//! siris-agent, the daemon on every box, and the steps of the boot that are its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use siris_agent::bus::Authority;
use siris_agent::pools::import::{Outcome, import_pools};
use siris_agent::root::Root;
use siris_agent::run;
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
        Some(Command::ImportPools { wait }) => {
            let outcome = import_pools(&root, &OpenZfs, Duration::from_secs(wait), &mut std::thread::sleep)?;
            if let Outcome::Done(failed) = outcome {
                for (guid, why) in failed {
                    eprintln!("pool with guid {guid} was not imported: {why}");
                }
            }
            Ok(())
        }
    }
}

fn daemon(root: Root) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        // A thread that waits for work wakes up in vain.
        .thread_keep_alive(Duration::from_millis(100))
        .build()?;
    runtime.block_on(async {
        let connection = zbus::connection::Builder::system().build().await.context("cannot reach the system bus")?;
        run::serve(connection, root, Arc::new(OpenZfs), Authority::Polkit).await
    })
}
