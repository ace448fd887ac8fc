//! Entries of several jobs: each job is settled on its own, and only what is left comes back.

use std::collections::HashSet;
use std::io::Write;
use std::time::{Duration, Instant};

use chasquimq::{ConsumerConfig, HandlerError};
use chasquimq_testkit::{Server, eventually, shared_server, unique_queue};

use crate::support::{Worker, config, drained, key, producer};

/// Adds payloads as one entry.
async fn add_packed(server: &Server, queue: &str, payloads: Vec<u64>) {
    let pack = payloads.len();
    producer(server, queue).await.add_bulk_packed(payloads, pack).await.unwrap();
    assert_eq!(server.command(&["XLEN", &key(queue, "stream")]).await.int(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_entry_end_each_in_its_own_way() {
    let (server, queue) = (shared_server().await, unique_queue("packed"));
    add_packed(server, &queue, (0..30).collect()).await;
    let worker = Worker::start(&server.url(), config(&queue), |job| async move {
        match job.payload % 3 {
            1 if job.attempt == 0 => Err(HandlerError::new("once")),
            0 | 1 => Ok(()),
            _ => Err(HandlerError::unrecoverable("never")),
        }
    });
    worker.ran(40).await;
    drained(server, &queue).await;
    let producer = producer(server, &queue).await;
    assert_eq!(producer.peek_dlq(100).await.unwrap().len(), 10);
    assert_eq!(server.command(&["EXISTS", &key(&queue, "settled")]).await.int(), 0);
    assert_eq!(worker.count(), 40);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_only_the_unsettled_jobs_of_an_entry_run_again() {
    let (server, queue) = (shared_server().await, unique_queue("partly"));
    add_packed(server, &queue, (0..8).collect()).await;
    let five = |job: chasquimq::Job<u64>| async move {
        if job.payload < 5 { Ok(()) } else { std::future::pending().await }
    };
    let worker = Worker::doomed_with(server, config(&queue), five).await;
    worker.ran(8).await;
    let settled = key(&queue, "settled");
    eventually("five are marked", Duration::from_secs(5), || async {
        let maps = server.command(&["HVALS", &settled]).await;
        maps.array().first().is_some_and(|map| map.text() == "11111000")
    })
    .await;
    worker.crash();
    let heir = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    drained(server, &queue).await;
    assert_eq!(heir.payloads(), [5, 6, 7]);
    assert_eq!(server.command(&["EXISTS", &settled]).await.int(), 0);
    heir.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_hands_back_the_rest_of_an_entry() {
    let (server, queue) = (shared_server().await, unique_queue("rest"));
    add_packed(server, &queue, (0..8).collect()).await;
    let few = ConsumerConfig { concurrency: 2, shutdown_deadline_secs: 0, ..config(&queue) };
    let worker = Worker::start(&server.url(), few, |job| async move {
        if job.payload < 2 { Ok(()) } else { std::future::pending().await }
    });
    worker.ran(4).await;
    let report = worker.finish().await;
    assert_eq!((report.finished, report.released, report.abandoned), (2, 6, 0));
    let heir = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    drained(server, &queue).await;
    assert_eq!(heir.payloads(), (2..8).collect::<Vec<_>>());
    assert!(heir.runs.lock().unwrap().iter().all(|job| job.attempt == 0 && job.lost == 0));
    heir.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_packed_jobs_run_once_each() {
    let (server, queue) = (shared_server().await, unique_queue("many"));
    let producer = producer(server, &queue).await;
    let ids = producer.add_bulk_packed((0..5000).collect(), 64).await.unwrap();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 5000);
    assert_eq!(server.command(&["XLEN", &key(&queue, "stream")]).await.int(), 79);
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(5000).await;
    drained(server, &queue).await;
    assert_eq!(worker.payloads(), (0..5000).collect::<Vec<_>>());
    assert_eq!(server.command(&["EXISTS", &key(&queue, "settled")]).await.int(), 0);
    assert_eq!(worker.finish().await.finished, 5000);
    let error = producer.add_bulk_packed(vec![1], 0).await.unwrap_err();
    assert!(error.to_string().contains("pack is 0; it must be 1 to 256"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_worker_has_no_slot_for_goes_to_another() {
    let (server, queue) = (shared_server().await, unique_queue("fair"));
    add_packed(server, &queue, (0..8).collect()).await;
    let one = ConsumerConfig { concurrency: 1, shutdown_deadline_secs: 0, ..config(&queue) };
    let busy = Worker::start(&server.url(), one, |_| std::future::pending());
    busy.ran(1).await;
    let asked = Instant::now();
    let other = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    other.ran(7).await;
    let told = format!("another worker had the rest of the entry after {:?}", asked.elapsed());
    writeln!(std::io::stdout(), "{told}").unwrap();
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert_eq!(other.payloads(), (1..8).collect::<Vec<_>>());
    assert!(other.runs.lock().unwrap().iter().all(|job| job.attempt == 0 && job.lost == 0));
    busy.finish().await;
    drained(server, &queue).await;
    assert_eq!(other.payloads(), (0..8).collect::<Vec<_>>());
    other.finish().await;
}
