//! A real Prometheus scrapes a worker under load, and its numbers are the true ones.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chasquimq::{
    AddOptions, Consumer, ConsumerConfig, HandlerError, Job, Producer, ProducerConfig, RawJob,
    RetryConfig,
};
use chasquimq_metrics::Exporter;
use chasquimq_testkit::{Server, eventually, shared_server, unique_queue};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::operations::dashboard_expressions;
use crate::support::{free_address, get};

const JOBS: u64 = 10_000;
const MOST_BYTES: usize = 1024;

/// What a job does, by its number modulo 100.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Succeeds,
    FailsOnce,
    PanicsOnce,
    FailsAlways,
    GivesUp,
    Undecodable,
    Oversize,
}

impl Fate {
    fn of(number: u64) -> Self {
        match number % 100 {
            0..5 => Self::FailsOnce,
            5..7 => Self::PanicsOnce,
            7 => Self::FailsAlways,
            8 => Self::GivesUp,
            9 => Self::Undecodable,
            10 => Self::Oversize,
            _ => Self::Succeeds,
        }
    }

    fn job(self, number: u64) -> RawJob {
        let payload = match self {
            Self::Undecodable => rmp_serde::to_vec("no number").unwrap(),
            Self::Oversize => rmp_serde::to_vec(&"x".repeat(MOST_BYTES + 1)).unwrap(),
            _ => rmp_serde::to_vec(&number).unwrap(),
        };
        RawJob { payload: payload.into(), options: AddOptions::new(), delay: None }
    }
}

/// Runs: 8,900 jobs succeed at once; the others run as often as their fate wants.
const RUNS: f64 = 8_900.0 + 2.0 * 500.0 + 2.0 * 200.0 + 3.0 * 100.0 + 100.0;

/// What each metric is in the end, its series added up.
const TOTALS: [(&str, f64); 21] = [
    ("jobs_completed_total", 9_600.0),
    ("jobs_failed_total{kind=\"error\"}", 500.0 + 300.0 + 100.0),
    ("jobs_failed_total{kind=\"panic\"}", 200.0),
    ("dlq_routed_total", 410.0),
    ("dlq_routed_total{reason=\"retries_exhausted\"}", 100.0),
    ("dlq_routed_total{reason=\"unrecoverable\"}", 100.0),
    ("dlq_routed_total{reason=\"decode_failed\"}", 100.0),
    ("dlq_routed_total{reason=\"oversize_payload\"}", 100.0),
    ("dlq_routed_total{reason=\"malformed\"}", 10.0),
    ("dlq_routed_total{reason=\"worker_lost\"}", 0.0),
    ("retries_scheduled_total", 900.0),
    ("retry_backoff_seconds_count", 900.0),
    ("promoter_promoted_total", 900.0),
    ("promoter_depth", 0.0),
    ("promoter_leader", 1.0),
    ("promoter_leader_changes_total", 1.0),
    ("jobs_started_total", RUNS),
    ("handler_duration_seconds_count", RUNS),
    ("handler_duration_seconds_bucket{le=\"+Inf\"}", RUNS),
    ("consumer_reclaimed_total", 0.0),
    ("stale_settlements_total", 0.0),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_number_in_prometheus_is_the_true_one() {
    let (server, queue) = (shared_server().await, unique_queue("load"));
    let exporter = Exporter::start("127.0.0.9:0").await.unwrap();
    let prometheus = Prometheus::start(exporter.address()).await;
    add_all(server, &queue).await;
    let (runs, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let workers = [0; 2].map(|_| {
        let consumer = Consumer::new(server.url(), worker(&queue, &exporter));
        let runs = Arc::clone(&runs);
        let handler = move |job: Job<u64>| {
            runs.fetch_add(1, Ordering::Relaxed);
            async move { run(&job) }
        };
        tokio::spawn(consumer.run(handler, stop.clone()))
    });

    for (metric, value) in TOTALS {
        prometheus.becomes(&format!("sum(chasquimq_{metric})"), value).await;
    }
    assert_eq!(runs.load(Ordering::Relaxed) as f64, RUNS);
    let ended = "sum(chasquimq_jobs_completed_total) + sum(chasquimq_jobs_failed_total)";
    assert_eq!(prometheus.value(ended).await, RUNS);
    let series = format!("count(chasquimq_jobs_completed_total{{queue=\"{queue}\"}})");
    assert_eq!(prometheus.value(&series).await, 1.0, "two workers, one queue, one series");
    for expression in dashboard_expressions() {
        prometheus.query(&expression).await;
    }

    stop.cancel();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
}

/// The jobs, and ten entries that are none of ours.
async fn add_all(server: &Server, queue: &str) {
    let config = ProducerConfig { queue_name: queue.into(), ..Default::default() };
    let producer: Producer<u64> = Producer::connect(&server.url(), config).await.unwrap();
    producer.add_raw((0..JOBS).map(|number| Fate::of(number).job(number)).collect()).await.unwrap();
    for _ in 0..10 {
        server.command(&["XADD", &producer.stream_key(), "*", "foreign", "entry"]).await;
    }
}

fn worker(queue: &str, exporter: &Exporter) -> ConsumerConfig {
    let retry = RetryConfig {
        initial_backoff_ms: 10,
        max_backoff_ms: 50,
        jitter_ms: 0,
        ..Default::default()
    };
    ConsumerConfig {
        queue_name: queue.into(),
        max_attempts: 3,
        max_payload_bytes: MOST_BYTES,
        retry,
        metrics: Arc::new(exporter.sink(queue)),
        ..Default::default()
    }
}

fn run(job: &Job<u64>) -> Result<(), HandlerError> {
    match Fate::of(job.payload) {
        Fate::FailsOnce if job.attempt == 0 => Err(HandlerError::new("once")),
        Fate::PanicsOnce if job.attempt == 0 => {
            resume_unwind(Box::new("without the panic hook: as the test wants it"))
        }
        Fate::FailsAlways => Err(HandlerError::new("always")),
        Fate::GivesUp => Err(HandlerError::unrecoverable("for good")),
        Fate::Undecodable | Fate::Oversize => unreachable!("such a job never runs"),
        _ => Ok(()),
    }
}

/// Debian's Prometheus, on loopback, with a folder of its own.
struct Prometheus {
    address: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

impl Prometheus {
    async fn start(target: SocketAddr) -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let config = folder.path().join("prometheus.yml");
        let scrape = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
             scrape_configs: [{{job_name: worker, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(&config, scrape).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus is a package of Debian");
        let prometheus = Self { address, _process: process, _folder: folder };
        prometheus.becomes("up", 1.0).await;
        prometheus
    }

    /// Waits until the expression's only value is this one.
    async fn becomes(&self, expression: &str, value: f64) {
        let what = format!("{expression} = {value}");
        eventually(
            &what,
            Duration::from_mins(1),
            async || matches!(self.ask(expression).await.as_deref(), Ok([is]) if *is == value),
        )
        .await;
    }

    async fn value(&self, expression: &str) -> f64 {
        let values = self.query(expression).await;
        assert_eq!(values.len(), 1, "{expression}: {values:?}");
        values[0]
    }

    async fn query(&self, expression: &str) -> Vec<f64> {
        self.ask(expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn ask(&self, expression: &str) -> anyhow::Result<Vec<f64>> {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let (status, body) = get(self.address, &format!("/api/v1/query?query={query}")).await?;
        anyhow::ensure!(status == 200, "{status} {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let vector = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let values =
            vector.iter().map(|sample| Ok(sample["value"][1].as_str().unwrap_or("").parse()?));
        values.collect()
    }
}
