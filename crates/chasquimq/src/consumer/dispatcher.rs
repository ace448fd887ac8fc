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

use super::held::Delivery;
use super::session::Session;
use crate::error::HandlerError;
use crate::job::Job;
use crate::lifecycle::Outcome;
use crate::metrics::DlqReason;

/// Runs jobs until `shutdown`, then lets running ones finish for `grace` and stops the rest.
pub(super) async fn run<T, H, F, R>(
    session: &Session,
    handler: H,
    concurrency: usize,
    limit: Option<Duration>,
    grace: Duration,
    shutdown: &CancellationToken,
) where
    T: DeserializeOwned + Send + 'static,
    H: Fn(Job<T>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<R, HandlerError>> + Send + 'static,
    R: Send + 'static,
{
    let slot = Slot { session: session.clone(), handler: Arc::new(handler), limit };
    let mut slots = JoinSet::new();
    for _ in 0..concurrency {
        slots.spawn(slot.clone().work());
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            // A slot ends with the session; or by a fault, and then another takes its place.
            Some(Err(_)) = slots.join_next() => drop(slots.spawn(slot.clone().work())),
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
struct Slot<H> {
    session: Session,
    handler: Arc<H>,
    limit: Option<Duration>,
}

impl<H> Clone for Slot<H> {
    fn clone(&self) -> Self {
        let (session, handler) = (self.session.clone(), Arc::clone(&self.handler));
        Self { session, handler, limit: self.limit }
    }
}

impl<H> Slot<H> {
    async fn work<T, F, R>(self)
    where
        T: DeserializeOwned,
        H: Fn(Job<T>) -> F,
        F: Future<Output = Result<R, HandlerError>>,
    {
        while let Some(delivery) = self.session.take_one().await {
            self.run(delivery).await;
            // Handlers that never wait must not keep the runtime to themselves.
            tokio::task::consume_budget().await;
        }
    }

    async fn run<T, F, R>(&self, delivery: Delivery)
    where
        T: DeserializeOwned,
        H: Fn(Job<T>) -> F,
        F: Future<Output = Result<R, HandlerError>>,
    {
        let (outcome, duration) = match decode(&delivery) {
            Ok(job) => {
                self.session.started(&delivery);
                let begun = Instant::now();
                let run = AssertUnwindSafe(async { (self.handler)(job).await });
                (within(self.limit, run).await, begun.elapsed())
            }
            Err(rejected) => (rejected, Duration::ZERO),
        };
        self.session.settle(vec![delivery.end(outcome, duration)]);
    }
}

fn decode<T: DeserializeOwned>(delivery: &Delivery) -> Result<Job<T>, Outcome> {
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

async fn within<R>(
    limit: Option<Duration>,
    run: AssertUnwindSafe<impl Future<Output = Result<R, HandlerError>>>,
) -> Outcome {
    let run = run.catch_unwind();
    let ended = match limit {
        None => run.await,
        Some(limit) => match tokio::time::timeout(limit, run).await {
            Ok(ended) => ended,
            Err(_) => return failed(false, false, format!("timed out after {limit:?}")),
        },
    };
    match ended {
        Ok(Ok(_)) => Outcome::Done,
        Ok(Err(error)) => failed(false, error.is_unrecoverable(), error.to_string()),
        Err(panic) => failed(true, false, format!("panicked: {}", words(&*panic))),
    }
}

fn failed(panicked: bool, unrecoverable: bool, error: String) -> Outcome {
    Outcome::Failed { panicked, unrecoverable, error }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
