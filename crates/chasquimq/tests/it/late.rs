//! Replies that are lost, and replies and commands that come after the lease: no job runs twice for
//! them, and none counts as if its worker had died.

use std::time::Duration;

use chasquimq::{ConsumerConfig, HandlerError};
use chasquimq_testkit::{ChaosProxy, Server, eventually};
use tokio_util::sync::CancellationToken;

use crate::support::{Worker, config, drained, key, producer};

const SOON: Duration = Duration::from_secs(10);

/// Waits until so many entries are pending.
async fn pending(server: &Server, count: i64) {
    eventually("entries are pending", SOON, || async {
        let summary = server.command(&["XPENDING", &key("q", "stream"), "default"]).await;
        summary.array()[0].int() == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_delivery_was_lost_on_the_way_runs_long_before_its_lease_ends() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    let producer = producer(&server, "q").await;
    let config = ConsumerConfig { claim_min_idle_ms: 60_000, ..config("q") };
    let worker = Worker::start(&proxy.url(), config, |_| async { Ok(()) });
    producer.add(0).await.unwrap();
    worker.ran(1).await;
    for n in 1..5 {
        proxy.lose_replies();
        producer.add(n).await.unwrap();
        worker.ran(n as usize + 1).await;
    }
    drained(&server, "q").await;
    assert_eq!(worker.payloads(), [0, 1, 2, 3, 4]);
    let runs = worker.runs.lock().unwrap().clone();
    assert!(runs.iter().all(|job| job.lost == 0), "{runs:?}");
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_comes_after_its_lease_does_not_run() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    let producer = producer(&server, "q").await;
    let late = Worker::start(&proxy.url(), config("q"), |_| async { Ok(()) });
    producer.add(0).await.unwrap();
    late.ran(1).await;
    drained(&server, "q").await;
    proxy.stall(true);
    producer.add(1).await.unwrap();
    pending(&server, 1).await;
    let heir = Worker::start(&server.url(), config("q"), |_| async { Ok(()) });
    heir.ran(1).await;
    drained(&server, "q").await;
    heir.finish().await;
    proxy.stall(false);
    producer.add(2).await.unwrap();
    late.ran(2).await;
    drained(&server, "q").await;
    assert_eq!(late.payloads(), [0, 2]);
    late.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_arrives_after_its_lease_does_not_bring_the_job_back() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    let producer = producer(&server, "q").await;
    let let_go = CancellationToken::new();
    let waits = let_go.clone();
    let late = Worker::start(&proxy.url(), config("q"), move |_| {
        let waits = waits.clone();
        async move {
            waits.cancelled().await;
            Err(HandlerError::new("late"))
        }
    });
    // Of an entry of two jobs, too: what is settled of it must not be written down anew.
    producer.add_bulk_packed(vec![1, 2], 2).await.unwrap();
    late.ran(2).await;
    proxy.stall(true);
    let_go.cancel();
    let heir = Worker::start(&server.url(), config("q"), |_| async { Ok(()) });
    heir.ran(2).await;
    drained(&server, "q").await;
    proxy.stall(false);
    // It is through when the worker can leave.
    late.finish().await;
    drained(&server, "q").await;
    assert_eq!(heir.payloads(), [1, 2]);
    assert_eq!(server.command(&["EXISTS", &key("q", "settled")]).await.int(), 0);
    heir.finish().await;
}
