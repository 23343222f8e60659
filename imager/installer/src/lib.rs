//! siris-installer: puts the OS that it was booted from onto a disk, and proves that it touched no other.
//!
//! Destructive work is `observe -> plan -> check -> apply -> prove`. [`observe`] reads disks and changes nothing;
//! [`plan`] does no I/O and decides everything; [`check`] proves immediately before the first write that nothing has
//! changed since and that the payload is what was signed; [`apply`] carries the plan out and decides nothing;
//! [`prove`] shows from the disks and from the kernel's counters that nothing else was written.
//!
//! Never: imports a pool, assembles, activates or mounts read-write anything; writes a disk that the plan does not
//! name as its target.

pub mod answers;
pub mod apply;
pub mod carry;
pub mod check;
pub mod facts;
pub mod find;
pub mod host;
pub mod interact;
pub mod observe;
pub mod plan;
pub mod prove;
pub mod receipt;
pub mod refusal;
pub mod report;
pub mod run;
pub mod state;

#[cfg(test)]
mod testbox;
