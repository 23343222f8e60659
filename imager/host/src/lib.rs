//! Effects on the host: tools, files, block devices.

pub mod block;
pub mod cmd;
pub mod files;
