//! A report: rows of medians, and targets met or missed.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::meter::Cost;
use crate::stats::median;

/// What one benchmark found out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// The benchmark.
    pub subject: String,
    /// What it measures, in a sentence.
    pub title: String,
    /// The server's name and version.
    pub server: String,
    /// Whether client and server had a core each.
    pub pinned: bool,
    /// Whether the sizes were small, and the figures no more than a sign of life.
    pub quick: bool,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What was demanded.
    pub checks: Vec<Check>,
}

/// One thing measured, in several ways.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// Which.
    pub name: String,
    /// A value a way.
    pub cells: Vec<Cell>,
}

/// One value, measured in rounds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Cell {
    /// What the value is, with its unit.
    pub unit: String,
    /// The median of the rounds.
    pub median: f64,
    /// What each round measured.
    pub rounds: Vec<f64>,
}

/// A target and the value measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Check {
    /// What is demanded.
    pub name: String,
    /// The value measured.
    pub value: f64,
    /// The target.
    pub target: Target,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

impl Check {
    /// Whether the target is met.
    pub fn is_met(&self) -> bool {
        match self.target {
            Target::AtLeast(least) => self.value >= least,
            Target::AtMost(most) => self.value <= most,
        }
    }

    fn markdown(&self) -> String {
        let met = if self.is_met() { "met" } else { "MISSED" };
        let (relation, target) = match self.target {
            Target::AtLeast(target) => ("at least", target),
            Target::AtMost(target) => ("at most", target),
        };
        format!("- {}: {} ({relation} {}): {met}\n", self.name, short(self.value), short(target))
    }
}

impl Report {
    /// One without figures.
    pub fn new(subject: &str, title: &str, quick: bool) -> Self {
        Self { subject: subject.into(), title: title.into(), quick, ..Self::default() }
    }

    /// Adds what a round measured.
    pub fn record(&mut self, row: &str, unit: &str, value: f64) {
        let row = find_or_push(
            &mut self.rows,
            |known| known.name == row,
            || Row { name: row.into(), cells: vec![] },
        );
        let cell = find_or_push(
            &mut row.cells,
            |known| known.unit == unit,
            || Cell { unit: unit.into(), median: 0.0, rounds: vec![] },
        );
        cell.rounds.push(value);
        cell.median = median(&cell.rounds);
    }

    /// Adds what the jobs of a round cost.
    pub fn record_cost(&mut self, row: &str, cost: Cost) {
        self.record(row, "jobs/s", cost.jobs_per_second());
        self.record(row, "server µs/job", cost.server_us);
        self.record(row, "client µs/job", cost.client_us);
    }

    /// The median of a row's value; 0 when it was not measured.
    pub fn median(&self, row: &str, unit: &str) -> f64 {
        let row = self.rows.iter().find(|known| known.name == row);
        let cell = row.and_then(|row| row.cells.iter().find(|known| known.unit == unit));
        cell.map_or(0.0, |cell| cell.median)
    }

    /// Holds a value against a target.
    pub fn check(&mut self, name: &str, value: f64, target: Target) {
        self.checks.push(Check { name: name.into(), value, target });
    }

    /// The report as a section of Markdown: a table, then the targets.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n|  |", self.subject, self.title);
        let mut units: Vec<&str> = vec![];
        for cell in self.rows.iter().flat_map(|row| &row.cells) {
            if !units.contains(&cell.unit.as_str()) {
                units.push(&cell.unit);
            }
        }
        for unit in &units {
            let _ = write!(text, " {unit} |");
        }
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(units.len()));
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.name);
            for unit in &units {
                let cell = row.cells.iter().find(|cell| cell.unit == *unit);
                let value = cell.map(|cell| short(cell.median)).unwrap_or_default();
                let _ = write!(text, " {value} |");
            }
            text.push('\n');
        }
        text.push('\n');
        self.checks.iter().for_each(|check| text.push_str(&check.markdown()));
        text
    }
}

/// A line for whoever looks on.
pub fn say(line: &str) {
    // Nobody looking on is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn find_or_push<T>(
    items: &mut Vec<T>,
    is: impl Fn(&T) -> bool,
    make: impl FnOnce() -> T,
) -> &mut T {
    let at = items.iter().position(is).unwrap_or_else(|| {
        items.push(make());
        items.len() - 1
    });
    &mut items[at]
}

/// Three digits or more, thousands apart.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => thousands(value.round() as i64),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_says_what_was_missed() {
        let mut report = Report::new("drain", "Drains.", false);
        for value in [1_000_000.0, 1234.4, 1.0] {
            report.record("raw", "jobs/s", value);
        }
        report.record("engine", "µs", 0.5);
        report.check("ratio", 0.5, Target::AtLeast(0.85));
        report.check("cost", 0.5, Target::AtMost(0.85));
        let expected = "## drain\n\nDrains.\n\n|  | jobs/s | µs |\n|---|---:|---:|\n| raw | 1,234 |  |\n\
                        | engine |  | 0.50 |\n\n- ratio: 0.50 (at least 0.85): MISSED\n\
                        - cost: 0.50 (at most 0.85): met\n";
        assert_eq!(report.markdown(), expected);
    }
}
