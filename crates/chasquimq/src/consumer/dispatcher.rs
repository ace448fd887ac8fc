//! Dispatcher: a job to its handler, within its timeout, a panic caught, to an ending.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::session::Session;
use crate::error::HandlerError;
use crate::job::Job;
use crate::lifecycle::Outcome;
use crate::metrics::DlqReason;

/// What a slot does again and again.
pub(super) trait Work<T>: Send + Sync + 'static {
    /// Takes work, has it run and hands over its end; `false` when there will be no more.
    fn once(&self, session: &Session) -> impl Future<Output = bool> + Send;
}

/// Works in so many slots until `shutdown`, then lets what runs finish for `grace` and stops the rest.
pub(super) async fn run<T>(
    session: &Session,
    work: impl Work<T>,
    slots: usize,
    grace: Duration,
    shutdown: &CancellationToken,
) where
    T: Send + 'static,
{
    let (work, count) = (Arc::new(work), slots);
    let mut slots = JoinSet::new();
    for _ in 0..count {
        slots.spawn(fill(session.clone(), Arc::clone(&work)));
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            // A slot ends with the session; or by a fault, and then another takes its place.
            Some(Err(_)) = slots.join_next() => {
                slots.spawn(fill(session.clone(), Arc::clone(&work)));
            }
        }
    }
    session.stop();
    let all = async { while slots.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_err() {
        // A delivery dropped with its task goes back to the queue.
        tracing::warn!(
            slots = slots.len(),
            "stopping jobs that did not finish in time; they go back"
        );
        slots.shutdown().await;
    }
}

/// One of the places in which jobs run, one after the other.
async fn fill<T>(session: Session, work: Arc<impl Work<T>>) {
    while work.once(&session).await {
        // Handlers that never wait must not keep the runtime to themselves.
        tokio::task::consume_budget().await;
    }
}

/// Calls the handler with one job after the other.
pub(super) struct Singles<H> {
    pub handler: H,
    pub limit: Option<Duration>,
}

impl<T, H, F, R> Work<T> for Singles<H>
where
    T: DeserializeOwned + Send + 'static,
    H: Fn(Job<T>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    R: Send + 'static,
{
    async fn once(&self, session: &Session) -> bool {
        let Some(delivery) = session.take_one().await else { return false };
        let (outcome, duration) = match decode(&delivery) {
            Ok(job) => {
                session.started(&delivery);
                let begun = Instant::now();
                let run = AssertUnwindSafe(async { (self.handler)(job).await });
                let outcome = within(self.limit, run).await.map_or_else(|late| late, ended);
                (outcome, begun.elapsed())
            }
            Err(rejected) => (rejected, Duration::ZERO),
        };
        session.settle([delivery.end(outcome, duration)]);
        true
    }
}

/// The job as its handler takes it.
pub(super) fn decode<T: DeserializeOwned>(delivery: &Delivery) -> Result<Job<T>, Outcome> {
    let payload = payload(delivery.payload()).map_err(|error| Outcome::Rejected {
        reason: DlqReason::DecodeFailed,
        error: format!("the payload is not what the handler takes: {error}"),
    })?;
    Ok(Job {
        id: delivery.id().to_owned(),
        payload,
        created_at_ms: delivery.created_at_ms(),
        attempt: delivery.attempt(),
        lost: delivery.lost(),
        retry: delivery.retry().cloned(),
        name: delivery.name(),
    })
}

/// The payload; the caller's type may even panic.
fn payload<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match catch_unwind(|| rmp_serde::from_slice(bytes)) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("panicked: {}", words(&*panic))),
    }
}

/// What a handler answers, unless it panics or takes too long.
pub(super) async fn within<R>(
    limit: Option<Duration>,
    run: AssertUnwindSafe<impl Future<Output = R>>,
) -> Result<R, Outcome> {
    let run = run.catch_unwind();
    let ended = match limit {
        None => run.await,
        Some(limit) => match tokio::time::timeout(limit, run).await {
            Ok(ended) => ended,
            Err(_) => return Err(failed(false, false, format!("timed out after {limit:?}"))),
        },
    };
    ended.map_err(|panic| failed(true, false, format!("panicked: {}", words(&*panic))))
}

/// How a handler's result ends its job.
pub(super) fn ended<R>(result: Result<R, HandlerError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(error) => failed(false, error.is_unrecoverable(), error.to_string()),
    }
}

pub(super) fn failed(panicked: bool, unrecoverable: bool, error: String) -> Outcome {
    Outcome::Failed { panicked, unrecoverable, error }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
