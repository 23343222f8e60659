//! Upgrades, beside RAUC's and xdelta3's between the same systems.
//!
//! All carry the same two images: the plain root and the boot partition's. Sizes are those of files, and come first;
//! what is fetched, how long it takes and in how much memory are then measured on a box.

mod onbox;
mod pairs;
mod peers;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use siris_build::Progress;
use siris_ibu::{Manifest, Sha256};

use onbox::{Load, Times, Whole};
pub use pairs::Pair;
use pairs::{Builder, Built};
use peers::{Kind, Peers};

use super::Row;

/// The whole bundle beside RAUC's.
const WHOLE: f64 = 1.0;
/// The patch beside xdelta3's.
const PATCH: f64 = 1.1;
/// What is fetched by blocks beside RAUC's adaptive mode.
const BLOCKS: f64 = 0.6;
/// An install beside RAUC's.
const INSTALL: f64 = 1.0;
/// An install beside unpacking the same bytes.
const BARE: f64 = 1.15;
/// Memory of an install, bytes.
const MEMORY: u64 = 48 << 20;

/// What is measured with.
struct Measure {
    builder: Builder,
    peers: Peers,
    checkout: PathBuf,
    work: PathBuf,
}

/// What is measured of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The sizes of files
    Sizes,
    /// What it costs on a box
    Box,
}

/// Measures upgrades between the systems of `pairs`; only one part of it where that is asked for.
///
/// # Errors
/// When something cannot be built or measured.
pub fn measure(checkout: &Path, pairs: &[Pair], only: Option<Part>) -> Result<Vec<Row>> {
    let work = checkout.join("target/siris/bench-ibu");
    fs::create_dir_all(&work)?;
    let work = work.canonicalize()?;
    let measure = Measure {
        builder: Builder::new(checkout, &work)?,
        peers: Peers::new(checkout, &work)?,
        checkout: checkout.to_owned(),
        work,
    };
    let wanted = |part| only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    let mut rauc = None;
    for pair in pairs {
        let dir = super::fresh(&measure.work.join(pair.name()))?;
        let built = measure.builder.build(*pair)?;
        let first = rauc.is_none();
        let bundles = match rauc.take() {
            Some(bundles) => bundles,
            None => measure.bundles(&built)?,
        };
        if first {
            rows.push(whole(&built, &bundles)?);
        }
        measure.images(&built.old, &dir.join(OLD_IMAGES))?;
        if wanted(Part::Sizes) {
            rows.extend(measure.sizes(&built, &dir)?);
        }
        if wanted(Part::Box) {
            rows.extend(measure.on_box(&built, &bundles, &dir, first)?);
        }
        // Gigabytes each.
        super::remove(&dir)?;
        rauc = Some(bundles);
    }
    super::remove(&measure.work.join(NEW_IMAGES))?;
    Ok(rows)
}

/// Where the images of the two systems are, in the bench's own directory and in that of a pair.
const NEW_IMAGES: &str = "new-images";
const OLD_IMAGES: &str = "old-images";

/// RAUC's bundles of the newer system.
struct Bundles {
    plain: PathBuf,
    adaptive: PathBuf,
}

/// The whole bundle beside RAUC's: it is the same for all pairs.
fn whole(built: &Built, rauc: &Bundles) -> Result<Row> {
    let size = |path: &Path| -> Result<u64> { Ok(fs::metadata(path)?.len()) };
    let (ours, plain, adaptive) = (size(&built.new)?, size(&rauc.plain)?, size(&rauc.adaptive)?);
    let beside = format!("RAUC {}, adaptive {}", megabytes(plain), megabytes(adaptive));
    Ok(row("whole bundle, as released".to_owned(), megabytes(ours), beside, goal(ours, plain, WHOLE)))
}

impl Measure {
    /// Unpacks a bundle's images.
    fn images(&self, bundle: &Path, to: &Path) -> Result<Manifest> {
        let to = super::fresh(to)?;
        Ok(siris_build::unpack(bundle, &self.builder.trusted()?, &to)?.0)
    }

    /// RAUC's bundles of the newer system. They take minutes, and are kept for the next run.
    fn bundles(&self, built: &Built) -> Result<Bundles> {
        let images = self.work.join(NEW_IMAGES);
        let manifest = self.images(&built.new, &images)?;
        let id = Sha256::of(format!("{} {}", manifest.root.sha256, manifest.boot.sha256).as_bytes()).to_string();
        let bundle = |kind, name: &str| -> Result<PathBuf> {
            let path = self.work.join(format!("{name}-{}.raucb", &id[..16]));
            if !path.exists() {
                for entry in fs::read_dir(&self.work)?.flatten() {
                    if entry.file_name().to_string_lossy().starts_with(&format!("{name}-")) {
                        fs::remove_file(entry.path())?;
                    }
                }
                let half = self.work.join("half.raucb");
                self.peers.bundle(&images, kind, &half)?;
                fs::rename(half, &path)?;
            }
            Ok(path)
        };
        Ok(Bundles { plain: bundle(Kind::Plain, "plain")?, adaptive: bundle(Kind::Adaptive, "adaptive")? })
    }

    /// What is fetched, by the sizes of files.
    fn sizes(&self, built: &Built, dir: &Path) -> Result<Vec<Row>> {
        let name = built.pair.name();
        let trusted = self.builder.trusted()?;
        let (old, new) = (dir.join(OLD_IMAGES), self.work.join(NEW_IMAGES));
        let found = siris_build::diff(&self.checkout, "siris", &built.old, &built.new, &trusted, &Progress::new())?;
        let (root, boot) = (
            self.peers.delta(&old.join("root"), &new.join("root"))?,
            self.peers.delta(&old.join("boot"), &new.join("boot"))?,
        );
        let patch = found.patch.map_or(0, |size| size.bytes());
        let beside =
            format!("xdelta3 -9 {} (root {}, boot {})", kilobytes(root + boot), kilobytes(root), kilobytes(boot));
        let about = format!("{name}: {}", built.about);
        Ok(vec![
            row(format!("{about}: patch"), kilobytes(patch), beside, goal(patch, root + boot, PATCH)),
            row(
                format!("{name}: by blocks, planned"),
                kilobytes(found.blocks.map_or(0, |size| size.bytes())),
                format!("{} packages differ", found.packages.len()),
                String::new(),
            ),
        ])
    }

    /// What it costs on a box. `whole`: also bundles that are there already.
    fn on_box(&self, built: &Built, rauc: &Bundles, dir: &Path, whole: bool) -> Result<Vec<Row>> {
        let disk = self.builder.disk(built)?;
        let loose = dir.join("old.raucb");
        self.peers.bundle(&dir.join(OLD_IMAGES), Kind::Loose, &loose)?;
        let served = super::fresh(&dir.join("served"))?;
        let patch = format!("from-{}.patch", built.pair.version());
        let beside = |ending: &str| (built.new.with_extension(ending), format!("new.{ending}"));
        let mut files = vec![beside("ibu"), beside("blocks"), beside(&patch)];
        files.push((rauc.adaptive.clone(), "new.raucb".to_owned()));
        if whole {
            files.push((rauc.plain.clone(), "plain.raucb".to_owned()));
        }
        for (from, name) in files {
            fs::hard_link(&from, served.join(name)).with_context(|| format!("link {}", from.display()))?;
        }
        let times = onbox::measure(
            &Load {
                checkout: &self.checkout,
                disk: &disk,
                rauc: self.peers.path(),
                certificate: &self.peers.certificate(),
                old: &loose,
                served: &served,
                work: dir,
            },
            whole,
        )?;
        Ok(rows_of(built.pair.name(), &times))
    }
}

fn rows_of(name: &str, times: &Times) -> Vec<Row> {
    let Times { patch, blocks, adaptive, whole } = times;
    let memory = |peak: u64| goal(peak, MEMORY, 1.0);
    let mut rows = vec![
        row(
            format!("{name}: fetched by blocks"),
            kilobytes(blocks.fetched),
            format!("RAUC adaptive {}", kilobytes(adaptive.fetched)),
            goal(blocks.fetched, adaptive.fetched, BLOCKS),
        ),
        row(
            format!("{name}: fetched by the patch"),
            kilobytes(patch.fetched),
            format!("RAUC adaptive {}", kilobytes(adaptive.fetched)),
            String::new(),
        ),
    ];
    for (how, install) in [("by blocks", blocks), ("by the patch", patch)] {
        rows.push(row(
            format!("{name}: install {how}"),
            seconds(install.seconds),
            format!("RAUC adaptive {}", seconds(adaptive.seconds)),
            times_goal(install.seconds, adaptive.seconds, INSTALL),
        ));
        rows.push(row(
            format!("{name}: memory of an install {how}"),
            mebibytes(install.peak),
            format!("48 MiB; RAUC adaptive {}", mebibytes(adaptive.peak)),
            memory(install.peak),
        ));
    }
    if let Some(Whole { ours, rauc, bare }) = whole {
        for (beside, theirs, most) in
            [("RAUC", rauc.seconds, INSTALL), ("zstd -dc, dd, fsync, direct read-back", *bare, BARE)]
        {
            rows.push(row(
                "install of the whole bundle".to_owned(),
                seconds(ours.seconds),
                format!("{beside} {}", seconds(theirs)),
                times_goal(ours.seconds, theirs, most),
            ));
        }
        rows.push(row(
            "memory of it".to_owned(),
            mebibytes(ours.peak),
            format!("48 MiB; RAUC {}", mebibytes(rauc.peak)),
            memory(ours.peak),
        ));
    }
    rows
}

fn row(what: String, ours: String, beside: String, goal: String) -> Row {
    let beside = if goal.is_empty() { beside } else { format!("{beside}: {goal}") };
    eprintln!("bench: {what}: {ours}; {beside}");
    Row { what, ours, beside }
}

/// How two figures are to each other, and whether that is what is wanted.
fn goal(ours: u64, theirs: u64, most: f64) -> String {
    times_goal(ours as f64, theirs.max(1) as f64, most)
}

fn times_goal(ours: f64, theirs: f64, most: f64) -> String {
    let ratio = ours / theirs;
    format!("{ratio:.2}x, goal {most:.2}x, {}", if ratio <= most { "met" } else { "MISSED" })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

fn kilobytes(bytes: u64) -> String {
    format!("{:.0} kB", bytes as f64 / 1e3)
}
