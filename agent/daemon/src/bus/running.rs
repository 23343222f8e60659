//! One vector as it runs: whether it waits, syncs or has failed, and what came of it.

use std::time::{Duration, Instant};

use jiff::Zoned;
use siris_zfs::Guid;

use crate::vectors::limit::{Moment, Rate};
use crate::vectors::record::{Direction, Vector};
use crate::vectors::schedule::{Schedule, seconds};

/// How long one that failed waits before it is tried again by itself: a link may be down for hours, and what somebody
/// mended goes on. Also how often one that fetches asks for new points.
pub(super) const RETRY: Duration = Duration::from_secs(15 * 60);

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
    /// The newest snapshot of its source that was seen while it was syncing.
    seen: Option<Guid>,
    /// In which order they began to wait.
    pub(super) turn: u64,
    /// When the sync under way began, or the schedule was set since.
    begun: Instant,
    pub(super) last_error: String,
    pub(super) ended_at: Option<Instant>,
    pub(super) sent: u64,
    pub(super) rate: u64,
    pub(super) remaining: u64,
    pub(super) base: String,
    /// The base's guid, as of the last sync that this agent has seen.
    pub(super) base_guid: Option<Guid>,
    pub(super) synced_at: u64,
}

impl Running {
    /// One that does nothing yet.
    pub(super) fn new(mut vector: Vector) -> Self {
        // The clock was set back while the agent was down: nobody knows which times have passed since.
        vector.counted = vector.counted.filter(|from| *from <= crate::now());
        Running {
            vector,
            state: State::Idle,
            busy: false,
            again: false,
            seen: None,
            turn: 0,
            begun: Instant::now(),
            last_error: String::new(),
            ended_at: None,
            sent: 0,
            rate: 0,
            remaining: 0,
            base: String::new(),
            base_guid: None,
            synced_at: 0,
        }
    }

    /// Its source has this snapshot as its newest one: whether it is to be asked for a sync because of that. One that is syncing
    /// may send it yet; see [`Running::wants_another`].
    pub(super) fn sees(&mut self, newest: Option<Guid>) -> bool {
        match self.state {
            State::Syncing if !self.busy && newest.is_some() => {
                self.seen = newest;
                false
            }
            State::Idle => newest.is_none() || newest != self.base_guid,
            _ => true,
        }
    }

    /// A sync has ended, and something was left to another one.
    pub(super) fn wants_another(&self) -> bool {
        self.again || self.seen.is_some() && self.seen != self.base_guid
    }

    /// Its schedule says that it is to sync, and nothing speaks against it.
    pub(super) fn is_due(&mut self, now: &Zoned) -> bool {
        // The clock was set back: what lies ahead of it would keep the times until then from coming.
        self.vector.counted = self.vector.counted.map(|from| from.min(seconds(now)));
        let may = self.state == State::Idle && !self.busy && !self.vector.paused;
        may && self.vector.schedule.is_due(self.vector.counted, now)
    }

    /// When its schedule next says so, in seconds since 1970; 0 where it does not.
    pub(super) fn next_at(&self, now: &Zoned) -> u64 {
        let counted = if self.state == State::Syncing { Some(self.begun_at()) } else { self.vector.counted };
        let schedule = &self.vector.schedule;
        // What is due already begins as soon as it may.
        let from =
            counted.filter(|_| !schedule.is_due(counted, now)).map_or(seconds(now), |from| from.min(seconds(now)));
        if self.vector.paused { 0 } else { schedule.next(from, now.time_zone()).unwrap_or(0) }
    }

    /// Has it wait for its turn.
    pub(super) fn wait(&mut self, turn: u64) {
        (self.state, self.turn) = (State::Waiting, turn);
    }

    /// Has it sync.
    pub(super) fn begin(&mut self) {
        (self.state, self.again, self.seen, self.sent) = (State::Syncing, false, None, 0);
        self.begun = Instant::now();
    }

    /// When that was, by the clock as it is now, in seconds since 1970.
    fn begun_at(&self) -> u64 {
        crate::now().saturating_sub(self.begun.elapsed().as_secs())
    }

    /// What it has sent is what was there when it began: times since then are still to come.
    pub(super) fn count(&mut self) {
        self.vector.counted = Some(self.begun_at());
    }

    /// Gives it another schedule, whose times count from now on. A sync that is owed stays owed.
    pub(super) fn reschedule(&mut self, schedule: Schedule) {
        if schedule == self.vector.schedule {
            return;
        }
        let was_owed = self.vector.schedule.is_timed() && self.vector.counted.is_none();
        let is_owed = was_owed || self.state != State::Idle;
        self.vector.counted = (!is_owed).then(crate::now);
        (self.vector.schedule, self.begun) = (schedule, Instant::now());
    }

    /// Is to begin, and may at this hour. What failed is tried again after a while; and what fetches and has no other schedule
    /// asks from time to time, as nobody tells it of new points.
    pub(super) fn is_ready(&self, at: Moment) -> bool {
        let has_rested = self.ended_at.is_none_or(|at| at.elapsed() >= RETRY);
        let wants = match self.state {
            State::Waiting => true,
            State::Failed => has_rested,
            State::Idle => has_rested && self.vector.direction != Direction::Push && !self.vector.schedule.is_timed(),
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
    use std::num::NonZeroU32;

    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::vector;
    use crate::vectors::schedule::tests::{at, zone, zoned};

    const STEP: u64 = 300;

    fn scheduled(text: &str, counted: Option<u64>) -> Running {
        Running::new(Vector { schedule: text.parse().unwrap(), counted, ..vector("vault", "x") })
    }

    /// Looks at it every five minutes, and has it sync whenever it is due, which takes no time. When that was.
    fn synced(running: &mut Running, from: u64, to: u64, zone: &TimeZone) -> Vec<u64> {
        let mut when = Vec::new();
        for now in (from..to).step_by(STEP as usize) {
            if running.is_due(&zoned(now, zone)) {
                running.vector.counted = Some(now);
                when.push(now);
            }
        }
        when
    }

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

    #[test]
    fn a_snapshot_that_was_just_sent_is_no_reason_to_sync() {
        let [old, new] = [1, 2].map(|guid| Some(Guid::new(guid)));
        let mut running = Running::new(vector("vault", "x"));
        assert!(running.sees(old) && running.sees(None), "nobody knows what there was before");
        running.begin();
        assert!(!running.sees(old) && running.wants_another(), "it may have looked before");
        (running.state, running.base_guid) = (State::Idle, old);
        assert!(!running.wants_another() && !running.sees(old) && running.sees(new));
        running.begin();
        assert!(!running.sees(old) && !running.sees(new));
        running.state = State::Failed;
        assert!(running.wants_another() && running.sees(old));
        running.begin();
        running.again = true;
        (running.state, running.base_guid) = (State::Idle, new);
        assert!(running.wants_another(), "somebody asked");
    }

    #[test]
    fn each_night_has_its_sync_also_where_the_clocks_leap() {
        let (from, to) = (at(2026, 3, 20, 12, 0), at(2026, 4, 3, 12, 0));
        let when = synced(&mut scheduled("02:30", Some(from)), from, to, &zone());
        assert_eq!(when.len(), 14);
        assert!(when.windows(2).all(|pair| (23 * 3600..=25 * 3600).contains(&(pair[1] - pair[0]))), "{when:?}");
        let (from, to) = (at(2026, 10, 18, 12, 0), at(2026, 11, 1, 12, 0));
        assert_eq!(synced(&mut scheduled("02:30", Some(from)), from, to, &zone()).len(), 14);
        assert_eq!(
            synced(&mut scheduled("12h", Some(from)), from, to, &zone()).len(),
            28,
            "with an hour more, to the second"
        );
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let (begun, now) = (at(2026, 1, 5, 2, 0), at(2026, 1, 9, 9, 0));
        // Off for four nights, and started anew.
        let mut running = scheduled("02:00", Some(begun));
        assert_eq!(synced(&mut running, now, now + 3600, &zone()), [now]);
        let mut running = scheduled("02:00", Some(now));
        assert!(synced(&mut running, now + 60, now + 3600, &zone()).is_empty(), "once more after another start");
        assert_eq!(synced(&mut scheduled("02:00", None), now, now + 3600, &zone()), [now], "one is owed");
    }

    #[test]
    fn a_time_that_comes_while_it_syncs_waits_or_pauses_is_not_lost() {
        let (before, after) = (at(2026, 1, 6, 1, 50), zoned(at(2026, 1, 6, 2, 10), &zone()));
        for state in [State::Syncing, State::Waiting, State::Failed] {
            let mut running = scheduled("02:00", Some(before));
            running.state = state;
            assert!(!running.is_due(&after), "{state:?}: that one is first");
            running.state = State::Idle;
            assert!(running.is_due(&after));
        }
        for (busy, paused) in [(true, false), (false, true)] {
            let mut running = scheduled("02:00", Some(before));
            (running.busy, running.vector.paused) = (busy, paused);
            assert!(!running.is_due(&after));
            (running.busy, running.vector.paused) = (false, false);
            assert!(running.is_due(&after));
        }
    }

    #[test]
    fn another_schedule_counts_from_now_on_and_what_is_owed_stays_owed() {
        let now = crate::now();
        let counted = |before: &str, counted: Option<u64>, state: State| {
            let mut running = scheduled(before, counted);
            running.state = state;
            running.reschedule("02:00".parse().unwrap());
            running.vector.counted
        };
        for (before, from) in [("points", None), ("points", Some(5)), ("6h", Some(5)), ("03:00", Some(5))] {
            assert!(counted(before, from, State::Idle).is_some_and(|from| from >= now), "{before}");
        }
        for (before, from, state) in [
            ("6h", None, State::Idle),
            ("points", None, State::Syncing),
            ("points", Some(5), State::Waiting),
            ("03:00", Some(5), State::Failed),
        ] {
            assert_eq!(counted(before, from, state), None, "{before}, {state:?}");
        }
        assert_eq!(counted("02:00", Some(5), State::Idle), Some(5), "the same schedule");
    }

    #[test]
    fn a_schedule_is_kept_to_whoever_sends() {
        let rested = Moment { day: 0, minute: 0 };
        for (direction, schedule, is_ready) in [
            (Direction::Push, "points", false),
            (Direction::Pull, "points", true),
            (Direction::Pull, "6h", false),
            (Direction::Relay, "02:00", false),
        ] {
            let mut running = scheduled(schedule, Some(5));
            running.vector.direction = direction;
            assert_eq!(running.is_ready(rested), is_ready, "{direction:?}, {schedule}");
            // It waits until it may.
            running.wait(1);
            running.vector.limits = "mon=stop none".parse().unwrap();
            assert!(!running.is_ready(rested) && running.is_ready(Moment { day: 1, minute: 0 }));
        }
    }

    #[test]
    fn the_next_time_is_told() {
        let (from, now) = (at(2026, 1, 6, 2, 0), at(2026, 1, 6, 9, 0));
        let next = |running: &Running, now| running.next_at(&zoned(now, &zone()));
        assert_eq!(next(&scheduled("02:00", Some(from)), now), at(2026, 1, 7, 2, 0));
        assert_eq!(next(&scheduled("12h", Some(from)), now), at(2026, 1, 6, 14, 0));
        assert_eq!(next(&scheduled("6h", Some(from)), now), now + 6 * 3600, "after the one that is due");
        assert_eq!(next(&scheduled("points", Some(from)), now), 0);
        let mut paused = scheduled("02:00", Some(from));
        paused.vector.paused = true;
        assert_eq!(next(&paused, now), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A clock that was set back: one sync more at most, and none is later than its next time by that clock.
        #[test]
        fn a_clock_that_is_set_back_costs_one_sync_more_at_most(
            nightly in any::<bool>(), hours in 2u32..48, back in 1u64..200 * 86400, restarted in any::<bool>(), minute in 0u64..2880,
        ) {
            let schedule =
                if nightly { "02:00".parse().unwrap() } else { Schedule::Every(NonZeroU32::new(hours * 60).unwrap()) };
            let from = at(2026, 10, 20, 0, 0);
            let mut running = Running::new(Vector { schedule, counted: Some(from), ..vector("vault", "x") });
            let ahead = from + 3 * 86400 + minute * 60;
            synced(&mut running, from, ahead, &zone());
            let now = ahead - back;
            if restarted {
                running.vector.counted = running.vector.counted.filter(|from| *from <= now);
            }
            let when = synced(&mut running, now, now + 4 * 86400, &zone());
            let period = if nightly { 25 } else { u64::from(hours) } * 3600;
            let stops: Vec<u64> = std::iter::once(now).chain(when.iter().copied()).chain([now + 4 * 86400]).collect();
            prop_assert!(stops.windows(2).all(|pair| pair[1] - pair[0] <= period + STEP), "none for too long: {:?}", when);
            let regular = 4 * 86400 / if nightly { 86400 } else { period };
            prop_assert!(when.len() as u64 <= regular + 1, "{} of {regular}", when.len());
        }
    }
}
