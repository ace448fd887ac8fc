//! How fast a worker drains entries of several jobs, by handlers of one job and of batches, beside
//! the ceiling of the same entries.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chasquimq::{BatchOptions, Consumer, ConsumerConfig, EventsConfig, HandlerError, Job};
use chasquimq_benches::raw::RawClient;
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::{
    Bench, Cost, Countdown, Meter, Worker, consumer_config, drain, main as run, preload_packed,
    resident_mb,
};
use tokio_util::sync::CancellationToken;

/// A row: how it is named, jobs an entry, jobs a call of the handler (1: no batches), events.
struct Way {
    row: &'static str,
    pack: usize,
    batch: usize,
    events: bool,
}

const RAW_ROWS: &[(&str, usize)] =
    &[("raw client, 8 an entry", 8), ("raw client, 64 an entry", 64)];
const FASTEST: &str = "64 an entry, batches of 512, events off";
const WAYS: &[Way] = &[
    Way { row: "1 an entry, batches of 512", pack: 1, batch: 512, events: true },
    Way { row: "8 an entry", pack: 8, batch: 1, events: true },
    Way { row: "8 an entry, batches of 512", pack: 8, batch: 512, events: true },
    Way { row: "64 an entry", pack: 64, batch: 1, events: true },
    Way { row: "64 an entry, batches of 512", pack: 64, batch: 512, events: true },
    Way { row: FASTEST, pack: 64, batch: 512, events: false },
];

fn main() -> Result<()> {
    run("packed", "W3 with entries of several jobs, and with batch handlers.", measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(10_000, 1_000_000);
    for round in 1..=bench.rounds(3) {
        for (row, pack) in RAW_ROWS {
            raw(&mut bench, jobs, row, *pack).await?;
        }
        for way in WAYS {
            let cost = engine(&mut bench, jobs, way).await?;
            say(&format!("round {round}: {}: {:.0} jobs/s", way.row, cost.jobs_per_second()));
        }
    }
    let fastest = bench.report.median(FASTEST, "jobs/s");
    bench.report.check(
        "packed entries and batch handlers, jobs/s",
        fastest,
        Target::AtLeast(1.5e6),
    );
    Ok(bench)
}

async fn raw(bench: &mut Bench, jobs: u64, row: &str, pack: usize) -> Result<()> {
    let (stream, _) = preload_packed(bench, jobs, pack).await?;
    let mut client = RawClient::connect(bench.server.port())?;
    let meter = Meter::start(bench).await?;
    client.drain(&stream, jobs.div_ceil(pack as u64), 64)?;
    let cost = meter.stop(bench, jobs, None).await?;
    bench.report.record_cost(row, cost);
    Ok(())
}

async fn engine(bench: &mut Bench, jobs: u64, way: &Way) -> Result<Cost> {
    let (stream, bytes) = preload_packed(bench, jobs, way.pack).await?;
    let events = EventsConfig { enabled: way.events, ..EventsConfig::default() };
    let config = ConsumerConfig { events, ..consumer_config() };
    let (cost, worker) =
        drain(bench, jobs, &stream, |left| start(bench, config, way.batch, left)).await?;
    bench.report.record_cost(way.row, cost);
    bench.report.record(way.row, "RSS MB", resident_mb());
    bench.report.record(way.row, "server bytes/queued job", bytes);
    worker.finish().await?;
    Ok(cost)
}

fn start(bench: &Bench, config: ConsumerConfig, batch: usize, left: Arc<Countdown>) -> Worker {
    if batch == 1 {
        return Worker::start(bench, config, move |_job| {
            left.hit();
            async { Ok(()) }
        });
    }
    let stop = CancellationToken::new();
    let consumer = Consumer::new(bench.server.url(), ConsumerConfig { concurrency: 4, ..config });
    let options = BatchOptions { size: batch, wait: Duration::ZERO };
    let handler = move |jobs: Vec<Job<u64>>| {
        left.hit_by(jobs.len() as u64);
        async { Ok::<(), HandlerError>(()) }
    };
    let task = tokio::spawn(consumer.run_batches(options, handler, stop.clone()));
    Worker::running(task, stop)
}

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
