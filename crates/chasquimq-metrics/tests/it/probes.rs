//! What the exporter asks real sessions, and queues without a worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chasquimq::{
    ConnectionTuning, ConsumerConfig, Outcome, Producer, ProducerConfig, QueueCounts, Session,
};
use chasquimq_metrics::{Exporter, Inspector};
use chasquimq_testkit::{ChaosProxy, Server, eventually, shared_server, unique_queue};
use serde_json::{Value, json};

use crate::support::{get, samples};

const PATIENCE: Duration = Duration::from_secs(20);

fn tuning() -> ConnectionTuning {
    ConnectionTuning { command_timeout: Duration::from_secs(1), ..Default::default() }
}

async fn producer<T>(url: &str, queue: &str) -> Producer<T> {
    let config =
        ProducerConfig { queue_name: queue.into(), connection: tuning(), ..Default::default() };
    Producer::connect(url, config).await.unwrap()
}

async fn asks(address: SocketAddr, path: &str) -> (u16, String) {
    get(address, path).await.unwrap()
}

async fn becomes(address: SocketAddr, path: &str, status: u16) {
    let what = format!("{path} answers {status}");
    eventually(&what, PATIENCE, async || asks(address, path).await.0 == status).await;
}

async fn scale(address: SocketAddr, queue: &str) -> Value {
    let (status, body) = asks(address, &format!("/scale?queue={queue}")).await;
    assert_eq!(status, 200, "{body}");
    let mut scale: Value = serde_json::from_str(&body).unwrap();
    let age = scale["oldest_age_s"].as_f64().unwrap();
    scale["oldest_age_s"] = json!(age > 0.0 && age < PATIENCE.as_secs_f64());
    scale
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_tells_whether_it_lives_claims_and_how_much_there_is() {
    let (server, queue) = (shared_server().await, unique_queue("probe"));
    let proxy = ChaosProxy::start(server.port()).await;
    let exporter = Exporter::start("127.0.0.10:0").await.unwrap();
    let address = exporter.address();
    producer(&server.url(), &queue).await.add_bulk((0..9).collect::<Vec<u64>>()).await.unwrap();
    let config = ConsumerConfig {
        queue_name: queue.clone(),
        concurrency: 4,
        prefetch: Some(0),
        block_ms: 500,
        claim_min_idle_ms: 2000,
        connection: tuning(),
        ..Default::default()
    };
    let session = Session::start(&proxy.url(), config).await.unwrap();
    let watch = exporter.watch(Arc::new(session.clone()));
    let taken = session.take(4).await;
    assert_eq!(asks(address, "/livez").await, (200, "ok\n".into()));
    becomes(address, "/readyz", 200).await;
    let busy = json!({"backlog": 5, "oldest_age_s": true, "inflight": 4});
    eventually("4 of 9 are in flight", PATIENCE, async || scale(address, &queue).await == busy)
        .await;
    let shown = samples(&asks(address, "/metrics").await.1);
    assert_eq!(shown[&format!("chasquimq_workers_ready{{queue=\"{queue}\"}}")], 1.0);

    // Full, and then with room, but without a server: it lives, and claims nothing.
    proxy.refuse(true);
    proxy.cut();
    session.settle(taken.into_iter().map(|d| d.end(Outcome::Done, Duration::ZERO)));
    becomes(address, "/readyz", 503).await;
    assert_eq!(
        asks(address, "/readyz").await.1,
        format!("worker of queue {queue}: it claims no jobs\n")
    );
    assert_eq!(asks(address, "/livez").await.0, 200, "a restart would not help");
    proxy.refuse(false);
    becomes(address, "/readyz", 200).await;

    session.stop();
    assert_eq!(asks(address, "/readyz").await.0, 503);
    assert_eq!(asks(address, "/livez").await.0, 200, "it may finish its jobs");
    drop(watch);
    session.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_worker_is_counted_and_unknown_while_it_cannot_be() {
    let server = Server::start().await;
    let queue = unique_queue("inspected");
    let exporter = Exporter::start("127.0.0.11:0").await.unwrap();
    let address = exporter.address();
    let jobs: Producer<u64> = producer(&server.url(), &queue).await;
    jobs.add_bulk(vec![1, 2, 3]).await.unwrap();
    jobs.add_in(Duration::from_hours(1), 4).await.unwrap();
    let inspector = Arc::new(Inspector::new(&exporter, producer(&server.url(), &queue).await));
    let watch = exporter.watch(Arc::<Inspector>::clone(&inspector));
    let shown = async |state: &str| {
        let shown = samples(&asks(address, "/metrics").await.1);
        shown[&format!("chasquimq_queue_{state}{{queue=\"{queue}\"}}")]
    };
    assert!(shown("ready_jobs").await.is_nan(), "nobody has looked yet");
    let cannot = format!("queue {queue}: it cannot be counted\n");
    assert_eq!(asks(address, "/readyz").await, (503, cannot.clone()));

    let counts = inspector.look().await.unwrap();
    let expected = QueueCounts { ready: 3, delayed: 1, ..counts };
    assert_eq!((counts, counts.dead), (expected, 0));
    assert_eq!((shown("ready_jobs").await, shown("delayed_jobs").await), (3.0, 1.0));
    assert_eq!(asks(address, "/readyz").await, (200, "ok\n".into()));
    let waiting = json!({"backlog": 3, "oldest_age_s": true, "inflight": 0});
    assert_eq!(scale(address, &queue).await, waiting);
    let metrics = samples(&asks(address, "/metrics").await.1);
    assert!(metrics.keys().all(|series| series.starts_with("chasquimq_queue_")), "{metrics:?}");

    server.kill9();
    inspector.look().await.unwrap_err();
    assert!(shown("ready_jobs").await.is_nan() && shown("dead_jobs").await.is_nan());
    assert_eq!(asks(address, "/readyz").await, (503, cannot));
    assert_eq!(asks(address, "/livez").await.0, 200);
    assert_eq!(asks(address, &format!("/scale?queue={queue}")).await.0, 503);
    server.restart().await;
    eventually("it counts again", PATIENCE, async || inspector.look().await.is_ok()).await;
    drop((watch, inspector));
    assert!(shown("ready_jobs").await.is_nan(), "nobody looks any more");
}
