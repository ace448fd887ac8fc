//! What the engine tells operators: one method an event, each empty until somebody implements it.
//!
//! Events are told after the store has accepted what they tell, inline and in the engine's hot
//! path: keep a sink cheap and lock-free.
//!
//! A sink that misbehaves loses no job. One that panics is isolated: that event is lost to it, the
//! next one is told again. One that blocks holds up the task that tells it, so jobs start and are
//! settled later; one that blocks for as long as a lease can make jobs run twice. Either is logged
//! once a consumer: a panic at its first, slowness when a call takes longer than 10 ms (one call in
//! sixteen is timed).

use std::sync::Arc;
use std::time::Duration;

pub use crate::inspect::QueueCounts;

mod guarded;
pub mod testing;

pub(crate) use guarded::Guarded;

/// One promoter tick of the leader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PromoterTick {
    /// Jobs moved to the stream in this tick.
    pub promoted: u64,
    /// Jobs still delayed after it.
    pub depth: u64,
    /// How overdue the most overdue job left behind is, in milliseconds; 0 when none is.
    pub oldest_pending_lag_ms: u64,
}

/// A change of the promoter lock, as one promoter sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LockOutcome {
    /// This promoter leads from now on.
    Acquired,
    /// Another promoter leads from now on.
    Held,
}

/// One read that brought entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReaderBatch {
    /// Entries in it, also those that go to the dead-letter queue.
    pub size: u64,
    /// Of these, entries that another worker had been given before.
    pub reclaimed: u64,
}

/// How a handler run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JobOutcomeKind {
    /// It returned a value.
    Ok,
    /// It returned an error, or ran out of time.
    Err,
    /// It panicked.
    Panic,
}

/// One handler run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JobOutcome {
    /// How it ended.
    pub kind: JobOutcomeKind,
    /// Which run of the job it was: 1 is the first.
    pub attempt: u32,
    /// Wall time of the handler, in microseconds.
    pub handler_duration_us: u64,
    /// The job's name; empty when it has none.
    pub name: Arc<str>,
}

/// A retry that the store has accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetryScheduled {
    /// The run that will come: 2 is the first retry.
    pub attempt: u32,
    /// The wait before it, in milliseconds.
    pub backoff_ms: u64,
    /// The job's name; empty when it has none.
    pub name: Arc<str>,
}

/// Why a job went to the dead-letter queue.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DlqReason {
    /// Every run it may have has failed.
    RetriesExhausted,
    /// Its record or payload could not be decoded.
    DecodeFailed,
    /// Its entry is not one this queue writes.
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its payload exceeds `max_payload_bytes`.
    OversizePayload,
    /// The handler said that no further attempt can help.
    Unrecoverable,
    /// Its worker died too often while running it.
    WorkerLost,
}

impl DlqReason {
    /// All of them, as [`DlqReason::as_str`] names them.
    pub const NAMES: &[&str] = &[
        Self::RetriesExhausted.as_str(),
        Self::DecodeFailed.as_str(),
        Self::Malformed { reason: "" }.as_str(),
        Self::OversizePayload.as_str(),
        Self::Unrecoverable.as_str(),
        Self::WorkerLost.as_str(),
    ];

    /// The reason as it stands in the dead-letter queue, in events and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "retries_exhausted",
            Self::DecodeFailed => "decode_failed",
            Self::Malformed { .. } => "malformed",
            Self::OversizePayload => "oversize_payload",
            Self::Unrecoverable => "unrecoverable",
            Self::WorkerLost => "worker_lost",
        }
    }

    /// What is wrong with a malformed entry.
    #[must_use]
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Self::Malformed { reason } => Some(reason),
            _ => None,
        }
    }
}

/// A job that the dead-letter queue has accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DlqRouted {
    /// Why.
    pub reason: DlqReason,
    /// The run that gave up; 0 when no handler ran on this delivery.
    pub attempt: u32,
    /// The job's name; empty when it has none or it cannot be read.
    pub name: Arc<str>,
}

/// A handler is about to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JobStarted {
    /// Which run of the job it is: 1 is the first.
    pub attempt: u32,
    /// From ready (added, promoted or handed back; server's clock) to now, in microseconds.
    /// `None` when the clocks disagree so much that it would be negative.
    pub queue_wait_us: Option<u64>,
    /// From due (the end of a delay or of a retry's wait; server's clock) to now, in microseconds:
    /// promotion and queue wait together. `None` for a job that was not delayed, and when the
    /// clocks disagree so much that it would be negative.
    pub start_lateness_us: Option<u64>,
    /// The job's name; empty when it has none.
    pub name: Arc<str>,
}

/// One round of lease renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeasesRenewed {
    /// Entries whose lease runs anew.
    pub renewed: u64,
    /// Entries that another worker has taken meanwhile.
    pub lost: u64,
}

/// A task of the engine failed and starts again after a pause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TaskRestarted {
    /// Which: `reader`, `sweeper`, `leases`, `promoter`, `settler`.
    pub task: &'static str,
}

/// A receiver of the engine's events. Every method does nothing by default.
///
/// Methods are called inline on the engine's threads: do not block, do not allocate much.
#[allow(unused_variables, reason = "empty defaults name their arguments for the reader")]
pub trait MetricsSink: Send + Sync + 'static {
    /// The leader has promoted what was due; also told when nothing was.
    fn promoter_tick(&self, event: PromoterTick) {}
    /// This promoter became leader, or saw another lead; told on change only.
    fn promoter_lock_outcome(&self, event: LockOutcome) {}
    /// A read brought entries.
    fn reader_batch(&self, event: ReaderBatch) {}
    /// A handler run ended; told once a run.
    fn job_outcome(&self, event: JobOutcome) {}
    /// A retry was stored.
    fn retry_scheduled(&self, event: RetryScheduled) {}
    /// A job was stored in the dead-letter queue.
    fn dlq_routed(&self, event: DlqRouted) {}
    /// A handler is about to run.
    fn job_started(&self, event: JobStarted) {}
    /// Leases of running jobs were renewed.
    fn leases_renewed(&self, event: LeasesRenewed) {}
    /// So many settlements came from a worker that no longer held the lease, and changed nothing.
    fn stale_settlements(&self, count: u64) {}
    /// So many pending entries no longer existed in the stream and were acknowledged away.
    fn ghost_entries(&self, count: u64) {}
    /// A verb of the store (`add`, `complete`, `promote`, …) took so long, reply or failure
    /// included. Reads that wait for work are not told.
    fn store_command(&self, op: &'static str, duration: Duration) {}
    /// A task of the engine failed and was started again.
    fn task_restarted(&self, event: TaskRestarted) {}
    /// What the whole queue holds, told by one collector a queue: the leading promoter, when it
    /// begins to lead and then every 5 s. Nobody tells it of a queue whose consumers all run with
    /// `delayed_enabled = false` and that has no [`Promoter`](crate::Promoter) either. What was
    /// told is void after [`LockOutcome::Held`]: then another one tells it.
    fn queue_counts(&self, event: QueueCounts) {}
    /// So many events of settled jobs could not be written to the events stream. The jobs are
    /// settled all the same.
    fn events_dropped(&self, count: u64) {}
    /// Whether nothing at all need be told: then the engine makes no events for this sink.
    fn is_noop(&self) -> bool {
        false
    }
}

/// A shared or boxed sink is a sink.
macro_rules! hand_on {
    ($sink:ty; $($method:ident($event:ty)),+) => {
        impl<S: MetricsSink + ?Sized> MetricsSink for $sink {
            $(fn $method(&self, event: $event) {
                (**self).$method(event);
            })+
            fn store_command(&self, op: &'static str, duration: Duration) {
                (**self).store_command(op, duration);
            }
            fn is_noop(&self) -> bool {
                (**self).is_noop()
            }
        }
    };
    ($($sink:ty),+) => {
        $(hand_on!($sink; promoter_tick(PromoterTick), promoter_lock_outcome(LockOutcome),
            reader_batch(ReaderBatch), job_outcome(JobOutcome), retry_scheduled(RetryScheduled),
            dlq_routed(DlqRouted), job_started(JobStarted), leases_renewed(LeasesRenewed),
            stale_settlements(u64), ghost_entries(u64), task_restarted(TaskRestarted),
            queue_counts(QueueCounts), events_dropped(u64)
        );)+
    };
}

hand_on!(Arc<S>, Box<S>);

/// The sink that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopSink;

impl MetricsSink for NoopSink {
    fn is_noop(&self) -> bool {
        true
    }
}

/// A shared [`NoopSink`], the default of every configuration.
#[must_use]
pub fn noop_sink() -> Arc<dyn MetricsSink> {
    Arc::new(NoopSink)
}
