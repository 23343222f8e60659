//! The project's build commands: parses, calls, prints. What they do is in `imager/build` and `tests`.

mod bench;
mod ibu;
mod keys;
mod lint;
mod setup;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use siris_build::{Artefacts, Progress, Request, Signing};
use siris_ibu::Version;

/// Builds, boots and tests SIRIS OS.
///
/// Exit status: 0 when what was asked for is done, 1 when it is not (the last line says why), 2 for a wrong command
/// line. Downloads, roots and layers are kept in $SIRIS_CACHE, or siris in the user's cache directory.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to build, and where.
#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// The profile: a file of image-profiles/ without its .toml
    profile: String,
    /// The version, MAJOR.MINOR.PATCH; the workspace's by default
    #[arg(long)]
    version: Option<Version>,
    /// Where artefacts go; target/siris/PROFILE by default
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A shell command that signs: it is given the manifest on standard input and prints the signature file
    ///
    /// `cargo xtask keys sign` is one; another may ask a machine that holds the key, or print what was signed before:
    /// the same inputs always make the same manifest. Needs --trust.
    #[arg(long, value_name = "COMMAND", requires = "trust")]
    signer: Option<String>,
    /// A public key that the built system trusts, instead of this machine's development key; may be given more than once
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// Build for others: compressed hard, and refused where a development key would sign or be trusted
    #[arg(long)]
    release: bool,
}

impl BuildArgs {
    fn request(self) -> anyhow::Result<Request> {
        let version = match self.version {
            Some(version) => version,
            None => env!("CARGO_PKG_VERSION").parse()?,
        };
        let mut request = Request::new(checkout(), &self.profile, version);
        if let Some(out) = self.out {
            request.out = std::path::absolute(&out).with_context(|| format!("cannot use {}", out.display()))?;
        }
        request.signing = Signing { command: self.signer, trust: self.trust, release: self.release };
        Ok(request)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what building needs on this host (asks once on a terminal)
    Setup {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Build a disk image from a profile
    Image {
        #[command(flatten)]
        what: BuildArgs,
        /// Boot it, wait until its agent says healthy, print its status and power it off
        #[arg(long)]
        boot: bool,
        /// Print what was built as JSON
        #[arg(long)]
        json: bool,
        /// Also print what each package costs in bytes, the largest first
        #[arg(long)]
        sizes: bool,
    },
    /// Build an installer's medium from a profile: a CD or USB stick that inspects a box and installs on it
    Iso {
        #[command(flatten)]
        what: BuildArgs,
        /// Answers (install.toml) to put on it: it then installs by itself, once
        #[arg(long, value_name = "FILE")]
        answers: Option<PathBuf>,
        /// Print what was built as JSON
        #[arg(long)]
        json: bool,
    },
    /// Build a bundle from a profile, for an Image Based Upgrade; or look at one
    Ibu(ibu::IbuArgs),
    /// Boot a profile's image on this terminal; nothing it writes is kept
    Vm {
        /// The profile
        profile: String,
        /// What starts it
        #[arg(long, value_enum, default_value = "uefi")]
        firmware: vm::FirmwareArg,
    },
    /// Resolve packages anew and move the lock files
    Update {
        /// The profiles to update
        #[arg(default_values_t = [String::from("siris"), String::from("alto")])]
        profiles: Vec<String>,
    },
    /// Show, make and use signing keys
    Keys(keys::KeysArgs),
    /// Prove everything: unit, golden, property and private-bus tests, then the image booted in VMs
    Test(test::TestArgs),
    /// Check format, lints, licences and duplicate dependencies
    Lint,
    /// Measure; prints a table
    Bench(bench::BenchArgs),
}

/// The checkout worked on: the one this command was compiled from, or `SIRIS_CHECKOUT` (tests build from copies).
pub fn checkout() -> PathBuf {
    if let Some(other) = std::env::var_os("SIRIS_CHECKOUT") {
        return PathBuf::from(other);
    }
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}

fn main() -> ExitCode {
    match run(Args::parse()) {
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
        Command::Setup { yes } => setup::ensure(yes),
        Command::Image { what, boot, json, sizes } => {
            setup::ensure(false)?;
            let request = what.request()?;
            let built = siris_build::build(&request, &progress)?;
            report(&built, json, sizes)?;
            if boot { vm::prove_boot(&built.raw, &progress) } else { Ok(()) }
        }
        Command::Iso { what, answers, json } => {
            setup::ensure(false)?;
            let request = what.request()?;
            let built = siris_build::iso(&request, answers.as_deref(), &progress)?;
            if json {
                let value = serde_json::json!({
                    "iso": built.iso.display().to_string(),
                    "latest": built.latest.display().to_string(),
                    "size": built.size.bytes(),
                    "bundle-size": built.bundle.bytes(),
                });
                println!("{value:#}");
            } else {
                println!("{} ({}, of it the bundle {})", built.iso.display(), built.size, built.bundle);
            }
            Ok(())
        }
        Command::Ibu(args) => ibu::run(args, &progress),
        Command::Vm { profile, firmware } => {
            setup::ensure(false)?;
            let request = Request::new(checkout(), &profile, env!("CARGO_PKG_VERSION").parse()?);
            let built = siris_build::build(&request, &progress)?;
            vm::interactive(&built.raw, firmware, &progress)
        }
        Command::Update { profiles } => {
            setup::ensure(false)?;
            for profile in profiles {
                for change in siris_build::update(&checkout(), &profile, &progress)? {
                    println!("{change}");
                }
            }
            Ok(())
        }
        Command::Keys(args) => keys::run(args),
        Command::Test(args) => test::run(args),
        Command::Lint => lint::run(),
        Command::Bench(args) => bench::run(args),
    }
}

fn report(built: &Artefacts, json: bool, sizes: bool) -> anyhow::Result<()> {
    if json {
        let (raw, latest) = (built.raw.display().to_string(), built.latest.display().to_string());
        let value = serde_json::json!({
            "raw": raw,
            "latest": latest,
            "root-sha256": built.root_sha256()?.to_string(),
            "manifest": built.manifest.display().to_string(),
            "signature": built.signature.display().to_string(),
            "sbom": built.sbom.display().to_string(),
        });
        println!("{value:#}");
    } else {
        println!("{} (root image SHA-256 {})", built.raw.display(), built.root_sha256()?);
    }
    if sizes {
        print!(
            "{}",
            std::fs::read_to_string(&built.sizes).with_context(|| format!("cannot read {}", built.sizes.display()))?
        );
    }
    Ok(())
}
