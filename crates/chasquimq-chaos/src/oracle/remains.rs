//! I10 and I12: what is left behind, and what workers use.

use super::Verdict;
use super::history::{History, Sample};

/// Memory that a server may keep: fragments, scripts, its own books.
const SERVER_SLACK: u64 = 1024 * 1024;
/// Memory that a worker may gain beyond 5%, and files beside those of a run's first half.
const WORKER_SLACK: u64 = 1024 * 1024;
const FILES_SLACK: u64 = 4;
/// Fewer samples of a worker tell nothing of a trend.
const LEAST_SAMPLES: usize = 60;

pub fn check(history: &History, verdict: &mut Verdict) {
    let state = &history.state;
    if !state.drained {
        verdict.broken("I10", "the queue did not become empty");
    }
    for leftover in &state.leftovers {
        verdict.broken("I10", format!("left behind: {leftover}"));
    }
    if state.consumers > state.living {
        let (consumers, living) = (state.consumers, state.living);
        verdict.broken("I10", format!("{consumers} consumers in the group, {living} workers live"));
    }
    let (before, after) = (state.memory_before, state.memory_after);
    if after > memory_limit(before) {
        verdict.broken("I10", format!("the server used {before} bytes before and {after} after"));
    }
    for misdeed in &state.misdeeds {
        verdict.broken("process", misdeed.clone());
    }
    for (worker, samples) in &history.samples {
        flat(worker, samples, verdict);
    }
}

/// What a server may use at the end.
pub fn memory_limit(before: u64) -> u64 {
    before + before / 50 + SERVER_SLACK
}

fn flat(worker: &str, samples: &[Sample], verdict: &mut Verdict) {
    if samples.len() < LEAST_SAMPLES {
        return;
    }
    let mut samples = samples.to_vec();
    samples.sort_by_key(|sample| sample.at);
    let quarter = samples.len() / 4;
    let (early, late) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let (before, after) = (median(early), median(late));
    if after > before + before / 20 + WORKER_SLACK {
        verdict.broken("I12", format!("worker {worker} grew from {before} to {after} bytes"));
    }
    let most = |samples: &[Sample]| samples.iter().map(|sample| sample.fds).max().unwrap_or(0);
    let (before, after) = (most(&samples[..2 * quarter]), most(&samples[2 * quarter..]));
    if after > before + FILES_SLACK {
        verdict.broken("I12", format!("worker {worker} had {before} files open, then {after}"));
    }
}

fn median(samples: &[Sample]) -> u64 {
    let mut sizes: Vec<_> = samples.iter().map(|sample| sample.rss).collect();
    sizes.sort_unstable();
    sizes[sizes.len() / 2]
}
