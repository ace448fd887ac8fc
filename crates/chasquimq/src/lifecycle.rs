//! PURE: what may happen to a job, and what happens next.
//!
//! | transition | from -> to | caused by | store step | event | metric |
//! |---|---|---|---|---|---|
//! | add | - -> ready | producer | add.lua or put.lua | `waiting` (opt-in) | - |
//! | schedule | - -> delayed | producer | schedule.lua | `delayed` | - |
//! | promote | delayed -> ready | promoter | promote.lua | `promoted` (opt-in) | `PromoterTick` |
//! | deliver | ready -> running | reader | XREADGROUP or claim.lua | `active` (opt-in) | `ReaderBatch` |
//! | complete | running -> done | handler returned | complete.lua | `completed` | `JobOutcome` Ok |
//! | retry | running -> delayed | error, panic, timeout; attempts left | retry.lua | `failed`, `retry-scheduled` | `JobOutcome`, `RetryScheduled` |
//! | bury | running -> dead | attempts used up, unrecoverable, undecodable, oversize, lost too often | bury.lua | `failed` (if it ran), `dlq` | `JobOutcome` (if it ran), `DlqRouted` |
//! | release | running -> ready | worker stops before it started or finished | release.lua | `released` | - |
//! | cancel | delayed -> cancelled | user | cancel.lua | `cancelled` | - |
//! | replay | dead -> ready | user | replay.lua | `replayed` | - |
//! | purge | dead -> gone | user | purge.lua | `purged` | - |
//!
//! Two counters, never mixed: `attempt` counts runs that ended in an error, `lost` counts
//! deliveries whose worker died. Each has its own limit.

use crate::config::RetryConfig;
use crate::job::JobRetryOverride;
use crate::metrics::{DlqReason, JobOutcomeKind};
use crate::retry;

/// How one delivery of a job ended, before anything was stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The handler returned a value.
    Done,
    /// The handler failed.
    Failed {
        /// Returned an error (or timed out), or panicked.
        panicked: bool,
        /// Whether further attempts are pointless.
        unrecoverable: bool,
        /// What went wrong; capped and cleaned before it is stored.
        error: String,
    },
    /// The handler never ran: the job cannot be run as it is.
    Rejected {
        /// Why.
        reason: DlqReason,
        /// What is wrong with it.
        error: String,
    },
    /// The handler did not start, or was stopped before its end: nobody's failure.
    Interrupted,
}

impl Outcome {
    /// The handler run that ended so, or `None` when no run counts.
    #[must_use]
    pub fn run(&self) -> Option<JobOutcomeKind> {
        match self {
            Self::Done => Some(JobOutcomeKind::Ok),
            Self::Failed { panicked: true, .. } => Some(JobOutcomeKind::Panic),
            Self::Failed { .. } => Some(JobOutcomeKind::Err),
            Self::Rejected { .. } | Self::Interrupted => None,
        }
    }
}

/// The four ways out of `running`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transition {
    /// running -> done.
    Complete,
    /// running -> delayed.
    Retry {
        /// The wait before the next run, in milliseconds.
        backoff_ms: u64,
    },
    /// running -> dead.
    Bury {
        /// Why.
        reason: DlqReason,
    },
    /// running -> ready.
    Release,
}

/// The limits and waits that a worker sets.
#[derive(Clone, Debug)]
pub struct Policy {
    /// All runs a job may have.
    pub max_attempts: u32,
    /// Deliveries whose worker died, before the job is given up.
    pub max_lost: u32,
    /// The retry rule.
    pub retry: RetryConfig,
}

/// The counters and the rule a job brings.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Runs that ended in an error before this one.
    pub attempt: u32,
    /// Deliveries whose worker died before this one.
    pub lost: u32,
    /// The job's own retry rule.
    pub retry: Option<&'a JobRetryOverride>,
}

/// Whether a delivered job may run at all; `Some` names why not.
#[must_use]
pub fn refuse(job: Standing<'_>, policy: &Policy) -> Option<DlqReason> {
    if job.attempt >= retry::max_attempts(job.retry, policy.max_attempts) {
        Some(DlqReason::RetriesExhausted)
    } else if job.lost >= policy.max_lost {
        Some(DlqReason::WorkerLost)
    } else {
        None
    }
}

/// The one place that turns how a delivery ended into what happens next.
#[must_use]
pub fn decide(job: Standing<'_>, outcome: &Outcome, policy: &Policy, random: f64) -> Transition {
    match outcome {
        Outcome::Done => Transition::Complete,
        Outcome::Interrupted => Transition::Release,
        Outcome::Rejected { reason, .. } => Transition::Bury { reason: *reason },
        Outcome::Failed { unrecoverable: true, .. } => {
            Transition::Bury { reason: DlqReason::Unrecoverable }
        }
        Outcome::Failed { .. } => after_failure(job, policy, random),
    }
}

fn after_failure(job: Standing<'_>, policy: &Policy, random: f64) -> Transition {
    let failures = job.attempt.saturating_add(1);
    if failures >= retry::max_attempts(job.retry, policy.max_attempts) {
        return Transition::Bury { reason: DlqReason::RetriesExhausted };
    }
    let backoff_ms = retry::backoff_ms(job.retry, &policy.retry, failures, random);
    Transition::Retry { backoff_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(max_attempts: u32, max_lost: u32) -> Policy {
        Policy { max_attempts, max_lost, retry: RetryConfig::default() }
    }

    fn failed(unrecoverable: bool) -> Outcome {
        Outcome::Failed { panicked: false, unrecoverable, error: "boom".into() }
    }

    fn standing(attempt: u32, lost: u32) -> Standing<'static> {
        Standing { attempt, lost, retry: None }
    }

    proptest! {
        #[test]
        fn retries_until_attempts_run_out_then_buries(max in 1u32..200, random in 0.0f64..1.0) {
            let policy = policy(max, 3);
            let mut runs = 0;
            for attempt in 0.. {
                prop_assert_eq!(refuse(standing(attempt, 0), &policy), None);
                runs += 1;
                match decide(standing(attempt, 0), &failed(false), &policy, random) {
                    Transition::Retry { .. } => {}
                    other => {
                        prop_assert_eq!(other, Transition::Bury { reason: DlqReason::RetriesExhausted });
                        break;
                    }
                }
            }
            prop_assert_eq!(runs, max);
        }

        #[test]
        fn crashes_and_errors_alternating_come_to_an_end(
            max in 1u32..20, max_lost in 1u32..10, crashes in proptest::collection::vec(any::<bool>(), 64),
        ) {
            let policy = policy(max, max_lost);
            let (mut attempt, mut lost, mut starts) = (0, 0, 0);
            for crash in crashes {
                if refuse(standing(attempt, lost), &policy).is_some() {
                    break;
                }
                starts += 1;
                if crash { lost += 1 } else { attempt += 1 }
            }
            prop_assert!(starts <= max + max_lost);
        }

        #[test]
        fn an_interrupted_job_is_released_whatever_its_counters(attempt: u32, lost: u32) {
            let next = decide(standing(attempt, lost), &Outcome::Interrupted, &policy(3, 3), 0.5);
            prop_assert_eq!(next, Transition::Release);
        }
    }

    #[test]
    fn an_unrecoverable_failure_is_buried_in_its_first_run() {
        let next = decide(standing(0, 0), &failed(true), &policy(25, 3), 0.5);
        assert_eq!(next, Transition::Bury { reason: DlqReason::Unrecoverable });
    }

    #[test]
    fn a_job_s_own_limit_beats_the_worker_s() {
        let own = JobRetryOverride { max_attempts: Some(1), backoff: None };
        let job = Standing { attempt: 0, lost: 0, retry: Some(&own) };
        let next = decide(job, &failed(false), &policy(25, 3), 0.5);
        assert_eq!(next, Transition::Bury { reason: DlqReason::RetriesExhausted });
    }

    #[test]
    fn a_job_whose_worker_died_too_often_is_refused() {
        assert_eq!(refuse(standing(0, 2), &policy(25, 3)), None);
        assert_eq!(refuse(standing(0, 3), &policy(25, 3)), Some(DlqReason::WorkerLost));
    }
}
