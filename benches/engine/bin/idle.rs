//! What an idle worker costs.

use std::time::Duration;

use anyhow::Result;
use chasquimq_benches::raw::RawClient;
use chasquimq_benches::report::Target;
use chasquimq_benches::{Bench, Meter, Worker, consumer_config, main as run};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const ROW: &str = "one worker without work";

fn main() -> Result<()> {
    run(
        "idle",
        "A worker that has nothing to do; commands inside scripts are counted apart.",
        measure,
    )
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let seconds = if bench.options.quick { 5 } else { 20 };
    let worker = Worker::start(&bench, consumer_config(), |_job| async { Ok(()) });
    worker.ready(&bench).await?;
    sleep(Duration::from_secs(1)).await;
    let watcher = RawClient::connect(bench.server.port())?;
    let meter = Meter::start(&bench).await?;
    let watching = spawn_blocking(move || watcher.watch(Duration::from_secs(seconds)));
    let (sent, inside) = watching.await??;
    let cost = meter.stop(&bench, seconds, None).await?;
    worker.finish().await?;
    let rate = sent as f64 / seconds as f64;
    bench.report.record(ROW, "commands/s", rate);
    bench.report.record(ROW, "in scripts/s", inside as f64 / seconds as f64);
    bench.report.record(ROW, "client CPU µs/s", cost.client_us);
    bench.report.record(ROW, "server CPU µs/s", cost.server_us);
    bench.report.check("commands a second", rate, Target::AtMost(5.0));
    Ok(bench)
}
