//! The peers: RAUC's bundles of the same images, and what xdelta3 finds between two of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use siris_build::Progress;
use siris_host::cmd::{Cmd, Root, Tool};

use super::pairs::NEW;

/// Where the bench's own directory is in the peers' root.
const INSIDE: &str = "/siris/bench";

/// RAUC and xdelta3, in a root of their own.
#[derive(Debug)]
pub struct Peers {
    root: Root,
    work: PathBuf,
}

/// How a RAUC bundle is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As RAUC makes it by default: squashfs with gzip.
    Plain,
    /// The same, with an index of block hashes for each image: RAUC then fetches only what its slots lack.
    Adaptive,
    /// The same, not compressed, which nobody ships: to put the older system on a box.
    Loose,
}

impl Peers {
    /// Makes the root and the key that RAUC's bundles are signed with. `work` holds all that is given to them.
    ///
    /// # Errors
    /// When the root cannot be made.
    pub fn new(checkout: &Path, work: &Path) -> Result<Self> {
        let root = siris_build::peers(checkout, &Progress::new())?.bind(work, INSIDE);
        let peers = Peers { root, work: work.to_owned() };
        if !peers.certificate().exists() {
            let subject = ["-x509", "-newkey", "rsa:4096", "-nodes", "-days", "3650", "-subj", "/O=bench/CN=bench"];
            let key = Cmd::new(Tool::Openssl).in_root(&peers.root).arg("req").args(subject);
            key.arg("-keyout").arg(inside("rauc.key.pem")).arg("-out").arg(inside("rauc.cert.pem")).run()?;
        }
        Ok(peers)
    }

    /// The root, which also goes on the box.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// What bundles are verified with.
    pub fn certificate(&self) -> PathBuf {
        self.work.join("rauc.cert.pem")
    }

    /// Makes a bundle of the images `boot` and `root` in `images`, a directory below the bench's own.
    ///
    /// # Errors
    /// When RAUC fails.
    pub fn bundle(&self, images: &Path, kind: Kind, to: &Path) -> Result<()> {
        eprintln!("bench: a RAUC bundle, {kind:?}");
        let input = images.join("rauc");
        super::super::fresh(&input)?;
        let adaptive = if kind == Kind::Plain { "" } else { "adaptive=block-hash-index\n" };
        let mut manifest = format!("[update]\ncompatible=siris\nversion={NEW}\n[bundle]\nformat=verity\n");
        for (name, slot) in [("root", "rootfs"), ("boot", "boot")] {
            fs::hard_link(images.join(name), input.join(format!("{name}.img")))?;
            manifest += &format!("[image.{slot}]\nfilename={name}.img\n{adaptive}");
        }
        fs::write(input.join("manifest.raucm"), manifest)?;
        let _ = fs::remove_file(to);
        let mut rauc = Cmd::new(Tool::Rauc).in_root(&self.root).arg("bundle");
        if kind == Kind::Loose {
            rauc = rauc.arg("--mksquashfs-args=-noD -noF -noI");
        }
        let keys = [("--cert", "rauc.cert.pem"), ("--key", "rauc.key.pem")];
        let rauc = keys.iter().fold(rauc, |rauc, (option, file)| rauc.arg(option).arg(inside(file)));
        rauc.arg(self.seen(&input)?).arg(self.seen(to)?).log(self.work.join("rauc.log")).run()?;
        Ok(fs::remove_dir_all(input)?)
    }

    /// Bytes of what `xdelta3 -9` finds between two files.
    ///
    /// # Errors
    /// When it fails.
    pub fn delta(&self, old: &Path, new: &Path) -> Result<u64> {
        eprintln!("bench: xdelta3 -9 of {}", new.display());
        let out = self.work.join("xdelta");
        let xdelta = Cmd::new(Tool::Xdelta3).in_root(&self.root).args(["-9", "-f", "-e", "-s"]);
        xdelta.arg(self.seen(old)?).arg(self.seen(new)?).arg(self.seen(&out)?).run()?;
        let len = fs::metadata(&out)?.len();
        fs::remove_file(out)?;
        Ok(len)
    }

    /// A file of the bench's own as the peers' root has it.
    fn seen(&self, path: &Path) -> Result<PathBuf> {
        let below = path.strip_prefix(&self.work).with_context(|| format!("{} is elsewhere", path.display()))?;
        Ok(Path::new(INSIDE).join(below))
    }
}

fn inside(name: &str) -> PathBuf {
    Path::new(INSIDE).join(name)
}
