//! What leases cost where they cost most: jobs that each live to see one renewal of the shortest lease,
//! as many at a time as keep the CPU busy, beside the same jobs under a lease too long to be renewed.
//! Shorter jobs are not renewed, longer ones come less often. By default no job of less than 3.75 s is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use chasquimq::ConsumerConfig;
use chasquimq_benches::report::say;
use chasquimq_benches::sinks::Renewals;
use chasquimq_benches::{Bench, Cost, Worker, consumer_config, drain, main as run, preload};

const NONE: &str = "no renewals (lease of 1 h)";
const EACH: &str = "renewed once a job (lease of 0.5 s)";
const SHORTEST: Duration = Duration::from_millis(500);
/// Every quarter of a lease, jobs older than an eighth are renewed: each of these is due once.
const HANDLER: Duration = Duration::from_micros(187_500);
/// So many that the CPU is the limit, not the time that handlers wait.
const CONCURRENCY: usize = 20_000;

fn main() -> Result<()> {
    let title = "What leases cost at most: 20,000 jobs at a time that last as long as it takes to be \
                 renewed once.";
    run("leases", title, measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let jobs = bench.jobs(20_000, 200_000);
    for round in 1..=bench.rounds(5) {
        let (none, _) = measured(&mut bench, jobs, NONE, Duration::from_hours(1)).await?;
        let (each, renewals) = measured(&mut bench, jobs, EACH, SHORTEST).await?;
        ensure!(renewals > 0.0, "no lease was renewed: there are too few jobs");
        let lost = (1.0 - each.jobs_per_second() / none.jobs_per_second()) * 100.0;
        let cpu = (each.client_us + each.server_us) / (none.client_us + none.server_us);
        bench.report.record(EACH, "leases cost %", lost);
        bench.report.record(EACH, "leases cost % CPU", (cpu - 1.0) * 100.0);
        let server = (each.server_us - none.server_us) / renewals;
        bench.report.record(EACH, "server µs/renewal", server);
        say(&format!("round {round}: renewals cost {lost:.1} % of the throughput"));
    }
    Ok(bench)
}

/// Drains; the cost, and renewals a job.
async fn measured(bench: &mut Bench, jobs: u64, row: &str, lease: Duration) -> Result<(Cost, f64)> {
    let (stream, _) = preload(bench, jobs).await?;
    let renewals = Arc::new(Renewals::default());
    let config = ConsumerConfig {
        concurrency: CONCURRENCY,
        claim_min_idle_ms: lease.as_millis() as u64,
        metrics: renewals.clone(),
        ..consumer_config()
    };
    let start = |left| Worker::resting(bench, config, HANDLER, left);
    let (cost, worker) = drain(bench, jobs, &stream, start).await?;
    worker.finish().await?;
    bench.report.record_cost(row, cost);
    let renewals = renewals.total() as f64 / jobs as f64;
    bench.report.record(row, "renewals/job", renewals);
    Ok((cost, renewals))
}
