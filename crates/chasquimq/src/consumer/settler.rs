//! Settler: the only one that changes the state of a delivered job.
//!
//! Endings become transitions by [`lifecycle::decide`], transitions become batches, one script
//! each, sent together. All kinds of endings share this way, so that none can clog another. What
//! could not be stored waits and is sent again; the lease is renewed meanwhile, so nothing runs
//! twice for it.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::delivery::{Ending, Parts};
use super::session::Shared;
use crate::error::{Error, Result};
use crate::lifecycle::{Outcome, Transition, decide};
use crate::metrics::{DlqRouted, JobOutcome, RetryScheduled};
use crate::store::Stored;

mod batch;
mod log;

use batch::Batch;
pub use log::JOBS_TARGET;

/// Batches that may be on their way at once.
const FLIGHTS: usize = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a job ended and what was decided for it.
struct Settlement {
    parts: Box<Parts>,
    outcome: Outcome,
    duration: Duration,
    /// Sent before, with the reply lost.
    resent: bool,
    next: Transition,
}

/// Endings that could not be stored, and when to send them again.
struct Parked {
    settlements: Vec<Settlement>,
    pause: Duration,
    due: Instant,
}

/// Stores endings until the session has ended. The next batch is on its way before the last one is
/// answered, so that the server need not wait for this side.
pub(super) async fn run(shared: &Shared) -> Result<()> {
    let most = shared.config.settle_batch;
    let mut parked = Parked { settlements: vec![], pause: FIRST_PAUSE, due: Instant::now() };
    let mut flights = FuturesUnordered::new();
    loop {
        let mut settlements = Vec::new();
        let may_send = flights.len() < FLIGHTS;
        tokio::select! {
            endings = shared.hold.endings(most), if may_send => {
                settlements.extend(endings.into_iter().filter_map(|ending| resolve(shared, ending)));
            }
            Some(failed) = flights.next() => parked.keep(failed),
            // What may not be sent yet must not be waited for: its time may have come already.
            () = sleep_until(parked.due), if may_send && !parked.settlements.is_empty() => {}
        }
        if may_send && parked.due <= Instant::now() {
            let count = parked.settlements.len().min(most);
            settlements.extend(parked.settlements.drain(..count));
        }
        if !settlements.is_empty() {
            flights.push(flush(shared, settlements));
        }
    }
}

impl Parked {
    fn keep(&mut self, (failed, error): (Vec<Settlement>, Option<Error>)) {
        let Some(error) = error else {
            if self.settlements.is_empty() {
                self.pause = FIRST_PAUSE;
            }
            return;
        };
        if self.settlements.is_empty() {
            tracing::warn!(
                %error, jobs = failed.len(),
                "endings of jobs could not be stored; they are kept and sent again"
            );
        }
        self.settlements.extend(failed);
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

fn resolve(shared: &Shared, ending: Ending) -> Option<Settlement> {
    let Ending { parts, outcome, duration, resent } = ending;
    let parts = parts?;
    let jitter = if outcome == Outcome::Done { 0.0 } else { rand::random::<f64>() };
    let next = decide(parts.standing(), &outcome, &shared.policy, jitter);
    Some(Settlement { parts, outcome, duration, resent, next })
}

/// Sends one batch and tells what was stored; returns what was not, and why.
async fn flush(
    shared: &Shared,
    mut settlements: Vec<Settlement>,
) -> (Vec<Settlement>, Option<Error>) {
    let answers = Batch::new(shared, &settlements).send(shared).await;
    let mut stale = 0;
    for (settlement, answer) in settlements.iter_mut().zip(answers.iter()) {
        match answer {
            Stored::Failed(error) => {
                settlement.resent |= error.kind().is_outcome_unknown();
            }
            Stored::No if !was_stored_before(settlement) => {
                stale += 1;
                tell(shared, settlement, false);
            }
            Stored::Yes | Stored::No => tell(shared, settlement, true),
        }
    }
    let is_ended = |answer: &Stored| !matches!(answer, Stored::Failed(_));
    let ended = settlements.iter().zip(answers.iter()).filter(|(_, answer)| is_ended(answer));
    shared.hold.settled(ended.map(|(settlement, _)| &settlement.parts.entry));
    if stale > 0 {
        tracing::warn!(
            stale,
            "results came after the lease was lost and were ignored: the jobs run again elsewhere"
        );
        shared.metrics.tell(|sink| sink.stale_settlements(stale));
    }
    let Some(reason) = answers.error() else { return (vec![], None) };
    let failed =
        settlements.into_iter().zip(answers.iter()).filter(|(_, answer)| !is_ended(answer));
    (failed.map(|(settlement, _)| settlement).collect(), Some(reason))
}

/// "Not yours" to something sent before, whose reply was lost while the lease held, means that the
/// first sending was stored.
fn was_stored_before(settlement: &Settlement) -> bool {
    settlement.resent && !settlement.parts.entry.is_lost()
}

/// Counts and tells what happened.
fn tell(shared: &Shared, settlement: &Settlement, stored: bool) {
    let Settlement { parts, outcome, duration, next, .. } = settlement;
    let counts = &shared.counts;
    let counter = if *next == Transition::Release { &counts.released } else { &counts.finished };
    counter.fetch_add(u64::from(stored), std::sync::atomic::Ordering::Relaxed);
    if stored {
        log::tell(shared, settlement);
    }
    let attempt = parts.standing().attempt.saturating_add(1);
    let ran = outcome.run();
    shared.metrics.tell(|sink| {
        let name = || std::sync::Arc::clone(&parts.name);
        if let Some(kind) = ran {
            let handler_duration_us = micros(*duration);
            sink.job_outcome(JobOutcome { kind, attempt, handler_duration_us, name: name() });
        }
        match *next {
            Transition::Retry { backoff_ms } if stored => {
                sink.retry_scheduled(RetryScheduled {
                    attempt: attempt.saturating_add(1),
                    backoff_ms,
                    name: name(),
                });
            }
            Transition::Bury { reason } if stored => {
                let attempt = if ran.is_some() { attempt } else { 0 };
                sink.dlq_routed(DlqRouted { reason, attempt, name: name() });
            }
            _ => {}
        }
    });
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
