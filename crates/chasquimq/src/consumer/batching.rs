//! Batches: several jobs to one call of a handler, each settled on its own.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::delivery::Delivery;
use super::dispatcher::{Work, decode, ended, failed, within};
use super::session::Session;
use crate::error::HandlerError;
use crate::job::Job;
use crate::lifecycle::Outcome;

/// How many jobs a batch handler is given, and how long it waits for them.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// Jobs in one call, at most; at least 1. Default 100.
    pub size: usize,
    /// How long the first job of a batch waits for more. Default 50 ms; zero takes what is there.
    pub wait: Duration,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { size: 100, wait: Duration::from_millis(50) }
    }
}

/// What a batch handler answers: one result for all its jobs, or one a job, in their order.
#[derive(Debug)]
pub enum BatchOutcome {
    /// All are done, or all have failed of the same cause.
    All(Result<(), HandlerError>),
    /// One result a job, in their order. Of another length nobody knows whose they are: all have
    /// failed.
    Each(Vec<Result<(), HandlerError>>),
}

impl From<Result<(), HandlerError>> for BatchOutcome {
    fn from(all: Result<(), HandlerError>) -> Self {
        Self::All(all)
    }
}

impl From<Vec<Result<(), HandlerError>>> for BatchOutcome {
    fn from(each: Vec<Result<(), HandlerError>>) -> Self {
        Self::Each(each)
    }
}

/// Calls the handler with batches, one after the other.
pub(super) struct Batches<H> {
    handler: H,
    options: BatchOptions,
    limit: Option<Duration>,
    /// Held by the slot that gathers: several would divide the jobs, and none would get a full batch.
    gathering: Mutex<()>,
}

impl<H> Batches<H> {
    pub fn new(handler: H, options: BatchOptions, limit: Option<Duration>) -> Self {
        Self { handler, options, limit, gathering: Mutex::new(()) }
    }
}

impl<T, H, F, R> Work<T> for Batches<H>
where
    T: DeserializeOwned + Send + 'static,
    H: Fn(Vec<Job<T>>) -> F + Send + Sync + 'static,
    F: Future<Output = R> + Send + 'static,
    R: Into<BatchOutcome> + Send + 'static,
{
    async fn once(&self, session: &Session) -> bool {
        let BatchOptions { size, wait } = self.options;
        let gathering = self.gathering.lock().await;
        let deliveries = session.take_batch(vec![], size, wait).await;
        drop(gathering);
        if deliveries.is_empty() {
            return false;
        }
        self.run(session, deliveries).await;
        true
    }
}

impl<H> Batches<H> {
    async fn run<T, F, R>(&self, session: &Session, deliveries: Vec<Delivery>)
    where
        T: DeserializeOwned,
        H: Fn(Vec<Job<T>>) -> F,
        F: Future<Output = R>,
        R: Into<BatchOutcome>,
    {
        let count = deliveries.len();
        let (mut jobs, mut taken) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut endings = Vec::with_capacity(count);
        for delivery in deliveries {
            match decode(&delivery) {
                Ok(job) => {
                    session.started(&delivery);
                    jobs.push(job);
                    taken.push(delivery);
                }
                Err(rejected) => endings.push(delivery.end(rejected, Duration::ZERO)),
            }
        }
        if !jobs.is_empty() {
            let begun = Instant::now();
            let run = AssertUnwindSafe(async { (self.handler)(jobs).await.into() });
            let outcome = within(self.limit, run).await;
            let each = begun.elapsed() / u32::try_from(taken.len()).unwrap_or(u32::MAX);
            let outcomes = outcomes(outcome, taken.len());
            let ended = taken.into_iter().zip(outcomes);
            endings.extend(ended.map(|(delivery, outcome)| delivery.end(outcome, each)));
        }
        session.settle(endings);
    }
}

/// An outcome a job.
fn outcomes(batch: Result<BatchOutcome, Outcome>, jobs: usize) -> Vec<Outcome> {
    match batch {
        Ok(BatchOutcome::Each(each)) if each.len() == jobs => each.into_iter().map(ended).collect(),
        Ok(BatchOutcome::Each(each)) => {
            let given = each.len();
            let error = format!("the handler gave {given} results for a batch of {jobs} jobs");
            same(&failed(false, false, error), jobs)
        }
        Ok(BatchOutcome::All(all)) => same(&ended(all), jobs),
        Err(outcome) => same(&outcome, jobs),
    }
}

fn same(outcome: &Outcome, jobs: usize) -> Vec<Outcome> {
    (0..jobs).map(|_| outcome.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(batch: Result<BatchOutcome, Outcome>, jobs: usize) -> Vec<String> {
        let text = |outcome: Outcome| match outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Failed { error, unrecoverable, .. } => format!("{error} {unrecoverable}"),
            other => format!("{other:?}"),
        };
        outcomes(batch, jobs).into_iter().map(text).collect()
    }

    #[test]
    fn each_job_gets_its_own_outcome() {
        let all = |result: Result<(), HandlerError>| Ok(result.into());
        assert_eq!(texts(all(Ok(())), 2), ["done", "done"]);
        assert_eq!(texts(all(Err(HandlerError::new("no"))), 2), ["no false", "no false"]);
        let each = || vec![Ok(()), Err(HandlerError::unrecoverable("never"))];
        assert_eq!(texts(Ok(each().into()), 2), ["done", "never true"]);
        for jobs in [1, 3] {
            let odd = format!("the handler gave 2 results for a batch of {jobs} jobs false");
            assert_eq!(texts(Ok(each().into()), jobs), vec![odd; jobs]);
        }
        let late = failed(false, false, "timed out".into());
        assert_eq!(texts(Err(late), 2), ["timed out false", "timed out false"]);
    }
}
