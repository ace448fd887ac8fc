//! How fast jobs are added, beside plain XADD.

use std::pin::Pin;

use anyhow::Result;
use chasquimq::Producer;
use chasquimq_benches::raw::RawClient;
use chasquimq_benches::report::Target;
use chasquimq_benches::{Bench, Meter, main as run, producer};
use tokio::task::JoinSet;

/// As large as the record of a job with a number as its payload.
const RECORD: [u8; 42] = [b'x'; 42];
const ONE_BY_ONE: &str = "add, one after another";
const CONCURRENT: &str = "add, 50 at a time";

fn main() -> Result<()> {
    let title = "W1 and W2: adds jobs, one awaited after another, concurrently, and in bulk.";
    run("add", title, measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let (single, many) = (bench.jobs(500, 10_000), bench.jobs(5_000, 100_000));
    let producer = producer(&bench).await?;
    for _ in 0..bench.rounds(5) {
        raw(&mut bench, "raw XADD, one after another", single, 1).await?;
        timed(&mut bench, ONE_BY_ONE, single, Box::pin(one_by_one(&producer, single))).await?;
        timed(&mut bench, CONCURRENT, many, Box::pin(concurrent(&producer, many))).await?;
        timed(&mut bench, "add_bulk of 50", many, Box::pin(bulk(&producer, many, 50))).await?;
        timed(&mut bench, "add_bulk of 1,000", many, Box::pin(bulk(&producer, many, 1000))).await?;
        raw(&mut bench, "raw XADD, 1,000 a pipeline", many, 1000).await?;
    }
    producer.shutdown().await;
    let report = &mut bench.report;
    let speedup = report.median(CONCURRENT, "jobs/s") / report.median(ONE_BY_ONE, "jobs/s");
    report.check("50 adds at a time, times as fast as one", speedup, Target::AtLeast(3.0));
    Ok(bench)
}

async fn timed(
    bench: &mut Bench,
    row: &str,
    jobs: u64,
    adding: Pin<Box<dyn Future<Output = Result<()>> + '_>>,
) -> Result<()> {
    bench.flush().await?;
    let meter = Meter::start(bench).await?;
    adding.await?;
    let cost = meter.stop(bench, jobs, None).await?;
    bench.report.record(row, "jobs/s", cost.jobs_per_second());
    bench.report.record(row, "server µs/job", cost.server_us);
    bench.report.record(row, "client µs/job", cost.client_us);
    Ok(())
}

async fn raw(bench: &mut Bench, row: &str, jobs: u64, batch: u64) -> Result<()> {
    let mut client = RawClient::connect(bench.server.port())?;
    let adding = Box::pin(async { client.add("raw", &RECORD, jobs, batch) });
    timed(bench, row, jobs, adding).await
}

async fn one_by_one(producer: &Producer<u64>, jobs: u64) -> Result<()> {
    for job in 0..jobs {
        producer.add(job).await?;
    }
    Ok(())
}

async fn concurrent(producer: &Producer<u64>, jobs: u64) -> Result<()> {
    let mut adding = JoinSet::new();
    for first in 0..50 {
        let producer = producer.clone();
        adding.spawn(async move {
            for job in (first..jobs).step_by(50) {
                producer.add(job).await?;
            }
            Ok::<_, chasquimq::Error>(())
        });
    }
    while let Some(added) = adding.join_next().await {
        added??;
    }
    Ok(())
}

async fn bulk(producer: &Producer<u64>, jobs: u64, size: usize) -> Result<()> {
    for first in (0..jobs).step_by(size) {
        producer.add_bulk((first..jobs.min(first + size as u64)).collect()).await?;
    }
    Ok(())
}
