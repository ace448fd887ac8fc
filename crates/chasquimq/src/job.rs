//! A job as producers describe it and as handlers receive it. Values only.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Durability;

/// A job's id: a ULID made by the producer, or any string the caller chose.
pub type JobId = String;

/// A job as its handler receives it.
///
/// `attempt` counts runs that ended in an error; deliveries whose worker died are counted
/// apart, in `lost`, and never use up an attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Job<T> {
    /// The job's id.
    pub id: JobId,
    /// The decoded payload.
    pub payload: T,
    /// When the producer made it, in milliseconds since the epoch (producer's clock).
    pub created_at_ms: u64,
    /// Runs that ended in an error so far: 0 in the first run.
    pub attempt: u32,
    /// Deliveries whose worker died so far.
    pub lost: u32,
    /// The job's own retry rule, which beats the worker's.
    pub retry: Option<JobRetryOverride>,
    /// The job's name; empty when the producer gave none.
    pub name: Arc<str>,
}

/// A job's own retry rule. What is `None` follows the worker's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRetryOverride {
    /// All runs the job may have, the first included; at least 1.
    pub max_attempts: Option<u32>,
    /// How long to wait between runs.
    pub backoff: Option<BackoffSpec>,
}

/// How the wait grows from one run to the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BackoffKind {
    /// Always `delay_ms`.
    Fixed,
    /// `delay_ms × multiplier^(failures − 1)`, at most `max_delay_ms`.
    Exponential,
}

/// A backoff rule: `min(delay × multiplier^(failures − 1), max) + jitter × random`.
#[derive(Clone, Debug, PartialEq)]
pub struct BackoffSpec {
    /// Fixed or exponential.
    pub kind: BackoffKind,
    /// The first wait, in milliseconds.
    pub delay_ms: u64,
    /// The longest wait before jitter, in milliseconds; `None` follows the worker.
    pub max_delay_ms: Option<u64>,
    /// Growth a failure; `None` follows the worker. Ignored by [`BackoffKind::Fixed`].
    pub multiplier: Option<f64>,
    /// Up to so many milliseconds are added at random; `None` follows the worker.
    pub jitter_ms: Option<u64>,
}

impl BackoffSpec {
    /// The same wait every time.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self::of(BackoffKind::Fixed, delay)
    }

    /// A wait that grows with every failure.
    #[must_use]
    pub fn exponential(initial: Duration) -> Self {
        Self::of(BackoffKind::Exponential, initial)
    }

    fn of(kind: BackoffKind, delay: Duration) -> Self {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self { kind, delay_ms, max_delay_ms: None, multiplier: None, jitter_ms: None }
    }
}

/// What a producer may say of one job beside its payload.
#[derive(Clone, Debug, Default)]
pub struct AddOptions {
    /// The job's id. While a job of this id is live (waiting, delayed, running or retrying),
    /// adding it again changes nothing. Default: a fresh ULID.
    pub id: Option<JobId>,
    /// The job's own retry rule.
    pub retry: Option<JobRetryOverride>,
    /// The job's name, at most 256 bytes; shown in events and metrics. Default: empty.
    pub name: String,
    /// Who must have the job before it counts as added; a whole bulk waits for all that any of its
    /// jobs asks for, once. Default: the producer's.
    pub durability: Option<Durability>,
}

impl AddOptions {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<JobId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the durability.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets the retry rule.
    #[must_use]
    pub fn with_retry(mut self, retry: JobRetryOverride) -> Self {
        self.retry = Some(retry);
        self
    }
}
