//! How an install can fail: each variant says whether anything was written.

use std::io;

use siris_ibu::Class;

use crate::apply::ApplyError;
use crate::host::HostError;
use crate::receipt::ReceiptError;
use crate::refusal::Refusals;
use crate::state::StateError;

/// Why an install did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusals),
    /// Nothing was written: the machine cannot be looked at.
    #[error("nothing was written: the machine cannot be looked at")]
    Look(#[source] HostError),
    /// Nothing was written: the state partition could not be made.
    #[error("nothing was written: the state partition could not be made")]
    State(#[source] StateError),
    /// Nothing was written: no key could be made.
    #[error("nothing was written: no key could be made")]
    Key(#[source] ReceiptError),
    /// Nothing was written: a file is missing.
    #[error("nothing was written: the installer's own files are not complete")]
    Files(#[source] ApplyError),
    /// A person stopped it before the first write.
    #[error("stopped; nothing was written")]
    StoppedBefore,
    /// A person stopped it, or it failed, after the first write.
    #[error("the install did not come to its end: run the installer again to complete it; {others}")]
    Incomplete {
        /// What is known of the other disks.
        others: String,
        /// What went wrong.
        source: ApplyError,
    },
    /// The system is there, its proof could not be taken.
    #[error("the system is written, but the proof could not be taken: look at the disks before you boot it")]
    Prove(#[source] HostError),
    /// What stays on a target cannot be read.
    #[error("{}", if *.written { "the system is written, but what stayed beside it could not be read again" } else {
        "nothing was written: what is to stay beside the system cannot be read" })]
    Kept {
        /// The system was written before.
        written: bool,
        /// What went wrong.
        source: io::Error,
    },
    /// The system is there, its receipt is not.
    #[error("the system is written, but its receipt could not be stored")]
    Seal(#[source] ApplyError),
    /// The receipt could not be made.
    #[error("the system is written, but its receipt could not be made")]
    Receipt(#[source] ReceiptError),
}

impl InstallError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusals) => refusals.0.first().map_or("refused", |refusal| refusal.code),
            Self::Look(error) | Self::Prove(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Key(error) | Self::Receipt(error) => error.code(),
            Self::StoppedBefore => "stopped",
            Self::Kept { .. } => "kept-unreadable",
            Self::Files(error) | Self::Incomplete { source: error, .. } | Self::Seal(error) => error.code(),
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(_) | Self::StoppedBefore => Class::Input,
            Self::Look(error) | Self::Prove(error) => error.class(),
            Self::Kept { .. } => Class::Host,
            Self::State(error) => error.class(),
            Self::Key(error) | Self::Receipt(error) => error.class(),
            Self::Files(error) | Self::Incomplete { source: error, .. } | Self::Seal(error) => error.class(),
        }
    }
}
