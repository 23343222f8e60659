//! The project's build commands.

mod lint;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use siris_build::{Progress, Request};
use siris_ibu::Version;

/// Builds, boots and tests SIRIS OS.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a disk image from a profile
    Image {
        /// The profile: a file of image-profiles/ without its .toml
        profile: String,
        /// The image's version; the workspace's by default
        #[arg(long)]
        version: Option<Version>,
        /// Where artefacts go; target/siris/PROFILE by default
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Run the cases that prove the project; ends with `N passed, N failed`
    Test(test::TestArgs),
    /// Formatting, clippy, licences, duplicate dependencies
    Lint,
    /// Resolve packages anew and move the lock files
    Update {
        /// The profiles to update
        #[arg(default_values_t = [String::from("siris"), String::from("alto")])]
        profiles: Vec<String>,
    },
}

fn checkout() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let progress = Progress::new();
    match args.command {
        Command::Image { profile, version, out } => {
            let version = match version {
                Some(version) => version,
                None => env!("CARGO_PKG_VERSION").parse()?,
            };
            let mut request = Request::new(checkout(), &profile, version);
            if let Some(out) = out {
                request.out = out;
            }
            let built = siris_build::build(&request, &progress)?;
            println!("{}", built.raw.display());
        }
        Command::Test(args) => test::run(args)?,
        Command::Lint => lint::run()?,
        Command::Update { profiles } => {
            for profile in profiles {
                for change in siris_build::update(&checkout(), &profile, &progress)? {
                    println!("{change}");
                }
            }
        }
    }
    Ok(())
}
