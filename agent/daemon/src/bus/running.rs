//! One vector as it runs: whether it waits, syncs or has failed, and what came of it.

use std::time::{Duration, Instant};

use crate::vectors::limit::{Moment, Rate};
use crate::vectors::record::{Direction, Vector};

/// How long one that failed waits before it is tried again by itself: a link may be down for hours, and what somebody
/// mended goes on. Also how often one that fetches asks for new points.
const RETRY: Duration = Duration::from_secs(15 * 60);

/// How one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is nothing to do, as far as is known.
    Idle,
    /// Its turn comes.
    Waiting,
    /// A worker is at it.
    Syncing,
    /// The last sync was no success.
    Failed,
}

/// A vector, and how it is.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) vector: Vector,
    pub(super) state: State,
    /// It is being turned or removed: no sync begins.
    pub(super) busy: bool,
    /// Asked for while it was syncing or busy.
    pub(super) again: bool,
    /// In which order they began to wait.
    pub(super) turn: u64,
    pub(super) last_error: String,
    pub(super) ended_at: Option<Instant>,
    pub(super) sent: u64,
    pub(super) rate: u64,
    pub(super) remaining: u64,
    pub(super) base: String,
    pub(super) synced_at: u64,
}

impl Running {
    /// One that does nothing yet.
    pub(super) fn new(vector: Vector) -> Self {
        Running {
            vector,
            state: State::Idle,
            busy: false,
            again: false,
            turn: 0,
            last_error: String::new(),
            ended_at: None,
            sent: 0,
            rate: 0,
            remaining: 0,
            base: String::new(),
            synced_at: 0,
        }
    }

    /// Is to begin, and may at this hour. What failed is tried again after a while; and what fetches asks from time to time, as
    /// nobody tells it of new points.
    pub(super) fn is_ready(&self, at: Moment) -> bool {
        let has_rested = self.ended_at.is_none_or(|at| at.elapsed() >= RETRY);
        let wants = match self.state {
            State::Waiting => true,
            State::Failed => has_rested,
            State::Idle => has_rested && self.vector.direction != Direction::Push,
            State::Syncing => false,
        };
        wants && !self.busy && !self.vector.paused && self.vector.limits.at(at) != Rate::Stop
    }

    /// Its state, as it travels. Who asked for a sync and looks until it is over never sees the end of an earlier one.
    pub(super) fn state(&self) -> &'static str {
        match self.state {
            State::Syncing => "syncing",
            _ if self.vector.paused => "paused",
            _ if self.again => "waiting",
            State::Idle => "idle",
            State::Waiting => "waiting",
            State::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::vector;

    #[test]
    fn a_sync_that_was_asked_for_during_another_is_never_seen_as_over() {
        let mut running = Running::new(vector("vault", "x"));
        running.again = true;
        for ended in [State::Idle, State::Failed, State::Waiting] {
            running.state = ended;
            assert_eq!(running.state(), "waiting");
        }
        running.vector.paused = true;
        assert_eq!(running.state(), "paused");
    }
}
