//! A sink that remembers, for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    DlqRouted, JobOutcome, JobOutcomeKind, JobStarted, LeasesRenewed, LockOutcome, MetricsSink,
    PromoterTick, QueueCounts, ReaderBatch, RetryScheduled, TaskRestarted,
};

/// Everything a sink was told, in order, by kind.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Promoter ticks.
    pub promoter_ticks: Vec<PromoterTick>,
    /// Lock changes.
    pub lock_outcomes: Vec<LockOutcome>,
    /// Reads.
    pub reader_batches: Vec<ReaderBatch>,
    /// Handler runs.
    pub job_outcomes: Vec<JobOutcome>,
    /// Retries.
    pub retries: Vec<RetryScheduled>,
    /// Dead jobs.
    pub dlq: Vec<DlqRouted>,
    /// Starts.
    pub started: Vec<JobStarted>,
    /// Lease renewals.
    pub leases: Vec<LeasesRenewed>,
    /// Settlements that came too late.
    pub stale_settlements: u64,
    /// Ghost entries acknowledged.
    pub ghost_entries: u64,
    /// Restarted tasks.
    pub restarts: Vec<TaskRestarted>,
    /// Verbs of the store, and how long each took.
    pub store_commands: Vec<(&'static str, Duration)>,
    /// What the queue held.
    pub queue_counts: Vec<QueueCounts>,
    /// Events that could not be written.
    pub events_dropped: u64,
}

impl Record {
    /// Runs that ended so.
    #[must_use]
    pub fn outcomes(&self, kind: JobOutcomeKind) -> usize {
        self.job_outcomes.iter().filter(|outcome| outcome.kind == kind).count()
    }

    /// Dead jobs of this reason (see [`DlqReason::as_str`](super::DlqReason::as_str)).
    #[must_use]
    pub fn dead(&self, reason: &str) -> usize {
        self.dlq.iter().filter(|routed| routed.reason.as_str() == reason).count()
    }

    /// Entries read that another worker had been given before.
    #[must_use]
    pub fn reclaimed(&self) -> u64 {
        self.reader_batches.iter().map(|batch| batch.reclaimed).sum()
    }

    /// Jobs promoted.
    #[must_use]
    pub fn promoted(&self) -> u64 {
        self.promoter_ticks.iter().map(|tick| tick.promoted).sum()
    }
}

/// A [`MetricsSink`] that keeps all it is told.
#[derive(Debug, Default)]
pub struct InMemorySink {
    record: Mutex<Record>,
}

impl InMemorySink {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what it was told so far.
    #[must_use]
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetricsSink for InMemorySink {
    fn promoter_tick(&self, event: PromoterTick) {
        self.lock().promoter_ticks.push(event);
    }
    fn promoter_lock_outcome(&self, event: LockOutcome) {
        self.lock().lock_outcomes.push(event);
    }
    fn reader_batch(&self, event: ReaderBatch) {
        self.lock().reader_batches.push(event);
    }
    fn job_outcome(&self, event: JobOutcome) {
        self.lock().job_outcomes.push(event);
    }
    fn retry_scheduled(&self, event: RetryScheduled) {
        self.lock().retries.push(event);
    }
    fn dlq_routed(&self, event: DlqRouted) {
        self.lock().dlq.push(event);
    }
    fn job_started(&self, event: JobStarted) {
        self.lock().started.push(event);
    }
    fn leases_renewed(&self, event: LeasesRenewed) {
        self.lock().leases.push(event);
    }
    fn stale_settlements(&self, count: u64) {
        self.lock().stale_settlements += count;
    }
    fn ghost_entries(&self, count: u64) {
        self.lock().ghost_entries += count;
    }
    fn task_restarted(&self, event: TaskRestarted) {
        self.lock().restarts.push(event);
    }
    fn store_command(&self, op: &'static str, duration: Duration) {
        self.lock().store_commands.push((op, duration));
    }
    fn queue_counts(&self, event: QueueCounts) {
        self.lock().queue_counts.push(event);
    }
    fn events_dropped(&self, count: u64) {
        self.lock().events_dropped += count;
    }
}
