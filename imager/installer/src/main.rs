//! siris-installer, the program on the installer's medium.

mod cli;
mod screen;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
