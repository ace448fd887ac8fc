//! What the exporter asks a worker.

use std::pin::Pin;
use std::time::Duration;

use chasquimq::{QueueCounts, Session};

/// Any error that can be shown.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The answer to [`Probe::scale`], to come.
pub type ScaleFuture<'a> = Pin<Box<dyn Future<Output = Result<Scale, BoxError>> + Send + 'a>>;

/// One worker, as the exporter sees it, or somebody who only looks at a queue.
///
/// A [`Session`] is one. Who watches it holds it: drop the [`Watch`](super::Watch) when it closes.
pub trait Probe: Send + Sync + 'static {
    /// The queue it consumes, or looks at.
    fn queue(&self) -> &str;

    /// Whether it counts as a worker.
    fn is_worker(&self) -> bool {
        true
    }

    /// Whether its loops turn, whatever the server does. An orchestrator restarts the process when
    /// not.
    fn live(&self) -> bool;

    /// Whether it claims jobs: connected, not stopping. Or, if it is no worker, whether it can see
    /// the queue.
    fn ready(&self) -> bool;

    /// The whole queue's load. Asked for at each `/scale`, and given up after 5 s.
    fn scale(&self) -> ScaleFuture<'_>;
}

/// A queue's load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scale {
    /// Jobs ready and not delivered.
    pub backlog: u64,
    /// How long the oldest of them has been ready.
    pub oldest_age: Duration,
    /// Jobs delivered and not ended, of all workers.
    pub inflight: u64,
}

impl From<QueueCounts> for Scale {
    fn from(counts: QueueCounts) -> Self {
        Self {
            backlog: counts.ready,
            oldest_age: Duration::from_millis(counts.oldest_ready_age_ms),
            inflight: counts.in_flight,
        }
    }
}

impl Probe for Session {
    fn queue(&self) -> &str {
        self.queue()
    }

    fn live(&self) -> bool {
        self.health().live
    }

    fn ready(&self) -> bool {
        self.health().reading
    }

    fn scale(&self) -> ScaleFuture<'_> {
        Box::pin(async { Ok(Scale::from(self.counts().await?)) })
    }
}
