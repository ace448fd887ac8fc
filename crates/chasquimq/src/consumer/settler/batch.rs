//! One flush: settlements sorted into the four moves, sent together, and matched with what the
//! server answered.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::join;

use super::{Settlement, micros};
use crate::consumer::delivery::{Content, Parts};
use crate::consumer::held::Entry;
use crate::consumer::session::Shared;
use crate::consumer::text::error_text;
use crate::error::{Error, ErrorKind, Result};
use crate::lifecycle::Transition;
use crate::store::wire::{with_counts, with_due};
use crate::store::{Burial, Completed, Completion, Release, Released, Retry, Stored};

/// Settlements by move.
#[derive(Default)]
pub(super) struct Batch {
    completions: Rows<Completion>,
    retries: Rows<Retry>,
    burials: Rows<Burial>,
    releases: Rows<Release>,
}

/// Moves, and the settlements that each answers for.
struct Rows<M> {
    moves: Vec<M>,
    /// With the row of its move.
    settlements: Vec<(usize, Settlement)>,
    /// Where the jobs of an entry of several are gathered, by its lease: the same entry under two
    /// leases, one of them lost, is two. And the last such row.
    by_lease: HashMap<usize, usize>,
    last: Option<(Arc<Entry>, usize)>,
}

impl<M> Default for Rows<M> {
    fn default() -> Self {
        Self { moves: vec![], settlements: vec![], by_lease: HashMap::new(), last: None }
    }
}

impl Batch {
    pub fn new(shared: &Shared, settlements: Vec<Settlement>) -> Self {
        let (mut batch, now_ms) = (Self::default(), shared.hold.clock_ms());
        for settlement in settlements {
            batch.sort(shared, settlement, now_ms);
        }
        batch
    }

    /// Sends the moves in one go; every settlement comes back with its answer.
    pub async fn send(self, shared: &Shared) -> Vec<(Settlement, Stored)> {
        let (group, consumer) = (shared.group(), shared.consumer());
        let store = &shared.store;
        let keep = shared.config.dlq_max_stream_len;
        let Self { completions, retries, burials, releases } = self;
        let answers = join!(
            unless_empty(&retries.moves, store.retry(group, consumer, &retries.moves)),
            unless_empty(&burials.moves, store.bury(group, consumer, &burials.moves, keep)),
            unless_empty(&releases.moves, store.release(group, consumer, &releases.moves)),
            complete(shared, &completions.moves),
        );
        let mut all = Vec::new();
        retries.answer(answers.0, &mut all);
        burials.answer(answers.1, &mut all);
        releases.answer(answers.2, &mut all);
        completions.answer(Ok(answers.3), &mut all);
        all
    }

    fn sort(&mut self, shared: &Shared, settlement: Settlement, now_ms: u64) {
        let Some(parts) = &settlement.ending.parts else { return };
        match settlement.next {
            Transition::Complete => {
                let job = completed(shared, parts, &settlement);
                let row = if let Some(row) = self.completions.row_of(&parts.entry) {
                    self.completions.moves[row].jobs.push(job);
                    row
                } else {
                    let check_owner = !shared.hold.is_fresh(&parts.entry, now_ms);
                    let entry = completion(&parts.entry, job, check_owner);
                    self.completions.open(&parts.entry, entry)
                };
                self.completions.settlements.push((row, settlement));
            }
            Transition::Release => {
                let job = released(parts);
                let row = match self.releases.row_of(&parts.entry) {
                    Some(row) => {
                        self.releases.moves[row].jobs.push(job);
                        row
                    }
                    None => self.releases.open(&parts.entry, release(&parts.entry, job)),
                };
                self.releases.settlements.push((row, settlement));
            }
            Transition::Retry { backoff_ms } => {
                let retry = retry(parts, &settlement, backoff_ms);
                self.retries.push(retry, settlement);
            }
            Transition::Bury { reason } => {
                let burial = burial(parts, &settlement, reason.as_str());
                self.burials.push(burial, settlement);
            }
        }
    }
}

impl<M> Rows<M> {
    fn push(&mut self, item: M, settlement: Settlement) {
        self.settlements.push((self.moves.len(), settlement));
        self.moves.push(item);
    }

    fn row_of(&mut self, entry: &Arc<Entry>) -> Option<usize> {
        if entry.total == 1 {
            return None;
        }
        if let Some((last, row)) = &self.last
            && Arc::ptr_eq(last, entry)
        {
            return Some(*row);
        }
        let row = *self.by_lease.get(&address(entry))?;
        self.last = Some((Arc::clone(entry), row));
        Some(row)
    }

    fn open(&mut self, entry: &Arc<Entry>, item: M) -> usize {
        let row = self.moves.len();
        if entry.total > 1 {
            self.by_lease.insert(address(entry), row);
            self.last = Some((Arc::clone(entry), row));
        }
        self.moves.push(item);
        row
    }

    fn answer(self, answers: Result<Vec<Stored>>, all: &mut Vec<(Settlement, Stored)>) {
        let answers = answers.unwrap_or_else(|error| failed(&self.moves, &error));
        let answered = |(row, settlement): (usize, Settlement)| {
            let stored = match answers.get(row) {
                Some(Stored::Yes) => Stored::Yes,
                Some(Stored::No) => Stored::No,
                Some(Stored::Failed(error)) => Stored::Failed(copy(error)),
                None => Stored::Failed(Error::new(ErrorKind::Server, "no answer for this job")),
            };
            (settlement, stored)
        };
        all.extend(self.settlements.into_iter().map(answered));
    }
}

/// What tells a lease from any other while it is held.
fn address(lease: &Arc<Entry>) -> usize {
    Arc::as_ptr(lease).addr()
}

/// Completes: those with nothing in the way by the short script, the others by the general one.
async fn complete(shared: &Shared, moves: &[Completion]) -> Vec<Stored> {
    let (group, consumer) = (shared.group(), shared.consumer());
    let (plain, rest): (Vec<_>, Vec<_>) = moves.iter().partition(|entry| entry.is_plain());
    let (finished, checked) = join!(
        unless_empty(&plain, shared.store.finish(group, consumer, &plain)),
        unless_empty(&rest, shared.store.complete(group, consumer, &rest)),
    );
    let mut finished = finished.unwrap_or_else(|error| failed(&plain, &error)).into_iter();
    if rest.is_empty() {
        return finished.collect();
    }
    let mut checked = checked.unwrap_or_else(|error| failed(&rest, &error)).into_iter();
    let next = |entry: &Completion| if entry.is_plain() { finished.next() } else { checked.next() };
    moves.iter().filter_map(next).collect()
}

fn failed<M>(moves: &[M], error: &Error) -> Vec<Stored> {
    moves.iter().map(|_| Stored::Failed(copy(error))).collect()
}

fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

async fn unless_empty<M>(
    moves: &[M],
    send: impl Future<Output = Result<Vec<Stored>>>,
) -> Result<Vec<Stored>> {
    if moves.is_empty() { Ok(vec![]) } else { send.await }
}

fn completion(entry: &Entry, job: Completed, check_owner: bool) -> Completion {
    let mut jobs = Vec::with_capacity(entry.total);
    jobs.push(job);
    Completion { entry: entry.id.clone(), check_owner, total: entry.total, jobs }
}

fn completed(shared: &Shared, parts: &Parts, settlement: &Settlement) -> Completed {
    let unique = parts.record().is_some_and(|record| record.unique);
    // Nobody asks for the id of a job that is neither told of nor unique.
    let named = unique || shared.config.events.enabled;
    let (id, name, _) = if named { identity(parts) } else { Default::default() };
    Completed {
        index: parts.index,
        id,
        name,
        run: parts.standing().attempt.saturating_add(1),
        duration_us: micros(settlement.ending.duration),
        unique,
    }
}

fn release(entry: &Entry, job: Released) -> Release {
    Release { entry: entry.id.clone(), total: entry.total, jobs: vec![job] }
}

fn released(parts: &Parts) -> Released {
    let (id, name, _) = identity(parts);
    let mut value = counted(parts, parts.standing().attempt);
    if let Some(due_ms) = parts.due_ms {
        // It was due then, and has not run.
        value = with_due(&value, due_ms);
    }
    Released { index: parts.index, id, name, value }
}

fn retry(parts: &Parts, settlement: &Settlement, backoff_ms: u64) -> Retry {
    let (id, name, _) = identity(parts);
    let run = parts.standing().attempt.saturating_add(1);
    Retry {
        entry: parts.entry.id.clone(),
        total: parts.entry.total,
        index: parts.index,
        id,
        name,
        record: counted(parts, run),
        backoff_ms,
        run,
        duration_us: micros(settlement.ending.duration),
        error: error_text(&settlement.ending.outcome),
    }
}

fn burial(parts: &Parts, settlement: &Settlement, reason: &'static str) -> Burial {
    let (id, name, unique) = identity(parts);
    let standing = parts.standing();
    let ran = settlement.ending.outcome.run().is_some();
    let attempt = standing.attempt.saturating_add(u32::from(ran));
    let raw = match &parts.content {
        Content::Job { .. } => vec![Bytes::from_static(b"j"), counted(parts, attempt)],
        Content::Foreign { fields } => fields.clone(),
    };
    Burial {
        entry: parts.entry.id.clone(),
        total: parts.entry.total,
        index: parts.index,
        id,
        name,
        unique,
        reason,
        error: error_text(&settlement.ending.outcome),
        run: if ran { attempt } else { 0 },
        duration_us: micros(settlement.ending.duration),
        lost: standing.lost,
        raw,
    }
}

fn identity(parts: &Parts) -> (String, Bytes, bool) {
    match parts.record() {
        Some(record) => (record.id.clone(), record.name.clone(), record.unique),
        None => (String::new(), Bytes::new(), false),
    }
}

/// The job's record with the counters it has now.
fn counted(parts: &Parts, attempt: u32) -> Bytes {
    let Content::Job { raw, .. } = &parts.content else { return Bytes::new() };
    with_counts(raw, attempt, parts.lost).map_or_else(|_| raw.clone(), Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::consumer::held::{Hold, Limits};

    #[test]
    fn jobs_of_one_entry_under_two_leases_are_not_taken_for_the_whole_entry() {
        let lease = Duration::from_secs(30);
        let (concurrency, prefetch) = (10, Some(0));
        let hold =
            Hold::new(Limits { concurrency, prefetch, most_ahead: 0, most_unsettled: 10, lease });
        let id = Bytes::from_static(b"1-1");
        let lost = hold.lease(&id, 2, 2, 0).unwrap();
        assert!(hold.lost(&lost));
        let again = hold.lease(&id, 2, 2, 0).unwrap();
        let mut rows = Rows::default();
        assert_eq!(rows.open(&again, "first job"), 0);
        assert_eq!(rows.row_of(&lost), None);
        assert_eq!(rows.open(&lost, "first job, run before"), 1);
        assert_eq!((rows.row_of(&again), rows.row_of(&lost)), (Some(0), Some(1)));
    }
}
