//! When a vector syncs by itself, as text.
//!
//! `points` is with each new recovery point; one that fetches asks for such from time to time. A period (`30m`, `6h`, `1d`) is
//! from the beginning of one sync to that of the next. Times of day, `mon-fri/22:30 sat,sun/04:00`, are those of the box's own
//! clock; one without days is every day's. Where clocks leap over a time, it is that much later on that day; a time that a day
//! has twice counts once, the first.
//!
//! What is due follows from what the schedule was last counted from, and is kept until a sync has ended well: so a time that
//! passes while the box is off, or while something else goes on, is made up for, and several such by one sync.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::week::{DAY, Days, clock, minute};

/// Minutes of periods, the longest first.
const UNITS: [(&str, u32); 3] = [("d", 24 * 60), ("h", 60), ("m", 1)];
/// The longest period, in minutes: a year.
const PERIOD_MAX: u32 = 366 * 24 * 60;

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no schedule: points (with each new recovery point), a period of up to 366d (30m, 6h, 1d), or times of day, \
     with days before them or not, as in 12:00 mon-fri/22:30 sat,sun/04:00"
)]
pub struct ScheduleError(String);

/// A time of day, on some days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    days: Days,
    /// Since midnight.
    minute: u16,
}

impl Time {
    fn parse(text: &str) -> Option<Self> {
        let (days, time) = match text.split_once('/') {
            Some((days, time)) => (Days::parse(days)?, time),
            None => (Days::ALL, text),
        };
        Some(Time { days, minute: minute(time).filter(|minute| *minute < DAY)? })
    }

    /// The first such time after that one.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let today = after.to_zoned(zone.clone()).date();
        let (hour, minute) = (i8::try_from(self.minute / 60).ok()?, i8::try_from(self.minute % 60).ok()?);
        // From the day before on, whose time clocks may have leapt over into this one.
        let times = (-1..=8).filter_map(|n| {
            let day = today.checked_add(Span::new().days(n)).ok()?;
            let is_on = self.days.holds(day.weekday().to_monday_zero_offset().unsigned_abs());
            let time = is_on.then(|| zone.to_timestamp(day.at(hour, minute, 0, 0)));
            time?.ok().filter(|time| *time > after)
        });
        times.min()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != Days::ALL {
            write!(f, "{}/", self.days)?;
        }
        f.write_str(&clock(self.minute))
    }
}

/// When a vector syncs by itself. Its text is printed in one way, and read in several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Schedule {
    /// With each new recovery point.
    #[default]
    Points,
    /// So many minutes after the last sync began.
    Every(NonZeroU32),
    /// At these times; there is one at least.
    At(Vec<Time>),
}

impl Schedule {
    /// Whether it goes by the clock, not by recovery points.
    pub fn is_timed(&self) -> bool {
        *self != Schedule::Points
    }

    /// When the next sync is due, counted from `after`, both in seconds since 1970. `None` where it does not go by the clock.
    pub fn next(&self, after: u64, zone: &TimeZone) -> Option<u64> {
        match self {
            Schedule::Points => None,
            Schedule::Every(minutes) => after.checked_add(u64::from(minutes.get()) * 60),
            Schedule::At(times) => {
                let after = Timestamp::from_second(i64::try_from(after).ok()?).ok()?;
                let next = times.iter().filter_map(|time| time.next(after, zone)).min()?;
                u64::try_from(next.as_second()).ok()
            }
        }
    }

    /// Whether a sync is due at `now`, counted from there, in seconds since 1970; from `None` it always is.
    pub fn is_due(&self, counted: Option<u64>, now: &Zoned) -> bool {
        let is_over = |from| self.next(from, now.time_zone()).is_some_and(|next| next <= seconds(now));
        self.is_timed() && counted.is_none_or(is_over)
    }
}

/// A time in seconds since 1970; those before are none.
pub fn seconds(now: &Zoned) -> u64 {
    u64::try_from(now.timestamp().as_second()).unwrap_or(0)
}

/// A period as minutes.
fn period(text: &str) -> Option<NonZeroU32> {
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?;
    let number = digits.parse::<u32>().ok().filter(|_| !digits.starts_with(['+', '0']))?;
    NonZeroU32::new(number.checked_mul(*factor).filter(|minutes| *minutes <= PERIOD_MAX)?)
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let time = |word: &str| Time::parse(word).ok_or_else(|| ScheduleError(word.to_owned()));
        match (&words[..], words.first().and_then(|word| period(word))) {
            (["points"], _) => Ok(Schedule::Points),
            ([_], Some(minutes)) => Ok(Schedule::Every(minutes)),
            ([], _) => Err(ScheduleError(text.to_owned())),
            _ => words.into_iter().map(time).collect::<Result<_, _>>().map(Schedule::At),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Points => f.write_str("points"),
            Schedule::Every(minutes) => {
                // Made of one of them.
                let (unit, factor) = UNITS.iter().find(|(_, factor)| minutes.get() % factor == 0).unwrap_or(&("m", 1));
                write!(f, "{}{unit}", minutes.get() / factor)
            }
            Schedule::At(times) => {
                let words: Vec<String> = times.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(" "))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    /// A zone whose clocks leap forward on the last Sunday of March at 2:00, and back on that of October at 3:00.
    pub(crate) fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// The same, from 23:30 to 0:30 and back: over midnight.
    fn odd_zone() -> TimeZone {
        TimeZone::posix("AAA-1BBB,M3.5.6/23:30,M10.5.0/0:30").unwrap()
    }

    /// A time in that zone, in seconds since 1970.
    pub(crate) fn at(year: i16, month: i8, day: i8, hour: i8, minute: i8) -> u64 {
        seconds(&date(year, month, day).at(hour, minute, 0, 0).to_zoned(zone()).unwrap())
    }

    pub(crate) fn zoned(seconds: u64, zone: &TimeZone) -> Zoned {
        Timestamp::from_second(seconds as i64).unwrap().to_zoned(zone.clone())
    }

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    /// What comes after what, from there on.
    fn series(text: &str, from: u64, count: usize) -> Vec<u64> {
        let schedule = schedule(text);
        std::iter::successors(Some(from), |from| schedule.next(*from, &zone())).skip(1).take(count).collect()
    }

    #[test]
    fn times_come_on_their_days() {
        // 2026-01-05 is a Monday.
        assert_eq!(
            series("mon-fri/22:30 sat,sun/04:00 12:00", at(2026, 1, 8, 23, 0), 8),
            [
                at(2026, 1, 9, 12, 0),
                at(2026, 1, 9, 22, 30),
                at(2026, 1, 10, 4, 0),
                at(2026, 1, 10, 12, 0),
                at(2026, 1, 11, 4, 0),
                at(2026, 1, 11, 12, 0),
                at(2026, 1, 12, 12, 0),
                at(2026, 1, 12, 22, 30),
            ]
        );
        assert_eq!(
            series("sun/00:00", at(2026, 1, 4, 0, 0), 2),
            [at(2026, 1, 11, 0, 0), at(2026, 1, 18, 0, 0)],
            "a week later, not at once"
        );
        assert_eq!(series("6h", 1000, 2), [1000 + 6 * 3600, 1000 + 12 * 3600]);
        assert_eq!(series("points", 1000, 1), [0u64; 0]);
    }

    #[test]
    fn a_time_that_clocks_leap_over_is_later_and_one_that_comes_twice_is_once() {
        assert_eq!(
            series("02:30", at(2026, 3, 28, 3, 0), 2),
            [at(2026, 3, 29, 3, 30), at(2026, 3, 30, 2, 30)],
            "as much later as the clocks leap"
        );
        let autumn = series("02:30", at(2026, 10, 24, 3, 0), 2);
        assert_eq!(autumn[1], at(2026, 10, 26, 2, 30));
        assert_eq!(autumn[1] - autumn[0], 25 * 3600, "the first of both");
    }

    #[test]
    fn it_is_due_from_its_time_on_until_it_is_counted_from_later() {
        let nightly = schedule("02:00");
        let due = |counted, now| nightly.is_due(counted, &zoned(now, &zone()));
        let (evening, night) = (at(2026, 1, 5, 18, 0), at(2026, 1, 6, 2, 0));
        assert!(!due(Some(evening), night - 1));
        assert!(due(Some(evening), night));
        assert!(due(Some(evening), at(2026, 1, 20, 9, 0)), "made up for");
        assert!(!due(Some(night), night + 1), "once");
        assert!(due(None, evening), "nothing to count from");
        assert!(!Schedule::Points.is_due(None, &zoned(night, &zone())));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in [
            "",
            " ",
            "never",
            "point",
            "points 02:00",
            "02:00 points",
            "6h 02:00",
            "02:00 6h",
            "6h 12h",
            "0m",
            "06h",
            "-1h",
            "+1h",
            "1.5h",
            "h",
            "6",
            "6w",
            "6H",
            "367d",
            "99999999999m",
            "24:00",
            "2:00",
            "02:60",
            "+2:00",
            "02:00-03:00",
            "mon",
            "mon/",
            "/02:00",
            "mon-/02:00",
            "tues/02:00",
            "mon/02:00=stop",
            "02:00,04:00",
            "mon/6h",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
        let said = "mon-fri/22:30 noon".parse::<Schedule>().unwrap_err().to_string();
        assert!(said.starts_with("\"noon\" is no schedule: ") && said.contains("mon-fri/22:30"), "{said}");
        for (text, printed) in
            [("1440m", "1d"), ("90m", "90m"), (" mon-sun/02:00 ", "02:00"), ("sun-mon/02:00", "mon,sun/02:00")]
        {
            assert_eq!(schedule(text).to_string(), printed);
        }
    }

    fn schedules() -> impl Strategy<Value = Schedule> {
        let time = (1u8..=0x7f, 0..DAY).prop_map(|(days, minute)| Time { days: Days(days), minute });
        prop_oneof![
            Just(Schedule::Points),
            (1..=PERIOD_MAX).prop_map(|minutes| Schedule::Every(NonZeroU32::new(minutes).unwrap())),
            prop::collection::vec(time, 1..4).prop_map(Schedule::At),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(schedule in schedules()) {
            prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Against what the clock shows, minute by minute over two weeks in which it leaps.
        #[test]
        fn each_time_comes_once_on_each_of_its_days_whatever_the_clocks_do(
            times in prop::collection::vec((1u8..=0x7f, 0..DAY), 1..4), odd in any::<bool>(),
            first in prop_oneof![Just(date(2026, 3, 22)), Just(date(2026, 10, 18))],
        ) {
            let times: Vec<Time> = times.into_iter().map(|(days, minute)| Time { days: Days(days), minute }).collect();
            let zone = if odd { odd_zone() } else { zone() };
            let begin = seconds(&first.to_zoned(zone.clone()).unwrap());
            let mut shown = std::collections::HashMap::new();
            for minute in (begin..begin + 16 * 86400).step_by(60) {
                shown.entry(zoned(minute, &zone).datetime()).or_insert(minute);
            }
            let mut expected = std::collections::BTreeSet::new();
            for n in 0..14 {
                let day = first.checked_add(Span::new().days(n)).unwrap();
                for time in times.iter().filter(|time| time.days.holds(day.weekday().to_monday_zero_offset() as u8)) {
                    let time = day.at((time.minute / 60) as i8, (time.minute % 60) as i8, 0, 0);
                    let later = time.checked_add(Span::new().hours(1)).unwrap();
                    expected.insert(*shown.get(&time).unwrap_or_else(|| &shown[&later]));
                }
            }
            let schedule = Schedule::At(times);
            let all = std::iter::successors(schedule.next(begin - 1, &zone), |at| schedule.next(*at, &zone));
            let end = seconds(&first.checked_add(Span::new().days(14)).unwrap().to_zoned(zone.clone()).unwrap());
            let found: Vec<u64> = all.take_while(|at| *at < end).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
