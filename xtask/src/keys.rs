//! `cargo xtask keys`: the keys of this machine, and what a machine that signs releases needs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use siris_ibu::Manifest;
use siris_ibu::keys::{Epoch, Role, SecretKey};
use siris_ibu::signature::SignatureFile;

/// What to do with keys; without a command, shows this machine's.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show this machine's development key; makes the pair if there is none (the default)
    Show,
    /// Make a pair: NAME.secret.toml and NAME.pub.toml
    Make {
        /// Its name, which people see: letters, digits and dashes
        name: String,
        /// What it may sign
        #[arg(long, value_enum)]
        role: KeyRole,
        /// Its epoch: a box never goes back to keys of an earlier one
        #[arg(long, default_value_t = 1)]
        epoch: u32,
        /// Where the files go
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Print the signature file of a manifest
    Sign {
        /// A secret key file; may be given more than once
        #[arg(long, required = true, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// The manifest; standard input if there is none
        manifest: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyRole {
    /// What boxes of customers run
    Release,
    /// What only boxes that trust development keys run
    Development,
}

/// Runs it.
///
/// # Errors
/// When a key cannot be read, made or used.
pub fn run(args: KeysArgs) -> Result<()> {
    match args.command.unwrap_or(Command::Show) {
        Command::Show => show(),
        Command::Make { name, role, epoch, dir } => make(&name, role, epoch, &dir),
        Command::Sign { key, manifest } => sign(&key, manifest.as_deref()),
    }
}

fn show() -> Result<()> {
    let key = siris_build::keys::development(&siris_build::keys::default_dir()?)?;
    let public = key.secret.public();
    let made = if key.created { "made" } else { "there already" };
    println!("DEVELOPMENT key {} ({made}): {}", public.id(), key.public_file.display());
    println!("It signs images on this machine only. A release is signed with a release key, elsewhere.");
    Ok(())
}

fn make(name: &str, role: KeyRole, epoch: u32, dir: &Path) -> Result<()> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("`{name}` is no name for a key: letters, digits and dashes are");
    }
    let role = match role {
        KeyRole::Release => Role::Release,
        KeyRole::Development => Role::Development,
    };
    let key = SecretKey::generate(name, role, Epoch(epoch))?;
    for (ending, mode, bytes) in [("secret.toml", 0o600, key.to_bytes()), ("pub.toml", 0o644, key.public().to_bytes())]
    {
        let path = dir.join(format!("{name}.{ending}"));
        // A key that is there may be the only one that boxes trust.
        let file = File::options().write(true).create_new(true).mode(mode).open(&path);
        let written = file.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.with_context(|| format!("cannot make {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn sign(keys: &[PathBuf], manifest: Option<&Path>) -> Result<()> {
    let bytes = match manifest {
        Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().take(1 << 20).read_to_end(&mut bytes).context("cannot read the manifest")?;
            bytes
        }
    };
    // Who signs should know what: anything else is not signed.
    let about = Manifest::parse(&bytes).context("this is no manifest")?;
    let mut signatures = Vec::new();
    for file in keys {
        let read = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let key = SecretKey::parse(&read).with_context(|| format!("{} is no secret key", file.display()))?;
        signatures.push(key.sign(&bytes));
        eprintln!("{} {} signed by {}", about.product, about.version, key.public().name());
    }
    std::io::stdout().write_all(&SignatureFile::new(signatures).to_bytes()).context("cannot write")
}
