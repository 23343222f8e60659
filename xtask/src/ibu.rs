//! `cargo xtask ibu`: makes bundles, and looks at them.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use siris_build::{Difference, Older, Progress};
use siris_ibu::keys::{Epoch, PublicKey};
use siris_ibu::signature::Policy;
use siris_ibu::{Bundle, ByteSize, Manifest, MemberKind};

use crate::BuildArgs;

/// What to make or to look at.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
pub struct IbuArgs {
    #[command(subcommand)]
    look: Option<Look>,
    #[command(flatten)]
    what: Option<BuildArgs>,
    /// Also make a patch from an older bundle, for boxes that run it; may be given more than once
    #[arg(long, value_name = "OLD.ibu")]
    patch_from: Vec<PathBuf>,
    /// A public key that older bundles are signed with, instead of this machine's development key; may be given more
    /// than once
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Print what was built as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Look {
    /// Show what bundles hold; only their manifests are read
    Inspect {
        /// The bundles
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Read bundles to the end, and compare every byte with what was signed
    Verify {
        /// A public key to trust instead of this machine's development key; may be given more than once
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// The bundles
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what a box that runs OLD fetches to get NEW, and which packages changed
    Diff {
        /// A public key to trust instead of this machine's development key; may be given more than once
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// The profile whose lock names the packages
        #[arg(long, default_value = "siris")]
        profile: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        /// The bundle that the box runs
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The other one, with what lies beside it
        #[arg(value_name = "NEW")]
        new: PathBuf,
    },
}

/// Runs it.
///
/// # Errors
/// When a bundle cannot be made, or one is not sound.
pub fn run(args: IbuArgs, progress: &Progress) -> Result<()> {
    match (args.look, args.what) {
        (Some(Look::Inspect { files }), _) => files.iter().try_for_each(|file| inspect(file)),
        (Some(Look::Verify { key, files }), _) => verify(&key, &files),
        (Some(Look::Diff { key, profile, json, old, new }), _) => {
            crate::setup::ensure(false)?;
            let difference = siris_build::diff(&crate::checkout(), &profile, &old, &new, &keys(&key)?, progress)?;
            if json {
                println!("{:#}", as_json(&difference))
            } else {
                print!("{}", told(&difference))
            }
            Ok(())
        }
        (None, what) => {
            crate::setup::ensure(false)?;
            let request = what.context("name a profile")?.request()?;
            let trusted = if args.patch_from.is_empty() { Vec::new() } else { keys(&args.key)? };
            let older = Older { bundles: args.patch_from, trusted };
            let built = siris_build::ibu(&request, &older, progress)?;
            if args.json {
                let shown = |path: &Path| path.display().to_string();
                let patches: Vec<_> = built.patches.iter().map(|patch| {
                    serde_json::json!({ "from": patch.from.to_string(), "path": shown(&patch.path), "size": patch.size.bytes() })
                }).collect();
                println!(
                    "{:#}",
                    serde_json::json!({
                        "ibu": shown(&built.ibu), "latest": shown(&built.latest), "size": built.size.bytes(),
                        "blocks": shown(&built.blocks), "patches": patches,
                    })
                );
            } else {
                println!("{} ({})", built.ibu.display(), built.size);
                println!("{}", built.blocks.display());
                for patch in &built.patches {
                    println!("{} ({})", patch.path.display(), patch.size);
                }
            }
            Ok(())
        }
    }
}

fn keys(files: &[PathBuf]) -> Result<Vec<PublicKey>> {
    let own = || Ok(vec![siris_build::keys::development(&siris_build::keys::default_dir()?)?.secret.public().clone()]);
    let read = |file: &PathBuf| {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        PublicKey::parse(&bytes).with_context(|| format!("{} is no public key", file.display()))
    };
    if files.is_empty() { own() } else { files.iter().map(read).collect() }
}

fn open(file: &Path) -> Result<BufReader<File>> {
    let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    Ok(BufReader::with_capacity(1 << 20, opened))
}

fn show(file: &Path, manifest: &Manifest) {
    println!("{}", file.display());
    println!("  {} {}, built {}", manifest.product, manifest.version, manifest.built);
    println!("  replaces {} and later", manifest.lowest_replaces);
    println!("  kernel {}, ZFS {}", manifest.kernel, manifest.zfs.version);
    for kind in MemberKind::ALL {
        let member = manifest.member(kind);
        println!("  {:4}  {:>12}  {}", kind.as_str(), member.size.to_string(), member.sha256);
    }
}

fn inspect(file: &Path) -> Result<()> {
    let manifest = siris_ibu::bundle::unverified(open(file)?).with_context(|| file.display().to_string())?;
    show(file, &manifest);
    println!("  its signature was not looked at");
    Ok(())
}

fn verify(key: &[PathBuf], files: &[PathBuf]) -> Result<()> {
    let trusted = keys(key)?;
    let policy = Policy { allow_development: true, min_epoch: Epoch(0) };
    for file in files {
        let proven = Bundle::open(open(file)?, &trusted, policy).and_then(Bundle::prove);
        let signed = proven.with_context(|| file.display().to_string())?;
        show(file, signed.manifest());
        println!("  signed by {}; every byte is as it was signed", signed.verified().key.name());
    }
    Ok(())
}

fn as_json(difference: &Difference) -> serde_json::Value {
    let packages: Vec<_> = difference
        .packages
        .iter()
        .map(|p| serde_json::json!({ "name": p.name, "old": p.old, "new": p.new, "changelog": p.changelog }))
        .collect();
    serde_json::json!({
        "old": difference.old.version.to_string(),
        "new": difference.new.version.to_string(),
        "patch": difference.patch.map(ByteSize::bytes),
        "blocks": difference.blocks.map(ByteSize::bytes),
        "whole": difference.whole.bytes(),
        "packages": packages,
    })
}

/// As people read it.
fn told(difference: &Difference) -> String {
    let (old, new) = (&difference.old, &difference.new);
    let mut text = format!("{} {} -> {}\nA box on {} fetches\n", new.product, old.version, new.version, old.version);
    for (how, size) in [
        ("as a patch", difference.patch),
        ("block by block", difference.blocks),
        ("as a whole", Some(difference.whole)),
    ] {
        let size = size.map_or_else(|| "not to be had beside it".to_owned(), |size| size.rounded());
        text += &format!("  {how:15} {size}\n");
    }
    match difference.packages.len() {
        0 => text += "No package changed\n",
        1 => text += "1 package changed\n",
        n => text += &format!("{n} packages changed\n"),
    }
    for package in &difference.packages {
        let change = match (&package.old, &package.new) {
            (Some(old), Some(new)) => format!("{old} -> {new}"),
            (None, Some(new)) => format!("{new} is new"),
            (Some(old), None) => format!("{old} is gone"),
            (None, None) => String::new(),
        };
        text += &format!("  {} {change}\n", package.name);
        for line in &package.changelog {
            text += &format!("    {line}\n");
        }
    }
    text
}
