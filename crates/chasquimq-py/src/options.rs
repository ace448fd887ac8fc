//! What Python says of queues, workers and jobs, as the engine's values.

use std::time::Duration;

use bytes::Bytes;
use chasquimq::{
    AddOptions, BackoffSpec, ConsumerConfig, Delay, Durability, JobRetryOverride, ProducerConfig,
    RawJob,
};
use pyo3::FromPyObject;

use crate::credentials::Credentials;
use crate::desk::Lot;

/// What a queue may set; the rest has the engine's defaults.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct ProducerOptions {
    queue_name: String,
    max_queue_len: Option<u64>,
    max_delay_secs: Option<u64>,
    max_payload_bytes: Option<usize>,
    events_verbose: bool,
    batch: usize,
    durability: Option<String>,
    replicas: Option<u32>,
    durability_timeout_ms: Option<u64>,
    pub credentials: Option<Credentials>,
}

impl From<ProducerOptions> for ProducerConfig {
    fn from(options: ProducerOptions) -> Self {
        let defaults = Self::default();
        let mut events = defaults.events.clone();
        events.verbose = options.events_verbose;
        Self {
            queue_name: options.queue_name,
            connection: Credentials::tuning(options.credentials.as_ref()),
            events,
            max_queue_len: options.max_queue_len.unwrap_or(defaults.max_queue_len),
            max_delay_secs: options.max_delay_secs.unwrap_or(defaults.max_delay_secs),
            max_payload_bytes: options.max_payload_bytes.unwrap_or(defaults.max_payload_bytes),
            pack: options.batch,
            durability: options.durability.as_deref().map_or(defaults.durability, durability),
            replicas: options.replicas.unwrap_or(defaults.replicas),
            durability_timeout: options
                .durability_timeout_ms
                .map_or(defaults.durability_timeout, Duration::from_millis),
            ..defaults
        }
    }
}

/// The durability of this name, which Python has checked.
fn durability(name: &str) -> Durability {
    match name {
        "replica" => Durability::Replica,
        "aof" => Durability::Aof,
        _ => Durability::None,
    }
}

/// What a worker may set; the rest has the engine's defaults.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct ConsumerOptions {
    queue_name: String,
    concurrency: usize,
    max_attempts: u32,
    group: String,
    events_enabled: bool,
    events_verbose: bool,
    delayed_enabled: bool,
    consumer_id: Option<String>,
    read_block_ms: Option<u64>,
    read_count: Option<usize>,
    claim_min_idle_ms: Option<u64>,
    max_payload_bytes: Option<usize>,
    dlq_max_stream_len: Option<u64>,
    prefetch: Option<usize>,
    max_lost: Option<u32>,
    batch: Option<usize>,
    batch_wait_ms: u64,
    consumer_max_idle_secs: Option<u64>,
    pub metrics_addr: Option<String>,
    pub credentials: Option<Credentials>,
}

impl ConsumerOptions {
    /// What a handler is called with.
    pub fn lot(&self) -> Lot {
        Lot {
            size: self.batch.unwrap_or(1).max(1),
            wait: Duration::from_millis(self.batch_wait_ms),
        }
    }
}

impl From<ConsumerOptions> for ConsumerConfig {
    fn from(options: ConsumerOptions) -> Self {
        let defaults = Self::default();
        let mut events = defaults.events.clone();
        events.enabled = options.events_enabled;
        events.verbose = options.events_verbose;
        Self {
            queue_name: options.queue_name,
            concurrency: options.concurrency.saturating_mul(options.batch.unwrap_or(1)),
            max_attempts: options.max_attempts,
            group: options.group,
            delayed_enabled: options.delayed_enabled,
            events,
            consumer_id: options.consumer_id.unwrap_or(defaults.consumer_id),
            block_ms: options.read_block_ms.unwrap_or(defaults.block_ms),
            batch: options.read_count.unwrap_or(defaults.batch),
            claim_min_idle_ms: options.claim_min_idle_ms.unwrap_or(defaults.claim_min_idle_ms),
            max_payload_bytes: options.max_payload_bytes.unwrap_or(defaults.max_payload_bytes),
            dlq_max_stream_len: options.dlq_max_stream_len.unwrap_or(defaults.dlq_max_stream_len),
            prefetch: options.prefetch.or(defaults.prefetch),
            max_lost: options.max_lost.unwrap_or(defaults.max_lost),
            consumer_max_idle_secs: options
                .consumer_max_idle_secs
                .unwrap_or(defaults.consumer_max_idle_secs),
            connection: Credentials::tuning(options.credentials.as_ref()),
            ..defaults
        }
    }
}

/// What Python says of one job beside name and data: id, when, attempts, backoff, durability.
#[derive(FromPyObject)]
pub struct JobOptions(Option<String>, When, Option<u32>, Option<Backoff>, Option<String>);

/// Milliseconds from now, or a time in milliseconds since the epoch.
#[derive(FromPyObject)]
struct When(Option<u64>, Option<u64>);

/// The attributes of `BackoffSpec`.
#[derive(FromPyObject)]
struct Backoff {
    kind: String,
    delay_ms: u64,
    max_delay_ms: Option<u64>,
    multiplier: Option<f64>,
    jitter_ms: Option<u64>,
}

impl JobOptions {
    /// The job that was added with these options.
    pub fn job(options: Option<Self>, name: String, payload: Bytes) -> RawJob {
        let Some(Self(id, when, max_attempts, backoff, named)) = options else {
            let options = AddOptions { name, ..AddOptions::default() };
            return RawJob { payload, options, delay: None };
        };
        let backoff = backoff.map(BackoffSpec::from);
        let retry = (max_attempts.is_some() || backoff.is_some())
            .then_some(JobRetryOverride { max_attempts, backoff });
        let durability = named.as_deref().map(durability);
        let options = AddOptions { id, retry, name, durability };
        RawJob { payload, options, delay: when.into() }
    }
}

impl From<When> for Option<Delay> {
    fn from(When(in_ms, at_ms): When) -> Self {
        in_ms.map(Duration::from_millis).map(Delay::In).or(at_ms.map(Delay::AtMs))
    }
}

impl From<Backoff> for BackoffSpec {
    fn from(backoff: Backoff) -> Self {
        let delay = Duration::from_millis(backoff.delay_ms);
        let spec =
            if backoff.kind == "fixed" { Self::fixed(delay) } else { Self::exponential(delay) };
        Self {
            max_delay_ms: backoff.max_delay_ms,
            multiplier: backoff.multiplier,
            jitter_ms: backoff.jitter_ms,
            ..spec
        }
    }
}
