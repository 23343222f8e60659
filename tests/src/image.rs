//! The image under test, held for as long as it is wanted.
//!
//! A build puts a new image in the old one's place while machines still run from the old one, and snapshots in the
//! cache name their backing file by path. So a run works on a second name for the same file, which a build never
//! touches.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::lab::remove_dir;

/// How many images (and what was made from them) the cache keeps.
const KEPT: usize = 2;

/// A raw disk image and its manifest, as they were when the run began.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    name: String,
    identity: String,
    manifest: Option<Vec<u8>>,
}

impl Image {
    /// Gives `file` a second name in `cache`; where that cannot be (another file system), uses it as it is.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn hold(file: &Path, cache: &Path) -> Result<Self> {
        let file = file.canonicalize().with_context(|| format!("find {}", file.display()))?;
        let manifest = match fs::read(file.with_file_name("manifest.toml")) {
            Ok(manifest) => Some(manifest),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("read the image's manifest"),
        };
        let meta = fs::metadata(&file)?;
        let mut hash = Sha256::new();
        hash.update(format!("{} {:?}", meta.len(), meta.modified()?));
        hash.update(manifest.as_deref().unwrap_or_default());
        let identity = hex::encode(&hash.finalize()[..8]);
        let link = cache.join(format!("image-{identity}.raw"));
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = if link.exists() || fs::hard_link(&file, &link).is_ok() { link } else { file };
        drop_old(cache, &identity)?;
        Ok(Image { path, name, identity, manifest })
    }

    /// Where it lies. Never written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file name, as built.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What caches know it by.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The manifest beside it.
    pub fn manifest(&self) -> Option<&[u8]> {
        self.manifest.as_deref()
    }
}

/// Removes images of former runs, and all in the cache that continues one of them.
fn drop_old(cache: &Path, current: &str) -> Result<()> {
    let mut images = Vec::new();
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(identity) = name.strip_prefix("image-").and_then(|rest| rest.strip_suffix(".raw"))
            && identity != current
        {
            images.push((entry.metadata()?.modified()?, identity.to_owned()));
        }
    }
    images.sort();
    images.truncate((images.len() + 1).saturating_sub(KEPT));
    for (_, identity) in images {
        for entry in fs::read_dir(cache)? {
            let path = entry?.path();
            if !path.to_string_lossy().contains(&identity) {
                continue;
            }
            if path.is_dir() {
                remove_dir(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}
