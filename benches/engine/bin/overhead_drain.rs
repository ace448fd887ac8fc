//! Drains a queue once, on one thread: the process in which `bench-overhead` counts.

use std::sync::Arc;

use anyhow::Result;
use chasquimq::{ConsumerConfig, noop_sink};
use chasquimq_benches::{Countdown, Worker, consumer_config, sinks};
use clap::Parser;

/// Drains a queue once.
#[derive(Parser)]
struct Options {
    /// The server.
    #[arg(long)]
    url: String,
    /// Jobs in the queue.
    #[arg(long)]
    jobs: u64,
    /// Tells the `metrics` facade through three wrappers, instead of nobody.
    #[arg(long)]
    facade: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Options { url, jobs, facade } = Options::parse();
    let metrics = if facade { sinks::facade()? } else { noop_sink() };
    // The promoter works by the clock: slowed down, it would do more of it a job.
    let config = ConsumerConfig { metrics, delayed_enabled: false, ..consumer_config() };
    let left = Arc::new(Countdown::new(jobs));
    let counting = Arc::clone(&left);
    let worker = Worker::start_at(url, config, move |_job| {
        counting.hit();
        async { Ok(()) }
    });
    left.done().await?;
    worker.finish().await
}
