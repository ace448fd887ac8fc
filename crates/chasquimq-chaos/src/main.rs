//! Fault injection: real workers and producers on a real server, harmed by a plan that a seed decides, and
//! a checker that reads afterwards what all of them wrote down.
//!
//! ```text
//! chasquimq-chaos --seed 7 --minutes 10 --server redis-7.0
//! chasquimq-chaos --suite --minutes 10 --out benches/results
//! ```

mod fleet;
mod inspect;
mod log;
mod oracle;
mod peer;
mod plan;
mod process;
mod producer;
mod report;
mod run;
mod worker;
mod workload;

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chasquimq_testkit::ServerKind;
use clap::{Parser, Subcommand};
use futures::stream::{self, StreamExt};

use peer::Peer;
use plan::{Durability, Faults};
use report::Row;
use run::Setup;

/// Kills workers, cuts connections and flushes scripts while jobs run, and checks that none is lost and
/// none runs twice without a reason.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: Options,
}

/// What the runner starts this program as.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Worker(worker::Task),
    #[command(hide = true)]
    Producer(producer::Task),
}

#[derive(clap::Args)]
struct Options {
    /// Decides which jobs there are and which harm is done when. Default: another each time; printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How long jobs are added and harm is done.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The server. Default: the one that `CHASQUIMQ_TEST_SERVER` names, or Redis 7.0.
    #[arg(long)]
    server: Option<String>,
    /// Which harm is done.
    #[arg(long, value_enum, default_value_t = Faults::All)]
    faults: Faults,
    /// Kills the server every 20 s, and does nothing else; its AOF is synced like this.
    #[arg(long, value_enum)]
    crash_server: Option<Durability>,
    /// All that is published: every server; crashes of the server, and other queues, on that server.
    #[arg(long, conflicts_with_all = ["faults", "crash_server"])]
    suite: bool,
    /// Another queue, as NAME=PROGRAM ARGUMENTS: what it loses and doubles is counted.
    #[arg(long)]
    peer: Vec<Peer>,
    /// Runs at a time.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// Jobs a second.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// The folder that chaos.md and chaos.json are written to.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A folder that keeps what all processes wrote down.
    #[arg(long)]
    logs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { role, options } = Cli::parse();
    match role {
        Some(Role::Worker(task)) => {
            process::end_with_parent();
            worker::run(task).await
        }
        Some(Role::Producer(task)) => {
            process::end_with_parent();
            producer::run(task).await
        }
        None => run_all(&options).await,
    }
}

async fn run_all(options: &Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let setups = setups(options, seed)?;
    say(format_args!("seed {seed}, {} runs of {} minutes", setups.len(), options.minutes))?;
    let mut rows = Vec::new();
    let runs = setups.iter().map(|setup| one(setup, options.logs.as_deref()));
    let mut runs = stream::iter(runs).buffered(options.at_once.max(1));
    while let Some(row) = runs.next().await {
        rows.push(row?);
    }
    say(report::table(&rows))?;
    for row in &rows {
        for violation in &row.violations {
            say(format_args!("BROKEN on {}, {}: {violation}", row.server, row.harm))?;
        }
    }
    if let Some(folder) = &options.out {
        report::write(folder, &rows)?;
    }
    let broken: usize = rows.iter().map(|row| row.violations.len()).sum();
    ensure!(broken == 0, "{broken} violations; the seed is {seed}");
    Ok(())
}

/// The runs that are wanted: without `--suite`, one of ours or one of each other queue.
fn setups(options: &Options, seed: u64) -> Result<Vec<Setup>> {
    let chosen = Setup {
        kind: server(options.server.as_deref())?,
        seed,
        length: Duration::from_secs_f64(options.minutes * 60.0),
        faults: options.faults,
        crash: options.crash_server,
        rate: options.rate,
        peer: Peer::default(),
    };
    let mut setups = Vec::new();
    if options.suite {
        setups.extend(ServerKind::all().into_iter().map(|kind| Setup { kind, ..chosen.clone() }));
        setups.push(Setup { faults: Faults::None, ..chosen.clone() });
        for durability in [Durability::Always, Durability::Everysec] {
            setups.push(Setup { crash: Some(durability), ..chosen.clone() });
        }
    } else if options.peer.is_empty() {
        setups.push(chosen.clone());
    }
    let others = options.peer.iter().cloned();
    setups.extend(others.map(|peer| Setup { peer, ..chosen.clone() }));
    Ok(setups)
}

/// One run.
async fn one(setup: &Setup, logs: Option<&Path>) -> Result<Row> {
    let temporary = tempfile::Builder::new().prefix("chasquimq-chaos-").tempdir()?;
    let folder = match logs {
        Some(logs) => logs.join(setup.name()),
        None => temporary.path().to_owned(),
    };
    std::fs::create_dir_all(&folder)?;
    run::run(setup, &folder).await.with_context(|| setup.name())?;
    let lines = log::read(&folder)?;
    let is_ours = setup.peer.is_ours();
    let verdict =
        if is_ours { oracle::judge(lines, &setup.rules()) } else { oracle::observe(lines) };
    Row::new(setup, verdict)
}

fn server(name: Option<&str>) -> Result<ServerKind> {
    let Some(name) = name else { return ServerKind::chosen() };
    let found = ServerKind::all().into_iter().find(|kind| kind.name() == name);
    found.with_context(|| format!("no server {name:?}; run tests/servers/fetch"))
}

fn say(what: impl Display) -> Result<()> {
    writeln!(std::io::stdout(), "{what}").context("writing to the terminal")
}
