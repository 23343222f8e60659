//! siris-agent, the daemon on every box, as a library: the program and the tests on a private bus start it from here.

pub mod agent;
pub mod bus;
pub mod checks;
pub mod config;
pub mod datasets;
pub mod escrow;
pub mod gate;
pub mod health;
pub mod host_keys;
pub mod identity;
pub mod notify;
pub mod observe;
pub mod pools;
pub mod provision;
pub mod reboot;
pub mod root;
pub mod run;
pub mod settings;
pub mod slots;
pub mod store;
pub mod support;
pub mod ticker;
pub mod trial;
pub mod units;
pub mod upgrade;
pub mod vectors;

/// Seconds since 1970, by the box's clock.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// An error with its sources, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
