//! The cache below the user's cache directory, shared by all checkouts.
//!
//! Owns: layers, each a directory named by what it is and the digest of everything that went into it, complete or
//! absent; and the lock that keeps two builds apart.
//! Never: reads a layer's content. A layer is made under a temporary name and renamed when it is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use siris_ibu::Sha256;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither SIRIS_CACHE, XDG_CACHE_HOME nor HOME is set.
    #[error("no place for the cache: set SIRIS_CACHE, XDG_CACHE_HOME or HOME")]
    NoPlace,
    /// A directory or file operation failed.
    #[error("cannot use {} in the cache", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl CacheError {
    /// The underlying error for `path`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CacheError {
        let path = path.to_owned();
        move |source| CacheError::Io { path, source }
    }
}

/// The digest of everything that goes into a layer, gathered piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Key(String);

impl Key {
    /// A key that knows nothing yet.
    pub fn new() -> Self {
        Key::default()
    }

    /// Adds a named input.
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.0.push_str(&format!("{name}={value}\n"));
        self
    }

    /// Adds every file below `path` (or the one file it is): names, modes, links and content, in sorted order.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn with_files(mut self, path: &Path) -> Result<Self, CacheError> {
        self.add_files(path, path)?;
        Ok(self)
    }

    fn add_files(&mut self, top: &Path, path: &Path) -> Result<(), CacheError> {
        use std::os::unix::fs::PermissionsExt;
        let meta = fs::symlink_metadata(path).map_err(CacheError::io(path))?;
        let name = path.strip_prefix(top).unwrap_or(path).display().to_string();
        if meta.is_dir() {
            let entries = fs::read_dir(path).map_err(CacheError::io(path))?;
            let mut entries: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
            entries.sort();
            return entries.iter().try_for_each(|entry| self.add_files(top, entry));
        }
        let value = if meta.is_symlink() {
            format!("-> {}", fs::read_link(path).map_err(CacheError::io(path))?.display())
        } else {
            let executable = meta.permissions().mode() & 0o111 != 0;
            let digest = Sha256::of(&fs::read(path).map_err(CacheError::io(path))?);
            format!("{} {digest}", if executable { "x" } else { "-" })
        };
        self.0.push_str(&format!("{name}: {value}\n"));
        Ok(())
    }

    /// The digest of all that was added.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.0.as_bytes())
    }
}

/// The cache, locked for this process while the value lives.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    _lock: File,
}

impl Cache {
    /// `SIRIS_CACHE`, or `siris` below the user's cache directory.
    ///
    /// # Errors
    /// [`CacheError::NoPlace`].
    pub fn default_dir() -> Result<PathBuf, CacheError> {
        let env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        env("SIRIS_CACHE")
            .or_else(|| env("XDG_CACHE_HOME").map(|d| d.join("siris")))
            .or_else(|| env("HOME").map(|d| d.join(".cache/siris")))
            .ok_or(CacheError::NoPlace)
    }

    /// Opens the cache in `dir`; waits while another build uses it, after telling `waiting` so. What an interrupted
    /// build left half-made is removed.
    ///
    /// # Errors
    /// When the directory cannot be made or locked.
    pub fn open(dir: &Path, waiting: impl FnOnce()) -> Result<Cache, CacheError> {
        let layers = dir.join("layers");
        fs::create_dir_all(&layers).map_err(CacheError::io(&layers))?;
        let dir = fs::canonicalize(dir).map_err(CacheError::io(dir))?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(CacheError::io(&path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            waiting();
            flock(&lock, FlockOperation::LockExclusive).map_err(|e| CacheError::Io { path, source: e.into() })?;
        }
        let cache = Cache { dir, _lock: lock };
        for entry in fs::read_dir(&layers).map_err(CacheError::io(&layers))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("half-") {
                remove_tree(&entry.path())?;
            }
        }
        Ok(cache)
    }

    /// The cache's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether there is any layer of this name.
    pub fn has_layer(&self, name: &str) -> bool {
        let prefix = format!("{name}-");
        let names = fs::read_dir(self.dir.join("layers")).into_iter().flatten().flatten().map(|e| e.file_name());
        names.into_iter().any(|file| file.to_string_lossy().starts_with(&prefix))
    }

    /// The layer `name` of `key`: as it is when whole, else made by `make` in an empty directory.
    ///
    /// # Errors
    /// What `make` returns, or when the cache cannot be written.
    pub fn layer<E: From<CacheError>>(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Layer, E> {
        let digest = key.digest();
        let short = &digest.to_string()[..20];
        let path = self.dir.join("layers").join(format!("{name}-{short}"));
        if path.exists() {
            // Its age decides what `prune` keeps; failing to note the use costs only that.
            let _ = File::create(path.with_extension("used"));
            return Ok(Layer { path, digest, fresh: false });
        }
        let half = self.dir.join("layers").join(format!("half-{name}-{short}"));
        remove_tree(&half)?;
        fs::create_dir(&half).map_err(CacheError::io(&half))?;
        if let Err(error) = make(&half) {
            // The first error is the one to tell; the next build removes what this one could not.
            let _ = remove_tree(&half);
            return Err(error);
        }
        fs::rename(&half, &path).map_err(CacheError::io(&path))?;
        self.prune(name, &path);
        let _ = File::create(path.with_extension("used"));
        Ok(Layer { path, digest, fresh: true })
    }

    /// Keeps the newest few layers of a name: each is gigabytes.
    fn prune(&self, name: &str, keep: &Path) {
        const KEPT: usize = 4;
        let prefix = format!("{name}-");
        let Ok(entries) = fs::read_dir(self.dir.join("layers")) else { return };
        let mut layers: Vec<(std::time::SystemTime, PathBuf)> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| {
                let file = p.file_name().unwrap_or_default().to_string_lossy();
                p != keep && p.is_dir() && file.strip_prefix(&prefix).is_some_and(|rest| rest.len() == 20)
            })
            .map(|p| {
                let used = fs::metadata(p.with_extension("used")).and_then(|m| m.modified());
                (used.unwrap_or(std::time::UNIX_EPOCH), p)
            })
            .collect();
        layers.sort();
        let surplus = layers.len().saturating_sub(KEPT);
        for (_, path) in layers.into_iter().take(surplus) {
            let _ = remove_tree(&path);
            let _ = fs::remove_file(path.with_extension("used"));
        }
    }
}

/// A finished layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its directory. Not to be written.
    pub path: PathBuf,
    /// The digest of what went into it.
    pub digest: Sha256,
    /// Whether it was made just now.
    pub fresh: bool,
}

/// Removes a directory tree if it is there.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_tree(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CacheError::Io { path: path.to_owned(), source: e }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), || ()).unwrap();
        let key = Key::new().with("a", 1);
        let failed: Result<Layer, CacheError> = cache.layer("x", &key, |d| {
            fs::write(d.join("half"), "").map_err(CacheError::io(d))?;
            Err(CacheError::NoPlace)
        });
        assert!(failed.is_err());
        let made: Layer = cache.layer("x", &key, |d| fs::write(d.join("f"), "1").map_err(CacheError::io(d))).unwrap();
        assert!(made.fresh && !made.path.join("half").exists());
        let again: Layer = cache.layer("x", &key, |_| Err(CacheError::NoPlace)).unwrap();
        assert!(!again.fresh && again.path == made.path);
    }

    #[test]
    fn a_key_sees_names_modes_links_and_content() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let digest = || Key::new().with_files(dir.path()).unwrap().digest();
        let file = dir.path().join("f");
        fs::write(&file, "1").unwrap();
        let first = digest();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let second = digest();
        symlink("f", dir.path().join("l")).unwrap();
        assert!(first != second && second != digest());
    }
}
