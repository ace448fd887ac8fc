//! What a failure storm costs the jobs that do not fail.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use chasquimq::{ConsumerConfig, HandlerError, Job, RetryConfig};
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::{
    Bench, Cost, Countdown, Meter, Worker, consumer_config, main as run, producer,
};

const CALM: &str = "no job fails";
const STORM: &str = "every other job fails once";
const HASTY: &str = "the same, retried after 10 to 20 ms";
const RATE: &str = "healthy jobs/s";
const OF_CALM: &str = "of a calm run";

/// When so many jobs had succeeded, in seconds from the first start, and what all of them cost.
struct Times {
    healthy: f64,
    all: f64,
    cost: Cost,
}

fn main() -> Result<()> {
    let title = "W7: half of the jobs fail once and are retried, by default after 100 to 200 ms; the other \
                 half is timed.";
    run("storm", title, measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(5_000, 20_000);
    for round in 1..=bench.rounds(5) {
        let mut rates = vec![];
        for (row, retry) in
            [(CALM, None), (STORM, Some(RetryConfig::default())), (HASTY, Some(hasty()))]
        {
            let times = drain(&bench, jobs, retry).await?;
            let rate = (jobs / 2) as f64 / times.healthy;
            bench.report.record(row, RATE, rate);
            bench.report.record(row, "all jobs/s", jobs as f64 / times.all);
            bench.report.record(row, "server µs/job", times.cost.server_us);
            bench.report.record(row, "client µs/job", times.cost.client_us);
            rates.push(rate);
        }
        bench.report.record(STORM, OF_CALM, rates[1] / rates[0]);
        bench.report.record(HASTY, OF_CALM, rates[2] / rates[0]);
        say(&format!(
            "round {round}: healthy jobs/s: {:.0}, {:.0}, {:.0}",
            rates[0], rates[1], rates[2]
        ));
    }
    let ratio = bench.report.median(STORM, OF_CALM);
    bench.report.check("healthy half, share of a calm run", ratio, Target::AtLeast(0.6));
    Ok(bench)
}

async fn drain(bench: &Bench, jobs: u64, retry: Option<RetryConfig>) -> Result<Times> {
    let fails = retry.is_some();
    let config = ConsumerConfig { retry: retry.unwrap_or_default(), ..consumer_config() };
    bench.flush().await?;
    let producer = producer(bench).await?;
    producer.add_bulk((0..jobs).collect()).await?;
    let healthy = Arc::new(Countdown::new(jobs / 2));
    let all = Arc::new(Countdown::new(jobs));
    let meter = Meter::start(bench).await?;
    let (half, whole) = (Arc::clone(&healthy), Arc::clone(&all));
    let worker = Worker::start(bench, config, move |job: Job<u64>| {
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
    let cost = meter.stop(bench, jobs, None).await?;
    worker.finish().await?;
    producer.shutdown().await;
    let begun = all.begun().context("no job was run")?;
    let since = |end: Instant| end.duration_since(begun).as_secs_f64();
    Ok(Times { healthy: since(healthy_done), all: since(all_done), cost })
}

fn hasty() -> RetryConfig {
    RetryConfig {
        initial_backoff_ms: 10,
        max_backoff_ms: 100,
        jitter_ms: 10,
        ..RetryConfig::default()
    }
}
