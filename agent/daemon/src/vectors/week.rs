//! Days of the week and times of day, as text: `mon-fri`, `sat,sun`, `22:30`.

use std::fmt;

/// Names of days, Monday first.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Minutes of a day.
pub(super) const DAY: u16 = 24 * 60;

/// Some days of each week: a bit for each, Monday's the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days(pub(super) u8);

impl Days {
    /// Every day.
    pub(super) const ALL: Days = Days(0x7f);

    /// Whether that one is among them, so many days after Monday.
    pub(super) fn holds(self, day: u8) -> bool {
        self.0 & (1 << day) != 0
    }

    /// `mon-fri`, `sat,sun`, or both mixed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            // From Friday to Monday is over the weekend.
            let count = (last + 7 - first) % 7 + 1;
            (0..count).for_each(|n| days |= 1 << ((first + n) % 7));
        }
        Some(Days(days))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<&str> = (0..).zip(NAMES).filter(|(day, _)| self.holds(*day)).map(|(_, name)| name).collect();
        f.write_str(&on.join(","))
    }
}

/// How many days after Monday the one of that name is.
pub(super) fn day(name: &str) -> Option<usize> {
    NAMES.iter().position(|day| *day == name)
}

/// `HH:MM`, up to 24:00, in minutes since midnight.
pub(super) fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| is_number(text).then(|| text.parse::<u16>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    Some(hours * 60 + minutes).filter(|minute| minutes < 60 && *minute <= DAY)
}

/// The text of such a minute.
pub(super) fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}
