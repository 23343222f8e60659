//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", .path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl FileError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self.source.kind() {
            std::io::ErrorKind::StorageFull => "no-space",
            _ => "io-failed",
        }
    }
}

/// Writes `bytes` to `path` so that, whatever happens, it holds the old content or the new: written beside it,
/// synced, renamed, and the directory synced.
///
/// # Errors
/// When any of these steps fails; `path` is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let fault = |what, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { what, path, source }
    };
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = dir.join(name);
    let written = || -> Result<(), FileError> {
        let mut file = File::create(&beside).map_err(fault("make", &beside))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fault("write", &beside))?;
        fs::rename(&beside, path).map_err(fault("put in place", path))?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(fault("sync", dir))
    };
    written().inspect_err(|_| {
        // The half-written file is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let within = path.join("g");
        assert!(write_atomic(&within, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
