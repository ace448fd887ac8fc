//! One flush: settlements sorted into the four moves, sent together, and what the server answered
//! to each.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
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

/// Moves that settle jobs, and where each settlement stands among them.
#[derive(Default)]
pub(super) struct Batch {
    completions: Rows<Completion>,
    retries: Rows<Retry>,
    burials: Rows<Burial>,
    releases: Rows<Release>,
    places: Vec<Place>,
}

/// The row of a settlement among the moves of its kind.
#[derive(Clone, Copy)]
enum Place {
    Completion(usize),
    Retry(usize),
    Burial(usize),
    Release(usize),
}

/// What the server answered to the moves of a batch.
pub(super) struct Answers {
    completions: Vec<Stored>,
    retries: Vec<Stored>,
    burials: Vec<Stored>,
    releases: Vec<Stored>,
    places: Vec<Place>,
}

/// Moves of one kind.
struct Rows<M> {
    moves: Vec<M>,
    /// Where the jobs of an entry of several are gathered, by its lease: the same entry under two
    /// leases, one of them lost, is two. And the last such row.
    by_lease: HashMap<usize, usize>,
    last: Option<(Arc<Entry>, usize)>,
}

impl<M> Default for Rows<M> {
    fn default() -> Self {
        Self { moves: vec![], by_lease: HashMap::new(), last: None }
    }
}

impl Batch {
    pub fn new(shared: &Shared, settlements: &[Settlement]) -> Self {
        let places = Vec::with_capacity(settlements.len());
        let (mut batch, now_ms) = (Self { places, ..Self::default() }, shared.hold.clock_ms());
        for settlement in settlements {
            let place = batch.sort(shared, settlement, now_ms);
            batch.places.push(place);
        }
        batch
    }

    /// Sends the moves in one go.
    pub async fn send(self, shared: &Shared) -> Answers {
        let (group, consumer) = (shared.group(), shared.consumer());
        let store = &shared.store;
        let keep = shared.config.dlq_max_stream_len;
        let Self { completions, retries, burials, releases, places } = self;
        // Completions first: what is settled is not looked at by the others.
        let answers = join!(
            complete(shared, &completions.moves),
            unless_empty(&retries.moves, store.retry(group, consumer, &retries.moves)),
            unless_empty(&burials.moves, store.bury(group, consumer, &burials.moves, keep)),
            unless_empty(&releases.moves, store.release(group, consumer, &releases.moves)),
        );
        Answers {
            completions: completions.answers(Ok(answers.0)),
            retries: retries.answers(answers.1),
            burials: burials.answers(answers.2),
            releases: releases.answers(answers.3),
            places,
        }
    }

    fn sort(&mut self, shared: &Shared, settlement: &Settlement, now_ms: u64) -> Place {
        let parts = &*settlement.parts;
        match settlement.next {
            Transition::Complete => {
                let completions = &mut self.completions;
                let row = completions.row_of(&parts.entry).unwrap_or_else(|| {
                    let check_owner = !shared.hold.is_fresh(&parts.entry, now_ms);
                    completions.open(&parts.entry, completion(&parts.entry, check_owner))
                });
                let entry = &mut completions.moves[row];
                entry.check_owner |= settlement.resent || parts.lost > 0;
                entry.size += parts.size();
                entry.jobs.push(completed(shared, parts, settlement));
                Place::Completion(row)
            }
            Transition::Release => {
                let job = released(parts);
                let Some(row) = self.releases.row_of(&parts.entry) else {
                    let entry = release(&parts.entry, job);
                    return Place::Release(self.releases.open(&parts.entry, entry));
                };
                self.releases.moves[row].jobs.push(job);
                Place::Release(row)
            }
            Transition::Retry { backoff_ms } => {
                Place::Retry(self.retries.push(retry(parts, settlement, backoff_ms)))
            }
            Transition::Bury { reason } => {
                Place::Burial(self.burials.push(burial(parts, settlement, reason.as_str())))
            }
        }
    }
}

impl Answers {
    /// One a settlement, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.places.iter().map(|place| match *place {
            Place::Completion(row) => &self.completions[row],
            Place::Retry(row) => &self.retries[row],
            Place::Burial(row) => &self.burials[row],
            Place::Release(row) => &self.releases[row],
        })
    }

    /// Why something was not stored, if so.
    pub fn error(&self) -> Option<Error> {
        self.iter().find_map(|answer| match answer {
            Stored::Failed(error) => Some(copy(error)),
            Stored::Yes | Stored::No => None,
        })
    }
}

impl<M> Rows<M> {
    fn push(&mut self, item: M) -> usize {
        self.moves.push(item);
        self.moves.len() - 1
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
        let row = self.push(item);
        if entry.total > 1 {
            self.by_lease.insert(address(entry), row);
            self.last = Some((Arc::clone(entry), row));
        }
        row
    }

    /// One a move.
    fn answers(&self, answers: Result<Vec<Stored>>) -> Vec<Stored> {
        let mut answers = answers.unwrap_or_else(|error| failed(&self.moves, &error));
        let none = || Stored::Failed(Error::new(ErrorKind::Server, "no answer for this job"));
        answers.resize_with(self.moves.len(), none);
        answers
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

fn completion(entry: &Entry, check_owner: bool) -> Completion {
    let jobs = SmallVec::with_capacity(entry.total);
    Completion { entry: entry.id.clone(), check_owner, total: entry.total, size: 0, jobs }
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
        duration_us: micros(settlement.duration),
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
        duration_us: micros(settlement.duration),
        error: error_text(&settlement.outcome),
    }
}

fn burial(parts: &Parts, settlement: &Settlement, reason: &'static str) -> Burial {
    let (id, name, unique) = identity(parts);
    let standing = parts.standing();
    let ran = settlement.outcome.run().is_some();
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
        error: error_text(&settlement.outcome),
        run: if ran { attempt } else { 0 },
        duration_us: micros(settlement.duration),
        lost: standing.lost,
        raw,
    }
}

fn identity(parts: &Parts) -> (Arc<str>, Bytes, bool) {
    match parts.record() {
        Some(record) => (Arc::clone(&record.id), record.name.clone(), record.unique),
        None => (Arc::default(), Bytes::new(), false),
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
