//! Background-job queue on Redis and Valkey: the engine.

pub mod config;
pub mod error;
pub mod job;
pub mod lifecycle;
pub mod metrics;
mod retry;
pub(crate) mod store;

pub use config::{
    ConnectionTuning, ConsumerConfig, EventsConfig, ProducerConfig, PromoterConfig, RetryConfig,
};
pub use error::{Error, ErrorKind, HandlerError, Result};
pub use job::{AddOptions, BackoffKind, BackoffSpec, Job, JobId, JobRetryOverride};
pub use metrics::{
    DlqReason, DlqRouted, JobOutcome, JobOutcomeKind, JobStarted, LeasesRenewed, LockOutcome,
    MetricsSink, NoopSink, PromoterTick, ReaderBatch, RetryScheduled, TaskRestarted, noop_sink,
};
