//! PURE: the checker. Reads what all processes wrote down and says which invariants were broken.
//!
//! | | invariant |
//! |---|---|
//! | I1 | a job whose add was accepted has ended well or is dead |
//! | I2 | one whose add was refused never runs; one whose add has no answer is there once at most |
//! | I3 | nothing runs that was not added, or with another payload |
//! | I4 | a job that runs twice was in the hands of a worker that a fault hit; without faults none does |
//! | I5 | no job runs more often than it may; exactly those that always fail are dead, once, with their error |
//! | I6 | of jobs that share an id one is live at a time |
//! | I9 | no delayed job begins more than 5 ms early |
//! | I10 | a drained queue leaves no key, no consumer and no memory behind |
//! | I12 | memory and open files of a worker stay flat |

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::log::{Answer, Harm, Line, Nanos};
use crate::workload::Kind;

mod doubles;
mod history;
mod jobs;
mod keys;
mod remains;
#[cfg(test)]
mod tests;
mod times;

use history::History;
pub use remains::memory_limit;

/// What the checker must know of a run beside its logs.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub lease: Duration,
    pub max_attempts: u32,
    /// Jobs a worker runs at once.
    pub concurrency: u64,
    /// Jobs a worker may have in hand at once.
    pub in_flight: u64,
    /// How long before a crash of the server what it accepted may be lost.
    pub may_lose: Duration,
}

/// What was broken, and by which jobs or processes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Jobs whose add was accepted.
    pub jobs: u64,
    /// Adds without an answer.
    pub unknown: u64,
    /// Faults of the network, connections closed by the server included.
    pub faults: u64,
    /// Workers killed, and stopped.
    pub kills: u64,
    pub stops: u64,
    /// Servers killed.
    pub crashes: u64,
    /// Accepted jobs that are nowhere, and how many of them a crash of the server may take.
    pub lost: u64,
    pub lost_in_window: u64,
    /// Runs that ended beyond the first of their kind, and how many of them a fault explains.
    pub duplicates: u64,
    pub explained: u64,
    /// Which faults explain them.
    pub causes: BTreeMap<String, u64>,
    /// Dead jobs, and whether they are those that must be.
    pub dead: u64,
    pub dlq_exact: bool,
    /// How late delayed jobs began, in milliseconds: the median, and the 99th percentile.
    pub late_p50_ms: u64,
    pub late_p99_ms: u64,
}

/// The checker's answer.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub figures: Figures,
    pub violations: Vec<Violation>,
}

impl Verdict {
    fn broken(&mut self, invariant: &'static str, what: impl Into<String>) {
        self.violations.push(Violation { invariant, what: what.into() });
    }
}

/// Judges the lines of a run, in any order.
pub fn judge(lines: Vec<Line>, rules: &Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let history = History::of(lines, &mut verdict);
    count(&history, &mut verdict.figures);
    jobs::check(&history, rules, &mut verdict);
    doubles::check(&history, rules, &mut verdict);
    keys::check(&history, &mut verdict);
    times::check(&history, &mut verdict);
    remains::check(&history, &mut verdict);
    if verdict.figures.jobs == 0 {
        verdict.broken("run", "no job was accepted: nothing has been shown");
    }
    verdict
}

/// Counts what a queue that promises less has lost and doubled: jobs that were accepted and have neither
/// ended well nor been given up, and runs that ended well beyond the first of a job.
pub fn observe(lines: Vec<Line>) -> Verdict {
    let mut verdict = Verdict::default();
    let history = History::of(lines, &mut verdict);
    count(&history, &mut verdict.figures);
    for job in history.jobs.values() {
        let successes = job.successes().count() as u64;
        let given_up = job.kind == Kind::Poison && !job.runs.is_empty();
        let unanswered = job.adds.iter().filter(|add| add.answer == Answer::Unknown);
        let figures = &mut verdict.figures;
        figures.jobs += u64::from(job.is_accepted());
        figures.unknown += unanswered.count() as u64;
        figures.lost += u64::from(job.is_accepted() && successes == 0 && !given_up);
        figures.duplicates += successes.saturating_sub(1);
    }
    if !history.state.drained {
        verdict.broken("run", "jobs were still running at the end: they count as lost");
    }
    verdict
}

fn count(history: &History, figures: &mut Figures) {
    for fault in &history.faults {
        match fault.what {
            Harm::Kill => figures.kills += 1,
            Harm::Stop => figures.stops += 1,
            Harm::Crash => figures.crashes += 1,
            Harm::FlushScripts => {}
            _ => figures.faults += 1,
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
