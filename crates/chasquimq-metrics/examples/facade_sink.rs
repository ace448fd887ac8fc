//! A worker whose metrics go through the `metrics` facade to `metrics-exporter-prometheus`.
//!
//! `cargo run -p chasquimq-metrics --example facade_sink -- redis://127.0.0.1:6379 127.0.0.1:9090`,
//! then `curl http://127.0.0.1:9090/metrics`. Ctrl-C ends it. A third argument names the queue.

use std::net::SocketAddr;
use std::sync::Arc;

use chasquimq::{Consumer, ConsumerConfig, HandlerError, Job};
use chasquimq_metrics::{MetricsFacadeSink, QueueLabeled};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let address: SocketAddr = args.next().as_deref().unwrap_or("127.0.0.1:9090").parse()?;
    let queue = args.next().unwrap_or_else(|| "emails".into());

    let mut recorder = PrometheusBuilder::new().with_http_listener(address);
    // Without buckets this exporter shows histograms as summaries, which cannot be added up.
    for (metric, buckets) in chasquimq_metrics::buckets() {
        recorder = recorder.set_buckets_for_metric(Matcher::Full(metric.into()), buckets)?;
    }
    recorder.install()?;

    let config = ConsumerConfig {
        metrics: Arc::new(QueueLabeled::new(MetricsFacadeSink, queue.as_str())),
        queue_name: queue,
        max_attempts: 2,
        ..Default::default()
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(Consumer::new(url, config).run(greet, stop.clone()));
    tokio::signal::ctrl_c().await?;
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
