//! A sink that misbehaves: no job is lost for it, and one line is logged.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chasquimq::metrics::testing::InMemorySink;
use chasquimq::{
    ConsumerConfig, HandlerError, Job, JobOutcome, JobStarted, MetricsSink, NoopSink, PromoterTick,
    ReaderBatch, RetryScheduled,
};
use chasquimq_testkit::{shared_server, unique_queue};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::{Answer, Worker, config, drained, producer};

const JOBS: u64 = 40;

/// Warnings and errors of the thread that has this as its subscriber.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// The lines about the sink.
    fn lines(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|line| line.contains("metrics sink")).cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(format!("{} {}", event.metadata().level(), message.0));
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Runs jobs, of which every fourth fails once, with this sink: the log's lines about it.
async fn run_with(sink: impl MetricsSink) -> Vec<String> {
    let log = Log::default();
    let _captured = tracing::subscriber::set_default(log.clone());
    let (server, queue) = (shared_server().await, unique_queue("sink"));
    producer(server, &queue).await.add_bulk((0..JOBS).collect()).await.unwrap();
    let config = ConsumerConfig {
        metrics: Arc::new(sink),
        claim_min_idle_ms: 30_000,
        concurrency: 8,
        ..config(&queue)
    };
    let worker = Worker::start(&server.url(), config, fail_some);
    let expected = JOBS + JOBS / 4;
    worker.ran(expected as usize).await;
    drained(server, &queue).await;
    let runs = worker.payloads().len() as u64;
    let report = worker.finish().await;
    assert_eq!((runs, report.finished, report.abandoned), (expected, expected, 0));
    log.lines()
}

async fn fail_some(job: Job<u64>) -> Answer {
    if job.payload.is_multiple_of(4) && job.attempt == 0 {
        return Err(HandlerError::new("once"));
    }
    Ok(())
}

/// Panics at everything that is told of a job.
struct Panicking;

fn panic() -> ! {
    resume_unwind(Box::new("without the panic hook: as the test wants it"))
}

impl MetricsSink for Panicking {
    fn reader_batch(&self, _: ReaderBatch) {
        panic()
    }
    fn job_started(&self, _: JobStarted) {
        panic()
    }
    fn job_outcome(&self, _: JobOutcome) {
        panic()
    }
    fn retry_scheduled(&self, _: RetryScheduled) {
        panic()
    }
    fn store_command(&self, _: &'static str, _: Duration) {
        panic()
    }
}

/// Blocks for longer than is tolerated at everything that is told of a job.
struct Sleeping(InMemorySink);

fn nap() {
    std::thread::sleep(Duration::from_millis(12));
}

impl MetricsSink for Sleeping {
    fn reader_batch(&self, _: ReaderBatch) {
        nap();
    }
    fn job_started(&self, _: JobStarted) {
        nap();
    }
    fn job_outcome(&self, event: JobOutcome) {
        nap();
        self.0.job_outcome(event);
    }
    fn retry_scheduled(&self, _: RetryScheduled) {
        nap();
    }
    fn store_command(&self, _: &'static str, _: Duration) {
        nap();
    }
    fn promoter_tick(&self, _: PromoterTick) {
        nap();
    }
}

#[tokio::test]
async fn a_sink_that_panics_loses_no_job_and_is_logged_once() {
    let lines = run_with(Panicking).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("ERROR the metrics sink panicked; the engine goes on"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_sink_that_sleeps_loses_no_job_and_no_event_and_is_logged_once() {
    let sink = Arc::new(Sleeping(InMemorySink::new()));
    let lines = run_with(Arc::clone(&sink)).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("WARN the metrics sink is slow"), "{lines:?}");
    assert_eq!(sink.0.record().job_outcomes.len() as u64, JOBS + JOBS / 4);
}

#[tokio::test]
async fn sinks_that_behave_are_not_logged() {
    assert_eq!(run_with(NoopSink).await, [""; 0]);
    assert_eq!(run_with(InMemorySink::new()).await, [""; 0]);
}
