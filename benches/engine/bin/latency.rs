//! How soon an idle worker starts a job.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chasquimq::Job;
use chasquimq_benches::stats::percentile;
use chasquimq_benches::{Bench, Worker, consumer_config, main as run, producer, within};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_millis(5);
const ROW: &str = "an idle worker, 200 jobs/s";

fn main() -> Result<()> {
    run("latency", "W4: from the call of add to the start of the handler.", measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(200, 2_000);
    for _ in 0..bench.rounds(3) {
        let waits = waits(&bench, jobs).await?;
        for (unit, percent) in [("ms p50", 50.0), ("ms p99", 99.0), ("ms max", 100.0)] {
            bench.report.record(ROW, unit, percentile(&waits, percent));
        }
    }
    Ok(bench)
}

/// From add to start, in milliseconds.
async fn waits(bench: &Bench, jobs: u64) -> Result<Vec<f64>> {
    bench.flush().await?;
    let producer = producer(bench).await?;
    let epoch = Instant::now();
    let now_ns = move || epoch.elapsed().as_nanos() as u64;
    let (started, mut starts) = mpsc::channel(1024);
    let worker = Worker::start(bench, consumer_config(), move |job: Job<u64>| {
        let (wait, started) = (now_ns() - job.payload, started.clone());
        async move { Ok(started.send(wait as f64 / 1e6).await?) }
    });
    worker.ready(bench).await?;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waits = Vec::with_capacity(jobs as usize);
    for _ in 0..jobs {
        ticks.tick().await;
        producer.add(now_ns()).await?;
        waits.push(within("the job's start", starts.recv()).await?.context("the worker ended")?);
    }
    worker.finish().await?;
    producer.shutdown().await;
    Ok(waits)
}
