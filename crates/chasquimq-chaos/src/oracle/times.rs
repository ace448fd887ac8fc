//! I9: delayed jobs begin when they are due.

use super::Verdict;
use super::history::History;
use crate::log::Nanos;
use crate::workload::Kind;

/// So much too early is not early.
const TOLERANCE: Nanos = 5_000_000;
const MS: Nanos = 1_000_000;

pub fn check(history: &History, verdict: &mut Verdict) {
    let mut late = Vec::new();
    for job in history.jobs.values().filter(|job| job.kind == Kind::Delayed) {
        let (Some(add), Some(run)) = (job.adds.first(), job.runs.first()) else { continue };
        let delay = job.delay_ms * MS;
        // The server's clock decided between these two.
        let (earliest, latest) = (add.from + delay, add.to.saturating_add(delay));
        if run.start.at + TOLERANCE < earliest {
            let early = (earliest - run.start.at) / MS;
            verdict.broken("I9", format!("job {} began {early} ms early", job.n));
        }
        late.push(run.start.at.saturating_sub(latest) / MS);
    }
    late.sort_unstable();
    verdict.figures.late_p50_ms = percentile(&late, 50);
    verdict.figures.late_p99_ms = percentile(&late, 99);
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}
