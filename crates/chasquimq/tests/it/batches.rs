//! Entries of several jobs: each job is settled on its own, and only what is left comes back.

use std::time::Duration;

use chasquimq::{ConsumerConfig, HandlerError};
use chasquimq_testkit::{Server, eventually, shared_server, unique_queue};

use crate::support::{Worker, config, drained, key, producer};

/// Adds payloads as one entry, made of the entries that a producer writes.
async fn add_packed(server: &Server, queue: &str, payloads: Vec<u64>) {
    let scratch = format!("{queue}-scratch");
    producer(server, &scratch).await.add_bulk(payloads).await.unwrap();
    let singles = server.command(&["XRANGE", &key(&scratch, "stream"), "-", "+"]).await;
    let value: Vec<u8> =
        singles.array().iter().flat_map(|e| e.array()[1].array()[1].bytes().to_vec()).collect();
    let stream = key(queue, "stream");
    server.command(&[b"XADD", stream.as_bytes(), b"*", b"j", &value]).await;
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
