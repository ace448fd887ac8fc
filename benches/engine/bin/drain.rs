//! How fast a worker drains preloaded jobs, beside the ceiling of the same entries.

use anyhow::Result;
use chasquimq::{ConsumerConfig, EventsConfig};
use chasquimq_benches::raw::RawClient;
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::{
    Bench, Cost, Countdown, Meter, Worker, consumer_config, drain, main as run, preload,
    resident_mb,
};
use std::sync::Arc;

const RAW: &str = "raw client, the ceiling";
const EVENTS_OFF: &str = "events off";
const EVENTS_ON: &str = "events on (default)";
const EVENTS_COST: &str = "events cost %";
const READ: u64 = 256;

fn main() -> Result<()> {
    run("drain", "W3: drains preloaded no-op jobs, one an entry, at concurrency 100.", measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(5_000, 200_000);
    let (mut ratios, mut ratios_on, mut costs) = (vec![], vec![], vec![]);
    for round in 1..=bench.rounds(5) {
        let ceiling = raw(&mut bench, jobs).await?.jobs_per_second();
        let off = engine(&mut bench, jobs, EVENTS_OFF).await?.jobs_per_second();
        let on = engine(&mut bench, jobs, EVENTS_ON).await?.jobs_per_second();
        say(&format!("round {round}: raw {ceiling:.0}, events off {off:.0}, on {on:.0} jobs/s"));
        ratios.push(off / ceiling);
        ratios_on.push(on / ceiling);
        costs.push((1.0 - on / off) * 100.0);
    }
    for (row, ratios) in [(EVENTS_OFF, ratios), (EVENTS_ON, ratios_on)] {
        for ratio in ratios {
            bench.report.record(row, "of the ceiling", ratio);
        }
    }
    let report = &mut bench.report;
    for cost in costs {
        report.record(EVENTS_ON, EVENTS_COST, cost);
    }
    let ratio = report.median(EVENTS_OFF, "of the ceiling");
    report.check("share of the ceiling, events off", ratio, Target::AtLeast(0.85));
    let cost = report.median(EVENTS_ON, "server µs/job");
    report.check("server CPU, default events, µs a job", cost, Target::AtMost(9.6));
    let cost = report.median(EVENTS_ON, EVENTS_COST);
    report.check("throughput that events cost, %", cost, Target::AtMost(15.0));
    Ok(bench)
}

async fn raw(bench: &mut Bench, jobs: u64) -> Result<Cost> {
    let (stream, _) = preload(bench, jobs).await?;
    let mut client = RawClient::connect(bench.server.port())?;
    let meter = Meter::start(bench).await?;
    client.drain(&stream, jobs, READ)?;
    let cost = meter.stop(bench, jobs, None).await?;
    bench.report.record_cost(RAW, cost);
    Ok(cost)
}

async fn engine(bench: &mut Bench, jobs: u64, row: &str) -> Result<Cost> {
    let (stream, bytes) = preload(bench, jobs).await?;
    let config = ConsumerConfig {
        concurrency: 100,
        events: EventsConfig { enabled: row == EVENTS_ON, ..EventsConfig::default() },
        ..consumer_config()
    };
    let start = |left: Arc<Countdown>| {
        Worker::start(bench, config, move |_job| {
            left.hit();
            async { Ok(()) }
        })
    };
    let (cost, worker) = drain(bench, jobs, &stream, start).await?;
    bench.report.record_cost(row, cost);
    for (unit, command) in [("jobs/read", "xreadgroup"), ("jobs/settlement", "evalsha")] {
        bench.report.record(row, unit, jobs as f64 / bench.calls(command).await?.max(1.0));
    }
    bench.report.record(row, "RSS MB", resident_mb());
    bench.report.record(row, "server bytes/queued job", bytes);
    worker.finish().await?;
    Ok(cost)
}
