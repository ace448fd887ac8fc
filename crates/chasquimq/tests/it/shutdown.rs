//! Shutdown: by its deadline, nothing lost, attempts unchanged.

use std::time::{Duration, Instant};

use chasquimq::{ConsumerConfig, Report};
use chasquimq_testkit::{shared_server, unique_queue};
use tokio::time::sleep;

use crate::support::{Worker, config, drained, key, producer};

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_handler_does_not_hold_shutdown_beyond_its_deadline() {
    let (server, queue) = (shared_server().await, unique_queue("hung"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..1001).collect()).await.unwrap();
    let hung = ConsumerConfig {
        shutdown_deadline_secs: 1,
        concurrency: 4,
        prefetch: Some(1),
        ..config(&queue)
    };
    let worker = Worker::start(&server.url(), hung, |_| std::future::pending());
    worker.ran(4).await;
    let asked = Instant::now();
    let report = worker.finish().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(report, Report { finished: 0, released: 5, abandoned: 0 });
    let pending = server.command(&["XPENDING", &key(&queue, "stream"), "default"]).await;
    assert_eq!(pending.array()[0].int(), 0);
    assert_eq!(server.command(&["XLEN", &key(&queue, "stream")]).await.int(), 1001);

    let heir = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    heir.ran(1001).await;
    drained(server, &queue).await;
    assert_eq!(heir.payloads(), (0..1001).collect::<Vec<_>>());
    assert!(heir.runs.lock().unwrap().iter().all(|job| job.attempt == 0 && job.lost == 0));
    heir.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_jobs_finish_and_the_consumer_leaves_no_trace() {
    let (server, queue) = (shared_server().await, unique_queue("soft"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..10).collect()).await.unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async {
        sleep(Duration::from_millis(300)).await;
        Ok(())
    });
    worker.ran(10).await;
    assert_eq!(worker.finish().await, Report { finished: 10, released: 0, abandoned: 0 });
    let stream = key(&queue, "stream");
    assert_eq!(server.command(&["XLEN", &stream]).await.int(), 0);
    let consumers = server.command(&["XINFO", "CONSUMERS", &stream, "default"]).await;
    assert_eq!(consumers.array().len(), 0);
    assert_eq!(server.command(&["EXISTS", &key(&queue, "promoter")]).await.int(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_consumer_stops_at_once() {
    let (server, queue) = (shared_server().await, unique_queue("idle"));
    let idle = ConsumerConfig { claim_min_idle_ms: 30_000, ..config(&queue) };
    let worker = Worker::start(&server.url(), idle, |_| async { Ok(()) });
    producer(server, &queue).await.add(1).await.unwrap();
    worker.ran(1).await;
    drained(server, &queue).await;
    let asked = Instant::now();
    worker.finish().await;
    assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
}
