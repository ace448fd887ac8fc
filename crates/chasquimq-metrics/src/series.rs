//! The handles of one sink: each is registered when first used, and never again.

use std::sync::OnceLock;

use chasquimq::{
    DlqReason, DlqRouted, JobOutcome, JobOutcomeKind, JobStarted, LeasesRenewed, PromoterTick,
    QueueCounts, ReaderBatch, RetryScheduled,
};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};

use crate::family::Family;
use crate::names::{self, Metric};
use crate::queue::QueueGauges;

/// Reasons, operations and tasks are few and the engine's own; the bound is a safeguard.
const MOST_OWN_VALUES: usize = 64;

const REASONS: [DlqReason; 6] = [
    DlqReason::RetriesExhausted,
    DlqReason::DecodeFailed,
    DlqReason::Malformed { reason: "" },
    DlqReason::OversizePayload,
    DlqReason::Unrecoverable,
    DlqReason::WorkerLost,
];

/// Where handles are registered, and with which labels beside a metric's own.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub recorder: &'a dyn Recorder,
    pub labels: &'a [Label],
}

impl Scope<'_> {
    pub fn register<H: Handle>(&self, metric: &'static Metric, own: &[(&'static str, &str)]) -> H {
        const METADATA: Metadata<'static> = Metadata::new("chasquimq_metrics", Level::INFO, None);
        let own = own.iter().map(|(key, value)| Label::new(*key, String::from(*value)));
        let labels: Vec<Label> = self.labels.iter().cloned().chain(own).collect();
        let key = Key::from_parts(SharedString::const_str(metric.name), labels);
        H::register(self.recorder, &key, &METADATA)
    }
}

/// What a recorder gives out.
pub(crate) trait Handle {
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self;
}

impl Handle for Counter {
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_counter(key, metadata)
    }
}

impl Handle for Gauge {
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_gauge(key, metadata)
    }
}

impl Handle for Histogram {
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_histogram(key, metadata)
    }
}

/// A handle, registered when first used.
pub(crate) struct Lazy<H> {
    metric: &'static Metric,
    own: Option<(&'static str, &'static str)>,
    handle: OnceLock<H>,
}

impl<H: Handle> Lazy<H> {
    pub fn new(metric: &'static Metric) -> Self {
        Self { metric, own: None, handle: OnceLock::new() }
    }

    fn labeled(metric: &'static Metric, key: &'static str, value: &'static str) -> Self {
        Self { metric, own: Some((key, value)), handle: OnceLock::new() }
    }

    pub fn get(&self, scope: Scope<'_>) -> &H {
        self.handle.get_or_init(|| scope.register(self.metric, self.own.as_slice()))
    }
}

/// Handles of one metric by a label whose values the engine chooses.
struct ByLabel<H> {
    metric: &'static Metric,
    key: &'static str,
    handles: OnceLock<Family<H>>,
}

impl<H: Handle> ByLabel<H> {
    fn new(metric: &'static Metric, key: &'static str) -> Self {
        Self { metric, key, handles: OnceLock::new() }
    }

    fn get(&self, scope: Scope<'_>, value: &str) -> &H {
        let handles = self.handles.get_or_init(|| Family::new(MOST_OWN_VALUES));
        handles.get(value, |value| scope.register(self.metric, &[(self.key, value)]))
    }
}

/// All handles of one sink.
pub(crate) struct Series {
    jobs: Jobs,
    batch_size: Lazy<Histogram>,
    reclaimed: Lazy<Counter>,
    renewed: Lazy<Counter>,
    lost: Lazy<Counter>,
    stale_settlements: Lazy<Counter>,
    ghost_entries: Lazy<Counter>,
    promoted: Lazy<Counter>,
    depth: Lazy<Gauge>,
    oldest_lag: Lazy<Gauge>,
    leader: Lazy<Gauge>,
    leader_changes: Lazy<Counter>,
    last_tick: Lazy<Gauge>,
    queue: QueueGauges,
    events_dropped: Lazy<Counter>,
    store_command: ByLabel<Histogram>,
    task_restarts: ByLabel<Counter>,
}

impl Series {
    /// Nothing is registered yet. With `names`, so many job names have series of their own.
    pub fn new(names: Option<usize>) -> Self {
        Self {
            jobs: Jobs::new(names),
            batch_size: Lazy::new(&names::CONSUMER_BATCH_SIZE),
            reclaimed: Lazy::new(&names::CONSUMER_RECLAIMED),
            renewed: Lazy::labeled(&names::LEASE_RENEWALS, "result", "renewed"),
            lost: Lazy::labeled(&names::LEASE_RENEWALS, "result", "lost"),
            stale_settlements: Lazy::new(&names::STALE_SETTLEMENTS),
            ghost_entries: Lazy::new(&names::GHOST_ENTRIES),
            promoted: Lazy::new(&names::PROMOTER_PROMOTED),
            depth: Lazy::new(&names::PROMOTER_DEPTH),
            oldest_lag: Lazy::new(&names::PROMOTER_OLDEST_LAG),
            leader: Lazy::new(&names::PROMOTER_LEADER),
            leader_changes: Lazy::new(&names::PROMOTER_LEADER_CHANGES),
            last_tick: Lazy::new(&names::PROMOTER_LAST_TICK),
            queue: QueueGauges::default(),
            events_dropped: Lazy::new(&names::EVENTS_DROPPED),
            store_command: ByLabel::new(&names::STORE_COMMAND, "op"),
            task_restarts: ByLabel::new(&names::TASK_RESTARTS, "task"),
        }
    }

    /// Registers what has no label of unknown value, so that it shows as 0 from the start: a
    /// counter that appears with its first event hides that event from `rate` and `increase`.
    pub fn register(&self, scope: Scope<'_>) {
        names::describe_to(scope.recorder);
        if let Jobs::Together(jobs) = &self.jobs {
            jobs.register(scope);
            for reason in REASONS {
                jobs.dead.get(scope, reason.as_str());
            }
        }
        self.batch_size.get(scope);
        for gauge in [&self.depth, &self.oldest_lag, &self.leader, &self.last_tick] {
            gauge.get(scope);
        }
        self.queue.register(scope);
        let (leases, leader) =
            ([&self.renewed, &self.lost], [&self.promoted, &self.leader_changes]);
        let faults =
            [&self.reclaimed, &self.stale_settlements, &self.ghost_entries, &self.events_dropped];
        for counter in leases.into_iter().chain(leader).chain(faults) {
            counter.get(scope);
        }
    }

    pub fn job_started(&self, scope: Scope<'_>, event: &JobStarted) {
        self.jobs.named(scope, &event.name, |jobs, scope| {
            jobs.started.get(scope).increment(1);
            if let Some(wait) = event.queue_wait_us {
                jobs.queue_wait.get(scope).record(wait as f64 / 1e6);
            }
            if let Some(lateness) = event.start_lateness_us {
                jobs.start_lateness.get(scope).record(lateness as f64 / 1e6);
            }
        });
    }

    pub fn job_outcome(&self, scope: Scope<'_>, event: &JobOutcome) {
        self.jobs.named(scope, &event.name, |jobs, scope| {
            let runs = match event.kind {
                JobOutcomeKind::Ok => &jobs.completed,
                JobOutcomeKind::Err => &jobs.errors,
                JobOutcomeKind::Panic => &jobs.panics,
            };
            runs.get(scope).increment(1);
            jobs.duration.get(scope).record(event.handler_duration_us as f64 / 1e6);
        });
    }

    pub fn retry_scheduled(&self, scope: Scope<'_>, event: &RetryScheduled) {
        self.jobs.named(scope, &event.name, |jobs, scope| {
            jobs.retries.get(scope).increment(1);
            jobs.backoff.get(scope).record(event.backoff_ms as f64 / 1e3);
        });
    }

    pub fn dlq_routed(&self, scope: Scope<'_>, event: &DlqRouted) {
        self.jobs.named(scope, &event.name, |jobs, scope| {
            jobs.dead.get(scope, event.reason.as_str()).increment(1);
        });
    }

    pub fn reader_batch(&self, scope: Scope<'_>, event: ReaderBatch) {
        self.batch_size.get(scope).record(event.size as f64);
        self.reclaimed.get(scope).increment(event.reclaimed);
    }

    pub fn leases_renewed(&self, scope: Scope<'_>, event: LeasesRenewed) {
        self.renewed.get(scope).increment(event.renewed);
        self.lost.get(scope).increment(event.lost);
    }

    pub fn stale_settlements(&self, scope: Scope<'_>, count: u64) {
        self.stale_settlements.get(scope).increment(count);
    }

    pub fn ghost_entries(&self, scope: Scope<'_>, count: u64) {
        self.ghost_entries.get(scope).increment(count);
    }

    pub fn promoter_tick(&self, scope: Scope<'_>, event: PromoterTick, unix_seconds: f64) {
        self.promoted.get(scope).increment(event.promoted);
        self.depth.get(scope).set(event.depth as f64);
        self.oldest_lag.get(scope).set(event.oldest_pending_lag_ms as f64 / 1e3);
        self.leader.get(scope).set(1.0);
        self.last_tick.get(scope).set(unix_seconds);
    }

    pub fn lead_won(&self, scope: Scope<'_>) {
        self.leader.get(scope).set(1.0);
        self.leader_changes.get(scope).increment(1);
    }

    /// What another promoter tells from now on is 0 here, so that sums over workers stay true.
    pub fn lead_lost(&self, scope: Scope<'_>) {
        for gauge in [&self.leader, &self.depth, &self.oldest_lag] {
            gauge.get(scope).set(0.0);
        }
        self.queue.set(scope, QueueCounts::default());
    }

    pub fn queue_counts(&self, scope: Scope<'_>, counts: QueueCounts) {
        self.queue.set(scope, counts);
    }

    pub fn events_dropped(&self, scope: Scope<'_>, count: u64) {
        self.events_dropped.get(scope).increment(count);
    }

    pub fn store_command(&self, scope: Scope<'_>, op: &str, seconds: f64) {
        self.store_command.get(scope, op).record(seconds);
    }

    pub fn task_restarted(&self, scope: Scope<'_>, task: &str) {
        self.task_restarts.get(scope, task).increment(1);
    }
}

/// Series of jobs: one set for all, or one a job name.
enum Jobs {
    Together(Box<JobSeries>),
    ByName(Family<Named>),
}

/// The series of one job name, which all have it as a label.
struct Named {
    labels: Vec<Label>,
    series: JobSeries,
}

impl Jobs {
    fn new(names: Option<usize>) -> Self {
        match names {
            None => Self::Together(Box::default()),
            Some(most) => Self::ByName(Family::new(most)),
        }
    }

    fn named(&self, scope: Scope<'_>, name: &str, write: impl FnOnce(&JobSeries, Scope<'_>)) {
        match self {
            Self::Together(jobs) => write(jobs, scope),
            Self::ByName(family) => {
                let named = family.get(name, |name| Named::new(scope, name));
                write(&named.series, Scope { labels: &named.labels, ..scope });
            }
        }
    }
}

impl Named {
    fn new(scope: Scope<'_>, name: &str) -> Self {
        let label = Label::new("name", String::from(name));
        let labels: Vec<Label> = scope.labels.iter().cloned().chain([label]).collect();
        let series = JobSeries::default();
        series.register(Scope { labels: &labels, ..scope });
        Self { labels, series }
    }
}

struct JobSeries {
    started: Lazy<Counter>,
    queue_wait: Lazy<Histogram>,
    start_lateness: Lazy<Histogram>,
    completed: Lazy<Counter>,
    errors: Lazy<Counter>,
    panics: Lazy<Counter>,
    duration: Lazy<Histogram>,
    retries: Lazy<Counter>,
    backoff: Lazy<Histogram>,
    dead: ByLabel<Counter>,
}

impl Default for JobSeries {
    fn default() -> Self {
        Self {
            started: Lazy::new(&names::JOBS_STARTED),
            queue_wait: Lazy::new(&names::JOB_QUEUE_WAIT),
            start_lateness: Lazy::new(&names::JOB_START_LATENESS),
            completed: Lazy::new(&names::JOBS_COMPLETED),
            errors: Lazy::labeled(&names::JOBS_FAILED, "kind", "error"),
            panics: Lazy::labeled(&names::JOBS_FAILED, "kind", "panic"),
            duration: Lazy::new(&names::HANDLER_DURATION),
            retries: Lazy::new(&names::RETRIES_SCHEDULED),
            backoff: Lazy::new(&names::RETRY_BACKOFF),
            dead: ByLabel::new(&names::DLQ_ROUTED, "reason"),
        }
    }
}

impl JobSeries {
    fn register(&self, scope: Scope<'_>) {
        for counter in [&self.started, &self.completed, &self.errors, &self.panics, &self.retries] {
            counter.get(scope);
        }
        for histogram in [&self.queue_wait, &self.start_lateness, &self.duration, &self.backoff] {
            histogram.get(scope);
        }
    }
}
