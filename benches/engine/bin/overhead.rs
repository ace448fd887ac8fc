//! What telling metrics costs, counted and not timed: instructions and allocations of a drain whose
//! engine has the telling compiled out, of the same drain with a sink, and allocations an event.
//!
//! A drain of many jobs less one of few leaves what jobs cost. It runs on one thread, and without
//! the promoter, which works by the clock. What the kernel does is not counted.
//!
//! It resolves about half a percent: so far are rounds apart, and two builds do not only differ in what
//! is told, for the compiler then inlines other functions as well. What `NoopSink` itself costs a job
//! are the few instructions that find it silent, at each point where something could be told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use allocation_counter::measure as count_allocations;
use anyhow::{Context, Result, ensure};
use chasquimq::{MetricsSink, noop_sink};
use chasquimq_benches::callgrind::{Count, count};
use chasquimq_benches::report::{Target, say};
use chasquimq_benches::{Bench, main as run, preload, sinks};

const WITHOUT: &str = "telling compiled out";
const NOOP: &str = "NoopSink (default)";
const FACADE: &str = "facade sink, three wrappers";
const INSTRUCTIONS: &str = "instructions/job";
const COST: &str = "costs %";
const AN_EVENT: &str = "allocations/event";
const DRAIN: &str = "overhead-drain";
/// Jobs of the long drain for one of the short.
const MANY: u64 = 5;

fn main() -> Result<()> {
    let title = "What metrics cost a drained no-op job, in instructions counted by callgrind. Half a \
                 percent, either way, may be the compiler's, which inlines the two builds differently.";
    run("overhead", title, measure)
}

async fn measure(mut bench: Bench) -> Result<Bench> {
    let with = std::env::current_exe()?.with_file_name(DRAIN);
    let without = without_metrics(&with)?;
    for round in 1..=bench.rounds(5) {
        let base = drain(&mut bench, WITHOUT, &without).await?;
        say(&format!("round {round}: {WITHOUT}: {base:.0} instructions a job"));
        for row in [NOOP, FACADE] {
            let instructions = drain(&mut bench, row, &with).await?;
            bench.report.record(row, COST, (instructions / base - 1.0) * 100.0);
            say(&format!("round {round}: {row}: {instructions:.0}"));
        }
    }
    for row in [WITHOUT, NOOP, FACADE] {
        spread(&mut bench, row);
    }
    let mut an_event = allocations_an_event(&mut bench, NOOP, &*noop_sink());
    an_event += allocations_an_event(&mut bench, FACADE, &*sinks::facade()?);
    bench.report.check("allocations an event, both sinks", an_event, Target::AtMost(0.0));
    let cost = bench.report.median(NOOP, COST);
    bench.report.check("instructions that NoopSink costs, %", cost, Target::AtMost(1.0));
    Ok(bench)
}

/// The program of the build whose engine tells nothing.
fn without_metrics(with: &Path) -> Result<PathBuf> {
    let target = with.parent().and_then(Path::parent).context("no folder above the program's")?;
    let without = target.join("without-metrics/release").join(DRAIN);
    ensure!(without.exists(), "{} is missing; benches/run builds it", without.display());
    Ok(without)
}

/// Drains in a process of its own; instructions a job.
async fn drain(bench: &mut Bench, row: &str, program: &Path) -> Result<f64> {
    let few = bench.jobs(500, 5_000);
    let cost = count_drain(bench, row, program, few * MANY).await?
        - count_drain(bench, row, program, few).await?;
    let jobs = (few * (MANY - 1)) as f64;
    bench.report.record(row, INSTRUCTIONS, cost.instructions / jobs);
    bench.report.record(row, "allocations/job", cost.allocations / jobs);
    Ok(cost.instructions / jobs)
}

async fn count_drain(bench: &Bench, row: &str, program: &Path, jobs: u64) -> Result<Count> {
    preload(bench, jobs).await?;
    let (url, jobs) = (bench.server.url(), jobs.to_string());
    let mut args = vec!["--url", &url, "--jobs", &jobs];
    if row == FACADE {
        args.push("--facade");
    }
    count(program, &args).await
}

/// How far the rounds are apart.
fn spread(bench: &mut Bench, row: &str) {
    let rows = bench.report.rows.iter().filter(|known| known.name == row);
    let cell = rows.flat_map(|row| &row.cells).find(|cell| cell.unit == INSTRUCTIONS);
    let Some(cell) = cell else { return };
    let least = cell.rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = cell.rounds.iter().copied().fold(0.0, f64::max);
    let percent = (most - least) / cell.median * 100.0;
    bench.report.record(row, "spread %", percent);
}

/// Allocations an event of each kind, after the first sight of each.
fn allocations_an_event(bench: &mut Bench, row: &str, sink: &dyn MetricsSink) -> f64 {
    const ROUNDS: usize = 1000;
    let name = Arc::from("a name");
    sinks::tell_each(sink, &name);
    let mut told = 0;
    let made = count_allocations(|| {
        told = (0..ROUNDS).map(|_| sinks::tell_each(sink, &name)).sum();
    });
    let an_event = made.count_total as f64 / told as f64;
    bench.report.record(row, AN_EVENT, an_event);
    an_event
}
