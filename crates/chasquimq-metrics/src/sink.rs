//! [`RecorderSink`]: events in, samples out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chasquimq::{
    DlqRouted, JobOutcome, JobStarted, LeasesRenewed, LockOutcome, MetricsSink, PromoterTick,
    QueueCounts, ReaderBatch, RetryScheduled, TaskRestarted,
};
use metrics::{Label, Recorder};

use crate::labels::LabelAware;
use crate::names;
use crate::series::{Scope, Series};

/// A recorder that sinks may share.
pub type SharedRecorder = Arc<dyn Recorder + Send + Sync>;

/// Writes the engine's events as metrics to a recorder of the `metrics` facade.
///
/// Every series is registered once; from then on an event costs an atomic operation or two and no
/// allocation, if the recorder's own handles allocate none. Give each consumer a sink of its own:
/// the gauges of the promoter tell what *this* one does.
pub struct RecorderSink {
    target: Target,
    labels: Vec<Label>,
    names: Option<usize>,
    cached: OnceLock<Cached>,
    leads: AtomicBool,
}

enum Target {
    /// Whatever recorder the facade has at the time of an event.
    Facade,
    Recorder(SharedRecorder),
}

struct Cached {
    recorder: usize,
    series: Series,
}

impl RecorderSink {
    /// A sink that writes to this recorder, which need not be installed anywhere.
    #[must_use]
    pub fn new(recorder: SharedRecorder) -> Self {
        Self::to(Target::Recorder(recorder))
    }

    /// A sink that writes to the facade's recorder, as [`MetricsFacadeSink`](crate::MetricsFacadeSink)
    /// does. It may be used before a recorder is installed: what is told until then is lost, what
    /// is told afterwards is written. A recorder that is local to a thread is respected as well,
    /// but its handles are registered again for each event.
    #[must_use]
    pub const fn facade() -> Self {
        Self::to(Target::Facade)
    }

    const fn to(target: Target) -> Self {
        Self {
            target,
            labels: Vec::new(),
            names: None,
            cached: OnceLock::new(),
            leads: AtomicBool::new(false),
        }
    }

    /// Adds the job's name as a label `name` to the metrics of jobs, for the first `cap` names
    /// that come; further names share the label `other`. Each name costs about 60 time series.
    #[must_use]
    pub fn with_job_names(self, cap: usize) -> Self {
        let mut sink = self.fresh();
        sink.names = Some(cap);
        sink
    }

    /// The same sink, not yet used.
    fn fresh(&self) -> Self {
        let target = match &self.target {
            Target::Facade => Target::Facade,
            Target::Recorder(recorder) => Target::Recorder(Arc::clone(recorder)),
        };
        let mut sink = Self::to(target);
        sink.labels.clone_from(&self.labels);
        sink.names = self.names;
        sink
    }

    fn write(&self, event: impl FnOnce(&Series, Scope<'_>)) {
        match &self.target {
            Target::Recorder(recorder) => self.write_to(recorder, true, event),
            Target::Facade => metrics::with_recorder(|recorder| {
                self.write_to(recorder, false, event);
            }),
        }
    }

    fn write_to(
        &self,
        recorder: &dyn Recorder,
        stays: bool,
        event: impl FnOnce(&Series, Scope<'_>),
    ) {
        let scope = Scope { recorder, labels: &self.labels };
        let series = match self.cached.get() {
            Some(cached) if cached.recorder == address(recorder) => &cached.series,
            None if stays || is_global(recorder) => {
                &self.cached.get_or_init(|| self.cache(scope)).series
            }
            _ => &Series::new(self.names),
        };
        event(series, scope);
    }

    fn cache(&self, scope: Scope<'_>) -> Cached {
        let series = Series::new(self.names);
        series.register(scope);
        Cached { recorder: address(scope.recorder), series }
    }
}

impl MetricsSink for RecorderSink {
    fn promoter_tick(&self, event: PromoterTick) {
        self.leads.store(true, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.write(|series, scope| series.promoter_tick(scope, event, now.as_secs_f64()));
    }

    fn promoter_lock_outcome(&self, event: LockOutcome) {
        let leads = event == LockOutcome::Acquired;
        let led = self.leads.swap(leads, Ordering::Relaxed);
        if leads {
            self.write(Series::lead_won);
        } else if led {
            self.write(Series::lead_lost);
        }
    }

    fn reader_batch(&self, event: ReaderBatch) {
        self.write(|series, scope| series.reader_batch(scope, event));
    }

    fn job_outcome(&self, event: JobOutcome) {
        self.write(|series, scope| series.job_outcome(scope, &event));
    }

    fn retry_scheduled(&self, event: RetryScheduled) {
        self.write(|series, scope| series.retry_scheduled(scope, &event));
    }

    fn dlq_routed(&self, event: DlqRouted) {
        self.write(|series, scope| series.dlq_routed(scope, &event));
    }

    fn job_started(&self, event: JobStarted) {
        self.write(|series, scope| series.job_started(scope, &event));
    }

    fn leases_renewed(&self, event: LeasesRenewed) {
        self.write(|series, scope| series.leases_renewed(scope, event));
    }

    fn stale_settlements(&self, count: u64) {
        self.write(|series, scope| series.stale_settlements(scope, count));
    }

    fn ghost_entries(&self, count: u64) {
        self.write(|series, scope| series.ghost_entries(scope, count));
    }

    fn store_command(&self, op: &'static str, duration: Duration) {
        self.write(|series, scope| series.store_command(scope, op, duration.as_secs_f64()));
    }

    fn task_restarted(&self, event: TaskRestarted) {
        self.write(|series, scope| series.task_restarted(scope, event.task));
    }

    fn queue_counts(&self, event: QueueCounts) {
        self.leads.store(true, Ordering::Relaxed);
        self.write(|series, scope| series.queue_counts(scope, event));
    }

    fn events_dropped(&self, count: u64) {
        self.write(|series, scope| series.events_dropped(scope, count));
    }
}

impl LabelAware for RecorderSink {
    type Labeled = Self;

    fn with_label(self, key: Arc<str>, value: Arc<str>) -> Self {
        let key: Arc<str> =
            if names::is_taken(&key) { format!("exported_{key}").into() } else { key };
        let mut sink = self.fresh();
        sink.labels.retain(|label| label.key() != &*key);
        sink.labels.push(Label::new(key, value));
        sink
    }
}

impl Drop for RecorderSink {
    fn drop(&mut self) {
        if *self.leads.get_mut() {
            self.write(Series::lead_lost);
        }
    }
}

fn address(recorder: &dyn Recorder) -> usize {
    std::ptr::from_ref(recorder).addr()
}

/// Whether this recorder is the facade's global one. The facade does not tell, but a thread that
/// has just begun has no local recorder, so it sees the global one, or the no-op in its place.
///
/// A recorder without state is never taken for it: it may be that no-op, which must not be kept.
fn is_global(recorder: &dyn Recorder) -> bool {
    if size_of_val(recorder) == 0 {
        return false;
    }
    let look = || metrics::with_recorder(address);
    thread::Builder::new()
        .spawn(look)
        .ok()
        .and_then(|thread| thread.join().ok())
        .is_some_and(|global| global == address(recorder))
}
