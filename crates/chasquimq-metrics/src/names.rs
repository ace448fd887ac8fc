//! Every metric: name, kind, unit, labels of its own, and the moment it is written. Names are
//! spelled here and nowhere else.

use metrics::{Recorder, SharedString, Unit};

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// The name, in Prometheus' style: base unit, counters end in `_total`.
    pub name: &'static str,
    /// What it measures and when it is written.
    pub help: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Labels of its own. `name`, the job's name, is there only when
    /// [`with_job_names`](crate::RecorderSink::with_job_names) was called.
    pub labels: &'static [&'static str],
}

/// How a metric is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Grows only.
    Counter,
    /// Is set.
    Gauge,
    /// Is sampled; with buckets that suit it, their upper bounds in its unit.
    Histogram(&'static [f64]),
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;

/// 5 ms to 1 h.
const RUN_TIMES: &[f64] = &[
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    MINUTE,
    5.0 * MINUTE,
    15.0 * MINUTE,
    HOUR,
];
/// 1 ms to 30 min.
const WAITS: &[f64] = &[
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    15.0,
    MINUTE,
    5.0 * MINUTE,
    30.0 * MINUTE,
];
/// 10 ms to 24 h.
const BACKOFFS: &[f64] = &[
    0.01,
    0.1,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    MINUTE,
    5.0 * MINUTE,
    15.0 * MINUTE,
    HOUR,
    6.0 * HOUR,
    24.0 * HOUR,
];
/// 100 µs to 10 s.
const ROUND_TRIPS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

const NONE: &[&str] = &[];
const NAME: &[&str] = &["name"];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, help, kind: Kind::Counter, unit: Unit::Count, labels }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    Metric { name, help, kind: Kind::Gauge, unit, labels: NONE }
}

const fn histogram(
    name: &'static str,
    unit: Unit,
    buckets: &'static [f64],
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, help, kind: Kind::Histogram(buckets), unit, labels }
}

/// Runs begun.
pub static JOBS_STARTED: Metric = counter(
    "chasquimq_jobs_started_total",
    NAME,
    "Handler runs begun, written when a handler is about to run.",
);
/// Wait of a ready job.
pub static JOB_QUEUE_WAIT: Metric = histogram(
    "chasquimq_job_queue_wait_seconds",
    Unit::Seconds,
    WAITS,
    NAME,
    "From ready to start of a handler run, delay and backoff left out; not written when clocks disagree.",
);
/// Lateness of a job that had a time.
pub static JOB_START_LATENESS: Metric = histogram(
    "chasquimq_job_start_lateness_seconds",
    Unit::Seconds,
    WAITS,
    NAME,
    "From due to start of a delayed or retried job's run, promotion and wait together; not written when clocks disagree.",
);
/// Runs that returned a value.
pub static JOBS_COMPLETED: Metric = counter(
    "chasquimq_jobs_completed_total",
    NAME,
    "Handler runs that returned a value, written once a run when its end is settled.",
);
/// Runs that did not.
pub static JOBS_FAILED: Metric = counter(
    "chasquimq_jobs_failed_total",
    &["kind", "name"],
    "Handler runs that ended in an error, a timeout (kind=error) or a panic (kind=panic), once a run.",
);
/// Time a run took.
pub static HANDLER_DURATION: Metric = histogram(
    "chasquimq_handler_duration_seconds",
    Unit::Seconds,
    RUN_TIMES,
    NAME,
    "Wall time of each handler run, however it ended.",
);
/// Retries.
pub static RETRIES_SCHEDULED: Metric = counter(
    "chasquimq_retries_scheduled_total",
    NAME,
    "Retries, written when the store has accepted one.",
);
/// Waits before retries.
pub static RETRY_BACKOFF: Metric = histogram(
    "chasquimq_retry_backoff_seconds",
    Unit::Seconds,
    BACKOFFS,
    NAME,
    "Wait before each retry, jitter included.",
);
/// Dead jobs.
pub static DLQ_ROUTED: Metric = counter(
    "chasquimq_dlq_routed_total",
    &["reason", "name"],
    "Jobs moved to the dead-letter queue, written when the store has accepted one.",
);
/// Size of a read.
pub static CONSUMER_BATCH_SIZE: Metric = histogram(
    "chasquimq_consumer_batch_size",
    Unit::Count,
    SIZES,
    NONE,
    "Entries of each read that brought any, those for the dead-letter queue included.",
);
/// Entries taken over.
pub static CONSUMER_RECLAIMED: Metric = counter(
    "chasquimq_consumer_reclaimed_total",
    NONE,
    "Entries read that another worker had been given before and did not finish.",
);
/// Rounds of lease renewal.
pub static LEASE_RENEWALS: Metric = counter(
    "chasquimq_lease_renewals_total",
    &["result"],
    "Leases looked after: renewed (result=renewed), or found taken by another worker (result=lost).",
);
/// Settlements refused.
pub static STALE_SETTLEMENTS: Metric = counter(
    "chasquimq_stale_settlements_total",
    NONE,
    "Results that came after the lease was lost and changed nothing; the job runs again elsewhere.",
);
/// Entries deleted while pending.
pub static GHOST_ENTRIES: Metric = counter(
    "chasquimq_ghost_entries_total",
    NONE,
    "Pending entries that no longer existed in the stream and were acknowledged away.",
);
/// Jobs promoted.
pub static PROMOTER_PROMOTED: Metric = counter(
    "chasquimq_promoter_promoted_total",
    NONE,
    "Delayed jobs moved to the stream, written at each tick of the leader.",
);
/// Jobs still delayed.
pub static PROMOTER_DEPTH: Metric = gauge(
    "chasquimq_promoter_depth",
    Unit::Count,
    "Jobs still delayed after the leader's last tick; 0 where another promoter leads.",
);
/// Lag of promotion.
pub static PROMOTER_OLDEST_LAG: Metric = gauge(
    "chasquimq_promoter_oldest_lag_seconds",
    Unit::Seconds,
    "How overdue the most overdue delayed job is after the leader's last tick; 0 where another leads.",
);
/// Who leads.
pub static PROMOTER_LEADER: Metric = gauge(
    "chasquimq_promoter_leader",
    Unit::Count,
    "1 while this promoter leads its queue, else 0.",
);
/// Changes of leader.
pub static PROMOTER_LEADER_CHANGES: Metric = counter(
    "chasquimq_promoter_leader_changes_total",
    NONE,
    "Times this promoter became leader; a promoter that never led counts none.",
);
/// Last tick.
pub static PROMOTER_LAST_TICK: Metric = gauge(
    "chasquimq_promoter_last_tick_timestamp_seconds",
    Unit::Seconds,
    "When this promoter last ticked as leader, in seconds since the epoch; 0 if never.",
);
/// Ready.
pub static QUEUE_READY: Metric = gauge(
    "chasquimq_queue_ready_jobs",
    Unit::Count,
    "Entries of the queue that nobody was given yet, counted every 5 s by its leading promoter; 0 where it does not lead.",
);
/// Delivered.
pub static QUEUE_INFLIGHT: Metric = gauge(
    "chasquimq_queue_inflight_jobs",
    Unit::Count,
    "Entries of the queue delivered and not settled, of all workers, dead ones included; counted as ready ones are.",
);
/// Delayed.
pub static QUEUE_DELAYED: Metric = gauge(
    "chasquimq_queue_delayed_jobs",
    Unit::Count,
    "Jobs of the queue that wait for their time, retries left out; counted as ready ones are.",
);
/// Retrying.
pub static QUEUE_RETRYING: Metric = gauge(
    "chasquimq_queue_retrying_jobs",
    Unit::Count,
    "Jobs of the queue that wait for a retry; counted as ready ones are.",
);
/// Dead.
pub static QUEUE_DEAD: Metric = gauge(
    "chasquimq_queue_dead_jobs",
    Unit::Count,
    "Jobs in the dead-letter queue; counted as ready ones are.",
);
/// Oldest.
pub static QUEUE_OLDEST_READY_AGE: Metric = gauge(
    "chasquimq_queue_oldest_ready_age_seconds",
    Unit::Seconds,
    "For how long the oldest ready entry has been ready; 0 when none is; looked up as ready ones are counted.",
);
/// Events not written.
pub static EVENTS_DROPPED: Metric = counter(
    "chasquimq_events_dropped_total",
    NONE,
    "Events of settled jobs that could not be written to the events stream; their jobs are settled.",
);
/// Store commands.
pub static STORE_COMMAND: Metric = histogram(
    "chasquimq_store_command_seconds",
    Unit::Seconds,
    ROUND_TRIPS,
    &["op"],
    "Time of each verb of the store, reply or failure included; reads that wait for work are left out.",
);
/// Restarted tasks.
pub static TASK_RESTARTS: Metric = counter(
    "chasquimq_task_restarts_total",
    &["task"],
    "Tasks of the engine that failed and were started again.",
);
/// Workers of a process.
pub static WORKERS: Metric = gauge(
    "chasquimq_workers",
    Unit::Count,
    "Workers of this process, by queue; the exporter's own, set at each scrape.",
);
/// Live workers.
pub static WORKERS_LIVE: Metric = gauge(
    "chasquimq_workers_live",
    Unit::Count,
    "Workers of this process whose loops turn; the exporter's own, set at each scrape.",
);
/// Ready workers.
pub static WORKERS_READY: Metric = gauge(
    "chasquimq_workers_ready",
    Unit::Count,
    "Workers of this process that claim jobs; the exporter's own, set at each scrape.",
);

/// All metrics of this crate.
pub static ALL: &[&Metric] = &[
    &JOBS_STARTED,
    &JOB_QUEUE_WAIT,
    &JOB_START_LATENESS,
    &JOBS_COMPLETED,
    &JOBS_FAILED,
    &HANDLER_DURATION,
    &RETRIES_SCHEDULED,
    &RETRY_BACKOFF,
    &DLQ_ROUTED,
    &CONSUMER_BATCH_SIZE,
    &CONSUMER_RECLAIMED,
    &LEASE_RENEWALS,
    &STALE_SETTLEMENTS,
    &GHOST_ENTRIES,
    &PROMOTER_PROMOTED,
    &PROMOTER_DEPTH,
    &PROMOTER_OLDEST_LAG,
    &PROMOTER_LEADER,
    &PROMOTER_LEADER_CHANGES,
    &PROMOTER_LAST_TICK,
    &QUEUE_READY,
    &QUEUE_INFLIGHT,
    &QUEUE_DELAYED,
    &QUEUE_RETRYING,
    &QUEUE_DEAD,
    &QUEUE_OLDEST_READY_AGE,
    &EVENTS_DROPPED,
    &STORE_COMMAND,
    &TASK_RESTARTS,
    &WORKERS,
    &WORKERS_LIVE,
    &WORKERS_READY,
];

/// Tells the global recorder each metric's unit and help. A sink does so by itself when it first
/// writes; call this when they shall be known before.
pub fn describe() {
    metrics::with_recorder(describe_to);
}

/// Each histogram's name with buckets that suit it, for recorders that want to be told, such as
/// `metrics_exporter_prometheus::PrometheusBuilder::set_buckets_for_metric`.
pub fn buckets() -> impl Iterator<Item = (&'static str, &'static [f64])> {
    ALL.iter().filter_map(|metric| match metric.kind {
        Kind::Histogram(buckets) => Some((metric.name, buckets)),
        Kind::Counter | Kind::Gauge => None,
    })
}

pub(crate) fn describe_to(recorder: &dyn Recorder) {
    for metric in ALL {
        let (name, unit) = (metric.name.into(), Some(metric.unit));
        let help = SharedString::const_str(metric.help);
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
        }
    }
}

/// Whether a metric, or the exposition format, already uses this label.
pub(crate) fn is_taken(label: &str) -> bool {
    matches!(label, "le" | "quantile") || ALL.iter().any(|metric| metric.labels.contains(&label))
}
