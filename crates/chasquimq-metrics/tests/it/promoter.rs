//! The promoter's gauges stay true when the lead moves.

use std::sync::Arc;
use std::time::Duration;

use chasquimq::{
    Consumer, ConsumerConfig, Job, LockOutcome, MetricsSink, Producer, ProducerConfig, PromoterTick,
};
use chasquimq_metrics::{Exporter, QueueLabeled, RecorderSink};
use chasquimq_testkit::{eventually, shared_server, unique_queue};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{COUNTS, get, recorder, samples};

const TICK: PromoterTick = PromoterTick { promoted: 0, depth: 9, oldest_pending_lag_ms: 2000 };

#[test]
fn who_does_not_lead_shows_nothing_of_the_queue() {
    let (sink, handle) = recorder();
    let shows = || shows(&handle, "");
    sink.ghost_entries(0);
    assert_eq!(shows(), [0.0; 4], "before anything is known");
    sink.promoter_lock_outcome(LockOutcome::Held);
    assert_eq!(shows(), [0.0; 4], "a promoter that never led has lost nothing");
    sink.promoter_lock_outcome(LockOutcome::Acquired);
    sink.promoter_tick(TICK);
    sink.queue_counts(COUNTS);
    assert_eq!(shows(), [1.0, 9.0, 2.0, 1.0]);
    assert_eq!(counts(&handle), [11.0, 12.0, 13.0, 14.0, 15.0, 2.5]);
    sink.promoter_lock_outcome(LockOutcome::Held);
    assert_eq!(shows(), [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(counts(&handle), [0.0; 6]);
    sink.promoter_lock_outcome(LockOutcome::Acquired);
    sink.promoter_tick(TICK);
    sink.queue_counts(COUNTS);
    drop(sink);
    assert_eq!(shows(), [0.0, 0.0, 0.0, 2.0], "a promoter that has ended leads no more");
    assert_eq!(counts(&handle), [0.0; 6]);
}

/// The gauges of the queue.
fn counts(handle: &PrometheusHandle) -> [f64; 6] {
    let samples = samples(&handle.render());
    let names = ["ready_jobs", "inflight_jobs", "delayed_jobs", "retrying_jobs", "dead_jobs"];
    let [ready, inflight, delayed, retrying, dead] =
        names.map(|name| samples[&format!("chasquimq_queue_{name}")]);
    let age = samples["chasquimq_queue_oldest_ready_age_seconds"];
    [ready, inflight, delayed, retrying, dead, age]
}

/// Leader, depth, lag, changes.
fn shows(handle: &PrometheusHandle, labels: &str) -> [f64; 4] {
    let samples = samples(&handle.render());
    ["leader", "depth", "oldest_lag_seconds", "leader_changes_total"]
        .map(|name| samples[&format!("chasquimq_promoter_{name}{labels}")])
}

#[tokio::test]
async fn two_workers_of_a_queue_in_one_process_do_not_spoil_each_others_gauges() {
    let exporter = Exporter::start("127.0.0.3:0").await.unwrap();
    let (leader, other) = (exporter.sink("q"), exporter.sink("q"));
    leader.promoter_lock_outcome(LockOutcome::Acquired);
    leader.promoter_tick(TICK);
    other.promoter_lock_outcome(LockOutcome::Held);
    let (_, metrics) = get(exporter.address(), "/metrics").await.unwrap();
    let samples = samples(&metrics);
    assert_eq!(samples["chasquimq_promoter_leader{queue=\"q\"}"], 1.0);
    assert_eq!(samples["chasquimq_promoter_depth{queue=\"q\"}"], 9.0);
}

#[test]
fn a_sink_shared_by_two_workers_is_true_again_after_the_leaders_next_tick() {
    let (inner, handle) = recorder();
    let sink: Arc<QueueLabeled<RecorderSink>> = Arc::new(QueueLabeled::new(inner, "q"));
    sink.promoter_lock_outcome(LockOutcome::Acquired);
    sink.promoter_lock_outcome(LockOutcome::Held);
    sink.promoter_tick(TICK);
    assert_eq!(shows(&handle, "{queue=\"q\"}"), [1.0, 9.0, 2.0, 1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_is_killed_the_other_worker_takes_over_and_tells_the_same_depth() {
    let (server, queue) = (shared_server().await, unique_queue("lead"));
    let config = ProducerConfig { queue_name: queue.clone(), ..Default::default() };
    let producer: Producer<u64> = Producer::connect(&server.url(), config).await.unwrap();
    producer.add_in_bulk(Duration::from_hours(1), vec![1, 2, 3]).await.unwrap();

    let ((first, killed), leads) = (start(&server.url(), &queue), [1.0, 3.0, 0.0, 1.0]);
    becomes(&first, leads).await;
    let (second, _worker) = start(&server.url(), &queue);
    becomes(&second, [0.0; 4]).await;
    let holds = [0.0, 0.0, 3.0, 0.0, 0.0, 0.0];
    counts_become(&first, holds).await;
    assert_eq!(counts(&second), [0.0; 6], "one worker counts for all");
    killed.abort();
    becomes(&second, leads).await;
    counts_become(&second, holds).await;
    // The killed one's sink went with it: added up, there is one leader and one depth.
    becomes(&first, [0.0, 0.0, 0.0, 1.0]).await;
    assert_eq!(counts(&first), [0.0; 6]);
}

fn start(url: &str, queue: &str) -> (PrometheusHandle, JoinHandle<()>) {
    let (sink, handle) = recorder();
    sink.ghost_entries(0);
    let config = ConsumerConfig {
        queue_name: queue.into(),
        delayed_lock_ttl_secs: 1,
        metrics: Arc::new(sink),
        ..Default::default()
    };
    let consumer = Consumer::new(url, config);
    let task = tokio::spawn(async {
        let handler = |_: Job<u64>| async { Ok(()) };
        consumer.run(handler, CancellationToken::new()).await.unwrap();
    });
    (handle, task)
}

async fn becomes(handle: &PrometheusHandle, expected: [f64; 4]) {
    let what = format!("promoter gauges {expected:?}");
    eventually(&what, Duration::from_secs(20), async || shows(handle, "") == expected).await;
}

async fn counts_become(handle: &PrometheusHandle, expected: [f64; 6]) {
    let what = format!("queue gauges {expected:?}");
    eventually(&what, Duration::from_secs(20), async || counts(handle) == expected).await;
}
