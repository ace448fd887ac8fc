//! After the first sight of a series, an event costs no allocation, through any stack of wrappers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use chasquimq::{
    DlqReason, DlqRouted, JobOutcome, JobOutcomeKind, JobStarted, LeasesRenewed, LockOutcome,
    MetricsSink, PromoterTick, QueueCounts, ReaderBatch, RetryScheduled, TaskRestarted,
};
use chasquimq_metrics::{Labeled, MetricsFacadeSink, QueueLabeled};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

const ROUNDS: u64 = 1000;

#[test]
fn an_event_through_three_wrappers_allocates_nothing_after_warm_up() {
    let writes = Arc::new(AtomicU64::new(0));
    metrics::set_global_recorder(Counting(Arc::clone(&writes))).unwrap();
    let stack = |sink| Labeled::new(Labeled::new(sink, "tenant", "acme"), "region", "eu");
    let plain = stack(QueueLabeled::new(MetricsFacadeSink, "emails"));
    let by_name = Labeled::new(MetricsFacadeSink::with_job_names(2), "tenant", "acme");
    let by_name = Labeled::new(QueueLabeled::new(by_name, "emails"), "region", "eu");
    let names: [Arc<str>; 4] = ["a", "b", "c", "a name beyond the cap"].map(Into::into);
    for sink in [&plain as &dyn MetricsSink, &by_name, &MetricsFacadeSink] {
        tell(sink, &names);
        let before = writes.load(Ordering::Relaxed);
        let cost = measure(|| (0..ROUNDS).for_each(|_| tell(sink, &names)));
        assert_eq!(cost.count_total, 0, "{cost:?}");
        let written = writes.load(Ordering::Relaxed) - before;
        assert!(written > 40 * ROUNDS, "the events were written: {written}");
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

fn tell(sink: &dyn MetricsSink, names: &[Arc<str>]) {
    sink.promoter_lock_outcome(LockOutcome::Acquired);
    sink.promoter_tick(PromoterTick { promoted: 2, depth: 3, oldest_pending_lag_ms: 1500 });
    sink.reader_batch(ReaderBatch { size: 5, reclaimed: 1 });
    for name in names {
        let name = || Arc::clone(name);
        let (queue_wait_us, start_lateness_us) = (Some(9), Some(9));
        let started = JobStarted { attempt: 1, queue_wait_us, start_lateness_us, name: name() };
        sink.job_started(started);
        for kind in [JobOutcomeKind::Ok, JobOutcomeKind::Err, JobOutcomeKind::Panic] {
            sink.job_outcome(JobOutcome { kind, attempt: 1, handler_duration_us: 9, name: name() });
        }
        sink.retry_scheduled(RetryScheduled { attempt: 2, backoff_ms: 100, name: name() });
        let reason = DlqReason::Malformed { reason: "no field j" };
        sink.dlq_routed(DlqRouted { reason, attempt: 0, name: name() });
    }
    sink.leases_renewed(LeasesRenewed { renewed: 7, lost: 1 });
    sink.stale_settlements(1);
    sink.ghost_entries(1);
    sink.store_command("settle", Duration::from_millis(2));
    sink.task_restarted(TaskRestarted { task: "reader" });
    sink.queue_counts(QueueCounts { ready: 3, ..Default::default() });
    sink.events_dropped(1);
    sink.promoter_lock_outcome(LockOutcome::Held);
}

/// A recorder whose handles only count that they were written to.
struct Counting(Arc<AtomicU64>);

struct Handle(Arc<AtomicU64>);

impl Recorder for Counting {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Handle(Arc::clone(&self.0))))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Handle(Arc::clone(&self.0))))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Handle(Arc::clone(&self.0))))
    }
}

impl Handle {
    fn written(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl metrics::CounterFn for Handle {
    fn increment(&self, _: u64) {
        self.written();
    }
    fn absolute(&self, _: u64) {
        self.written();
    }
}

impl metrics::GaugeFn for Handle {
    fn increment(&self, _: f64) {
        self.written();
    }
    fn decrement(&self, _: f64) {
        self.written();
    }
    fn set(&self, _: f64) {
        self.written();
    }
}

impl HistogramFn for Handle {
    fn record(&self, _: f64) {
        self.written();
    }
}
