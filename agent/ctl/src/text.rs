//! Laying out text: sizes, durations, times, tables.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Bytes as people read them: three digits and a unit of 1024.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Seconds as days, hours and minutes.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h {minutes} min"),
    }
}

/// A time in seconds since 1970, in UTC; `None` for one that no calendar has.
pub fn time(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

/// Lines of cells, each column as wide as its widest cell; those named in `right` flush right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = widths[column].saturating_sub(cell.chars().count());
            let (before, after) = if right.contains(&column) { (gap, 0) } else { (0, gap) };
            line += &format!("{}{cell}{}  ", " ".repeat(before), " ".repeat(after));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Breaks a text into lines of at most `width` characters, at blanks.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1000), "0.98 KiB");
        assert_eq!(size(1 << 30), "1.00 GiB");
        assert_eq!(size(100 << 40), "100 TiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        assert_eq!(duration(59), "0 min 59 s");
        assert_eq!(duration(3 * 86400 + 7260), "3 d 2 h 1 min");
    }

    #[test]
    fn a_table_has_straight_columns_and_no_trailing_blanks() {
        let rows =
            vec![vec!["A".to_owned(), "SIZE".into(), "B".into()], vec!["long".into(), "1".into(), String::new()]];
        assert_eq!(table(&rows, &[1]), "A     SIZE  B\nlong     1\n");
    }

    #[test]
    fn long_texts_are_broken_at_blanks() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaaa b", 5), ["aaaaaaaa", "b"]);
    }
}
