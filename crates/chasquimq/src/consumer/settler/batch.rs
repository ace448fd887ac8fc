//! One flush: settlements sorted into the four moves, sent together, and matched with what the
//! server answered.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::join;

use super::{Settlement, clean, micros};
use crate::consumer::held::{Content, Entry, Parts};
use crate::consumer::session::Shared;
use crate::error::{Error, Result};
use crate::lifecycle::Transition;
use crate::store::wire::{with_counts, with_due};
use crate::store::{Burial, Completed, Completion, Release, Released, Retry, Stored};

/// Settlements by move. Item `n` of a move answers for the settlements in row `n`.
#[derive(Default)]
pub(super) struct Batch {
    completions: Rows<Completion>,
    retries: Rows<Retry>,
    burials: Rows<Burial>,
    releases: Rows<Release>,
}

struct Rows<M> {
    moves: Vec<M>,
    settlements: Vec<Vec<Settlement>>,
    /// Where the jobs of an entry of several are gathered.
    by_entry: HashMap<Bytes, usize>,
}

impl<M> Default for Rows<M> {
    fn default() -> Self {
        Self { moves: vec![], settlements: vec![], by_entry: HashMap::new() }
    }
}

impl Batch {
    pub fn new(shared: &Shared, settlements: Vec<Settlement>) -> Self {
        let mut batch = Self::default();
        for settlement in settlements {
            batch.sort(shared, settlement);
        }
        batch
    }

    /// Sends the moves in one go; every settlement comes back with its answer.
    pub async fn send(self, shared: &Shared) -> Vec<(Settlement, Stored)> {
        let (group, consumer) = (shared.group(), shared.consumer());
        let store = &shared.store;
        let keep = shared.config.dlq_max_stream_len;
        let Self { completions, retries, burials, releases } = self;
        let (plain, rest) = completions.split(Completion::is_plain);
        let answers = join!(
            unless_empty(&retries.moves, store.retry(group, consumer, &retries.moves)),
            unless_empty(&burials.moves, store.bury(group, consumer, &burials.moves, keep)),
            unless_empty(&releases.moves, store.release(group, consumer, &releases.moves)),
            unless_empty(&rest.moves, store.complete(group, consumer, &rest.moves)),
            unless_empty(&plain.moves, store.finish(group, &plain.moves)),
        );
        let mut all = Vec::new();
        retries.answer(answers.0, &mut all);
        burials.answer(answers.1, &mut all);
        releases.answer(answers.2, &mut all);
        rest.answer(answers.3, &mut all);
        plain.answer(answers.4, &mut all);
        all
    }

    fn sort(&mut self, shared: &Shared, settlement: Settlement) {
        let Some(parts) = &settlement.ending.parts else { return };
        match settlement.next {
            Transition::Complete => {
                let job = completed(parts, &settlement);
                let entry = Arc::clone(&parts.entry);
                match self.completions.row_of(&entry) {
                    Some(row) => self.completions.moves[row].jobs.push(job),
                    None => self.completions.open(&entry, completion(shared, &entry, job)),
                }
                self.completions.file(&entry, settlement);
            }
            Transition::Release => {
                let (value, job) = released(parts);
                let entry = Arc::clone(&parts.entry);
                match self.releases.row_of(&entry) {
                    Some(row) => self.releases.moves[row].append(&value, job),
                    None => self.releases.open(&entry, release(&entry, value, job)),
                }
                self.releases.file(&entry, settlement);
            }
            Transition::Retry { backoff_ms } => {
                let retry = retry(shared, parts, &settlement, backoff_ms);
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
        self.moves.push(item);
        self.settlements.push(vec![settlement]);
    }

    /// The rows of which something is true, and the others.
    fn split(self, is: impl Fn(&M) -> bool) -> (Self, Self) {
        let (mut those, mut others) = (Self::default(), Self::default());
        for (item, settlements) in self.moves.into_iter().zip(self.settlements) {
            let side = if is(&item) { &mut those } else { &mut others };
            side.moves.push(item);
            side.settlements.push(settlements);
        }
        (those, others)
    }

    fn row_of(&self, entry: &Entry) -> Option<usize> {
        if entry.total == 1 { None } else { self.by_entry.get(&entry.id).copied() }
    }

    fn open(&mut self, entry: &Entry, item: M) {
        if entry.total > 1 {
            self.by_entry.insert(entry.id.clone(), self.moves.len());
        }
        self.moves.push(item);
        self.settlements.push(Vec::with_capacity(1));
    }

    fn file(&mut self, entry: &Entry, settlement: Settlement) {
        let row = self.row_of(entry).unwrap_or(self.settlements.len() - 1);
        self.settlements[row].push(settlement);
    }

    fn answer(self, answers: Result<Vec<Stored>>, all: &mut Vec<(Settlement, Stored)>) {
        let answers = answers.unwrap_or_else(|error| {
            let failed = |_: &M| Stored::Failed(copy(&error));
            self.moves.iter().map(failed).collect()
        });
        for (settlements, stored) in self.settlements.into_iter().zip(answers) {
            let each = |settlement| match &stored {
                Stored::Yes => (settlement, Stored::Yes),
                Stored::No => (settlement, Stored::No),
                Stored::Failed(error) => (settlement, Stored::Failed(copy(error))),
            };
            all.extend(settlements.into_iter().map(each));
        }
    }
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

fn completion(shared: &Shared, entry: &Entry, job: Completed) -> Completion {
    let check_owner = !shared.hold.is_fresh(entry, shared.config.lease());
    Completion { entry: entry.id.clone(), check_owner, total: entry.total, jobs: vec![job] }
}

fn completed(parts: &Parts, settlement: &Settlement) -> Completed {
    let (id, name, unique) = identity(parts);
    Completed {
        index: parts.index,
        id,
        name,
        run: parts.standing().attempt.saturating_add(1),
        duration_us: micros(settlement.ending.duration),
        unique,
    }
}

fn release(entry: &Entry, value: Bytes, job: Released) -> Release {
    Release { entry: entry.id.clone(), total: entry.total, value, jobs: vec![job] }
}

fn released(parts: &Parts) -> (Bytes, Released) {
    let (id, name, _) = identity(parts);
    let mut value = counted(parts, parts.standing().attempt);
    if let Some(due_ms) = parts.due_ms {
        // It was due then, and has not run.
        value = with_due(&value, due_ms);
    }
    (value, Released { index: parts.index, id, name })
}

impl Release {
    fn append(&mut self, value: &[u8], job: Released) {
        let mut all = BytesMut::from(&self.value[..]);
        all.extend_from_slice(value);
        self.value = all.freeze();
        self.jobs.push(job);
    }
}

fn retry(shared: &Shared, parts: &Parts, settlement: &Settlement, backoff_ms: u64) -> Retry {
    let (id, name, _) = identity(parts);
    let run = parts.standing().attempt.saturating_add(1);
    // One sent before may be stored already, which only the look tells.
    let is_fresh = shared.hold.is_fresh(&parts.entry, shared.config.lease());
    Retry {
        entry: parts.entry.id.clone(),
        check_owner: settlement.ending.resent || !is_fresh,
        total: parts.entry.total,
        index: parts.index,
        id,
        name,
        record: counted(parts, run),
        backoff_ms,
        run,
        duration_us: micros(settlement.ending.duration),
        error: clean(&settlement.ending.outcome),
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
        error: clean(&settlement.ending.outcome),
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
