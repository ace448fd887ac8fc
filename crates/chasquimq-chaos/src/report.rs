//! The table of a suite: for people, and for machines.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::oracle::{Figures, Verdict};
use crate::run::Setup;

/// One run.
#[derive(Debug, Serialize)]
pub struct Row {
    pub queue: String,
    pub server: String,
    pub version: String,
    pub seed: u64,
    pub minutes: f64,
    #[serde(skip)]
    pub is_ours: bool,
    /// What was done.
    pub harm: &'static str,
    #[serde(flatten)]
    pub figures: Figures,
    /// What was broken.
    pub violations: Vec<String>,
}

impl Row {
    pub fn new(setup: &Setup, verdict: Verdict) -> Result<Self> {
        Ok(Self {
            queue: setup.peer.name().to_owned(),
            server: setup.kind.name().to_owned(),
            version: setup.kind.version()?,
            seed: setup.seed,
            minutes: setup.length.as_secs_f64() / 60.0,
            is_ours: setup.peer.is_ours(),
            harm: setup.harm(),
            figures: verdict.figures,
            violations: verdict.violations.iter().map(ToString::to_string).collect(),
        })
    }
}

const HEAD: &str = "\
| queue | server | version | harm | minutes | jobs | network faults | workers killed | server killed | lost | duplicates | explained | dead | DLQ exact | seed |
|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|
";

/// The rows as a table.
pub fn table(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    for Row { queue, server, version, seed, minutes, harm, figures, is_ours, .. } in rows {
        let Figures { jobs, faults, kills, crashes, lost, .. } = figures;
        let Figures { duplicates, explained, dead, lost_in_window, .. } = figures;
        let lost = match lost_in_window {
            0 => lost.to_string(),
            inside => format!("{lost} ({inside} inside the window)"),
        };
        let exact = if figures.dlq_exact { "yes" } else { "NO" };
        // What other queues do with the dead, and why they double, is not judged.
        let (explained, dead, exact) = if *is_ours {
            (explained.to_string(), dead.to_string(), exact)
        } else {
            Default::default()
        };
        let _ = writeln!(
            text,
            "| {queue} | {server} | {version} | {harm} | {minutes:.1} | {jobs} | {faults} | {kills} | {crashes} \
             | {lost} | {duplicates} | {explained} | {dead} | {exact} | {seed} |"
        );
    }
    text
}

#[derive(Serialize)]
struct Suite<'a> {
    version: &'static str,
    rows: &'a [Row],
}

/// Writes `chaos.md` and `chaos.json`.
pub fn write(folder: &Path, rows: &[Row]) -> Result<()> {
    let told = || format!("writing to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(told)?;
    let suite = Suite { version: env!("CARGO_PKG_VERSION"), rows };
    let json = serde_json::to_string_pretty(&suite)? + "\n";
    std::fs::write(folder.join("chaos.json"), json).with_context(told)?;
    std::fs::write(folder.join("chaos.md"), markdown(rows)).with_context(told)
}

fn markdown(rows: &[Row]) -> String {
    let mut text =
        format!("# Faults, and what became of the jobs\n\n{INTRODUCTION}\n{}\n", table(rows));
    for row in rows {
        for violation in &row.violations {
            let _ = writeln!(text, "- broken on {}: {violation}", row.server);
        }
    }
    text
}

const INTRODUCTION: &str = "\
Three workers and two producers, each a process of its own behind a proxy of its own, on one server. The
lease is 1.5 s. Of the jobs 10% fail once, 1% fail always, 5% are delayed, 5% share ids. Harm is done by a
plan that the seed decides: connections cut, stalled for 2 s, half closed, dribbling one byte a
millisecond, or closed in place of a reply; workers killed with `kill -9`; `SCRIPT FLUSH` every 15 s and
`CLIENT KILL TYPE normal` every 20 s. In other runs the server itself is killed every 20 s. Every process
writes down what it does before and after it does it, and a checker compares all of it afterwards.
*Explained* are duplicates of jobs that were in the hands of a worker which a fault hit at that time. Of
other queues only two things are counted: jobs that were accepted and neither ended well nor were given
up (*lost*), and jobs that ended well more than once (*duplicates*).

    benches/run --full chaos
";
