//! A load on a queue, of which it is known what a replica has: that must survive every primary.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chasquimq::{Producer, ProducerConfig};
use chasquimq_testkit::{Reply, Server, eventually};
use tokio::time::timeout;

use crate::support::{Answer, Worker, config, key};

/// A queue with a producer that adds one job after another, and a worker.
pub struct Load {
    queue: String,
    producer: Producer<u64>,
    worker: Worker,
    accepted: AtomicUsize,
    kept: Mutex<Vec<u64>>,
}

impl Load {
    pub async fn connect(url: &str, queue: &str) -> Self {
        let config_of = ProducerConfig { queue_name: queue.into(), ..Default::default() };
        let producer = Producer::connect(url, config_of).await.unwrap();
        let worker = Worker::start(url, config(queue), handle);
        Self {
            queue: queue.into(),
            producer,
            worker,
            accepted: AtomicUsize::new(0),
            kept: Mutex::default(),
        }
    }

    /// Adds jobs for ever. What was accepted counts once a replica of `primary`'s answer has it.
    pub async fn run<'s>(&self, primary: impl AsyncFn() -> &'s Server) {
        let marker = key(&self.queue, "test-marker");
        for payload in 0.. {
            let server = primary().await;
            let accepted = self.producer.add(payload).await.is_ok();
            if !accepted {
                continue;
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
            if replicates(server, &marker).await {
                self.kept.lock().unwrap().push(payload);
            }
        }
    }

    /// Waits until jobs are accepted and run from now on.
    pub async fn goes_on(&self) {
        let accepted = || self.accepted.load(Ordering::Relaxed);
        let (before, ran) = (accepted(), self.worker.count());
        eventually("jobs are accepted and run again", Duration::from_secs(10), async || {
            accepted() > before + 10 && self.worker.count() > ran + 10
        })
        .await;
    }

    /// Waits until nothing is left of the queue, and checks that all that was to be kept has run.
    pub async fn ends(self, primary: &Server) {
        crate::support::drained(primary, &self.queue).await;
        let ran = self.worker.payloads();
        let kept = self.kept.into_inner().unwrap();
        let lost: Vec<_> = kept.iter().filter(|job| ran.binary_search(job).is_err()).collect();
        assert!(kept.len() > 20, "a replica had {} jobs", kept.len());
        assert!(lost.is_empty(), "of {} jobs that a replica had are lost: {lost:?}", kept.len());
        self.worker.finish().await;
    }
}

async fn handle(_: chasquimq::Job<u64>) -> Answer {
    tokio::time::sleep(Duration::from_millis(2)).await;
    Ok(())
}

/// Whether a replica has what was written to this server until now.
async fn replicates(server: &Server, marker: &str) -> bool {
    let replicated = async {
        // WAIT speaks of what its own connection wrote last.
        let written = server.try_command(&["SET", marker, "x"]).await?;
        let replicas = server.try_command(&["WAIT", "1", "100"]).await?;
        io::Result::Ok(written.error().is_none() && matches!(replicas, Reply::Int(1..)))
    };
    matches!(timeout(Duration::from_secs(1), replicated).await, Ok(Ok(true)))
}
