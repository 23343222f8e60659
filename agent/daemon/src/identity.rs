//! Who the box is: product and version of the running OS, device id, host id.

use std::io;

use crate::root::{DEVICE_ID, HOST_ID, Root};

/// Product and version, from os-release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsRelease {
    /// `IMAGE_ID`.
    pub product: String,
    /// `IMAGE_VERSION`.
    pub version: String,
}

/// Reads `/usr/lib/os-release`; what it does not say is said by `unknown` and this program's version.
pub fn os_release(root: &Root) -> OsRelease {
    let text = root.read("/usr/lib/os-release").ok().flatten().unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().trim_matches(['"', '\'']).to_owned()).filter(|v| !v.is_empty())
    };
    OsRelease {
        product: value("IMAGE_ID").unwrap_or_else(|| "unknown".into()),
        version: value("IMAGE_VERSION").unwrap_or_else(|| env!("CARGO_PKG_VERSION").into()),
    }
}

/// Why the box does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(&'static str, #[source] io::Error),
    /// The file cannot be written.
    #[error("cannot write {0}")]
    Write(&'static str, #[source] io::Error),
}

impl IdentityError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            IdentityError::Read(..) => "identity-unreadable",
            IdentityError::Write(..) => "identity-unwritable",
        }
    }
}

/// A value of the wanted form: the one on file, or (none there, or a torn one) a new one, written.
fn ensure<T>(
    root: &Root,
    path: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    fresh: impl FnOnce() -> (T, String),
) -> Result<T, IdentityError> {
    let text = match root.read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        Err(error) => return Err(IdentityError::Read(path, error)),
    };
    if let Some(value) = text.as_deref().and_then(|t| parse(t.trim())) {
        return Ok(value);
    }
    let (value, text) = fresh();
    root.write(path, format!("{text}\n").as_bytes(), 0o644).map_err(|e| IdentityError::Write(path, e))?;
    Ok(value)
}

/// The box's UUID; made and written when there is none.
///
/// # Errors
/// When the state cannot be read or written.
pub fn ensure_device_id(root: &Root) -> Result<uuid::Uuid, IdentityError> {
    let parse = |text: &str| uuid::Uuid::parse_str(text).ok();
    ensure(root, DEVICE_ID, parse, || {
        let id = uuid::Uuid::new_v4();
        (id, id.to_string())
    })
}

/// The ZFS host id of the box; made and written when there is none. Never zero, which ZFS takes for "none".
///
/// `None` when the file says `none`: the installer found a pool whose labels carry no host id, and a box with one would
/// not be taken for the pool's own.
///
/// # Errors
/// When the state cannot be read or written.
pub fn ensure_host_id(root: &Root) -> Result<Option<u32>, IdentityError> {
    let parse = |text: &str| match text {
        "none" => Some(None),
        _ => u32::from_str_radix(text, 16).ok().filter(|id| *id != 0 && text.len() == 8).map(Some),
    };
    ensure(root, HOST_ID, parse, || {
        let (high, _, _, _) = uuid::Uuid::new_v4().as_fields();
        let id = high.max(1);
        (Some(id), format!("{id:08x}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_once_and_a_torn_one_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let id = ensure_device_id(&root).unwrap();
        assert_eq!(ensure_device_id(&root).unwrap(), id);
        let host = ensure_host_id(&root).unwrap();
        assert!(host.is_some_and(|id| id != 0));
        assert_eq!(ensure_host_id(&root).unwrap(), host);
        root.write(HOST_ID, b"00000000\n", 0o644).unwrap();
        assert!(ensure_host_id(&root).unwrap().is_some_and(|id| id != 0));
        root.write(HOST_ID, b"none\n", 0o644).unwrap();
        assert_eq!(ensure_host_id(&root).unwrap(), None);
        root.write(DEVICE_ID, b"", 0o644).unwrap();
        assert_ne!(ensure_device_id(&root).unwrap(), id);
    }

    #[test]
    fn os_release_may_be_quoted_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(os_release(&root).product, "unknown");
        root.write("/usr/lib/os-release", b"NAME=x\nIMAGE_ID=\"siris\"\nIMAGE_VERSION=1.2.3\n", 0o644).unwrap();
        assert_eq!(os_release(&root), OsRelease { product: "siris".into(), version: "1.2.3".into() });
    }
}
