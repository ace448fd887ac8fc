//! Joins the reports of a run: `engine.json` for machines, `engine.md` for people.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use chasquimq_benches::Machine;
use chasquimq_benches::report::{Report, say};
use clap::Parser;
use serde::Serialize;

/// Joins the reports of a run into one.
#[derive(Parser)]
struct Options {
    /// The day of the run.
    #[arg(long)]
    date: String,
    /// The folder that `engine.json` and `engine.md` are written to.
    #[arg(long)]
    out: PathBuf,
    /// Fails when a target was missed.
    #[arg(long)]
    strict: bool,
    /// Reports that the benchmarks wrote.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Suite {
    date: String,
    version: &'static str,
    machine: Machine,
    reports: Vec<Report>,
}

fn main() -> Result<()> {
    let Options { date, out, strict, reports } = Options::parse();
    let read = |path: &PathBuf| {
        let told = || format!("reading {}", path.display());
        let text = fs::read_to_string(path).with_context(told)?;
        serde_json::from_str::<Report>(&text).with_context(told)
    };
    let reports = reports.iter().map(read).collect::<Result<Vec<_>>>()?;
    let version = env!("CARGO_PKG_VERSION");
    let suite = Suite { date, version, machine: Machine::here(), reports };
    fs::create_dir_all(&out)?;
    fs::write(out.join("engine.json"), serde_json::to_string_pretty(&suite)? + "\n")?;
    fs::write(out.join("engine.md"), markdown(&suite))?;
    let checks = suite.reports.iter().flat_map(|report| &report.checks);
    let missed: Vec<_> = checks.filter(|check| !check.is_met()).collect();
    for check in &missed {
        say(&format!("missed: {} is {:.2}", check.name, check.value));
    }
    ensure!(!strict || missed.is_empty(), "{} targets were missed", missed.len());
    Ok(())
}

fn markdown(suite: &Suite) -> String {
    let Suite { date, version, machine, reports } = suite;
    let Machine { cpu, cores, rustc } = machine;
    let server = reports.first().map_or("no server", |report| &report.server);
    let pinned = if reports.iter().all(|report| report.pinned) {
        "server and client on a core each"
    } else {
        "server and client not bound to cores"
    };
    let sizes = if reports.iter().any(|report| report.quick) {
        "\n**A quick run: small sizes, one round. It shows that the benchmarks work, not how fast anything is.**\n"
    } else {
        ""
    };
    let mut text = format!(
        "# The engine's benchmarks\n\nChasquiMQ {version}, {date}, {server}, rustc {rustc}; {cpu}, {cores} cores, \
         {pinned}. Each figure is the median of several rounds; `benches/run` measures them anew.\n{sizes}"
    );
    for report in reports {
        text.push('\n');
        text.push_str(&report.markdown());
    }
    text
}
