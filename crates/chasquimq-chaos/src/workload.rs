//! What is added: which jobs fail, wait, or share an id; and what their handler does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chasquimq::{ConnectionTuning, ConsumerConfig, RetryConfig};
use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// How long a silent worker keeps its jobs.
pub const LEASE: Duration = Duration::from_millis(1500);
/// Runs a job may have.
pub const MAX_ATTEMPTS: u32 = 3;
/// Jobs a worker runs at once.
pub const CONCURRENCY: usize = 10;
/// Entries of one read.
pub const BATCH: usize = 32;
/// The queue of a run.
pub const QUEUE: &str = "chaos";

/// How long ids are in use by several producers before others are.
const ERA: Duration = Duration::from_secs(10);
/// Ids that are in use at a time.
const KEYS: u64 = 25;

/// What a job is made to do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Kind {
    /// Ends well.
    Plain,
    /// Fails in its first run.
    FailsOnce,
    /// Fails always.
    Poison,
    /// Is added with a delay.
    Delayed,
    /// Has an id that others use too.
    Keyed,
}

/// A job's payload.
#[derive(Clone, Debug, Deserialize, Hash, Serialize)]
pub struct Payload {
    pub n: u64,
    pub kind: Kind,
    /// How long its handler works.
    pub work_ms: u64,
    pub filling: String,
}

impl Payload {
    /// Tells this payload from every other and from itself damaged.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// A job to be added.
#[derive(Clone, Debug)]
pub struct Order {
    pub payload: Payload,
    pub key: Option<String>,
    pub delay: Duration,
}

/// The job of this number, added so long after the begin: 10% fail once, 1% always, 5% are delayed,
/// 5% share ids.
pub fn order(rng: &mut StdRng, n: u64, elapsed: Duration) -> Order {
    let kind = match rng.random_range(0..100) {
        0..10 => Kind::FailsOnce,
        10 => Kind::Poison,
        11..16 => Kind::Delayed,
        16..21 => Kind::Keyed,
        _ => Kind::Plain,
    };
    let work_ms = match rng.random_range(0..100) {
        0..40 => 0,
        40..80 => rng.random_range(5..60),
        _ => rng.random_range(50..300),
    };
    let delay = match kind {
        Kind::Delayed => Duration::from_millis(rng.random_range(50..3000)),
        _ => Duration::ZERO,
    };
    let era = elapsed.as_secs() / ERA.as_secs();
    let key = (kind == Kind::Keyed).then(|| format!("key-{era}-{}", rng.random_range(0..KEYS)));
    let filling = "x".repeat(rng.random_range(0..200));
    Order { payload: Payload { n, kind, work_ms, filling }, key, delay }
}

/// A worker as this run has it.
pub fn worker(name: &str) -> ConsumerConfig {
    let retry = RetryConfig {
        initial_backoff_ms: 50,
        max_backoff_ms: 500,
        jitter_ms: 50,
        ..RetryConfig::default()
    };
    ConsumerConfig {
        queue_name: QUEUE.into(),
        consumer_id: name.into(),
        concurrency: CONCURRENCY,
        batch: BATCH,
        claim_min_idle_ms: LEASE.as_millis() as u64,
        max_attempts: MAX_ATTEMPTS,
        // Three faults in a row can hit one job here, which by default would be given up.
        max_lost: 10,
        shutdown_deadline_secs: 5,
        consumer_max_idle_secs: 6,
        delayed_lock_ttl_secs: 2,
        retry,
        connection: tuning(),
        ..ConsumerConfig::default()
    }
}

/// Connections give up sooner than they do by default, so that a run sees more of it.
pub fn tuning() -> ConnectionTuning {
    ConnectionTuning { command_timeout: Duration::from_secs(5), ..ConnectionTuning::default() }
}
