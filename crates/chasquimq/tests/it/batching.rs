//! Batch handlers: several jobs a call, each settled on its own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chasquimq::{
    BatchOptions, BatchOutcome, Consumer, ConsumerConfig, ErrorKind, HandlerError, Job, Report,
};
use chasquimq_testkit::{Server, shared_server, unique_queue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{config, drained, key, producer};

/// A running consumer of batches, and the payloads of each call.
struct Batcher {
    calls: Arc<Mutex<Vec<Vec<u64>>>>,
    stop: CancellationToken,
    task: JoinHandle<chasquimq::Result<Report>>,
}

impl Batcher {
    fn start<R: Into<BatchOutcome> + Send + 'static>(
        server: &Server,
        config: ConsumerConfig,
        options: BatchOptions,
        handler: impl Fn(Vec<Job<u64>>) -> R + Send + Sync + 'static,
    ) -> Self {
        let calls: Arc<Mutex<Vec<Vec<u64>>>> = Arc::default();
        let (seen, stop) = (Arc::clone(&calls), CancellationToken::new());
        let recording = move |jobs: Vec<Job<u64>>| {
            seen.lock().unwrap().push(jobs.iter().map(|job| job.payload).collect());
            let answer = handler(jobs);
            async { answer }
        };
        let consumer = Consumer::new(server.url(), config);
        let task = tokio::spawn(consumer.run_batches(options, recording, stop.clone()));
        Self { calls, stop, task }
    }

    fn calls(&self) -> Vec<Vec<u64>> {
        self.calls.lock().unwrap().clone()
    }

    fn payloads(&self) -> Vec<u64> {
        let mut payloads = self.calls().concat();
        payloads.sort_unstable();
        payloads
    }

    async fn finish(self) -> Report {
        self.stop.cancel();
        self.task.await.unwrap().unwrap()
    }
}

fn batches_of(size: usize, wait: Duration) -> BatchOptions {
    BatchOptions { size, wait }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_at_most_its_size_and_each_job_runs_once() {
    let (server, queue) = (shared_server().await, unique_queue("sized"));
    producer(server, &queue).await.add_bulk_packed((0..1000).collect(), 8).await.unwrap();
    let done = |_: Vec<Job<u64>>| Ok::<(), HandlerError>(());
    let two = ConsumerConfig { concurrency: 2, ..config(&queue) };
    let batcher = Batcher::start(server, two, batches_of(100, Duration::ZERO), done);
    drained(server, &queue).await;
    assert_eq!(batcher.payloads(), (0..1000).collect::<Vec<_>>());
    assert!(batcher.calls().iter().all(|call| (1..=100).contains(&call.len())));
    assert!(batcher.calls().len() <= 100, "{} calls", batcher.calls().len());
    assert_eq!(batcher.finish().await, Report { finished: 1000, released: 0, abandoned: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_job_of_a_batch_waits_for_more_but_not_for_long() {
    let (server, queue) = (shared_server().await, unique_queue("wait"));
    let producer = producer(server, &queue).await;
    let done = |_: Vec<Job<u64>>| Ok::<(), HandlerError>(());
    let patient = batches_of(3, Duration::from_secs(1));
    let batcher = Batcher::start(server, config(&queue), patient, done);
    let alone = Instant::now();
    producer.add(9).await.unwrap();
    drained(server, &queue).await;
    assert!(alone.elapsed() >= Duration::from_secs(1), "it waited for others");
    // From here on all slots wait for work; one of them must get all three.
    let asked = Instant::now();
    for payload in 0..3 {
        producer.add(payload).await.unwrap();
    }
    drained(server, &queue).await;
    assert_eq!(batcher.calls(), [vec![9], vec![0, 1, 2]], "one full batch");
    assert!(asked.elapsed() < Duration::from_secs(1), "a full batch waits no longer");
    batcher.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_of_a_batch_ends_in_its_own_way() {
    let (server, queue) = (shared_server().await, unique_queue("each"));
    let producer = producer(server, &queue).await;
    producer.add_bulk_packed((0..30).collect(), 30).await.unwrap();
    let one = |job: &Job<u64>| match job.payload % 3 {
        0 if job.attempt == 0 => Err(HandlerError::new("once")),
        0 | 1 => Ok(()),
        _ => Err(HandlerError::unrecoverable("never")),
    };
    let each = move |jobs: Vec<Job<u64>>| jobs.iter().map(one).collect::<Vec<_>>();
    let batcher = Batcher::start(server, config(&queue), BatchOptions::default(), each);
    drained(server, &queue).await;
    assert_eq!(batcher.payloads().len(), 40);
    let dead = producer.peek_dlq(100).await.unwrap();
    assert_eq!(dead.len(), 10);
    assert!(dead.iter().all(|job| job.detail.as_deref() == Some("never")));
    assert_eq!(batcher.finish().await.finished, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_fails_all_its_jobs() {
    let (server, queue) = (shared_server().await, unique_queue("all"));
    producer(server, &queue).await.add_bulk((0..20).collect()).await.unwrap();
    let stubborn = |jobs: Vec<Job<u64>>| match jobs[0].attempt {
        0 => Err(HandlerError::new("no")),
        1 => panic!("no"),
        _ => Ok(()),
    };
    let batcher = Batcher::start(server, config(&queue), BatchOptions::default(), stubborn);
    drained(server, &queue).await;
    assert!(batcher.payloads().len() >= 60, "three runs each");
    assert_eq!(batcher.finish().await.abandoned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_hung_batch_go_back_at_shutdown() {
    let (server, queue) = (shared_server().await, unique_queue("hung"));
    producer(server, &queue).await.add_bulk((0..10).collect()).await.unwrap();
    let stop = CancellationToken::new();
    let config = ConsumerConfig { shutdown_deadline_secs: 0, ..config(&queue) };
    let begun = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&begun);
    let hang = move |_: Vec<Job<u64>>| {
        told.notify_one();
        std::future::pending::<Result<(), HandlerError>>()
    };
    let consumer = Consumer::new(server.url(), config);
    let task = tokio::spawn(consumer.run_batches(BatchOptions::default(), hang, stop.clone()));
    begun.notified().await;
    stop.cancel();
    let report = task.await.unwrap().unwrap();
    assert_eq!((report.finished, report.abandoned), (0, 0));
    // A read that is under way may meet some of them once more.
    assert!(report.released >= 10, "{report:?}");
    assert_eq!(server.command(&["XLEN", &key(&queue, "stream")]).await.int(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_none_is_refused() {
    let done = |_: Vec<Job<u64>>| async { Ok::<(), HandlerError>(()) };
    let consumer = Consumer::<u64>::new("redis://127.0.0.1:1", ConsumerConfig::default());
    let none = batches_of(0, Duration::ZERO);
    let error = consumer.run_batches(none, done, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
