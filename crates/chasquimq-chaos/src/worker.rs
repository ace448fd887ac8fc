//! A worker process: runs jobs and writes down when each run begins and ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use chasquimq::{Consumer, HandlerError, Job};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::log::{Line, Log, Start, now};
use crate::process::patiently;
use crate::workload::{self, Kind, Payload};

/// How often memory and open files are written down.
const SAMPLE: Duration = Duration::from_secs(1);

/// What the runner tells a worker.
#[derive(Args)]
pub struct Task {
    #[arg(long)]
    url: String,
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    name: String,
}

struct Handler {
    log: Log,
    worker: String,
    runs: AtomicU64,
}

/// Works until SIGTERM.
pub async fn run(Task { url, log, name }: Task) -> Result<()> {
    let stop = CancellationToken::new();
    // Before its log is there the runner tells it nothing.
    let mut terminate = signal(SignalKind::terminate())?;
    let handler = Handler { log: Log::open(&log)?, worker: name.clone(), runs: AtomicU64::new(0) };
    let handler = Arc::new(handler);
    let consuming = patiently(|| {
        let (handler, stop) = (Arc::clone(&handler), stop.clone());
        let handle = move |job| {
            let handler = Arc::clone(&handler);
            async move { handler.handle(job).await }
        };
        Consumer::new(&url, workload::worker(&name)).run(handle, stop)
    });
    let sampling = handler.sample();
    tokio::pin!(consuming, sampling);
    loop {
        tokio::select! {
            report = &mut consuming => return report.map(drop),
            failed = &mut sampling => return failed,
            _ = terminate.recv() => stop.cancel(),
        }
    }
}

impl Handler {
    async fn handle(&self, job: Job<Payload>) -> Result<(), HandlerError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let Payload { n, kind, work_ms, .. } = job.payload;
        let (worker, hash) = (self.worker.clone(), job.payload.fingerprint());
        let Job { id, attempt, lost, .. } = job;
        self.note(&Line::Started(Start { worker, run, n, id, hash, attempt, lost, at: now() }));
        if work_ms > 0 {
            sleep(Duration::from_millis(work_ms)).await;
        }
        let fails = kind == Kind::Poison || kind == Kind::FailsOnce && attempt == 0;
        let worker = self.worker.clone();
        self.note(&Line::Finished { worker, run, ok: !fails, at: now() });
        if fails { Err(HandlerError::new(failure(n))) } else { Ok(()) }
    }

    /// A run that cannot be written down must not happen.
    fn note(&self, line: &Line) {
        self.log.write(line).unwrap_or_else(|_| std::process::abort());
    }

    async fn sample(&self) -> Result<()> {
        let mut ticks = interval(SAMPLE);
        loop {
            ticks.tick().await;
            let worker = self.worker.clone();
            let (rss, fds) = (resident()?, open_files()?);
            self.log.write(&Line::Sample { worker, rss, fds, at: now() })?;
        }
    }
}

/// The error text of a job that is made to fail.
pub fn failure(n: u64) -> String {
    format!("job {n} fails as it was made to")
}

fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

fn open_files() -> Result<u64> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64)
}
