//! Faults of the server: the worker goes on by itself, and nothing accepted is lost.

use std::time::{Duration, Instant};

use chasquimq::{ConnectionTuning, ConsumerConfig, HandlerError};
use chasquimq_testkit::{ChaosProxy, Server, eventually};
use rustix::time::{ClockId, clock_gettime};

use crate::remains::nothing_left;
use crate::support::{Answer, Worker, config, drained, key, producer};

async fn fail_once(job: chasquimq::Job<u64>) -> Answer {
    if job.attempt == 0 { Err(HandlerError::new("once")) } else { Ok(()) }
}

/// Adds a job and waits for it: the worker is well.
async fn works(server: &Server, queue: &str, worker: &Worker, payload: u64) {
    let producer = producer(server, queue).await;
    eventually("a job is accepted", Duration::from_secs(10), || async {
        producer.add(payload).await.is_ok()
    })
    .await;
    eventually("it runs", Duration::from_secs(15), || async {
        worker.payloads().contains(&payload)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_key_of_the_wrong_type_loses_nothing() {
    let server = Server::start().await;
    let producer = producer(&server, "q").await;
    server.command(&["SET", &key("q", "dlq"), "not a stream"]).await;
    producer.add_bulk((0..20).collect()).await.unwrap();
    let worker = Worker::start(&server.url(), config("q"), |job| async move {
        if job.payload < 10 { Err(HandlerError::unrecoverable("dead")) } else { Ok(()) }
    });
    worker.ran(20).await;
    works(&server, "q", &worker, 99).await;
    eventually("the healthy are settled", Duration::from_secs(5), || async {
        let pending = server.command(&["XPENDING", &key("q", "stream"), "default"]).await;
        pending.array()[0].int() == 10
    })
    .await;
    server.command(&["DEL", &key("q", "dlq")]).await;
    drained(&server, "q").await;
    assert_eq!(producer.peek_dlq(100).await.unwrap().len(), 10);
    assert_eq!(worker.count(), 21, "nothing ran twice while its end could not be stored");
    worker.finish().await;
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_key_of_the_wrong_type_loses_nothing() {
    let server = Server::start().await;
    let producer = producer(&server, "q").await;
    server.command(&["SET", &key("q", "delayed"), "not a set"]).await;
    producer.add_bulk((0..10).collect()).await.unwrap();
    let worker = Worker::start(&server.url(), config("q"), fail_once);
    worker.ran(10).await;
    works(&server, "q", &worker, 99).await;
    assert_eq!(server.command(&["XLEN", &key("q", "stream")]).await.int(), 11);
    server.command(&["DEL", &key("q", "delayed")]).await;
    worker.ran(22).await;
    drained(&server, "q").await;
    assert_eq!(worker.count(), 22);
    worker.finish().await;
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_settles_what_runs_and_recovers() {
    let server = Server::start().await;
    let producer = producer(&server, "q").await;
    producer.add_bulk((0..50).collect()).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = producer.add(50).await.unwrap_err();
    assert_eq!(error.kind(), chasquimq::ErrorKind::OutOfMemory);
    let worker = Worker::start(&server.url(), config("q"), fail_once);
    worker.ran(100).await;
    drained(&server, "q").await;
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    works(&server, "q", &worker, 99).await;
    drained(&server, "q").await;
    worker.finish().await;
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_scripts_are_loaded_again() {
    let server = Server::start().await;
    let worker = Worker::start(&server.url(), config("q"), fail_once);
    for round in 0..5 {
        server.command(&["SCRIPT", "FLUSH"]).await;
        works(&server, "q", &worker, round).await;
    }
    worker.ran(10).await;
    drained(&server, "q").await;
    assert_eq!(worker.count(), 10);
    worker.finish().await;
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_takes_the_jobs_but_not_the_worker() {
    let server = Server::start().await;
    let worker = Worker::start(&server.url(), config("q"), fail_once);
    works(&server, "q", &worker, 1).await;
    server.command(&["FLUSHALL"]).await;
    works(&server, "q", &worker, 2).await;
    drained(&server, "q").await;
    worker.finish().await;
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_with_aof_comes_back_with_every_job() {
    let server = Server::builder().aof(true).start().await;
    let producer = producer(&server, "q").await;
    producer.add_bulk((0..200).collect()).await.unwrap();
    producer.add_in(Duration::from_millis(300), 200).await.unwrap();
    let worker = Worker::start(&server.url(), config("q"), fail_once);
    worker.ran(50).await;
    server.kill9();
    server.restart().await;
    eventually("every job has run", Duration::from_secs(30), || async {
        let mut seen = worker.payloads();
        seen.dedup();
        seen.len() == 201
    })
    .await;
    drained(&server, "q").await;
    worker.finish().await;
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_again_and_again_lose_nothing_and_double_nothing() {
    let server = Server::start().await;
    let producer = producer(&server, "q").await;
    producer.add_bulk((0..2000).collect()).await.unwrap();
    let config = ConsumerConfig { claim_min_idle_ms: 8_000, ..config("q") };
    let worker = Worker::start(&server.url(), config, |_| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    });
    for round in 1..=8 {
        worker.ran(round * 100).await;
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    }
    eventually("every job has run", Duration::from_secs(30), || async {
        let mut seen = worker.payloads();
        seen.dedup();
        seen.len() == 2000
    })
    .await;
    drained(&server, "q").await;
    let report = worker.finish().await;
    assert_eq!((report.finished, report.abandoned), (2000, 0));
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endings_wait_through_an_outage_shorter_than_the_lease_and_nothing_runs_twice() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    producer(&server, "q").await.add_bulk((0..50).collect()).await.unwrap();
    let mut config = config("q");
    config.claim_min_idle_ms = 8_000;
    let worker = Worker::start(&proxy.url(), config, |_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(())
    });
    worker.ran(50).await;
    proxy.refuse(true);
    proxy.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.refuse(false);
    drained(&server, "q").await;
    assert_eq!(worker.count(), 50);
    assert_eq!(worker.finish().await.finished, 50);
    nothing_left(&server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_reply_was_lost_is_counted_once() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    let producer = producer(&server, "q").await;
    producer.add(0).await.unwrap();
    let sink = std::sync::Arc::new(chasquimq::metrics::testing::InMemorySink::new());
    let mut config = config("q");
    config.claim_min_idle_ms = 8_000;
    config.metrics = sink.clone();
    let worker = Worker::start(&proxy.url(), config, |_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Err(HandlerError::unrecoverable("dead"))
    });
    // The first one teaches the server the script, whose absence would be told in a reply too.
    drained(&server, "q").await;
    producer.add_bulk((1..20).collect()).await.unwrap();
    worker.ran(20).await;
    proxy.drop_replies();
    eventually("the server has stored some of them", Duration::from_secs(5), || async {
        server.command(&["XLEN", &key("q", "dlq")]).await.int() > 1
    })
    .await;
    proxy.cut();
    eventually("they are told", Duration::from_secs(15), || async {
        sink.record().dlq.len() == 20
    })
    .await;
    worker.finish().await;
    let record = sink.record();
    assert_eq!(
        (record.dlq.len(), record.job_outcomes.len(), record.stale_settlements),
        (20, 20, 0)
    );
    assert_eq!(server.command(&["XLEN", &key("q", "dlq")]).await.int(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_after_a_lost_reply_makes_no_result_stale() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    let producer = producer(&server, "q").await;
    producer.add(0).await.unwrap();
    let sink = std::sync::Arc::new(chasquimq::metrics::testing::InMemorySink::new());
    let mut config = config("q");
    config.claim_min_idle_ms = 12_000;
    config.metrics = sink.clone();
    let worker = Worker::start(&proxy.url(), config, |_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Err(HandlerError::unrecoverable("dead"))
    });
    // The first one teaches the server the script, whose absence would be told in a reply too.
    drained(&server, "q").await;
    producer.add_bulk((1..10).collect()).await.unwrap();
    worker.ran(10).await;
    proxy.drop_replies();
    eventually("the server has stored some of them", Duration::from_secs(5), || async {
        server.command(&["XLEN", &key("q", "dlq")]).await.int() > 1
    })
    .await;
    proxy.refuse(true);
    proxy.cut();
    // Longer than a renewal is away, shorter than the lease: the entries cannot be anybody else's.
    tokio::time::sleep(Duration::from_millis(4200)).await;
    proxy.refuse(false);
    eventually("all are told", Duration::from_secs(15), || async { sink.record().dlq.len() == 10 })
        .await;
    worker.finish().await;
    let record = sink.record();
    let lost: u64 = record.leases.iter().map(|renewal| renewal.lost).sum();
    assert_eq!((record.dlq.len(), record.stale_settlements, lost), (10, 0, 0));
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

// One thread, so that its CPU time is the worker's.
#[tokio::test(flavor = "current_thread")]
async fn endings_that_cannot_be_stored_cost_no_cpu_while_they_wait() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    producer(&server, "q").await.add_bulk((0..50).collect()).await.unwrap();
    let connection =
        ConnectionTuning { command_timeout: Duration::from_millis(700), ..Default::default() };
    let config = ConsumerConfig { settle_batch: 1, connection, ..config("q") };
    let let_go = tokio_util::sync::CancellationToken::new();
    let held = let_go.clone();
    let worker = Worker::start(&proxy.url(), config, move |_| {
        let held = held.clone();
        async move {
            held.cancelled().await;
            Ok(())
        }
    });
    worker.ran(50).await;
    proxy.stall(true);
    let_go.cancel();
    // Each batch is one job, two are on their way for 700 ms, and all that failed wait their turn.
    let (begun, before) = (Instant::now(), cpu_time());
    eventually("three rounds of timeouts", Duration::from_secs(5), || async {
        begun.elapsed() > Duration::from_millis(2200)
    })
    .await;
    let spent = cpu_time().saturating_sub(before);
    assert!(spent < begun.elapsed() / 4, "{spent:?} of CPU in {:?}", begun.elapsed());
    proxy.stall(false);
    drained(&server, "q").await;
    assert_eq!(worker.finish().await.abandoned, 0);
    nothing_left(&server, "q").await;
}
