//! sirisctl, the command line of a box.
//!
//! Owns: arguments, tables, exit codes. Everything it knows it asks of the agent over D-Bus, here or through SSH.
//! Never: touches the box itself; starts a process but ssh.

mod cli;
mod config;
mod connect;
mod dataset;
mod docs;
mod failure;
mod machine;
mod objects;
mod pools;
mod status;
mod support;
mod text;
mod upgrade;
mod vector;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli)),
        Err(error) => Err(Failure::local("start", &error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sirisctl: {failure}");
            failure.exit_code()
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Completions { shell } => return docs::completions(shell),
        Command::Man { dir } => return docs::man(&dir),
        Command::Upgrade { command } => return upgrade::run(&cli.remote, command).await,
        _ => {}
    }
    let connection = connect::connect(&cli.remote).await?;
    match cli.command {
        Command::Status { json } => status::status(&connection, json).await,
        Command::Config { command } => config::run(&connection, command).await,
        Command::Pools { command, json } => pools::run(&connection, command, json).await,
        Command::Dataset { command } => dataset::run(&connection, command).await,
        Command::Machine { command } => machine::run(&connection, &cli.remote, command).await,
        Command::Vector { command } => vector::run(&connection, command).await,
        Command::SupportBundle { output } => support::bundle(&connection, output).await,
        Command::Receipt => support::receipt(&connection).await,
        Command::Wait { timeout, health } => wait::wait(&connection, health, timeout).await,
        Command::Completions { .. } | Command::Man { .. } | Command::Upgrade { .. } => Ok(()),
    }
}
