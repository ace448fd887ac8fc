//! A worker with a hand-made sink: the few metrics that matter here, by the `prometheus` crate.
//!
//! `cargo run -p chasquimq-metrics --example prometheus_sink -- redis://127.0.0.1:6379 127.0.0.1:9090`,
//! then `curl http://127.0.0.1:9090/metrics`. Ctrl-C ends it. A third argument names the queue.

use std::sync::Arc;
use std::time::Duration;

use chasquimq::{
    Consumer, ConsumerConfig, DlqRouted, HandlerError, Job, JobOutcome, JobOutcomeKind, MetricsSink,
};
use chasquimq_metrics::names;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct PrometheusSink {
    completed: IntCounter,
    errors: IntCounter,
    panics: IntCounter,
    duration: Histogram,
    dead: IntCounterVec,
}

impl PrometheusSink {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let completed = &names::JOBS_COMPLETED;
        let completed = IntCounter::new(completed.name, completed.help)?;
        let failed = &names::JOBS_FAILED;
        let failed = IntCounterVec::new(Opts::new(failed.name, failed.help), &["kind"])?;
        let duration = &names::HANDLER_DURATION;
        let duration = Histogram::with_opts(HistogramOpts::new(duration.name, duration.help))?;
        let dead = &names::DLQ_ROUTED;
        let dead = IntCounterVec::new(Opts::new(dead.name, dead.help), &["reason"])?;
        registry.register(Box::new(completed.clone()))?;
        registry.register(Box::new(failed.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(dead.clone()))?;
        // Looked up once: this sink is in the hot path.
        let (errors, panics) =
            (failed.with_label_values(&["error"]), failed.with_label_values(&["panic"]));
        Ok(Self { completed, errors, panics, duration, dead })
    }
}

impl MetricsSink for PrometheusSink {
    fn job_outcome(&self, event: JobOutcome) {
        let runs = match event.kind {
            JobOutcomeKind::Ok => &self.completed,
            JobOutcomeKind::Err => &self.errors,
            JobOutcomeKind::Panic => &self.panics,
        };
        runs.inc();
        self.duration.observe(Duration::from_micros(event.handler_duration_us).as_secs_f64());
    }

    fn dlq_routed(&self, event: DlqRouted) {
        self.dead.with_label_values(&[event.reason.as_str()]).inc();
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let listener = TcpListener::bind(args.next().as_deref().unwrap_or("127.0.0.1:9090")).await?;
    let queue_name = args.next().unwrap_or_else(|| "emails".into());

    let registry = Registry::new();
    let metrics = Arc::new(PrometheusSink::register(&registry)?);
    let config = ConsumerConfig { queue_name, metrics, max_attempts: 2, ..Default::default() };
    let stop = CancellationToken::new();
    let running = tokio::spawn(Consumer::new(url, config).run(greet, stop.clone()));
    tokio::select! {
        served = serve(listener, registry) => served?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    stop.cancel();
    running.await??;
    Ok(())
}

/// Fails when there is nobody to greet.
async fn greet(job: Job<String>) -> Result<String, HandlerError> {
    match job.payload.as_str() {
        "" => Err(HandlerError::new("nobody to greet")),
        name => Ok(format!("Hello, {name}")),
    }
}

/// The least that a scraper needs; one at a time.
async fn serve(listener: TcpListener, registry: Registry) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let metrics = TextEncoder::new().encode_to_string(&registry.gather())?;
        let _ = tokio::time::timeout(Duration::from_secs(5), answer(stream, &metrics)).await;
    }
}

async fn answer(mut stream: TcpStream, metrics: &str) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
    let length = metrics.len();
    let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{metrics}");
    stream.write_all(answer.as_bytes()).await
}
