//! Completions and man pages, from the same definitions as the arguments.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;

/// Prints the completions of a shell.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sirisctl", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).map_err(|e| Failure::local("cannot write", &e))
}

/// Writes sirisctl.1 and a page for each command.
pub fn man(dir: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|e| Failure::local(&format!("cannot write man pages to {}", dir.display()), &e))
}
