//! Every default, in one literal each; validated once, where a producer or consumer is made.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::metrics::{MetricsSink, noop_sink};
use crate::store::keys::check_name;

/// The longest a job name may be, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// How connections behave. The defaults suit a server in the same data centre.
#[derive(Clone, Debug)]
pub struct ConnectionTuning {
    /// How long one attempt to connect may take. Default 3 s.
    pub connect_timeout: Duration,
    /// How long a reply may take before the command counts as lost. Default 10 s.
    pub command_timeout: Duration,
    /// The first pause before a broken connection is dialled again. Default 50 ms.
    pub reconnect_min: Duration,
    /// The longest such pause. Default 5 s. Dialling never stops.
    pub reconnect_max: Duration,
    /// Commands that may await their reply on one connection; more wait their turn. Default 4096.
    pub max_in_flight: usize,
    /// Whom to ask for user and password at each connection, instead of the URL. Default nobody.
    pub credentials: Option<Credentials>,
}

impl Default for ConnectionTuning {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            command_timeout: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(50),
            reconnect_max: Duration::from_secs(5),
            max_in_flight: 4096,
            credentials: None,
        }
    }
}

/// What is published to the events stream of a queue.
#[derive(Clone, Debug)]
pub struct EventsConfig {
    /// Whether anything is published. Default `true`.
    pub enabled: bool,
    /// How many entries the events stream keeps, approximately; older ones go. Default 100,000.
    pub max_stream_len: u64,
    /// How many events of a kind may stand in one entry of the stream when many jobs end at once:
    /// see [`events`](crate::events). Default 16, at most 256; with 1 each stands in an entry of its own, which
    /// costs the server about 2.5 us a job more.
    pub pack: usize,
    /// Whether `waiting`, `active` and `promoted` are published too. Default `false`:
    /// they would double the traffic.
    pub verbose: bool,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { enabled: true, max_stream_len: 100_000, pack: 16, verbose: false }
    }
}

/// Who must have a job before it counts as added, beside the memory of the primary.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// Nobody: a failover or a crash may lose what was added shortly before.
    #[default]
    None,
    /// [`replicas`](ProducerConfig::replicas) of the primary (`WAIT`).
    Replica,
    /// The primary's append-only file, written to disk (`WAITAOF`, Redis and Valkey from 7.2 on).
    Aof,
}

/// How a [`Producer`](crate::Producer) adds.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// The queue. Default `"default"`.
    pub queue_name: String,
    /// Entries the queue may hold, ready and running together, and delayed jobs apart; one more is
    /// refused with [`QueueFull`](crate::ErrorKind::QueueFull). Default 0: no bound.
    pub max_queue_len: u64,
    /// The farthest a job may be delayed, in seconds; 0 = no limit. Default 2,592,000 (30 days).
    pub max_delay_secs: u64,
    /// The largest encoded payload, in bytes. Default 1 MiB.
    pub max_payload_bytes: usize,
    /// Immediate jobs of one bulk add that share an entry of the stream, 1 to 256. Default 1. Eight
    /// make adding and draining several times as fast for the server. An entry goes to one worker
    /// as a whole, and what that has no free slot for within a second goes back; each job still
    /// ends, fails and is retried on its own.
    pub pack: usize,
    /// Who must have a job before it counts as added, for jobs that do not say so themselves. Other
    /// than `None` it takes a connection of its own, and one more round trip an add or bulk.
    /// Default `None`.
    pub durability: Durability,
    /// Replicas that [`Durability::Replica`] asks for. Default 1.
    pub replicas: u32,
    /// How long an add waits for them or for the disk, beside
    /// [`command_timeout`](ConnectionTuning::command_timeout). When it falls short the outcome is
    /// [`Unknown`](crate::ErrorKind::Unknown): the job is added, but may be lost. Default 1 s.
    pub durability_timeout: Duration,
    /// Connections adds are spread over. Default 1: adds are pipelined, more rarely helps.
    pub pool_size: usize,
    /// Connection timeouts and bounds.
    pub connection: ConnectionTuning,
    /// What is published.
    pub events: EventsConfig,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            queue_name: "default".into(),
            max_queue_len: 0,
            max_delay_secs: 2_592_000,
            max_payload_bytes: 1024 * 1024,
            pack: 1,
            durability: Durability::None,
            replicas: 1,
            durability_timeout: Duration::from_secs(1),
            pool_size: 1,
            connection: ConnectionTuning::default(),
            events: EventsConfig::default(),
        }
    }
}

/// The worker's retry rule, for jobs that bring none of their own.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// The wait after the first failure, in milliseconds. Default 100.
    pub initial_backoff_ms: u64,
    /// The longest wait before jitter, in milliseconds. Default 30,000.
    pub max_backoff_ms: u64,
    /// Growth a failure. Default 2.0.
    pub multiplier: f64,
    /// Up to so many milliseconds are added at random. Default 100.
    pub jitter_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { initial_backoff_ms: 100, max_backoff_ms: 30_000, multiplier: 2.0, jitter_ms: 100 }
    }
}

/// How a [`Consumer`](crate::Consumer) reads, runs and settles.
#[derive(Clone)]
pub struct ConsumerConfig {
    /// The queue. Default `"default"`.
    pub queue_name: String,
    /// The consumer group; a queue has one. Default `"default"`.
    pub group: String,
    /// This consumer's name in the group. Default `c-<host>-<pid>-<random>`.
    pub consumer_id: String,
    /// Jobs run at the same time. Default 100.
    pub concurrency: usize,
    /// Jobs held ready beside the running ones, so that a free slot need not wait for the server;
    /// they go back at shutdown. Default `None`: as many as end within 20 ms, at most eight times
    /// `batch`, so none when jobs are long; what has waited for a second in vain goes back.
    pub prefetch: Option<usize>,
    /// Entries asked for in one read, at most. Default 256.
    pub batch: usize,
    /// How long one read waits for work, in milliseconds. Default 5,000.
    pub block_ms: u64,
    /// The lease in milliseconds: how long a silent worker keeps its jobs before another may
    /// take them. Renewed while the job runs. Default 30,000; at least 500.
    pub claim_min_idle_ms: u64,
    /// The largest payload accepted, in bytes; a larger one goes to the dead-letter queue.
    /// Default 1 MiB.
    pub max_payload_bytes: usize,
    /// All runs a job may have, the first included. Default 25.
    pub max_attempts: u32,
    /// Deliveries whose worker died before a job is given up as `worker_lost`. Default 3.
    pub max_lost: u32,
    /// The retry rule.
    pub retry: RetryConfig,
    /// How long one run may take; then it counts as failed. Default `None`: no limit.
    pub job_timeout: Option<Duration>,
    /// How long shutdown lets running jobs finish, in seconds. Default 30.
    pub shutdown_deadline_secs: u64,
    /// Jobs whose endings are stored in one round trip, at most 1,000. Default 512.
    pub settle_batch: usize,
    /// Dead jobs kept; the oldest go when there are more. Default 0: all are kept.
    pub dlq_max_stream_len: u64,
    /// Whether this consumer may lead the promotion of delayed jobs. Default `true`. The leader also
    /// tells the metrics what the queue holds ([`MetricsSink::queue_counts`]): where no consumer
    /// may lead and no [`Promoter`](crate::Promoter) runs, nobody does.
    pub delayed_enabled: bool,
    /// Due jobs moved in one script call, at most. Default 256.
    pub delayed_promote_batch: usize,
    /// How long a dead promoter stays leader, in seconds. Default 5.
    pub delayed_lock_ttl_secs: u64,
    /// After how many seconds of silence the leader forgets a consumer that holds no jobs, as a
    /// worker that crashed leaves behind; never sooner than after four leases. Default 3,600; 0:
    /// never.
    pub consumer_max_idle_secs: u64,
    /// What is published.
    pub events: EventsConfig,
    /// Connection timeouts and bounds.
    pub connection: ConnectionTuning,
    /// Where metrics go. Default: nowhere, at no cost.
    pub metrics: Arc<dyn MetricsSink>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            queue_name: "default".into(),
            group: "default".into(),
            consumer_id: unique_name("c"),
            concurrency: 100,
            prefetch: None,
            batch: 256,
            block_ms: 5_000,
            claim_min_idle_ms: 30_000,
            max_payload_bytes: 1024 * 1024,
            max_attempts: 25,
            max_lost: 3,
            retry: RetryConfig::default(),
            job_timeout: None,
            shutdown_deadline_secs: 30,
            settle_batch: 512,
            dlq_max_stream_len: 0,
            delayed_enabled: true,
            delayed_promote_batch: 256,
            delayed_lock_ttl_secs: 5,
            consumer_max_idle_secs: 3600,
            events: EventsConfig::default(),
            connection: ConnectionTuning::default(),
            metrics: noop_sink(),
        }
    }
}

impl std::fmt::Debug for ConsumerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerConfig")
            .field("queue_name", &self.queue_name)
            .field("group", &self.group)
            .field("consumer_id", &self.consumer_id)
            .field("concurrency", &self.concurrency)
            .field("claim_min_idle_ms", &self.claim_min_idle_ms)
            .field("max_attempts", &self.max_attempts)
            .finish_non_exhaustive()
    }
}

impl ConsumerConfig {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.claim_min_idle_ms)
    }

    /// How long a consumer may be silent; zero: for ever.
    pub(crate) fn consumer_max_idle(&self) -> Duration {
        match self.consumer_max_idle_secs {
            0 => Duration::ZERO,
            secs => Duration::from_secs(secs).max(self.lease() * 4),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_name("queue name", &self.queue_name)?;
        check_name("group", &self.group)?;
        check_name("consumer_id", &self.consumer_id)?;
        at_least("concurrency", self.concurrency as u64, 1)?;
        at_least("batch", self.batch as u64, 1)?;
        at_least("block_ms", self.block_ms, 1)?;
        at_least("claim_min_idle_ms", self.claim_min_idle_ms, 500)?;
        at_least("max_attempts", self.max_attempts.into(), 1)?;
        at_least("max_lost", self.max_lost.into(), 1)?;
        at_least("settle_batch", self.settle_batch as u64, 1)?;
        at_most("settle_batch", self.settle_batch as u64, 1000)?;
        at_least("delayed_promote_batch", self.delayed_promote_batch as u64, 1)?;
        at_least("delayed_lock_ttl_secs", self.delayed_lock_ttl_secs, 1)
    }
}

/// How a stand-alone [`Promoter`](crate::Promoter) works.
#[derive(Clone)]
pub struct PromoterConfig {
    /// The queue. Default `"default"`.
    pub queue_name: String,
    /// Due jobs moved in one script call, at most. Default 256.
    pub promote_batch: usize,
    /// How long a dead promoter stays leader, in seconds. Default 5.
    pub lock_ttl_secs: u64,
    /// After how many seconds of silence the leader forgets a consumer that holds no jobs: see
    /// [`ConsumerConfig::consumer_max_idle_secs`]. Default 3,600; 0: never.
    pub consumer_max_idle_secs: u64,
    /// This promoter's name in the lock. Default `p-<host>-<pid>-<random>`.
    pub holder_id: String,
    /// What is published.
    pub events: EventsConfig,
    /// Connection timeouts and bounds.
    pub connection: ConnectionTuning,
    /// Where metrics go. Default: nowhere, at no cost.
    pub metrics: Arc<dyn MetricsSink>,
}

impl Default for PromoterConfig {
    fn default() -> Self {
        Self {
            queue_name: "default".into(),
            promote_batch: 256,
            lock_ttl_secs: 5,
            consumer_max_idle_secs: 3600,
            holder_id: unique_name("p"),
            events: EventsConfig::default(),
            connection: ConnectionTuning::default(),
            metrics: noop_sink(),
        }
    }
}

impl PromoterConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        check_name("queue name", &self.queue_name)?;
        check_name("holder_id", &self.holder_id)?;
        at_least("promote_batch", self.promote_batch as u64, 1)?;
        at_least("lock_ttl_secs", self.lock_ttl_secs, 1)
    }
}

fn at_least(field: &'static str, value: u64, least: u64) -> Result<()> {
    if value < least {
        return Err(Error::config(format!("{field} is {value}; it must be at least {least}")));
    }
    Ok(())
}

fn at_most(field: &'static str, value: u64, most: u64) -> Result<()> {
    if value > most {
        return Err(Error::config(format!("{field} is {value}; it must be at most {most}")));
    }
    Ok(())
}

/// A name that says where its bearer runs: `<prefix>-<host>-<pid>-<random>`.
fn unique_name(prefix: &str) -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let host: String = host.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let host = if host.is_empty() { "host" } else { &host };
    format!("{prefix}-{host}-{}-{:08x}", std::process::id(), rand::random::<u32>())
}
