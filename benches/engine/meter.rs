//! Meters: wall time, and CPU time of both sides.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Bench;

/// Measures from its start on.
pub struct Meter {
    at: Instant,
    client: Duration,
    server: Duration,
}

/// What so many jobs cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// CPU time of this process, in microseconds a job.
    pub client_us: f64,
    /// CPU time of the server, in microseconds a job.
    pub server_us: f64,
    jobs: f64,
}

impl Meter {
    /// Starts.
    ///
    /// # Errors
    /// When the server does not tell its CPU time.
    pub async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let server = bench.server_cpu().await?;
        Ok(Self { at: Instant::now(), client: own_cpu(), server })
    }

    /// Ends; wall time counts from `since`, or from the meter's start.
    ///
    /// # Errors
    /// When the server does not tell its CPU time.
    pub async fn stop(
        self,
        bench: &Bench,
        jobs: u64,
        since: Option<Instant>,
    ) -> anyhow::Result<Cost> {
        let seconds = since.unwrap_or(self.at).elapsed().as_secs_f64();
        let client = own_cpu().saturating_sub(self.client);
        let server = bench.server_cpu().await?.saturating_sub(self.server);
        let jobs = jobs as f64;
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / jobs;
        Ok(Cost { seconds, client_us: each(client), server_us: each(server), jobs })
    }
}

impl Cost {
    /// Jobs a second of wall time.
    pub fn jobs_per_second(&self) -> f64 {
        self.jobs / self.seconds
    }
}

/// Memory of this process that is in RAM now, in MB; 0 where the kernel does not tell.
pub fn resident_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1000.0
}

/// Files, sockets among them, that this process has open.
///
/// # Errors
/// Where the kernel does not tell.
pub fn open_files() -> anyhow::Result<f64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as f64)
}

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
