//! siris-agent, the daemon on every box.

fn main() {}
