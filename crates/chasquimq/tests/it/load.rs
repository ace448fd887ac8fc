//! A load on a queue whose jobs are accepted when a replica has them: they must survive every primary.

use std::sync::Mutex;
use std::time::Duration;

use chasquimq::{Durability, Producer, ProducerConfig};
use chasquimq_testkit::{Server, eventually};
use tokio_util::sync::CancellationToken;

use crate::remains::Baseline;
use crate::support::{Answer, Worker, config, drained};

/// A queue with a producer that adds one job after another, and a worker.
pub struct Load {
    queue: String,
    producer: Producer<u64>,
    worker: Worker,
    accepted: Mutex<Vec<u64>>,
    stop: CancellationToken,
}

impl Load {
    pub async fn connect(url: &str, queue: &str) -> Self {
        let durable = ProducerConfig {
            queue_name: queue.into(),
            durability: Durability::Replica,
            ..Default::default()
        };
        let producer = Producer::connect(url, durable).await.unwrap();
        let worker = Worker::start(url, config(queue), handle);
        let (accepted, stop) = (Mutex::default(), CancellationToken::new());
        Self { queue: queue.into(), producer, worker, accepted, stop }
    }

    /// Adds jobs until it is told to stop and the last answer has come.
    pub async fn run(&self) {
        for payload in 0.. {
            if self.stop.is_cancelled() {
                return;
            }
            if self.producer.add(payload).await.is_ok() {
                self.accepted.lock().unwrap().push(payload);
            }
        }
    }

    /// Ends [`Load::run`].
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until jobs are accepted and run from now on.
    pub async fn goes_on(&self) {
        let accepted = || self.accepted.lock().unwrap().len();
        let (before, ran) = (accepted(), self.worker.count());
        eventually("jobs are accepted and run again", Duration::from_secs(45), async || {
            accepted() > before + 10 && self.worker.count() > ran + 10
        })
        .await;
    }

    /// Waits until the queue is empty, and checks that all that was accepted has run and nothing of the
    /// queue is left.
    pub async fn ends(self, primary: &Server, baseline: &Baseline) {
        drained(primary, &self.queue).await;
        let ran = self.worker.payloads();
        let accepted = self.accepted.into_inner().unwrap();
        let lost: Vec<_> = accepted.iter().filter(|job| ran.binary_search(job).is_err()).collect();
        assert!(accepted.len() > 20, "{} jobs were accepted", accepted.len());
        assert!(lost.is_empty(), "of {} accepted jobs are lost: {lost:?}", accepted.len());
        self.worker.finish().await;
        self.producer.shutdown().await;
        baseline.regained(primary, &self.queue).await;
    }
}

async fn handle(_: chasquimq::Job<u64>) -> Answer {
    tokio::time::sleep(Duration::from_millis(2)).await;
    Ok(())
}
