//! sirisctl, the command line of a box.

fn main() {}
