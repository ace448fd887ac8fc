//! Background-job queue on Redis and Valkey: the engine.
//!
//! In the order in which a job meets it: a [`Producer`] adds it, a [`Promoter`] moves it to the
//! stream when it was delayed, a [`Consumer`] reads, runs and settles it. `lifecycle` has the table
//! of all that can happen to a job. Delivery is at least once: an accepted job is never lost, and
//! it runs twice only when a worker died or was cut off while it ran.

pub mod acl;
pub mod config;
pub mod consumer;
pub mod credentials;
pub mod dlq;
pub mod doctor;
pub mod error;
pub mod events;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod inspect;
mod janitor;
pub mod job;
pub mod lifecycle;
pub mod metrics;
mod msgpack;
pub mod producer;
pub mod promoter;
mod retry;
pub(crate) mod store;
mod version;

pub use config::{
    ConnectionTuning, ConsumerConfig, Durability, EventsConfig, ProducerConfig, PromoterConfig,
    RetryConfig,
};
pub use consumer::{
    BatchOptions, BatchOutcome, Consumer, Delivery, Ending, Health, JOBS_TARGET, Report, Session,
};
pub use credentials::{Credentials, Login};
pub use dlq::{Dlq, DlqEntry};
pub use error::{Error, ErrorKind, HandlerError, Result};
pub use job::{AddOptions, BackoffKind, BackoffSpec, Job, JobId, JobRetryOverride};
pub use lifecycle::Outcome;
pub use metrics::{
    DlqReason, DlqRouted, JobOutcome, JobOutcomeKind, JobStarted, LeasesRenewed, LockOutcome,
    MetricsSink, NoopSink, PromoterTick, QueueCounts, ReaderBatch, RetryScheduled, TaskRestarted,
    noop_sink,
};
pub use producer::{Delay, Producer, RawJob};
pub use promoter::Promoter;
pub use store::redact;
pub use version::ServerVersion;

/// Makes now what a process otherwise makes once, at its first use. For programs that fork: a child
/// that is forked while another thread makes it would wait for that thread for ever.
pub fn before_fork() {
    store::scripts::make_all();
}

/// The README's Rust example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
