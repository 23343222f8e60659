//! The agent on the box: small, quiet, confined, and as its contract says.

use anyhow::Result;

use crate::case::Case;

/// The suite's cases.
pub fn cases() -> Vec<Case> {
    let _: Option<Result<()>> = None;
    Vec::new()
}
