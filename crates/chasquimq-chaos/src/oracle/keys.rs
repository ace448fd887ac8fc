//! I6: of jobs that share an id one is live at a time.

use std::collections::BTreeMap;

use super::Verdict;
use super::history::{History, Job};
use crate::log::Nanos;

pub fn check(history: &History, verdict: &mut Verdict) {
    let mut by_key: BTreeMap<&str, Vec<(Nanos, Nanos, u64)>> = BTreeMap::new();
    for job in history.jobs.values() {
        if let (Some(key), Some((from, to))) = (&job.key, surely_live(job)) {
            by_key.entry(key).or_default().push((from, to, job.n));
        }
    }
    for (key, mut lives) in by_key {
        lives.sort_unstable();
        for pair in lives.windows(2) {
            let [(_, end, one), (begin, _, other)] = pair else { continue };
            if begin < end {
                verdict.broken("I6", format!("jobs {one} and {other} of id {key:?} lived at once"));
            }
        }
    }
}

/// From the begin of its first run to the end of the first that succeeded.
fn surely_live(job: &Job) -> Option<(Nanos, Nanos)> {
    Some((job.runs.first()?.start.at, job.successes().min()?))
}
