//! The harness and suites that boot the shipped image.
