//! Added, delivered, run once, gone.

use chasquimq::HandlerError;
use chasquimq_testkit::{shared_server, unique_queue};

use crate::support::{Worker, config, drained, producer};

#[tokio::test(flavor = "multi_thread")]
async fn each_job_runs_once_and_is_gone() {
    let (server, queue) = (shared_server().await, unique_queue("delivery"));
    let producer = producer(server, &queue).await;
    let ids = producer.add_bulk((0..1000).collect()).await.unwrap();
    assert_eq!(ids.len(), 1000);
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(1000).await;
    drained(server, &queue).await;
    assert_eq!(worker.payloads(), (0..1000).collect::<Vec<_>>());
    assert_eq!(worker.finish().await.finished, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_runs_again_with_the_next_attempt() {
    let (server, queue) = (shared_server().await, unique_queue("retry"));
    let producer = producer(server, &queue).await;
    producer.add(7).await.unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |job| async move {
        if job.attempt < 2 { Err(HandlerError::new("boom")) } else { Ok(()) }
    });
    worker.ran(3).await;
    drained(server, &queue).await;
    let attempts: Vec<u32> = worker.runs.lock().unwrap().iter().map(|job| job.attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
    worker.finish().await;
}
