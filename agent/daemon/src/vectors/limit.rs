//! How much of the link a vector may take, and when: a limit with a calendar, as text.
//!
//! Words, of which the first that fits the time decides: `mon-fri/08:00-18:00=2MiB sat,sun=stop 20MiB`. Days, hours or both,
//! an equals sign and a rate; a rate alone, at the end, is for the rest of the week. A rate is `none` (no limit), `stop`
//! (nothing is sent) or a size, each second. Hours are those of the box's own clock; some that end before they begin reach
//! into the next day.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use jiff::Zoned;

use super::week::{DAY, Days, clock, minute};

/// Sizes, the largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A text that is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no limit: a rate (2MiB, 500KiB, none, stop), or days and hours before it, as in mon-fri/08:00-18:00=2MiB; \
     a rate alone comes last"
)]
pub struct LimitError(String);

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// As fast as it goes.
    Free,
    /// So many bytes a second.
    Bytes(NonZeroU64),
    /// Nothing at all.
    Stop,
}

impl FromStr for Rate {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = || {
            let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
            let digits = text.strip_suffix(unit)?;
            let number = digits.parse::<u64>().ok().filter(|_| !digits.starts_with(['+', '0']))?;
            NonZeroU64::new(number.checked_mul(*factor)?)
        };
        match text {
            "none" => Ok(Rate::Free),
            "stop" => Ok(Rate::Stop),
            _ => bytes().map(Rate::Bytes).ok_or_else(|| LimitError(text.to_owned())),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Free => f.write_str("none"),
            Rate::Stop => f.write_str("stop"),
            Rate::Bytes(bytes) => {
                // Made of one of them.
                let (unit, factor) = UNITS.iter().find(|(_, factor)| bytes.get() % factor == 0).unwrap_or(&("B", 1));
                write!(f, "{}{unit}", bytes.get() / factor)
            }
        }
    }
}

/// A moment of a week, by the box's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Days since Monday, 0 to 6.
    pub day: u8,
    /// Minutes since midnight.
    pub minute: u16,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Moment::of(&Zoned::now())
    }

    /// The one at that time.
    pub fn of(now: &Zoned) -> Self {
        let day = now.weekday().to_monday_zero_offset().unsigned_abs();
        Moment { day, minute: u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs()) }
    }
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    days: Days,
    /// From this minute of the day on.
    from: u16,
    /// Until before this one; no later than `from`, it is one of the next day.
    to: u16,
}

impl Window {
    fn holds(&self, at: Moment) -> bool {
        let on = |day: u8| self.days.holds(day);
        let before = (at.day + 6) % 7;
        if self.from < self.to {
            on(at.day) && (self.from..self.to).contains(&at.minute)
        } else {
            (on(at.day) && at.minute >= self.from) || (on(before) && at.minute < self.to)
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (days, hours) = match text.split_once('/') {
            Some((days, hours)) => (Some(days), Some(hours)),
            None if text.contains(':') => (None, Some(text)),
            None => (Some(text), None),
        };
        let days = days.map_or(Some(Days::ALL), Days::parse)?;
        let (from, to) = match hours {
            None => (0, DAY),
            Some(hours) => {
                let (from, to) = hours.split_once('-')?;
                (minute(from).filter(|from| *from < DAY)?, minute(to).filter(|to| *to > 0)?)
            }
        };
        (from != to).then_some(Window { days, from, to })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_whole = (self.from, self.to) == (0, DAY);
        if self.days != Days::ALL || is_whole {
            write!(f, "{}", self.days)?;
        }
        match (self.days != Days::ALL, is_whole) {
            (_, true) => Ok(()),
            (true, false) => write!(f, "/{}-{}", clock(self.from), clock(self.to)),
            (false, false) => write!(f, "{}-{}", clock(self.from), clock(self.to)),
        }
    }
}

/// A limit with its calendar. Its text is printed in one way, and read in several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    rules: Vec<(Window, Rate)>,
    otherwise: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { rules: Vec::new(), otherwise: Rate::Free }
    }
}

impl Limits {
    /// How fast at that moment.
    pub fn at(&self, moment: Moment) -> Rate {
        let fits = self.rules.iter().find(|(window, _)| window.holds(moment));
        fits.map_or(self.otherwise, |(_, rate)| *rate)
    }
}

impl FromStr for Limits {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut limits = Limits::default();
        let mut words = text.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let wrong = || LimitError(word.to_owned());
            match word.rsplit_once('=') {
                Some((window, rate)) => {
                    let window = Window::parse(window).ok_or_else(wrong)?;
                    limits.rules.push((window, rate.parse().map_err(|_| wrong())?));
                }
                None if words.peek().is_none() => limits.otherwise = word.parse()?,
                None => return Err(wrong()),
            }
        }
        Ok(limits)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (window, rate) in &self.rules {
            write!(f, "{window}={rate} ")?;
        }
        write!(f, "{}", self.otherwise)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::week;
    use super::*;

    fn mib(n: u64) -> Rate {
        Rate::Bytes(NonZeroU64::new(n << 20).unwrap())
    }

    fn at(day: &str, hour: u16, minute: u16) -> Moment {
        Moment { day: week::day(day).unwrap() as u8, minute: hour * 60 + minute }
    }

    #[test]
    fn the_first_word_that_fits_decides() {
        let limits: Limits = "mon-fri/08:00-18:00=2MiB sat,sun=stop 22:00-06:00=none 20MiB".parse().unwrap();
        for (moment, rate) in [
            (at("mon", 8, 0), mib(2)),
            (at("fri", 17, 59), mib(2)),
            (at("fri", 18, 0), mib(20)),
            (at("sat", 12, 0), Rate::Stop),
            (at("sun", 23, 30), Rate::Stop),
            (at("mon", 5, 59), Rate::Free),
            (at("mon", 6, 0), mib(20)),
            (at("tue", 22, 0), Rate::Free),
        ] {
            assert_eq!(limits.at(moment), rate, "{moment:?}");
        }
        let night: Limits = "fri/22:00-06:00=stop".parse().unwrap();
        assert_eq!(
            [at("fri", 5, 0), at("fri", 23, 0), at("sat", 5, 0), at("sat", 23, 0)].map(|m| night.at(m)),
            [Rate::Free, Rate::Stop, Rate::Stop, Rate::Free]
        );
        let weekend: Limits = "fri-mon=1MiB".parse().unwrap();
        assert_eq!(
            ["thu", "fri", "sun", "mon", "tue"].map(|day| weekend.at(at(day, 3, 0)) == mib(1)),
            [false, true, true, true, false]
        );
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for bad in [
            "fast",
            "2",
            "2MB",
            "0MiB",
            "-1MiB",
            "2MiB 3MiB",
            "none mon=2MiB",
            "mon=",
            "=2MiB",
            "mon-=2MiB",
            "tues=2MiB",
            "08:00=2MiB",
            "08:00-08:00=2MiB",
            "08:00-25:00=2MiB",
            "24:00-08:00=2MiB",
            "8:00-9:00=2MiB",
            "mon/=2MiB",
            "08:60-09:00=2MiB",
            "99999999999GiB",
            "mon/sat=2MiB",
        ] {
            assert!(bad.parse::<Limits>().is_err(), "{bad}");
        }
        assert_eq!("".parse(), Ok(Limits::default()));
        assert_eq!("mon-sun=1024KiB".parse::<Limits>().unwrap().to_string(), "mon,tue,wed,thu,fri,sat,sun=1MiB none");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            rules in prop::collection::vec((1u8..=0x7f, 0u16..DAY, 1u16..=DAY, 0u64..5000), 0..5), last in 0u64..5000,
        ) {
            let rate = |n: u64| match n {
                0 => Rate::Free,
                1 => Rate::Stop,
                n => Rate::Bytes(NonZeroU64::new(n << 10).unwrap()),
            };
            let rules = rules.into_iter().filter(|(_, from, to, _)| from != to);
            let rules = rules.map(|(days, from, to, n)| (Window { days: Days(days), from, to }, rate(n))).collect();
            let limits = Limits { rules, otherwise: rate(last) };
            prop_assert_eq!(limits.to_string().parse(), Ok(limits));
        }
    }

    #[test]
    fn now_is_a_moment_of_a_week() {
        let now = Moment::now();
        assert!(now.day < 7 && now.minute < DAY);
    }
}
