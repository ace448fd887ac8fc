//! Whether a job costs the same however many there are.

use std::sync::Arc;

use anyhow::Result;
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::{
    Bench, Countdown, Meter, Worker, consumer_config, drain, main as run, preload, producer,
};

const ADD: &str = "add server µs/job";
const DRAIN: &str = "drain server µs/job";

fn main() -> Result<()> {
    run("scale", "The same figures a job with few and with many jobs queued.", measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let sizes: &[u64] = if bench.options.quick {
        &[1_000, 5_000]
    } else {
        &[10_000, 100_000, 1_000_000, 5_000_000]
    };
    for round in 1..=bench.rounds(3) {
        for &jobs in sizes {
            // Small sizes are over before a clock of the server's CPU has ticked: so many times each.
            let repeats = (100_000 / jobs).clamp(1, if bench.options.quick { 1 } else { 10 });
            for _ in 0..repeats {
                size(&mut bench, jobs).await?;
            }
            say(&format!("round {round}: {jobs} jobs: done"));
        }
    }
    let rows: Vec<String> = sizes.iter().map(|&jobs| named(jobs)).collect();
    for unit in [ADD, DRAIN] {
        let costs: Vec<f64> = rows.iter().map(|row| mean(&bench, row, unit)).collect();
        let least = costs.iter().copied().fold(f64::MAX, f64::min);
        let most = costs.iter().copied().fold(0.0, f64::max);
        let name = format!("{unit}: the dearest size, times the cheapest");
        bench.report.check(&name, most / least, Target::AtMost(1.2));
    }
    Ok(bench)
}

/// Adds so many jobs, then drains them.
async fn size(bench: &mut Bench, jobs: u64) -> Result<()> {
    let row = named(jobs);
    let (_, bytes) = {
        bench.flush().await?;
        let meter = Meter::start(bench).await?;
        let filled = preload(bench, jobs).await?;
        let cost = meter.stop(bench, jobs, None).await?;
        bench.report.record(&row, ADD, cost.server_us);
        bench.report.record(&row, "add client µs/job", cost.client_us);
        filled
    };
    let stream = producer(bench).await?.stream_key();
    let start = |left: Arc<Countdown>| {
        Worker::start(bench, consumer_config(), move |_job| {
            left.hit();
            async { Ok(()) }
        })
    };
    let (cost, worker) = drain(bench, jobs, &stream, start).await?;
    bench.report.record(&row, DRAIN, cost.server_us);
    bench.report.record(&row, "drain client µs/job", cost.client_us);
    bench.report.record(&row, "drain jobs/s", cost.jobs_per_second());
    bench.report.record(&row, "server bytes/queued job", bytes);
    worker.finish().await
}

fn named(jobs: u64) -> String {
    match jobs {
        1_000_000.. => format!("{} million", jobs / 1_000_000),
        _ => format!("{} thousand", jobs / 1_000),
    }
}

/// The mean of the rounds: of a clock that ticks in hundredths of a second the median lies.
fn mean(bench: &Bench, row: &str, unit: &str) -> f64 {
    let row = bench.report.rows.iter().find(|known| known.name == row);
    let cell = row.and_then(|row| row.cells.iter().find(|known| known.unit == unit));
    cell.map_or(0.0, |cell| cell.rounds.iter().sum::<f64>() / cell.rounds.len() as f64)
}
