//! What the exporter asks a worker.

use std::pin::Pin;
use std::time::Duration;

/// Any error that can be shown.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The answer to [`Probe::scale`], to come.
pub type ScaleFuture<'a> = Pin<Box<dyn Future<Output = Result<Scale, BoxError>> + Send + 'a>>;

/// One worker, as the exporter sees it.
pub trait Probe: Send + Sync + 'static {
    /// The queue it consumes.
    fn queue(&self) -> &str;

    /// Whether its loops turn, whatever the server does. An orchestrator restarts the process when
    /// not.
    fn live(&self) -> bool;

    /// Whether it claims jobs: connected, not stopping.
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
