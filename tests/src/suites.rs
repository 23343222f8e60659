//! All cases, by suite.

use crate::case::Case;

pub mod boot;

/// Every case there is.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(boot::cases());
    cases
}
