//! Runs that failed and jobs that died, as lines of the log.
//!
//! Their target is `chasquimq::jobs`, so that they can be silenced without the engine's own
//! lines where events or metrics tell of them.

use std::fmt;

use super::Settlement;
use crate::consumer::delivery::Parts;
use crate::consumer::session::Shared;
use crate::consumer::text::error_text;
use crate::lifecycle::Transition;
use crate::retry;

const TARGET: &str = "chasquimq::jobs";

/// Tells of a job that is not simply done: of a failed run at WARN, of a dead job at ERROR.
pub(super) fn tell(shared: &Shared, settlement: &Settlement) {
    let Settlement { parts, outcome, next, .. } = settlement;
    let job = Named { parts, queue: &shared.config.queue_name };
    match *next {
        Transition::Retry { backoff_ms } => {
            let standing = parts.standing();
            let (run, most) = (standing.attempt.saturating_add(1), shared.policy.max_attempts);
            let most = retry::max_attempts(standing.retry, most);
            tracing::warn!(
                target: TARGET,
                "{job} failed, run {run} of {most}; it runs again in {backoff_ms} ms: {}",
                error_text(outcome).trim_end()
            );
        }
        Transition::Bury { reason } => tracing::error!(
            target: TARGET,
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
            Some(record) => write!(f, "job {}", record.id)?,
            None => f.write_str("an undecodable job")?,
        }
        if !parts.name.is_empty() {
            write!(f, " {:?}", parts.name)?;
        }
        write!(f, " of queue {queue:?}")
    }
}
