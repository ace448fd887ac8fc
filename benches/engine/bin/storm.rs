//! What a failure storm costs the jobs that do not fail.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use chasquimq::{ConsumerConfig, HandlerError, Job, RetryConfig};
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::{Bench, Countdown, Worker, consumer_config, main as run, producer};

const CALM: &str = "no job fails";
const STORM: &str = "every other job fails once";
const RATE: &str = "healthy jobs/s";

/// When so many jobs had succeeded, in seconds from the first start.
struct Times {
    healthy: f64,
    all: f64,
}

fn main() -> Result<()> {
    let title = "W7: half of the jobs fail once and are retried after 10 to 20 ms; the other half is timed.";
    run("storm", title, measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(5_000, 20_000);
    for round in 1..=bench.rounds(5) {
        let mut rates = vec![];
        for (row, fails) in [(CALM, false), (STORM, true)] {
            let times = drain(&bench, jobs, fails).await?;
            let rate = (jobs / 2) as f64 / times.healthy;
            bench.report.record(row, RATE, rate);
            bench.report.record(row, "all jobs/s", jobs as f64 / times.all);
            rates.push(rate);
        }
        bench.report.record(STORM, "of a calm run", rates[1] / rates[0]);
        say(&format!("round {round}: calm {:.0}, storm {:.0} healthy jobs/s", rates[0], rates[1]));
    }
    let ratio = bench.report.median(STORM, "of a calm run");
    bench.report.check("healthy half, share of a calm run", ratio, Target::AtLeast(0.6));
    Ok(bench)
}

async fn drain(bench: &Bench, jobs: u64, fails: bool) -> Result<Times> {
    bench.flush().await?;
    let producer = producer(bench).await?;
    producer.add_bulk((0..jobs).collect()).await?;
    let healthy = Arc::new(Countdown::new(jobs / 2));
    let all = Arc::new(Countdown::new(jobs));
    let (half, whole) = (Arc::clone(&healthy), Arc::clone(&all));
    let worker = Worker::start(bench, config(), move |job: Job<u64>| {
        let failed = fails && !job.payload.is_multiple_of(2) && job.attempt == 0;
        if !failed {
            whole.hit();
        }
        if job.payload.is_multiple_of(2) {
            half.hit();
        }
        async move { if failed { Err(HandlerError::new("the first run fails")) } else { Ok(()) } }
    });
    healthy.done().await?;
    let healthy_done = Instant::now();
    all.done().await?;
    let all_done = Instant::now();
    worker.drained(bench, &producer.stream_key()).await?;
    worker.finish().await?;
    producer.shutdown().await;
    let begun = all.begun().context("no job was run")?;
    let since = |end: Instant| end.duration_since(begun).as_secs_f64();
    Ok(Times { healthy: since(healthy_done), all: since(all_done) })
}

fn config() -> ConsumerConfig {
    let retry = RetryConfig {
        initial_backoff_ms: 10,
        max_backoff_ms: 100,
        jitter_ms: 10,
        ..RetryConfig::default()
    };
    ConsumerConfig { concurrency: 100, retry, ..consumer_config() }
}
