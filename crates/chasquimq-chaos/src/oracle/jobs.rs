//! I1, I2, I3 and I5: what became of each job.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{Add, History, Job};
use super::{Rules, Verdict, nanos};
use crate::log::{Answer, Dead, Harm, Nanos};
use crate::worker::failure;
use crate::workload::Kind;

/// How long after a handler has ended its job may still count as live, so that an add of its id adds
/// nothing: its end may have to wait for the store.
const STORING: Nanos = 15_000_000_000;

pub fn check(history: &History, rules: &Rules, verdict: &mut Verdict) {
    for job in history.jobs.values() {
        let answered = |answer| job.adds.iter().filter(|add| add.answer == answer).count() as u64;
        verdict.figures.jobs += u64::from(job.is_accepted());
        verdict.figures.unknown += answered(Answer::Unknown);
        copies(job, verdict);
        runs(job, rules, verdict);
    }
    lost(history, rules, verdict);
    dead(history, verdict);
}

fn copies(job: &Job, verdict: &mut Verdict) {
    let (n, most) = (job.n, job.possible_copies());
    let ids: HashSet<&str> = job.runs.iter().map(|run| run.start.id.as_str()).collect();
    if most == 0 && !job.runs.is_empty() {
        verdict.broken("I2", format!("job {n} ran although its add was refused"));
    } else if ids.len() > most {
        verdict.broken("I2", format!("job {n} is there under {} ids: {ids:?}", ids.len()));
    }
}

fn runs(job: &Job, rules: &Rules, verdict: &mut Verdict) {
    let n = job.n;
    let added = job.adds.first().map_or(Nanos::MAX, |add| add.from);
    for run in &job.runs {
        let start = &run.start;
        if start.hash != job.hash {
            verdict.broken("I3", format!("job {n} arrived with another payload"));
        }
        if start.at < added {
            verdict.broken("I3", format!("job {n} ran before it was added"));
        }
        if job.key.as_ref().is_some_and(|key| *key != start.id) {
            verdict.broken("I3", format!("job {n} ran under the id {:?}", start.id));
        }
        if start.attempt >= rules.max_attempts {
            verdict.broken("I5", format!("job {n} ran with {} failures behind it", start.attempt));
        }
    }
}

fn lost(history: &History, rules: &Rules, verdict: &mut Verdict) {
    let dead: HashSet<u64> = history.state.dead.iter().map(|dead| dead.n).collect();
    let mut successes: HashMap<&str, Vec<Nanos>> = HashMap::new();
    for job in history.jobs.values() {
        if let Some(key) = &job.key {
            successes.entry(key).or_default().extend(job.successes());
        }
    }
    for job in history.jobs.values() {
        // An add under an id that is live adds nothing: then the live job's end counts.
        let ended_for = |add: &Add| match &job.key {
            None => job.successes().next().is_some() || dead.contains(&job.n),
            Some(key) => successes[key.as_str()].iter().any(|at| at + STORING >= add.from),
        };
        let accepted = job.adds.iter().filter(|add| add.answer == Answer::Ok);
        let Some(add) = accepted.into_iter().find(|add| !ended_for(add)) else { continue };
        verdict.figures.lost += 1;
        if was_crashed_away(history, rules, add) {
            verdict.figures.lost_in_window += 1;
        } else {
            let Job { n, kind, runs, .. } = job;
            verdict
                .broken("I1", format!("job {n} ({kind:?}) is lost; it ran {} times", runs.len()));
        }
    }
}

/// Whether a server that writes to disk later than it answers may have forgotten it.
fn was_crashed_away(history: &History, rules: &Rules, add: &Add) -> bool {
    let window = nanos(rules.may_lose);
    let crashes = history.faults.iter().filter(|fault| fault.what == Harm::Crash);
    window > 0
        && crashes.into_iter().any(|crash| add.from <= crash.to && add.to + window >= crash.from)
}

fn dead(history: &History, verdict: &mut Verdict) {
    let before = verdict.violations.len();
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for dead in &history.state.dead {
        *times.entry(dead.n).or_default() += 1;
        match history.jobs.get(&dead.n) {
            Some(job) => epitaph(job, dead, verdict),
            None => verdict.broken("I3", format!("job {} is dead and was never added", dead.n)),
        }
    }
    for job in history.jobs.values().filter(|job| job.kind == Kind::Poison) {
        // One that was accepted and is not dead is lost: I1.
        let (n, times) = (job.n, times.get(&job.n).copied().unwrap_or(0));
        if times > job.possible_copies() {
            verdict.broken("I5", format!("job {n} is dead {times} times"));
        }
    }
    let missing =
        |job: &Job| job.kind == Kind::Poison && job.is_accepted() && !times.contains_key(&job.n);
    verdict.figures.dead = history.state.dead.len() as u64;
    verdict.figures.dlq_exact =
        verdict.violations.len() == before && !history.jobs.values().any(missing);
}

fn epitaph(job: &Job, dead: &Dead, verdict: &mut Verdict) {
    let Dead { n, reason, error, lost, .. } = dead;
    if job.kind != Kind::Poison {
        let told =
            format!("job {n} ({:?}) is dead: {reason}, lost {lost} times: {error}", job.kind);
        verdict.broken("I5", told);
    } else if reason != "retries_exhausted" || *error != failure(*n) {
        verdict.broken("I5", format!("job {n} is dead for another reason: {reason}: {error}"));
    }
    if dead.hash != job.hash {
        verdict.broken("I3", format!("job {n} is dead with another payload"));
    }
}
