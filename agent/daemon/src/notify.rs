//! Messages to the service manager: sd_notify(3), without its library.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, or nowhere when there is none.
#[derive(Debug, Default)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// Takes the address from `$NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// When there is an address and no socket can be made for it.
    pub fn from_environment() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(Notifier(None)) };
        let address = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
            _ => SocketAddr::from_pathname(std::ffi::OsString::from_vec(name.as_bytes().to_vec()))?,
        };
        Ok(Notifier(Some((UnixDatagram::unbound()?, address))))
    }

    /// Sends lines such as `READY=1`. A service manager that does not listen is its own problem: nothing is
    /// returned, the watchdog tells.
    pub fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.0 {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// How often the watchdog wants to hear from this process: half of its limit. `None` when there is no watchdog.
pub fn watchdog_period() -> Option<Duration> {
    let number = |key: &str| std::env::var(key).ok()?.parse::<u64>().ok();
    let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|_| for_us)?;
    Some(Duration::from_micros(micros / 2))
}
