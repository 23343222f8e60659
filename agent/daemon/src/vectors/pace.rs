//! How fast a stream passes: no faster than the vector's limit, which may change while it does.

use std::thread;
use std::time::{Duration, Instant};

use super::limit::{Limits, Moment, Rate};

/// How often the limit is looked at again.
const LOOK: Duration = Duration::from_secs(2);
/// What may pass at once after a pause: no more than in this time.
const BURST: Duration = Duration::from_millis(500);
/// Weight of the newest second in the rate that is told.
const NEWEST: f64 = 0.3;

/// Keeps to a limit that `limits` gives, whenever it is asked.
pub(super) struct Pace<'a> {
    limits: Box<dyn FnMut() -> Limits + Send + 'a>,
    now: Rate,
    looked: Option<Instant>,
    /// When all that has passed may have passed.
    due: Instant,
}

impl<'a> Pace<'a> {
    pub(super) fn new(limits: impl FnMut() -> Limits + Send + 'a) -> Self {
        Pace { limits: Box::new(limits), now: Rate::Free, looked: None, due: Instant::now() }
    }

    /// Waits until so many bytes may pass; `false` when nothing may pass at all now.
    pub(super) fn passes(&mut self, bytes: u64) -> bool {
        self.look();
        if let Rate::Bytes(rate) = self.now {
            let begins = self.due.max(Instant::now().checked_sub(BURST).unwrap_or(self.due));
            self.due = begins + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        }
        loop {
            let wait = match self.now {
                Rate::Free => return true,
                Rate::Stop => return false,
                Rate::Bytes(_) => self.due.saturating_duration_since(Instant::now()),
            };
            if wait.is_zero() {
                return true;
            }
            thread::sleep(wait.min(BURST));
            self.look();
        }
    }

    /// The rate that is to be kept to now.
    pub(super) fn rate(&mut self) -> Rate {
        self.look();
        self.now
    }

    fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let rate = (self.limits)().at(Moment::now());
        if rate != self.now {
            // What was due under the old one is not under the new one.
            (self.now, self.due) = (rate, Instant::now());
        }
    }
}

/// Bytes a second, smoothed.
#[derive(Debug)]
pub(super) struct Speed {
    rate: Option<f64>,
    since: Instant,
    bytes: u64,
}

impl Speed {
    pub(super) fn new() -> Self {
        Speed { rate: None, since: Instant::now(), bytes: 0 }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// The rate; what was added since the last call counts as the newest.
    pub(super) fn take(&mut self) -> u64 {
        let newest = self.bytes as f64 / self.since.elapsed().as_secs_f64().max(0.001);
        let rate = self.rate.map_or(newest, |before| before + (newest - before) * NEWEST);
        *self = Speed { rate: Some(rate), since: Instant::now(), bytes: 0 };
        rate as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_to_and_a_change_is_seen() {
        let start = Instant::now();
        let limits = || match start.elapsed() < Duration::from_secs(2) {
            true => "4MiB".parse().unwrap(),
            false => "none".parse().unwrap(),
        };
        let mut pace = Pace::new(limits);
        let mut passed = 0u64;
        while start.elapsed() < Duration::from_millis(1500) {
            assert!(pace.passes(256 << 10));
            passed += 256 << 10;
        }
        // A second and a half, and a burst: 8 MiB at most, and a piece more.
        assert!((4 << 20..=9 << 20).contains(&passed), "{passed} bytes passed");
        while start.elapsed() < Duration::from_millis(4500) && passed < 1 << 32 {
            assert!(pace.passes(1 << 20));
            passed += 1 << 20;
        }
        assert_eq!(passed >> 32, 1, "the limit is gone, and only {passed} bytes passed");
        assert!(!Pace::new(|| "stop".parse().unwrap()).passes(1));
    }
}
