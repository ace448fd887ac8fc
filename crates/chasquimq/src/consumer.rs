//! Consumer: configuration in, jobs run until the shutdown token says stop.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::config::ConsumerConfig;
use crate::error::{Error, HandlerError, Result};
use crate::job::Job;

mod batching;
mod delivery;
mod dispatcher;
mod held;
mod inbox;
mod leases;
mod missed;
mod pace;
mod reader;
mod session;
mod settler;
pub(crate) mod supervisor;
pub(crate) mod text;

pub use batching::{BatchOptions, BatchOutcome};
pub use delivery::{Delivery, Ending};
pub use session::{Health, Report, Session};
pub use settler::JOBS_TARGET;

use batching::Batches;
use dispatcher::{Singles, Work};

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
        let limit = self.config.job_timeout;
        self.work(Singles { handler, limit }, 1, shutdown).await
    }

    /// As [`Consumer::run`], but `handler` is called with several jobs at a time. It answers for all
    /// of them with one `Result<(), HandlerError>`, or with a `Vec` of one a job; each is settled,
    /// retried and buried on its own. `concurrency` counts calls, `job_timeout` bounds a call, and
    /// the duration that is told of a job is its share of the call's.
    ///
    /// # Errors
    /// As [`Consumer::run`], and `Config` when `options.size` is 0.
    pub async fn run_batches<H, F, R>(
        self,
        options: BatchOptions,
        handler: H,
        shutdown: CancellationToken,
    ) -> Result<Report>
    where
        H: Fn(Vec<Job<T>>) -> F + Send + Sync + 'static,
        F: Future<Output = R> + Send + 'static,
        R: Into<BatchOutcome> + Send + 'static,
    {
        if options.size == 0 {
            return Err(Error::config("a batch of 0 jobs can hold none: its size is at least 1"));
        }
        let batches = Batches::new(handler, options, self.config.job_timeout);
        self.work(batches, options.size, shutdown).await
    }

    /// Works in `concurrency` slots, each of which may hold so many jobs.
    async fn work(
        mut self,
        work: impl Work<T>,
        jobs_a_slot: usize,
        shutdown: CancellationToken,
    ) -> Result<Report> {
        let slots = self.config.concurrency;
        self.config.concurrency = slots.saturating_mul(jobs_a_slot);
        let grace = Duration::from_secs(self.config.shutdown_deadline_secs);
        let session = Session::start(&self.url, self.config).await?;
        dispatcher::run(&session, work, slots, grace, &shutdown).await;
        Ok(session.close(Duration::from_secs(2)).await)
    }
}
