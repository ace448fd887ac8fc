//! What the tests share: a worker that records, and short ways to the queue.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chasquimq::{Consumer, ConsumerConfig, HandlerError, Job, Producer, ProducerConfig, Report};
use chasquimq_testkit::{ChaosProxy, Reply, Server, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub type Answer = Result<(), HandlerError>;

/// A producer of this queue.
pub async fn producer(server: &Server, queue: &str) -> Producer<u64> {
    let config = ProducerConfig { queue_name: queue.into(), ..Default::default() };
    Producer::connect(&server.url(), config).await.unwrap()
}

/// A configuration for tests: short lease, quick retries.
pub fn config(queue: &str) -> ConsumerConfig {
    let retry = chasquimq::RetryConfig {
        initial_backoff_ms: 10,
        max_backoff_ms: 50,
        jitter_ms: 0,
        ..Default::default()
    };
    ConsumerConfig {
        queue_name: queue.into(),
        claim_min_idle_ms: 1000,
        retry,
        ..Default::default()
    }
}

/// As [`config`], for a consumer of this name that notices within a second that others have gone.
pub fn quick(queue: &str, name: &str) -> ConsumerConfig {
    ConsumerConfig {
        consumer_id: name.into(),
        claim_min_idle_ms: 500,
        consumer_max_idle_secs: 1,
        delayed_lock_ttl_secs: 1,
        block_ms: 100,
        ..config(queue)
    }
}

/// A running consumer, and what its handler saw.
pub struct Worker {
    pub runs: Arc<Mutex<Vec<Job<u64>>>>,
    pub stop: CancellationToken,
    task: JoinHandle<chasquimq::Result<Report>>,
    lifeline: Option<ChaosProxy>,
}

impl Worker {
    /// Starts a consumer whose handler records each run and then answers with `handler`.
    pub fn start<F>(
        url: &str,
        config: ConsumerConfig,
        handler: impl Fn(Job<u64>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let runs: Arc<Mutex<Vec<Job<u64>>>> = Arc::default();
        let (seen, stop) = (Arc::clone(&runs), CancellationToken::new());
        let recording = move |job: Job<u64>| {
            seen.lock().unwrap().push(job.clone());
            handler(job)
        };
        let task = tokio::spawn(Consumer::new(url, config).run(recording, stop.clone()));
        Self { runs, stop, task, lifeline: None }
    }

    /// Runs so far.
    pub fn count(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    /// Waits until so many runs have begun.
    pub async fn ran(&self, count: usize) {
        eventually(&format!("{count} runs"), Duration::from_secs(20), || async {
            self.count() >= count
        })
        .await;
    }

    /// Payloads of the runs so far, sorted.
    pub fn payloads(&self) -> Vec<u64> {
        let mut payloads: Vec<u64> =
            self.runs.lock().unwrap().iter().map(|job| job.payload).collect();
        payloads.sort_unstable();
        payloads
    }

    /// Stops it and waits for its report.
    pub async fn finish(self) -> Report {
        self.stop.cancel();
        self.task.await.unwrap().unwrap()
    }

    /// Starts a consumer that can [`crash`](Self::crash) and whose jobs never end.
    pub async fn doomed(server: &Server, config: ConsumerConfig) -> Self {
        Self::doomed_with(server, config, |_| std::future::pending()).await
    }

    /// Starts a consumer that can [`crash`](Self::crash).
    pub async fn doomed_with<F>(
        server: &Server,
        config: ConsumerConfig,
        handler: impl Fn(Job<u64>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let proxy = ChaosProxy::start(server.port()).await;
        let mut worker = Self::start(&proxy.url(), config, handler);
        worker.lifeline = Some(proxy);
        worker
    }

    /// Ends it as a crash would: no word of it reaches the server.
    pub fn crash(self) {
        if let Some(proxy) = &self.lifeline {
            proxy.refuse(true);
            proxy.cut();
        }
        self.task.abort();
    }
}

/// The key of the queue that ends in `suffix`.
pub fn key(queue: &str, suffix: &str) -> String {
    format!("{{chasqui:{queue}}}:{suffix}")
}

/// Waits until the stream and the delayed set of the queue are empty, both at one moment: a job can
/// move from one to the other between two looks.
pub async fn drained(server: &Server, queue: &str) {
    let both = "return redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2])";
    let (stream, delayed) = (key(queue, "stream"), key(queue, "delayed"));
    eventually("an empty queue", Duration::from_mins(1), || async {
        server.command(&["EVAL", both, "2", &stream, &delayed]).await == Reply::Int(0)
    })
    .await;
}
