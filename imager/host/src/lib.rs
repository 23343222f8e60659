//! Effects on the host: tools, files, block devices.
