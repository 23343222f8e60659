//! libzfs_core, through libzetta and its bindings: the one place that links it, and the one with unsafe code.

use std::ffi::CString;
use std::io::PipeReader;
use std::os::fd::AsRawFd;
use std::ptr;

use libzetta::zfs::{ZfsEngine, ZfsLzc};
use libzetta_zfs_core_sys::boolean_t::{B_FALSE, B_TRUE};
use libzetta_zfs_core_sys::lzc_receive_with_header;
use nix::errno::Errno;

use crate::SnapshotName;
use crate::dataset::incoming::Header;
use crate::types::PoolName;

/// Whether the pool's root dataset answers. One ioctl, no process.
pub(crate) fn exists(name: &PoolName) -> bool {
    ZfsLzc::new().and_then(|zfs| zfs.exists(name.as_str())).unwrap_or(false)
}

/// Receives a snapshot whose header was read from the pipe, so that it can be resumed; never rolls back, and sets no
/// property. An error is a number of the system's or of ZFS's.
#[allow(unsafe_code, reason = "libzetta has no call of its own for it")]
pub(crate) fn receive(snapshot: &SnapshotName, header: &Header, pipe: &PipeReader) -> Result<(), i32> {
    let name = CString::new(snapshot.to_string()).map_err(|_| Errno::EINVAL as i32)?;
    // Keeps the library open until the call is over.
    let _open = ZfsLzc::new().map_err(|_| Errno::ENXIO as i32)?;
    let raw = if header.is_raw() { B_TRUE } else { B_FALSE };
    // SAFETY: the name and the header (a dmu_replay_record_t as it came, of its size and alignment) outlive the call, which
    // keeps neither; the pipe is open meanwhile; null is "no properties" and "no origin".
    let number = unsafe {
        lzc_receive_with_header(
            name.as_ptr(),
            ptr::null_mut(),
            ptr::null(),
            B_FALSE,
            B_TRUE,
            raw,
            pipe.as_raw_fd(),
            header.as_bytes().as_ptr().cast(),
        )
    };
    if number == 0 { Ok(()) } else { Err(number) }
}
