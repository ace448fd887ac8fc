//! Runs that failed and jobs that died, as lines of the log.
//!
//! They have a target of their own, so that they can be silenced without the engine's own lines where
//! events or metrics tell of them.

use std::fmt;

use super::Settlement;
use crate::consumer::delivery::Parts;
use crate::consumer::session::Shared;
use crate::consumer::text::error_text;
use crate::lifecycle::Transition;
use crate::retry;

/// The `tracing` target of what is told of failed runs, at WARN, and of dead jobs, at ERROR.
pub const JOBS_TARGET: &str = "chasquimq::jobs";

/// Tells of a run that failed, and of a job that is dead.
pub(super) fn tell(shared: &Shared, settlement: &Settlement) {
    let Settlement { parts, outcome, next, .. } = settlement;
    let job = Named { parts, queue: &shared.config.queue_name };
    match *next {
        Transition::Retry { backoff_ms } => {
            let standing = parts.standing();
            let (run, most) = (standing.attempt.saturating_add(1), shared.policy.max_attempts);
            let most = retry::max_attempts(standing.retry, most);
            tracing::warn!(
                target: JOBS_TARGET,
                "{job} failed, run {run} of {most}; it runs again in {backoff_ms} ms: {}",
                error_text(outcome).trim_end()
            );
        }
        Transition::Bury { reason } => tracing::error!(
            target: JOBS_TARGET,
            "{job} went to the dead-letter queue ({}): {}",
            reason.as_str(),
            error_text(outcome).trim_end()
        ),
        Transition::Complete | Transition::Release => {}
    }
}

struct Named<'a> {
    parts: &'a Parts,
    queue: &'a str,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parts, queue } = self;
        match parts.record() {
            Some(record) => write!(f, "job {}", record.id.escape_debug())?,
            None => f.write_str("an undecodable job")?,
        }
        if !parts.name.is_empty() {
            write!(f, " {:?}", parts.name)?;
        }
        write!(f, " of queue {queue:?}")
    }
}
