//! What the tests share: reading metrics, over HTTP and from text.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use chasquimq::{
    DlqReason, DlqRouted, JobOutcome, JobOutcomeKind, JobStarted, LeasesRenewed, LockOutcome,
    MetricsSink, PromoterTick, QueueCounts, ReaderBatch, RetryScheduled, TaskRestarted,
};
use chasquimq_metrics::{RecorderSink, buckets};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A sink without labels over a recorder of its own, and what renders it.
pub fn recorder() -> (RecorderSink, PrometheusHandle) {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in buckets() {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.into()), buckets).unwrap();
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    (RecorderSink::new(Arc::new(recorder)), handle)
}

/// Every number its own.
pub const COUNTS: QueueCounts = QueueCounts {
    ready: 11,
    in_flight: 12,
    delayed: 13,
    retrying: 14,
    dead: 15,
    oldest_ready_age_ms: 2500,
};

/// Every event once.
pub fn tell_everything(sink: &dyn MetricsSink) {
    let name: Arc<str> = "greet".into();
    sink.promoter_lock_outcome(LockOutcome::Acquired);
    sink.promoter_tick(PromoterTick { promoted: 2, depth: 3, oldest_pending_lag_ms: 1500 });
    sink.reader_batch(ReaderBatch { size: 5, reclaimed: 1 });
    let (queue_wait_us, start_lateness_us) = (Some(2000), Some(3000));
    let started = JobStarted { attempt: 1, queue_wait_us, start_lateness_us, name: name.clone() };
    sink.job_started(started);
    for kind in [JobOutcomeKind::Ok, JobOutcomeKind::Err, JobOutcomeKind::Panic] {
        let handler_duration_us = 250_000;
        sink.job_outcome(JobOutcome { kind, attempt: 1, handler_duration_us, name: name.clone() });
    }
    sink.retry_scheduled(RetryScheduled { attempt: 2, backoff_ms: 100, name: name.clone() });
    sink.dlq_routed(DlqRouted { reason: DlqReason::Unrecoverable, attempt: 1, name });
    sink.leases_renewed(LeasesRenewed { renewed: 7, lost: 1 });
    sink.stale_settlements(1);
    sink.ghost_entries(1);
    sink.store_command("settle", Duration::from_millis(2));
    sink.task_restarted(TaskRestarted { task: "reader" });
    sink.queue_counts(COUNTS);
    sink.events_dropped(6);
}

/// Samples of a text exposition: `name{label="value",…}`, labels sorted, to value.
pub fn samples(exposition: &str) -> BTreeMap<String, f64> {
    let lines = exposition.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut samples = BTreeMap::new();
    for line in lines {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let old = samples.insert(sorted(series), value.parse().unwrap());
        assert_eq!(old, None, "{series} is there twice");
    }
    samples
}

fn sorted(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// One GET: status and body.
pub async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    request(address, "GET", path).await
}

/// One request: status and body.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // 1.0: the body ends with the connection, without chunks.
    stream.write_all(format!("{method} {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// A port of 127.0.0.1 that nobody uses now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
