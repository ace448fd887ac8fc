//! The examples run, and what is scraped from them is what they did.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use chasquimq::{Producer, ProducerConfig};
use chasquimq_testkit::{eventually, shared_server, unique_queue};
use tokio::process::{Child, Command};

use crate::support::{free_address, get, samples};

#[tokio::test]
async fn the_facade_example_counts_its_runs() {
    let (queue, address, _worker) = start("facade_sink").await;
    let label = format!("queue=\"{queue}\"");
    scraped(address, "chasquimq_dlq_routed_total", &label, 4.0).await;
    let shown = samples(&get(address, "/metrics").await.unwrap().1);
    for (series, value) in [
        (format!("jobs_completed_total{{{label}}}"), 16.0),
        (format!("jobs_failed_total{{kind=\"error\",{label}}}"), 8.0),
        (format!("jobs_failed_total{{kind=\"panic\",{label}}}"), 0.0),
        (format!("handler_duration_seconds_count{{{label}}}"), 24.0),
        (format!("handler_duration_seconds_bucket{{le=\"+Inf\",{label}}}"), 24.0),
        (format!("retry_backoff_seconds_count{{{label}}}"), 4.0),
        (format!("dlq_routed_total{{{label},reason=\"retries_exhausted\"}}"), 4.0),
        (format!("promoter_depth{{{label}}}"), 0.0),
        (format!("promoter_oldest_lag_seconds{{{label}}}"), 0.0),
        (format!("promoter_leader{{{label}}}"), 1.0),
    ] {
        assert_eq!(shown.get(&format!("chasquimq_{series}")), Some(&value), "{series}");
    }
}

#[tokio::test]
async fn the_hand_made_example_counts_its_runs() {
    let (_, address, _worker) = start("prometheus_sink").await;
    scraped(address, "chasquimq_dlq_routed_total", "reason=\"retries_exhausted\"", 4.0).await;
    let shown = samples(&get(address, "/metrics").await.unwrap().1);
    assert_eq!(shown["chasquimq_jobs_completed_total"], 16.0);
    assert_eq!(shown["chasquimq_jobs_failed_total{kind=\"error\"}"], 8.0);
    assert_eq!(shown["chasquimq_handler_duration_seconds_count"], 24.0);
}

/// Starts an example and adds 16 jobs that succeed and 4 that fail in both their runs.
async fn start(example: &str) -> (String, SocketAddr, Child) {
    let (server, queue, address) = (shared_server().await, unique_queue("example"), free_address());
    let worker = Command::new(binary(example))
        .args([server.url(), address.to_string(), queue.clone()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let config = ProducerConfig { queue_name: queue.clone(), ..Default::default() };
    let producer = Producer::connect(&server.url(), config).await.unwrap();
    let names = (0..20).map(|i| if i % 5 == 0 { String::new() } else { format!("Ada {i}") });
    producer.add_bulk(names.collect()).await.unwrap();
    (queue, address, worker)
}

/// Cargo puts examples beside the tests; building one test target alone leaves them out.
fn binary(example: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().with_file_name("examples").join(example);
    assert!(path.exists(), "{} is missing: run cargo build --examples", path.display());
    path
}

/// Waits until a series whose labels contain `label` has this value.
async fn scraped(address: SocketAddr, name: &str, label: &str, value: f64) {
    eventually(&format!("{name} of {value}"), Duration::from_secs(30), async || {
        let Ok((200, metrics)) = get(address, "/metrics").await else { return false };
        samples(&metrics)
            .iter()
            .any(|(series, is)| series.starts_with(name) && series.contains(label) && *is == value)
    })
    .await;
}
