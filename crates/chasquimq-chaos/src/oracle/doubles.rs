//! I4: why jobs ran twice.

use std::collections::BTreeMap;

use super::history::{History, Job, Run};
use super::{Rules, Verdict, nanos};
use crate::log::{Fault, Harm, Nanos};

/// How long a worker may need after a fault of its connection until it can settle and renew again.
const RECOVERY: Nanos = 1_500_000_000;

pub fn check(history: &History, rules: &Rules, verdict: &mut Verdict) {
    for job in history.jobs.values() {
        for runs in same_runs(job).values() {
            repeats(history, job, runs, rules, verdict);
        }
    }
    let figures = &verdict.figures;
    let severed = figures.faults + figures.crashes * 3 + figures.stops;
    let bound = figures.kills * rules.concurrency + severed * rules.in_flight;
    let doubled = figures.duplicates;
    if doubled > bound {
        verdict.broken("I4", format!("{doubled} duplicates; {bound} at most can be"));
    }
}

/// Runs that should be one: of one copy of a job, after as many failures.
fn same_runs(job: &Job) -> BTreeMap<(&str, u32), Vec<&Run>> {
    let mut same: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
    for run in &job.runs {
        same.entry((run.start.id.as_str(), run.start.attempt)).or_default().push(run);
    }
    same
}

fn repeats(history: &History, job: &Job, runs: &[&Run], rules: &Rules, verdict: &mut Verdict) {
    let mut has_ended = false;
    for (index, run) in runs.iter().enumerate() {
        let is_duplicate = has_ended && run.end.is_some();
        has_ended |= run.end.is_some();
        verdict.figures.duplicates += u64::from(is_duplicate);
        let Some(before) = index.checked_sub(1).map(|index| runs[index]) else { continue };
        let causes = &mut verdict.figures.causes;
        if let Some(cause) = cause(history, job, before, run, rules) {
            if is_duplicate {
                verdict.figures.explained += 1;
                *causes.entry(cause).or_default() += 1;
            }
        } else {
            verdict.broken("I4", unexplained(job, before, run));
        }
    }
}

fn cause(history: &History, job: &Job, before: &Run, run: &Run, rules: &Rules) -> Option<String> {
    // Added again after it had ended, since the answer to the first try was lost.
    let added_again = |end: Nanos| job.adds.iter().skip(1).any(|add| add.to > end);
    if before.end.is_some_and(|end| end.ok && added_again(end.at)) {
        return Some("AddedAgain".to_owned());
    }
    // Each delivery after the first counts as one that was lost; only a crash can take the count back.
    if run.start.lost <= before.start.lost && rules.may_lose.is_zero() {
        return None;
    }
    // The latest that hit it is the likeliest.
    let mut faults: Vec<_> =
        history.faults.iter().filter(|fault| explains(fault, before, run, rules)).collect();
    faults.sort_by_key(|fault| (fault.what == Harm::Kill, fault.from));
    faults.last().map(|fault| format!("{:?}", fault.what))
}

/// Whether the fault kept the worker from storing how the earlier run ended, or from renewing.
fn explains(fault: &Fault, before: &Run, run: &Run, rules: &Rules) -> bool {
    let (worker, began, again) = (&before.start.worker, before.start.at, run.start.at);
    let hit = fault.whom.is_empty()
        || fault.whom == *worker
        || worker.split_once('.').is_some_and(|(slot, _)| slot == fault.whom);
    let (from, to) = match fault.what {
        // Scripts come back with the next call: no reason for anything.
        Harm::FlushScripts | Harm::Stop => return false,
        Harm::Kill => (fault.from, fault.to),
        Harm::Crash => {
            (fault.from.saturating_sub(nanos(rules.may_lose)), fault.to + nanos(rules.lease))
        }
        _ => (fault.from, fault.to + RECOVERY),
    };
    // A job can wait for a slot for a second, under lease, before its run begins.
    let held_since = began.saturating_sub(nanos(rules.lease) + 1_000_000_000);
    let since = if fault.what == Harm::Kill { began } else { held_since };
    hit && from <= again && to >= since
}

fn unexplained(job: &Job, before: &Run, run: &Run) -> String {
    let end = before.end.map_or("did not end".to_owned(), |end| {
        format!("ended after {} ms", (end.at.saturating_sub(before.start.at)) / 1_000_000)
    });
    format!(
        "job {} ({:?}, {}, attempt {}) ran on {} at {}, {end}, and {} ms after its begin again on {} (lost {}): no fault explains it",
        job.n,
        job.kind,
        run.start.id,
        run.start.attempt,
        before.start.worker,
        before.start.at,
        (run.start.at - before.start.at) / 1_000_000,
        run.start.worker,
        run.start.lost,
    )
}
