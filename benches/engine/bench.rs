//! A benchmark: its options, its server, and its report.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chasquimq_testkit::{Reply, Server};
use clap::Parser;
use tokio::runtime;

use crate::machine::pin;
use crate::report::{Report, say};

const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

/// What every benchmark can be told.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Small sizes: whether it works, not how fast it is.
    #[arg(long)]
    pub quick: bool,
    /// Rounds; each figure is their median.
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Jobs a round, where the benchmark has one size.
    #[arg(long)]
    pub jobs: Option<u64>,
    /// Where the report goes as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// A benchmark under way, with a server of its own.
pub struct Bench {
    /// What it was told.
    pub options: Options,
    /// The throw-away server; without persistence.
    pub server: Server,
    /// What it found out so far.
    pub report: Report,
}

/// Runs a benchmark: pins client and server to a core each, prints the report and writes it where
/// `--json` says.
///
/// # Errors
/// Those of the benchmark, and when the report cannot be written. A missed target is none.
pub fn main<F>(subject: &str, title: &str, measure: impl FnOnce(Bench) -> F) -> Result<()>
where
    F: Future<Output = Result<Bench>>,
{
    let options = Options::parse();
    // Before the runtime starts its threads: they inherit the core, and are as many as it offers.
    let client_pinned = pin(std::process::id(), CLIENT_CORE);
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let json = options.json.clone();
    let report = runtime.block_on(async {
        let server = Server::start().await;
        let mut report = Report::new(subject, title, options.quick);
        report.server = format!("{} ({})", server.name(), server.version());
        let mut bench = Bench { options, server, report };
        let pid = bench.info("server", "process_id").await?;
        bench.report.pinned = client_pinned && pin(pid.parse()?, SERVER_CORE);
        Ok::<_, anyhow::Error>(measure(bench).await?.report)
    })?;
    say(&report.markdown());
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&report)?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

impl Bench {
    /// The size for a quick run, or the one for a full one; `--jobs` overrides both.
    pub fn jobs(&self, quick: u64, full: u64) -> u64 {
        self.options.jobs.unwrap_or(if self.options.quick { quick } else { full })
    }

    /// Rounds to measure: 1 in a quick run, else `full`; `--rounds` overrides both.
    pub fn rounds(&self, full: usize) -> usize {
        self.options.rounds.unwrap_or(if self.options.quick { 1 } else { full })
    }

    /// Empties the server, so that each round starts alike.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn flush(&self) -> Result<()> {
        let reply = self.server.command(&["FLUSHALL"]).await;
        ensure!(reply.error().is_none(), "the server was not emptied: {reply:?}");
        Ok(())
    }

    /// Counts calls of commands anew.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn reset_calls(&self) -> Result<()> {
        let reply = self.server.command(&["CONFIG", "RESETSTAT"]).await;
        ensure!(reply.error().is_none(), "calls are not counted anew: {reply:?}");
        Ok(())
    }

    /// Entries of a stream.
    ///
    /// # Errors
    /// When the key holds something else.
    pub async fn stream_len(&self, key: &str) -> Result<i64> {
        match self.server.command(&["XLEN", key]).await {
            Reply::Int(len) => Ok(len),
            other => anyhow::bail!("no length of {key}: {other:?}"),
        }
    }

    /// A field of a section of the server's INFO.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn info(&self, section: &str, field: &str) -> Result<String> {
        let text = self.server.command(&["INFO", section]).await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("INFO {section} has no {field}"))?.to_owned())
    }

    /// Calls of a command since they were last counted anew.
    ///
    /// # Errors
    /// When the server does not tell.
    pub async fn calls(&self, command: &str) -> Result<f64> {
        let field = format!("cmdstat_{command}");
        let Ok(stat) = self.info("commandstats", &field).await else { return Ok(0.0) };
        let calls = stat.split(',').find_map(|pair| pair.strip_prefix("calls="));
        Ok(calls.context("no count of calls")?.parse()?)
    }

    /// CPU time of the server so far, all its threads, user and system.
    ///
    /// # Errors
    /// When the server does not tell it.
    pub async fn server_cpu(&self) -> Result<Duration> {
        let user: f64 = self.info("cpu", "used_cpu_user").await?.parse()?;
        let system: f64 = self.info("cpu", "used_cpu_sys").await?.parse()?;
        Ok(Duration::from_secs_f64(user + system))
    }
}
