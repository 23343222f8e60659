//! What is tried again after a failure, how often, and after what wait.

use std::io;
use std::thread;
use std::time::Duration;

/// How patient it is. Waiting doubles from `wait` on, and starts again whenever a byte came.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often in a row a request may fail.
    pub tries: u32,
    /// What is waited before the second.
    pub wait: Duration,
}

impl Default for Patience {
    /// Some ten minutes: long enough for a router to come back.
    fn default() -> Self {
        Patience { tries: 14, wait: Duration::from_secs(1) }
    }
}

impl Patience {
    /// Some seconds: somebody waits for the answer.
    pub fn short() -> Self {
        Patience { tries: 3, wait: Duration::from_secs(1) }
    }
}

/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A failure, and whether trying again may help.
pub(super) struct Failed {
    pub(super) error: io::Error,
    pub(super) is_final: bool,
}

impl Failed {
    pub(super) fn finally(kind: io::ErrorKind, text: &str) -> Self {
        Failed { error: io::Error::new(kind, text), is_final: true }
    }
}

impl From<ureq::Error> for Failed {
    fn from(error: ureq::Error) -> Self {
        let is_final = match &error {
            ureq::Error::StatusCode(404 | 410) => return Failed::finally(io::ErrorKind::NotFound, "not found"),
            // Too early, too many, or the server's own trouble: it passes.
            ureq::Error::StatusCode(code) => !matches!(code, 408 | 425 | 429 | 500..),
            // Found in the middle of a connection; a link that alters what passes is another matter.
            ureq::Error::Io(error) => is_of_certificate(error),
            ureq::Error::Rustls(rustls::Error::InvalidCertificate(_)) => true,
            ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::TooManyRedirects => true,
            _ => false,
        };
        Failed { error: io::Error::other(error), is_final }
    }
}

/// Whether nobody that is trusted vouches for the server, or not for now: it does not pass by itself.
fn is_of_certificate(error: &io::Error) -> bool {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(of_tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Counts failures in a row.
pub(super) struct Tries {
    patience: Patience,
    failed: u32,
}

impl Tries {
    pub(super) fn new(patience: Patience) -> Self {
        Tries { patience, failed: 0 }
    }

    pub(super) fn again(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try; gives the failure back when there is none.
    pub(super) fn wait(&mut self, failed: Failed) -> io::Result<()> {
        self.failed += 1;
        if failed.is_final || self.failed >= self.patience.tries {
            return Err(failed.error);
        }
        eprintln!("fetching failed, it is tried again: {}", failed.error);
        thread::sleep((self.patience.wait * 2u32.saturating_pow(self.failed - 1)).min(WAIT_MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error as TlsError};

    use super::*;

    #[test]
    fn a_certificate_that_is_refused_is_not_tried_again() {
        let of = |error: TlsError| Failed::from(ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, error)));
        assert!(of(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)).is_final);
        assert!(!of(TlsError::DecryptError).is_final);
        assert!(!Failed::from(ureq::Error::Io(io::ErrorKind::ConnectionReset.into())).is_final);
    }
}
