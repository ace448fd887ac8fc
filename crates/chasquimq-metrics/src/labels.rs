//! Labels for every series of a sink: one by one, composed.

use std::sync::Arc;
use std::time::Duration;

use chasquimq::{
    DlqRouted, JobOutcome, JobStarted, LeasesRenewed, LockOutcome, MetricsSink, PromoterTick,
    QueueCounts, ReaderBatch, RetryScheduled, TaskRestarted,
};

use crate::facade::MetricsFacadeSink;
use crate::sink::RecorderSink;

/// A sink that can take a further label for all its series.
///
/// Implement it for a sink of your own to wrap it in [`QueueLabeled`] and [`Labeled`]. A label that
/// the sink has already is replaced.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no series that a label could be added to",
    label = "cannot be labeled",
    note = "wrap `MetricsFacadeSink`, a `RecorderSink`, or another label wrapper",
    note = "or implement `chasquimq_metrics::LabelAware` for your sink"
)]
pub trait LabelAware {
    /// The sink with one more label.
    type Labeled: LabelAware + MetricsSink;

    /// This sink with a further label.
    fn with_label(self, key: Arc<str>, value: Arc<str>) -> Self::Labeled;
}

/// Adds the label `queue`. Composes with [`Labeled`], in any order and number: each sample is
/// written once, to one series with all labels.
///
/// Labels are put together when a wrapper is made and shared (`Arc<str>`); wrapping costs nothing
/// when an event comes.
///
/// ```
/// use chasquimq_metrics::{Labeled, MetricsFacadeSink, QueueLabeled};
///
/// let sink = QueueLabeled::new(MetricsFacadeSink, "emails");
/// let sink = Labeled::new(Labeled::new(sink, "tenant", "acme"), "region", "eu");
/// ```
///
/// A sink without series cannot be wrapped:
///
/// ```compile_fail,E0277
/// chasquimq_metrics::QueueLabeled::new(chasquimq::NoopSink, "emails");
/// ```
pub struct QueueLabeled<S: LabelAware> {
    sink: S::Labeled,
}

impl<S: LabelAware> QueueLabeled<S> {
    /// `inner`, with the label `queue` on all series.
    pub fn new(inner: S, queue: impl Into<Arc<str>>) -> Self {
        Self { sink: inner.with_label("queue".into(), queue.into()) }
    }
}

/// Adds a label: tenant, region, …. See [`QueueLabeled`].
///
/// A key that a metric uses itself (`name`, `kind`, `reason`, …) gets the prefix `exported_`, as
/// Prometheus does where labels collide.
pub struct Labeled<S: LabelAware> {
    sink: S::Labeled,
}

impl<S: LabelAware> Labeled<S> {
    /// `inner`, with the label `key` on all series. Keep values few: each makes series of its own.
    pub fn new(inner: S, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self { sink: inner.with_label(key.into(), value.into()) }
    }
}

/// A sink that hands every event to another one.
macro_rules! hand_on {
    ([$($generics:tt)*] $sink:ty, $self:ident => $to:expr) => {
        hand_on!([$($generics)*] $sink, $self => $to;
            promoter_tick(PromoterTick), promoter_lock_outcome(LockOutcome),
            reader_batch(ReaderBatch), job_outcome(JobOutcome), retry_scheduled(RetryScheduled),
            dlq_routed(DlqRouted), job_started(JobStarted), leases_renewed(LeasesRenewed),
            stale_settlements(u64), ghost_entries(u64), task_restarted(TaskRestarted),
            queue_counts(QueueCounts), events_dropped(u64)
        );
    };
    ([$($generics:tt)*] $sink:ty, $self:ident => $to:expr; $($method:ident($event:ty)),*) => {
        impl<$($generics)*> MetricsSink for $sink {
            $(fn $method(&$self, event: $event) {
                $to.$method(event);
            })*
            fn store_command(&$self, op: &'static str, duration: Duration) {
                $to.store_command(op, duration);
            }
        }
    };
}

hand_on!([S: LabelAware + 'static] QueueLabeled<S>, self => self.sink);
hand_on!([S: LabelAware + 'static] Labeled<S>, self => self.sink);
hand_on!([] MetricsFacadeSink, self => MetricsFacadeSink::shared());

impl<S: LabelAware> LabelAware for QueueLabeled<S> {
    type Labeled = <S::Labeled as LabelAware>::Labeled;

    fn with_label(self, key: Arc<str>, value: Arc<str>) -> Self::Labeled {
        self.sink.with_label(key, value)
    }
}

impl<S: LabelAware> LabelAware for Labeled<S> {
    type Labeled = <S::Labeled as LabelAware>::Labeled;

    fn with_label(self, key: Arc<str>, value: Arc<str>) -> Self::Labeled {
        self.sink.with_label(key, value)
    }
}

impl LabelAware for MetricsFacadeSink {
    type Labeled = RecorderSink;

    fn with_label(self, key: Arc<str>, value: Arc<str>) -> RecorderSink {
        RecorderSink::facade().with_label(key, value)
    }
}
