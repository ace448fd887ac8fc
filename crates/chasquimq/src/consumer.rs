//! Consumer: configuration in, jobs run until the shutdown token says stop.

use std::future::Future;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::config::ConsumerConfig;
use crate::error::{HandlerError, Result};
use crate::job::Job;

mod dispatcher;
mod held;
mod inbox;
mod leases;
mod pace;
mod reader;
mod session;
mod settler;
pub(crate) mod supervisor;

pub use held::{Delivery, Ending};
pub use session::{Health, Report, Session};

/// Runs a handler on the jobs of one queue.
pub struct Consumer<T> {
    url: String,
    config: ConsumerConfig,
    payload: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Consumer<T> {
    /// A consumer of this queue; nothing happens before [`Consumer::run`].
    pub fn new(url: impl Into<String>, config: ConsumerConfig) -> Self {
        Self { url: url.into(), config, payload: PhantomData }
    }

    /// Runs `handler` on each job until `shutdown` is cancelled. Then jobs that have not started go
    /// back at once, running ones may finish until `shutdown_deadline_secs`, and those that do not
    /// are stopped and go back with their attempt unchanged.
    ///
    /// # Errors
    /// When it cannot start: a bad configuration, or a server that cannot be reached or used.
    /// Once started it goes on through every fault of the server and the network.
    pub async fn run<H, F, R>(self, handler: H, shutdown: CancellationToken) -> Result<Report>
    where
        H: Fn(Job<T>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, HandlerError>> + Send + 'static,
        R: Send + 'static,
    {
        let (concurrency, timeout) = (self.config.concurrency, self.config.job_timeout);
        let grace = std::time::Duration::from_secs(self.config.shutdown_deadline_secs);
        let session = Session::start(&self.url, self.config).await?;
        dispatcher::run(&session, handler, concurrency, timeout, grace, &shutdown).await;
        Ok(session.close(std::time::Duration::from_secs(2)).await)
    }
}
