//! A queue as the benchmarks use it: a producer, a worker, and a count of what is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use chasquimq::{Consumer, ConsumerConfig, HandlerError, Job, Producer, ProducerConfig};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{Bench, Cost, Meter};

const QUEUE: &str = "bench";
/// Nothing measured here takes longer.
const PATIENCE: Duration = Duration::from_mins(2);

/// A producer of the benchmark's queue.
///
/// # Errors
/// When it cannot connect.
pub async fn producer(bench: &Bench) -> Result<Producer<u64>> {
    let config = ProducerConfig { queue_name: QUEUE.into(), ..Default::default() };
    Ok(Producer::connect(&bench.server.url(), config).await?)
}

/// Empties the server and fills the queue; its stream and the server's memory a job.
///
/// # Errors
/// When the server refuses.
pub async fn preload(bench: &Bench, jobs: u64) -> Result<(String, f64)> {
    preload_packed(bench, jobs, 1).await
}

/// As [`preload`], with so many jobs an entry.
///
/// # Errors
/// When the server refuses.
pub async fn preload_packed(bench: &Bench, jobs: u64, pack: usize) -> Result<(String, f64)> {
    bench.flush().await?;
    let producer = producer(bench).await?;
    let before: f64 = bench.info("memory", "used_memory").await?.parse()?;
    let step = 16 * 64;
    for first in (0..jobs).step_by(step) {
        let some = first..jobs.min(first + step as u64);
        producer.add_bulk_packed(some.collect(), pack).await?;
    }
    let after: f64 = bench.info("memory", "used_memory").await?.parse()?;
    let stream = producer.stream_key();
    producer.shutdown().await;
    bench.reset_calls().await?;
    Ok((stream, (after - before) / jobs as f64))
}

/// The defaults, for the benchmark's queue.
pub fn consumer_config() -> ConsumerConfig {
    ConsumerConfig { queue_name: QUEUE.into(), ..Default::default() }
}

/// Waits, but not for ever.
///
/// # Errors
/// When it takes longer than two minutes; `what` names it.
pub async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> Result<T> {
    let late = || format!("not within {PATIENCE:?}: {what}");
    tokio::time::timeout(PATIENCE, waiting).await.with_context(late)
}

/// Milliseconds since the epoch, with their fraction.
pub fn epoch_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

/// A running consumer.
pub struct Worker {
    stop: CancellationToken,
    task: JoinHandle<chasquimq::Result<chasquimq::Report>>,
}

impl Worker {
    /// Starts one at the benchmark's server.
    pub fn start<F>(
        bench: &Bench,
        config: ConsumerConfig,
        handler: impl Fn(Job<u64>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        Self::start_at(bench.server.url(), config, handler)
    }

    /// Starts one at a server that another process may have started.
    pub fn start_at<F>(
        url: String,
        config: ConsumerConfig,
        handler: impl Fn(Job<u64>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let consumer = Consumer::new(url, config);
        Self { task: tokio::spawn(consumer.run(handler, stop.clone())), stop }
    }

    /// One that runs already.
    pub fn running(
        task: JoinHandle<chasquimq::Result<chasquimq::Report>>,
        stop: CancellationToken,
    ) -> Self {
        Self { stop, task }
    }

    /// Waits until it waits for work itself.
    ///
    /// # Errors
    /// When it has not come so far within two minutes.
    pub async fn ready(&self, bench: &Bench) -> Result<()> {
        let blocked = async {
            while bench.info("clients", "blocked_clients").await? == "0" {
                sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        within("a worker that waits for work", blocked).await?
    }

    /// One whose handler waits so long, then hits the countdown.
    pub fn resting(
        bench: &Bench,
        config: ConsumerConfig,
        rest: Duration,
        left: Arc<Countdown>,
    ) -> Self {
        Self::start(bench, config, move |_job| {
            let left = Arc::clone(&left);
            async move {
                sleep(rest).await;
                left.hit();
                Ok(())
            }
        })
    }

    /// Waits until the stream is empty: every end is stored.
    ///
    /// # Errors
    /// When it is not within two minutes.
    pub async fn drained(&self, bench: &Bench, stream: &str) -> Result<()> {
        let empty = async {
            while bench.stream_len(stream).await? > 0 {
                sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        within("an empty stream", empty).await?
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it failed, or left something behind.
    pub async fn finish(self) -> Result<()> {
        self.stop.cancel();
        let report = within("the worker's end", self.task).await???;
        ensure!(report.abandoned == 0, "the worker left jobs behind: {report:?}");
        Ok(())
    }
}

/// Has a worker, which `start` starts and which hits the countdown once a job, drain the stream; what
/// that cost, from the first job's start to the last one's end, and the worker, which still runs.
///
/// # Errors
/// When it takes longer than two minutes.
pub async fn drain(
    bench: &Bench,
    jobs: u64,
    stream: &str,
    start: impl FnOnce(Arc<Countdown>) -> Worker,
) -> Result<(Cost, Worker)> {
    let left = Arc::new(Countdown::new(jobs));
    let meter = Meter::start(bench).await?;
    let worker = start(Arc::clone(&left));
    left.done().await?;
    worker.drained(bench, stream).await?;
    let begun = left.begun().context("no job was run")?;
    Ok((meter.stop(bench, jobs, Some(begun)).await?, worker))
}

/// Counts down what is left to do.
pub struct Countdown {
    left: AtomicU64,
    begun: OnceLock<Instant>,
    done: Notify,
}

impl Countdown {
    /// So many to go.
    pub fn new(left: u64) -> Self {
        Self { left: AtomicU64::new(left), begun: OnceLock::new(), done: Notify::new() }
    }

    /// One less; more than there were do no harm.
    pub fn hit(&self) {
        self.hit_by(1);
    }

    /// So many less.
    pub fn hit_by(&self, count: u64) {
        self.begun.get_or_init(Instant::now);
        if self.left.fetch_sub(count, Ordering::AcqRel) == count {
            self.done.notify_one();
        }
    }

    /// When the first came.
    pub fn begun(&self) -> Option<Instant> {
        self.begun.get().copied()
    }

    /// Waits for the last.
    ///
    /// # Errors
    /// When it does not come within two minutes.
    pub async fn done(&self) -> Result<()> {
        within("all jobs", self.done.notified()).await
    }
}
