//! Leases: a running job is nobody else's; a dead worker's jobs come back.

use std::time::Duration;

use chasquimq::ConsumerConfig;
use chasquimq_testkit::{eventually, shared_server, unique_queue};
use tokio::time::sleep;

use crate::support::{Worker, config, drained, key, producer};

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_three_leases_runs_exactly_once() {
    let (server, queue) = (shared_server().await, unique_queue("long"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..5).collect()).await.unwrap();
    let slow = |_| async {
        sleep(Duration::from_secs(9)).await;
        Ok(())
    };
    let config = ConsumerConfig { claim_min_idle_ms: 3_000, ..config(&queue) };
    let one = Worker::start(&server.url(), config.clone(), slow);
    one.ran(5).await;
    let other = Worker::start(&server.url(), config, slow);
    drained(server, &queue).await;
    assert_eq!((one.count(), other.count()), (5, 0));
    assert_eq!((one.finish().await.finished, other.finish().await.finished), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_held_ready_are_leased_too() {
    let (server, queue) = (shared_server().await, unique_queue("prefetch"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..6).collect()).await.unwrap();
    let config = ConsumerConfig {
        concurrency: 1,
        prefetch: Some(5),
        claim_min_idle_ms: 3_000,
        ..config(&queue)
    };
    let slow = |_| async {
        sleep(Duration::from_millis(1_200)).await;
        Ok(())
    };
    let one = Worker::start(&server.url(), config.clone(), slow);
    one.ran(1).await;
    let other = Worker::start(
        &server.url(),
        ConsumerConfig { consumer_id: "other".into(), ..config },
        slow,
    );
    drained(server, &queue).await;
    assert_eq!((one.count(), other.count()), (6, 0));
    one.finish().await;
    other.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_worker_s_jobs_come_back_within_a_lease_and_count_as_lost() {
    let (server, queue) = (shared_server().await, unique_queue("dead"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..50).collect()).await.unwrap();
    let dead = Worker::doomed(server, config(&queue)).await;
    dead.ran(50).await;
    dead.crash();
    let heir = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    heir.ran(50).await;
    drained(server, &queue).await;
    let runs = heir.runs.lock().unwrap().clone();
    assert_eq!(heir.payloads(), (0..50).collect::<Vec<_>>());
    assert!(runs.iter().all(|job| job.attempt == 0 && job.lost == 1), "{runs:?}");
    heir.finish().await;
}

/// Entries that were settled may linger in the stream while one before them runs; not these, which the
/// first worker may still speak of.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_over_does_not_linger() {
    let (server, queue) = (shared_server().await, unique_queue("linger"));
    let producer = producer(server, &queue).await;
    let one = ConsumerConfig { concurrency: 1, prefetch: Some(0), ..config(&queue) };
    let holder = Worker::start(&server.url(), one, |_| std::future::pending());
    producer.add(0).await.unwrap();
    holder.ran(1).await;
    let doomed = Worker::doomed(server, config(&queue)).await;
    producer.add_bulk((1..21).collect()).await.unwrap();
    doomed.ran(20).await;
    doomed.crash();
    let heir = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    heir.ran(20).await;
    let stream = key(&queue, "stream");
    eventually("the twenty are gone", Duration::from_secs(5), || async {
        server.command(&["XLEN", &stream]).await.int() == 1
    })
    .await;
    assert_eq!(producer.counts().await.unwrap().in_flight, 1, "the one before them runs");
    heir.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_given_up() {
    let (server, queue) = (shared_server().await, unique_queue("poison"));
    let producer = producer(server, &queue).await;
    producer.add(13).await.unwrap();
    for death in 0..3 {
        let worker = Worker::doomed(server, config(&queue)).await;
        worker.ran(1).await;
        assert_eq!(worker.runs.lock().unwrap()[0].lost, death);
        worker.crash();
    }
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    drained(server, &queue).await;
    let dead = producer.peek_dlq(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].reason.as_str(), dead[0].attempt, dead[0].lost), ("worker_lost", 0, 3));
    assert_eq!(worker.count(), 0);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_deleted_while_pending_are_acknowledged_away() {
    let (server, queue) = (shared_server().await, unique_queue("ghost"));
    let producer = producer(server, &queue).await;
    producer.add(1).await.unwrap();
    let dead = Worker::doomed(server, config(&queue)).await;
    dead.ran(1).await;
    dead.crash();
    let stream = key(&queue, "stream");
    let id = server.command(&["XRANGE", &stream, "-", "+"]).await.array()[0].array()[0].text();
    server.command(&["XDEL", &stream, &id]).await;
    let heir = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    eventually("nothing is pending", Duration::from_secs(10), || async {
        server.command(&["XPENDING", &stream, "default"]).await.array()[0].int() == 0
    })
    .await;
    assert_eq!(heir.count(), 0);
    heir.finish().await;
}
