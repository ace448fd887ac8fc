//! What the engine tells of jobs and queues beyond their endings.

use std::sync::Arc;
use std::time::Duration;

use chasquimq::metrics::testing::{InMemorySink, Record};
use chasquimq::{
    ConsumerConfig, DlqReason, DlqRouted, HandlerError, JobOutcome, JobOutcomeKind, JobStarted,
    LeasesRenewed, LockOutcome, MetricsSink, NoopSink, PromoterTick, QueueCounts, ReaderBatch,
    RetryScheduled, Session, TaskRestarted,
};
use chasquimq_testkit::{eventually, shared_server, unique_queue};

use crate::support::{Worker, config, drained, key, producer};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn only_jobs_that_were_delayed_have_a_lateness() {
    let (server, queue) = (shared_server().await, unique_queue("late"));
    let sink = Arc::new(InMemorySink::new());
    let config = ConsumerConfig { metrics: Arc::<InMemorySink>::clone(&sink), ..config(&queue) };
    let worker = Worker::start(&server.url(), config, |job| async move {
        if job.attempt == 0 { Err(HandlerError::new("once")) } else { Ok(()) }
    });
    let producer = producer(server, &queue).await;
    producer.add(1).await.unwrap();
    worker.ran(2).await;
    producer.add_in(Duration::from_millis(50), 2).await.unwrap();
    worker.ran(4).await;
    drained(server, &queue).await;
    let started = sink.record().started;
    let late: Vec<_> = started.iter().map(|start| start.start_lateness_us.is_some()).collect();
    assert_eq!(late, [false, true, true, true], "added, retried, delayed, retried: {started:?}");
    for start in &started[1..] {
        let (late, waited) = (start.start_lateness_us.unwrap(), start.queue_wait_us.unwrap());
        assert!(late >= waited && late < 2_000_000, "promotion and wait together: {start:?}");
    }
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_handed_back_unrun_stays_as_late_as_it_is() {
    let (server, queue) = (shared_server().await, unique_queue("back"));
    let one = ConsumerConfig { shutdown_deadline_secs: 0, concurrency: 1, ..config(&queue) };
    let held = ConsumerConfig { prefetch: Some(5), ..one.clone() };
    let worker = Worker::start(&server.url(), held, |_| std::future::pending());
    producer(server, &queue)
        .await
        .add_in_bulk(Duration::from_millis(20), vec![1, 2])
        .await
        .unwrap();
    worker.ran(1).await;
    let stream = key(&queue, "stream");
    let both_delivered =
        async || server.command(&["XPENDING", &stream, "default"]).await.array()[0].int() == 2;
    eventually("both are delivered", PATIENCE, both_delivered).await;
    // One more where the last read of the worker that stops brings what it has just handed back.
    assert!(worker.finish().await.released >= 2);
    let sink = Arc::new(InMemorySink::new());
    let heir = ConsumerConfig { metrics: Arc::<InMemorySink>::clone(&sink), ..one };
    let heir = Worker::start(&server.url(), heir, |_| async { Ok(()) });
    heir.ran(2).await;
    let started = sink.record().started;
    assert!(
        started.iter().all(|start| start.start_lateness_us > start.queue_wait_us),
        "{started:?}"
    );
    assert!(started.iter().all(|start| start.start_lateness_us.is_some()), "{started:?}");
    heir.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_and_sessions_count_the_same_queue() {
    let (server, queue) = (shared_server().await, unique_queue("counts"));
    let producer = producer(server, &queue).await;
    assert_eq!(producer.counts().await.unwrap(), QueueCounts::default());
    producer.add_bulk((0..30).collect()).await.unwrap();
    producer.add_in_bulk(Duration::from_hours(1), vec![1, 2]).await.unwrap();
    let few = ConsumerConfig { concurrency: 8, prefetch: Some(2), ..config(&queue) };
    let session = Session::start(&server.url(), few).await.unwrap();
    assert_eq!(session.queue(), queue);
    eventually("as many are in hand as it may hold", PATIENCE, async || {
        session.counts().await.unwrap().in_flight == 10
    })
    .await;
    let counts = session.counts().await.unwrap();
    assert_eq!((counts.ready, counts.delayed, counts.dead), (20, 2, 0));
    assert!(counts.oldest_ready_age_ms < 20_000, "{counts:?}");
    let asked = producer.counts().await.unwrap();
    assert_eq!(QueueCounts { oldest_ready_age_ms: counts.oldest_ready_age_ms, ..asked }, counts);
    assert!(session.health().live && session.health().reading, "{:?}", session.health());
    session.close(Duration::from_secs(5)).await;
    assert_eq!(producer.counts().await.unwrap().ready, 30, "all went back");
}

#[test]
fn shared_and_boxed_sinks_hear_everything() {
    let direct = InMemorySink::new();
    tell_everything(&direct);
    let (shared, boxed) = (Arc::new(InMemorySink::new()), Arc::new(InMemorySink::new()));
    tell_everything(&Arc::<InMemorySink>::clone(&shared));
    tell_everything(&(Box::new(Arc::<InMemorySink>::clone(&boxed)) as Box<dyn MetricsSink>));
    let heard = |record: Record| format!("{record:?}");
    let expected = heard(direct.record());
    assert!(!expected.contains("[]") && !expected.contains(": 0"), "everything: {expected}");
    assert_eq!(heard(shared.record()), expected);
    assert_eq!(heard(boxed.record()), expected);
    assert!(Arc::new(NoopSink).is_noop() && !direct.is_noop());
}

/// Every event once.
fn tell_everything<S: MetricsSink + ?Sized>(sink: &S) {
    let name: Arc<str> = "send".into();
    sink.promoter_tick(PromoterTick { promoted: 1, depth: 2, oldest_pending_lag_ms: 3 });
    sink.promoter_lock_outcome(LockOutcome::Acquired);
    sink.reader_batch(ReaderBatch { size: 2, reclaimed: 1 });
    let (kind, handler_duration_us) = (JobOutcomeKind::Ok, 4);
    sink.job_outcome(JobOutcome { kind, attempt: 1, handler_duration_us, name: name.clone() });
    sink.retry_scheduled(RetryScheduled { attempt: 2, backoff_ms: 5, name: name.clone() });
    let reason = DlqReason::WorkerLost;
    sink.dlq_routed(DlqRouted { reason, attempt: 1, name: name.clone() });
    let (queue_wait_us, start_lateness_us) = (Some(6), Some(7));
    sink.job_started(JobStarted { attempt: 1, queue_wait_us, start_lateness_us, name });
    sink.leases_renewed(LeasesRenewed { renewed: 8, lost: 9 });
    sink.stale_settlements(10);
    sink.ghost_entries(11);
    sink.store_command("add", Duration::from_micros(12));
    sink.task_restarted(TaskRestarted { task: "reader" });
    let (ready, oldest_ready_age_ms) = (13, 18);
    let (in_flight, delayed, retrying, dead) = (14, 15, 16, 17);
    let counts = QueueCounts { ready, in_flight, delayed, retrying, dead, oldest_ready_age_ms };
    sink.queue_counts(counts);
    sink.events_dropped(19);
}
