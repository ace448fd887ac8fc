//! A real Prometheus scrapes a worker under load, and its numbers are the true ones.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chasquimq::{
    AddOptions, BackoffSpec, Consumer, ConsumerConfig, HandlerError, Job, JobRetryOverride,
    Producer, ProducerConfig, QueueCounts, RawJob, RetryConfig,
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
/// Numbers of jobs that come behind them, to stand still: these wait an hour for a retry, …
const FAIL_FOR_AN_HOUR: u64 = 100_000;
/// … and these run until the test lets them go.
const HANG: u64 = 200_000;
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
    FailsForAnHour,
    Hangs,
}

impl Fate {
    fn of(number: u64) -> Self {
        match number % 100 {
            _ if number >= HANG => Self::Hangs,
            _ if number >= FAIL_FOR_AN_HOUR => Self::FailsForAnHour,
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
        let hour = BackoffSpec::fixed(Duration::from_hours(1));
        let retry = JobRetryOverride { max_attempts: None, backoff: Some(hour) };
        let options = match self {
            Self::FailsForAnHour => AddOptions::new().with_retry(retry),
            _ => AddOptions::new(),
        };
        RawJob { payload: payload.into(), options, delay: None }
    }
}

/// Runs: 8,900 jobs succeed at once; the others run as often as their fate wants.
const RUNS: f64 = 8_900.0 + 2.0 * 500.0 + 2.0 * 200.0 + 3.0 * 100.0 + 100.0;

/// What each metric is in the end, its series added up.
const TOTALS: [(&str, f64); 23] = [
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
    ("job_start_lateness_seconds_count", 900.0),
    ("events_dropped_total", 0.0),
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
    let producer = add_all(server, &queue).await;
    let (runs, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let let_go = CancellationToken::new();
    let workers = [0; 2].map(|_| {
        let consumer = Consumer::new(server.url(), worker(&queue, &exporter));
        let (runs, let_go) = (Arc::clone(&runs), let_go.clone());
        let handler = move |job: Job<u64>| {
            runs.fetch_add(1, Ordering::Relaxed);
            let let_go = let_go.clone();
            async move {
                if Fate::of(job.payload) == Fate::Hangs {
                    let_go.cancelled().await;
                }
                run(&job)
            }
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
    the_queue_s_gauges_are_true(&prometheus, &producer).await;

    let_go.cancel();
    stop.cancel();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
}

/// Puts jobs into every state and looks whether Prometheus sees as many there as there are.
async fn the_queue_s_gauges_are_true(prometheus: &Prometheus, producer: &Producer<u64>) {
    let empty = QueueCounts { dead: 410, ..Default::default() };
    gauges_become(prometheus, empty).await;
    prometheus.becomes("chasquimq_queue_oldest_ready_age_seconds", 0.0).await;

    let add = async |numbers: std::ops::Range<u64>| {
        let jobs = numbers.map(|number| Fate::of(number).job(number)).collect();
        producer.add_raw(jobs).await.unwrap();
    };
    add(FAIL_FOR_AN_HOUR..FAIL_FOR_AN_HOUR + 4).await;
    producer.add_in_bulk(Duration::from_hours(1), (0..7).collect()).await.unwrap();
    gauges_become(prometheus, QueueCounts { delayed: 7, retrying: 4, ..empty }).await;
    add(HANG..HANG + 300).await;
    // Two workers run 100 each, and hold none ready: jobs that never end have no pace.
    let full = QueueCounts { ready: 100, in_flight: 200, delayed: 7, retrying: 4, ..empty };
    gauges_become(prometheus, full).await;
    let asked = producer.counts().await.unwrap();
    assert_eq!(asked, QueueCounts { oldest_ready_age_ms: asked.oldest_ready_age_ms, ..full });
    prometheus.becomes("chasquimq_queue_oldest_ready_age_seconds > bool 0", 1.0).await;
    let age = prometheus.value("chasquimq_queue_oldest_ready_age_seconds").await;
    let now = producer.counts().await.unwrap().oldest_ready_age_ms as f64 / 1e3;
    assert!(now - 7.0 < age && age <= now, "at most one look and one scrape old: {age} {now}");
}

async fn gauges_become(prometheus: &Prometheus, counts: QueueCounts) {
    let QueueCounts { ready, in_flight, delayed, retrying, dead, .. } = counts;
    let gauges = [
        ("ready", ready),
        ("inflight", in_flight),
        ("delayed", delayed),
        ("retrying", retrying),
        ("dead", dead),
    ];
    for (state, jobs) in gauges {
        prometheus.becomes(&format!("chasquimq_queue_{state}_jobs"), jobs as f64).await;
    }
}

/// The jobs, and ten entries that are none of ours.
async fn add_all(server: &Server, queue: &str) -> Producer<u64> {
    let config = ProducerConfig { queue_name: queue.into(), ..Default::default() };
    let producer: Producer<u64> = Producer::connect(&server.url(), config).await.unwrap();
    producer.add_raw((0..JOBS).map(|number| Fate::of(number).job(number)).collect()).await.unwrap();
    for _ in 0..10 {
        server.command(&["XADD", &producer.stream_key(), "*", "foreign", "entry"]).await;
    }
    producer
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
        Fate::FailsAlways | Fate::FailsForAnHour => Err(HandlerError::new("always")),
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
