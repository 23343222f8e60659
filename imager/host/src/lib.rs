//! Effects on the host: tools, files, block devices.

pub mod cmd;
pub mod files;
