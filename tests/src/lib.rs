//! The harness and suites that boot the shipped image.
//!
//! Owns: virtual machines made of the image as it ships ([`machine`], [`vm`]), snapshots of booted ones
//! ([`snapshot`]), faults put on their disks from outside ([`disk`]), what they write recorded ([`writelog`]), the cases ([`suites`]) and their runner
//! ([`run`]).
//! Never: changes the image under test, asserts how long something took, or leaves a process or file behind.
//! In: a built image and the builder root with QEMU in it ([`lab::Lab`]). Out: a verdict for each case.
//!
//! Errors are read by people and by nothing else here, so the whole crate speaks anyhow.

pub mod accel;
pub mod bmc;
pub mod case;
pub mod contract;
pub mod deadline;
pub mod disk;
pub mod guest;
pub mod image;
pub mod lab;
pub mod machine;
pub mod proof;
pub mod qmp;
pub mod run;
pub mod serial;
pub mod slots;
pub mod snapshot;
pub mod sources;
pub mod suites;
pub mod two;
pub mod vm;
pub mod web;
pub mod writelog;
