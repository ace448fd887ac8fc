//! Joins the reports of a run: `engine.json` for machines, `engine.md` for people; or `soak.…`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use chasquimq_benches::Machine;
use chasquimq_benches::report::{Report, say};
use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Joins the reports of a run into one.
#[derive(Parser)]
struct Options {
    /// The day of the run.
    #[arg(long)]
    date: String,
    /// The folder that the two files are written to.
    #[arg(long)]
    out: PathBuf,
    /// What the files are called, and what they are about.
    #[arg(long, value_enum, default_value_t)]
    name: Name,
    /// Fails when a target was missed.
    #[arg(long)]
    strict: bool,
    /// Reports that the benchmarks wrote.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Name {
    #[default]
    Engine,
    Soak,
}

impl Name {
    /// The files' name, the title, and what the figures are.
    fn words(self) -> [&'static str; 3] {
        match self {
            Self::Engine => [
                "engine",
                "The engine's benchmarks",
                "Each figure is the median of several rounds; `benches/run` measures them anew.",
            ],
            Self::Soak => [
                "soak",
                "A long run",
                "What was sampled each second stands here as its median, and whole in soak.json; \
                 `benches/run --full soak` measures it anew.",
            ],
        }
    }
}

#[derive(Serialize)]
struct Suite {
    date: String,
    version: &'static str,
    machine: Machine,
    reports: Vec<Report>,
}

fn main() -> Result<()> {
    let Options { date, out, name, strict, reports } = Options::parse();
    let read = |path: &PathBuf| {
        let told = || format!("reading {}", path.display());
        let text = fs::read_to_string(path).with_context(told)?;
        serde_json::from_str::<Report>(&text).with_context(told)
    };
    let reports = reports.iter().map(read).collect::<Result<Vec<_>>>()?;
    let version = env!("CARGO_PKG_VERSION");
    let suite = Suite { date, version, machine: Machine::here(), reports };
    fs::create_dir_all(&out)?;
    let [file, title, figures] = name.words();
    let json = serde_json::to_string_pretty(&suite)? + "\n";
    fs::write(out.join(file).with_extension("json"), json)?;
    fs::write(out.join(file).with_extension("md"), markdown(&suite, title, figures))?;
    let checks = suite.reports.iter().flat_map(|report| &report.checks);
    let missed: Vec<_> = checks.filter(|check| !check.is_met()).collect();
    for check in &missed {
        say(&format!("missed: {} is {:.2}", check.name, check.value));
    }
    ensure!(!strict || missed.is_empty(), "{} targets were missed", missed.len());
    Ok(())
}

fn markdown(suite: &Suite, title: &str, figures: &str) -> String {
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
        "# {title}\n\nChasquiMQ {version}, {date}, {server}, rustc {rustc}; {cpu}, {cores} cores, \
         {pinned}. {figures}\n{sizes}"
    );
    for report in reports {
        text.push('\n');
        text.push_str(&report.markdown());
    }
    text
}
