//! Dispatcher: a job to its handler, within its timeout, a panic caught, to an ending.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    let (handler, slots) = (Arc::new(handler), Arc::new(Semaphore::new(concurrency)));
    let mut running = JoinSet::new();
    loop {
        let batch = tokio::select! {
            batch = next(session, &slots) => batch,
            () = shutdown.cancelled() => break,
        };
        for (delivery, slot) in batch {
            let (session, handler) = (session.clone(), Arc::clone(&handler));
            running.spawn(async move {
                run_one(&session, delivery, &*handler, limit).await;
                drop(slot);
            });
        }
        while running.try_join_next().is_some() {}
    }
    session.stop();
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_err() {
        // A delivery dropped with its task goes back to the queue.
        tracing::warn!(
            jobs = running.len(),
            "stopping jobs that did not finish in time; they go back"
        );
        running.shutdown().await;
    }
}

/// Waits for free slots, then for jobs: as many as there are slots.
async fn next(session: &Session, slots: &Arc<Semaphore>) -> Vec<(Delivery, OwnedSemaphorePermit)> {
    let Ok(first) = Arc::clone(slots).acquire_owned().await else { return vec![] };
    let mut permits = vec![first];
    while let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
        permits.push(permit);
    }
    let deliveries = session.take(permits.len()).await;
    deliveries.into_iter().zip(permits).collect()
}

async fn run_one<T, F, R>(
    session: &Session,
    delivery: Delivery,
    handler: &(impl Fn(Job<T>) -> F + Sync),
    limit: Option<Duration>,
) where
    T: DeserializeOwned,
    F: Future<Output = Result<R, HandlerError>>,
{
    let (outcome, duration) = match decode(&delivery) {
        Ok(job) => {
            session.started(&delivery);
            let begun = Instant::now();
            (within(limit, AssertUnwindSafe(async { handler(job).await })).await, begun.elapsed())
        }
        Err(rejected) => (rejected, Duration::ZERO),
    };
    session.settle(vec![delivery.end(outcome, duration)]);
}

fn decode<T: DeserializeOwned>(delivery: &Delivery) -> Result<Job<T>, Outcome> {
    let payload = rmp_serde::from_slice(delivery.payload()).map_err(|error| Outcome::Rejected {
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
