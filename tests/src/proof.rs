//! `tests/PROOF.md`: for every case that boots machines or builds images, how it went last, and with which commit.
//!
//! Running all of them takes hours, so that each run of the full tier, whatever its filter, brings its own rows up to
//! date. A row says with which commit: nobody has to believe that an old one still holds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::case::Case;
use crate::run::{Counts, Outcome};

const TITLE: &str = "# Proof";
const HEAD: &str = "| case | result | time | commit |\n|---|---|---|---|";
const CARGO: &str = "| (unit, golden, property and private-bus cases) |";

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    result: String,
    time: String,
    commit: String,
}

/// The table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    rows: BTreeMap<String, Row>,
    cargo: Option<Row>,
}

impl Proof {
    /// Reads the file as it was written; what is no row of it is left out.
    pub fn parse(text: &str) -> Self {
        let mut proof = Proof::default();
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [title, result, time, commit] = cells[..] else { continue };
            let row = Row { result: result.to_owned(), time: time.to_owned(), commit: commit.to_owned() };
            match title {
                "case" | "---" => {}
                _ if line.starts_with(CARGO) => proof.cargo = Some(row),
                _ => {
                    proof.rows.insert(title.to_owned(), row);
                }
            }
        }
        proof
    }

    /// Takes in what a run came to. `cargo` is what `cargo test` counted, where it was run unfiltered.
    pub fn update(&mut self, outcomes: &[Outcome], cargo: Option<(Counts, Duration)>, commit: &str) {
        for outcome in outcomes {
            let result = if outcome.failure.is_some() { "FAILED" } else { "ok" };
            let row = Row { result: result.to_owned(), time: seconds(outcome.took), commit: commit.to_owned() };
            self.rows.insert(cell(&outcome.title), row);
        }
        if let Some((counts, took)) = cargo {
            let result = format!("{} passed, {} failed", counts.passed, counts.failed);
            self.cargo = Some(Row { result, time: seconds(took), commit: commit.to_owned() });
        }
    }

    /// The file. Only `cases` that there are now have a row; one that was never run says so.
    pub fn to_text(&self, cases: &[Case], machine: &str) -> String {
        let never = Row { result: "not run yet".to_owned(), time: String::new(), commit: String::new() };
        let line = |title: &str, row: &Row| format!("| {title} | {} | {} | {} |", row.result, row.time, row.commit);
        let mut lines: Vec<String> = cases
            .iter()
            .map(|case| cell(&case.title()))
            .map(|title| line(&title, self.rows.get(&title).unwrap_or(&never)))
            .collect();
        lines.sort();
        if let Some(row) = &self.cargo {
            lines.insert(0, line(CARGO.trim_matches(['|', ' ']), row));
        }
        let good =
            cases.iter().filter(|case| self.rows.get(&cell(&case.title())).is_some_and(|row| row.result == "ok"));
        format!(
            "{TITLE}\n\nKept by `cargo xtask test --full`, which brings up to date the rows of the cases that it runs: each says with\n\
             which commit that was. Of {} cases {} went well when they were run last, on {machine}.\n\n{HEAD}\n{}\n",
            cases.len(),
            good.count(),
            lines.join("\n")
        )
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}

/// A title as it stands in a cell.
fn cell(title: &str) -> String {
    title.replace('|', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str) -> Case {
        Case::full("group", name, |_| Ok(()))
    }

    fn outcome(case: &Case, failure: Option<&str>) -> Outcome {
        Outcome { title: case.title(), failure: failure.map(str::to_owned), took: Duration::from_secs(7) }
    }

    #[test]
    fn a_run_brings_its_own_rows_up_to_date_and_leaves_the_others() {
        let (one, two, three) = (case("one | two"), case("two"), case("three"));
        let mut proof = Proof::default();
        let counts = Counts { passed: 5, failed: 0, skipped: 0 };
        proof.update(&[outcome(&one, None), outcome(&two, Some("no"))], Some((counts, Duration::from_secs(9))), "aaa");
        let cases = [one, two, three];
        let text = proof.to_text(&cases[..2], "2 cores");
        let mut read = Proof::parse(&text);
        assert_eq!(read, proof);
        read.update(&[outcome(&cases[1], None)], None, "bbb");
        let text = read.to_text(&cases, "2 cores");
        assert!(text.contains("| group: one / two | ok | 7 s | aaa |"), "{text}");
        assert!(text.contains("| group: two | ok | 7 s | bbb |"), "{text}");
        assert!(text.contains("| group: three | not run yet |  |  |"), "{text}");
        assert!(
            text.contains("| 5 passed, 0 failed | 9 s | aaa |") && text.contains("Of 3 cases 2 went well"),
            "{text}"
        );
    }
}
