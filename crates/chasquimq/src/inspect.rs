//! What a queue holds, by state: asked for by a producer or a session, and told to the metrics by
//! one collector a queue.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Result;
use crate::metrics::Guarded;
use crate::producer::Producer;
use crate::store::Store;

/// How often the collector looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// How much a queue holds.
///
/// `ready` and `in_flight` count stream entries; an entry is one job, unless it was packed of
/// several ones. The others count jobs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueCounts {
    /// Entries that nobody has been given yet.
    pub ready: u64,
    /// Entries delivered and not settled: running, held ready by a worker, or of a dead one.
    pub in_flight: u64,
    /// Jobs that wait for their time, those that wait for a retry left out.
    pub delayed: u64,
    /// Jobs that wait for a retry.
    pub retrying: u64,
    /// Jobs in the dead-letter queue.
    pub dead: u64,
    /// For how long the oldest ready entry has been ready, in milliseconds by the server's clock;
    /// 0 when none is.
    pub oldest_ready_age_ms: u64,
}

impl<T> Producer<T> {
    /// What the queue holds now. One short script, whatever the queue's length.
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn counts(&self) -> Result<QueueCounts> {
        self.inner.store.inspect().await
    }
}

/// Tells the metrics what the queue holds, as long as its promoter leads.
#[derive(Default)]
pub(crate) struct Collector {
    due: Option<Instant>,
    failing: bool,
}

impl Collector {
    /// Looks, if it is time to; how long until the next look.
    pub(crate) async fn tick(&mut self, store: &Store, metrics: &Guarded) -> Duration {
        if !metrics.is_heard() {
            return Duration::MAX;
        }
        if self.due.is_none_or(|due| due <= Instant::now()) {
            self.due = Some(Instant::now() + INTERVAL);
            self.look(store, metrics).await;
        }
        self.due.map_or(INTERVAL, |due| due.saturating_duration_since(Instant::now()))
    }

    /// A failure is no reason to stop promoting; it is logged when it begins.
    async fn look(&mut self, store: &Store, metrics: &Guarded) {
        match store.inspect().await {
            Ok(counts) => {
                self.failing = false;
                metrics.tell(|sink| sink.queue_counts(counts));
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, "the queue cannot be counted; its gauges stay as they are");
            }
            Err(_) => {}
        }
    }
}
