//! `sirisctl support-bundle` and `sirisctl receipt`: what is fetched as it is.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use siris_api::ManagerProxy;
use zbus::Connection;

use crate::failure::Failure;

/// Fetches the bundle and writes it.
pub async fn bundle(connection: &Connection, output: Option<PathBuf>) -> Result<(), Failure> {
    let manager = ManagerProxy::new(connection).await?;
    let bytes = manager.support_bundle(HashMap::new()).await?;
    if output.as_deref() == Some(Path::new("-")) {
        return io::stdout().write_all(&bytes).map_err(|e| Failure::local("cannot write", &e));
    }
    let path = match output {
        Some(path) => path,
        None => {
            let device = manager.device_id().await?;
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            PathBuf::from(format!("siris-support-{device}-{seconds}.tar.gz"))
        }
    };
    write(&path, &bytes).map_err(|e| Failure::local(&format!("cannot write {}", path.display()), &e))?;
    eprintln!("{} ({} bytes)", path.display(), bytes.len());
    Ok(())
}

/// Prints the receipt, byte for byte.
pub async fn receipt(connection: &Connection) -> Result<(), Failure> {
    let bytes = ManagerProxy::new(connection).await?.get_receipt(HashMap::new()).await?;
    let mut out = io::stdout();
    out.write_all(&bytes).and_then(|()| out.write_all(b"\n")).map_err(|e| Failure::local("cannot write", &e))
}

/// For its owner's eyes only: no secrets are in it, but a box's journal is nobody else's business.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
