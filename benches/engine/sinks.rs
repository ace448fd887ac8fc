//! Sinks whose cost is measured, and a recorder below them that costs next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use chasquimq::{
    DlqReason, DlqRouted, JobOutcome, JobOutcomeKind, JobStarted, LeasesRenewed, LockOutcome,
    MetricsSink, PromoterTick, QueueCounts, ReaderBatch, RetryScheduled, TaskRestarted,
};
use chasquimq_metrics::{Labeled, MetricsFacadeSink, QueueLabeled};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// The facade's sink through three wrappers, above a recorder of atomics. Once a process.
///
/// # Errors
/// When there is a recorder already.
pub fn facade() -> Result<Arc<dyn MetricsSink>> {
    metrics::set_global_recorder(Atomics::default()).map_err(|error| anyhow!("{error}"))?;
    let sink = QueueLabeled::new(MetricsFacadeSink, "bench");
    Ok(Arc::new(Labeled::new(Labeled::new(sink, "tenant", "acme"), "region", "eu")))
}

/// Tells one event of each kind; how many that were.
pub fn tell_each(sink: &dyn MetricsSink, name: &Arc<str>) -> u64 {
    let name = || Arc::clone(name);
    let (kind, reason) = (JobOutcomeKind::Ok, DlqReason::RetriesExhausted);
    let (queue_wait_us, start_lateness_us) = (Some(9), Some(9));
    sink.promoter_lock_outcome(LockOutcome::Acquired);
    sink.promoter_tick(PromoterTick { promoted: 2, depth: 3, oldest_pending_lag_ms: 9 });
    sink.reader_batch(ReaderBatch { size: 5, reclaimed: 1 });
    sink.job_started(JobStarted { attempt: 1, queue_wait_us, start_lateness_us, name: name() });
    sink.job_outcome(JobOutcome { kind, attempt: 1, handler_duration_us: 9, name: name() });
    sink.retry_scheduled(RetryScheduled { attempt: 2, backoff_ms: 100, name: name() });
    sink.dlq_routed(DlqRouted { reason, attempt: 3, name: name() });
    sink.leases_renewed(LeasesRenewed { renewed: 7, lost: 1 });
    sink.stale_settlements(1);
    sink.ghost_entries(1);
    sink.store_command("complete", Duration::from_millis(2));
    sink.task_restarted(TaskRestarted { task: "reader" });
    sink.queue_counts(QueueCounts { ready: 3, ..QueueCounts::default() });
    sink.events_dropped(1);
    14
}

/// A sink that only counts renewed leases.
#[derive(Default)]
pub struct Renewals(AtomicU64);

impl Renewals {
    /// So many until now.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl MetricsSink for Renewals {
    fn leases_renewed(&self, event: LeasesRenewed) {
        self.0.fetch_add(event.renewed, Ordering::Relaxed);
    }
}

/// Each series is an atomic number. It has state, as every recorder but the facade's own no-op has.
#[derive(Default)]
struct Atomics {
    series: AtomicU64,
}

struct Sum(Arc<AtomicU64>);

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.0.fetch_add(value.to_bits(), Ordering::Relaxed);
    }
}

impl Atomics {
    fn sum(&self) -> Arc<AtomicU64> {
        self.series.fetch_add(1, Ordering::Relaxed);
        Arc::default()
    }
}

impl Recorder for Atomics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.sum())
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.sum())
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Sum(self.sum())))
    }
}
