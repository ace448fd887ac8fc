//! A queue looked at from outside, for a process without a worker.

use std::sync::atomic::{AtomicBool, Ordering};

use chasquimq::{Producer, QueueCounts};
use metrics::Label;

use super::Exporter;
use super::probe::{Probe, Scale, ScaleFuture};
use crate::queue::QueueGauges;
use crate::series::Scope;
use crate::sink::SharedRecorder;

/// Shows a queue's gauges without working on the queue. It is ready while the queue can be counted.
///
/// A gauge is `NaN` while its number is not known: before the first look, after one that failed,
/// and when the inspector has gone.
pub struct Inspector {
    queue: String,
    producer: Producer<()>,
    gauges: QueueGauges,
    labels: [Label; 1],
    recorder: SharedRecorder,
    counted: AtomicBool,
}

impl Inspector {
    /// An inspector of this producer's queue that shows what it sees on `exporter`. It looks when
    /// it is told to.
    #[must_use]
    pub fn new(exporter: &Exporter, producer: Producer<()>) -> Self {
        let queue = producer.queue().to_owned();
        let inspector = Self {
            labels: [Label::new("queue", queue.clone())],
            queue,
            producer,
            gauges: QueueGauges::default(),
            recorder: exporter.recorder(),
            counted: AtomicBool::new(false),
        };
        inspector.gauges.unknown(inspector.scope());
        inspector
    }

    /// Counts what the queue holds, and shows it.
    ///
    /// # Errors
    /// Those of the connection and the server; then the gauges are unknown and it is not ready.
    pub async fn look(&self) -> chasquimq::Result<QueueCounts> {
        let counts = self.producer.counts().await;
        self.counted.store(counts.is_ok(), Ordering::Relaxed);
        match counts {
            Ok(counts) => self.gauges.set(self.scope(), counts),
            Err(_) => self.gauges.unknown(self.scope()),
        }
        counts
    }

    fn scope(&self) -> Scope<'_> {
        Scope { recorder: &*self.recorder, labels: &self.labels }
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.gauges.unknown(self.scope());
    }
}

impl Probe for Inspector {
    fn queue(&self) -> &str {
        &self.queue
    }

    fn is_worker(&self) -> bool {
        false
    }

    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> bool {
        self.counted.load(Ordering::Relaxed)
    }

    fn scale(&self) -> ScaleFuture<'_> {
        Box::pin(async { Ok(Scale::from(self.producer.counts().await?)) })
    }
}
