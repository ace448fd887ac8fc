//! How late delayed jobs start.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use chasquimq::{AddOptions, Delay, Job, Producer, RawJob};
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::stats::percentile;
use chasquimq_benches::{
    Bench, Countdown, Worker, consumer_config, epoch_ms, main as run, producer, within,
};
use tokio::sync::mpsc;

const CROWD: &str = "many due at one moment";
const SINGLE: &str = "one, delayed by 50 ms, on an idle queue";
const P99: &str = "late ms p99";

fn main() -> Result<()> {
    run(
        "delayed",
        "W5: delayed jobs; late is from when a job was due to the start of its handler.",
        measure,
    )
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(1_000, 10_000);
    for round in 1..=bench.rounds(3) {
        let late = crowd(&bench, jobs).await?;
        let all = percentile(&late, 100.0);
        record(&mut bench, CROWD, &late);
        bench.report.record(CROWD, "drain jobs/s", jobs as f64 / all * 1000.0);
        say(&format!("round {round}: {jobs} jobs started {all:.0} ms after they were due"));
    }
    let times = if bench.options.quick { 20 } else { 200 };
    let late = singles(&bench, times).await?;
    record(&mut bench, SINGLE, &late);
    let (crowd, single) = (bench.report.median(CROWD, P99), bench.report.median(SINGLE, P99));
    bench.report.check("many at one moment, ms late, p99", crowd, Target::AtMost(1400.0 / 3.0));
    bench.report.check("a single one, ms late, p99", single, Target::AtMost(20.0));
    Ok(bench)
}

fn record(bench: &mut Bench, row: &str, late: &[f64]) {
    bench.report.record(row, "late ms p50", percentile(late, 50.0));
    bench.report.record(row, P99, percentile(late, 99.0));
    bench.report.record(row, "late ms min", percentile(late, 0.0));
}

/// The payload is when the job is due.
fn due_at(due_ms: u64) -> RawJob {
    let mut payload = vec![0xcf];
    payload.extend_from_slice(&due_ms.to_be_bytes());
    let options = AddOptions::default();
    RawJob { payload: payload.into(), options, delay: Some(Delay::AtMs(due_ms)) }
}

/// Lateness of jobs that are due at one moment, which begins after all were added.
async fn crowd(bench: &Bench, jobs: u64) -> Result<Vec<f64>> {
    bench.flush().await?;
    let producer = producer(bench).await?;
    let late = Arc::new(Mutex::new(Vec::with_capacity(jobs as usize)));
    let left = Arc::new(Countdown::new(jobs));
    let (seen, counting) = (Arc::clone(&late), Arc::clone(&left));
    let worker = Worker::start(bench, consumer_config(), move |job: Job<u64>| {
        let late = epoch_ms() - job.payload as f64;
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        counting.hit();
        async { Ok(()) }
    });
    worker.ready(bench).await?;
    let due_ms = epoch_ms() as u64 + 2_000;
    for first in (0..jobs).step_by(500) {
        let some = (first..jobs.min(first + 500)).map(|_| due_at(due_ms)).collect();
        producer.add_raw(some).await?;
    }
    anyhow::ensure!(epoch_ms() < due_ms as f64, "adding took longer than the delay");
    left.done().await?;
    worker.drained(bench, &producer.stream_key()).await?;
    worker.finish().await?;
    producer.shutdown().await;
    let late = late.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(late.clone())
}

/// Lateness of single jobs, each added when the one before has run.
async fn singles(bench: &Bench, times: u64) -> Result<Vec<f64>> {
    bench.flush().await?;
    let producer = producer(bench).await?;
    let (started, mut starts) = mpsc::channel(1);
    let worker = Worker::start(bench, consumer_config(), move |job: Job<u64>| {
        let (late, started) = (epoch_ms() - job.payload as f64, started.clone());
        async move { Ok(started.send(late).await?) }
    });
    worker.ready(bench).await?;
    let mut late = vec![];
    for _ in 0..times {
        late.push(single(&producer, &mut starts).await?);
        // Until the worker is idle again.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.finish().await?;
    producer.shutdown().await;
    Ok(late)
}

async fn single(producer: &Producer<u64>, starts: &mut mpsc::Receiver<f64>) -> Result<f64> {
    producer.add_raw(vec![due_at(epoch_ms() as u64 + 50)]).await?;
    within("the job's start", starts.recv()).await?.context("the worker ended")
}
