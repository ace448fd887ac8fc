//! What a worker holds, and how it settles it: as the settler does.

use bytes::Bytes;

use super::calls::Call;
use super::ops::{How, Reply};
use super::world::{Job, World, jobs};
use crate::store::wire::with_due;
use crate::store::{self, Burial, Completed, Completion, Release, Released, Retry};

/// A worker, and what it knows of.
pub struct Worker {
    pub name: String,
    pub hand: Vec<Held>,
    /// Where its next look for abandoned entries begins.
    pub cursor: Bytes,
}

/// A delivered entry, and those of its jobs that this worker has not heard the end of.
pub struct Held {
    pub id: Bytes,
    pub total: usize,
    /// Deliveries whose worker died.
    pub died: u32,
    pub left: Vec<(usize, Job)>,
}

impl Worker {
    pub fn new(name: String) -> Self {
        Self { name, hand: vec![], cursor: Bytes::from_static(b"0-0") }
    }

    /// Entries come, if their reply does.
    pub fn take(&mut self, entries: Vec<store::Entry>, reply: Reply) {
        if reply == Reply::Heard {
            self.hand.extend(entries.into_iter().map(Held::new));
        }
    }

    /// Jobs in hand, each once: the place of the entry in the hand, the index in the entry.
    pub fn choose(&self, picks: &[(u8, u8)]) -> Vec<(usize, usize)> {
        let mut chosen = Vec::new();
        for (entry, job) in picks.iter().filter(|_| !self.hand.is_empty()) {
            let at = usize::from(*entry) % self.hand.len();
            let left = &self.hand[at].left;
            chosen.push((at, left[usize::from(*job) % left.len()].0));
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// The end of these jobs is known.
    pub fn forget(&mut self, chosen: &[(usize, usize)]) {
        for (at, index) in chosen {
            self.hand[*at].left.retain(|(left, _)| left != index);
        }
        self.hand.retain(|held| !held.left.is_empty());
    }
}

impl Held {
    fn new(entry: store::Entry) -> Self {
        let all = jobs(&entry.fields[1]);
        let total = all.len();
        let is_left = |(index, _): &(usize, Job)| entry.settled.get(*index) != Some(&b'1');
        let left = all.into_iter().enumerate().filter(is_left).collect();
        Self { id: entry.id, total, died: entry.deliveries - 1, left }
    }

    fn job(&self, index: usize) -> &Job {
        &self.left.iter().find(|(left, _)| *left == index).expect("in hand").1
    }

    /// The record as it is written on, with so many failures more.
    fn counted(&self, index: usize, failures: u32) -> Bytes {
        let mut record = self.job(index).record.clone();
        record.attempt += failures;
        record.lost += self.died;
        record.encode().into()
    }
}

/// The calls that settle these jobs.
pub fn settlement(
    worker: &Worker,
    world: &World,
    how: How,
    chosen: &[(usize, usize)],
) -> Vec<Call> {
    let holder = worker.name.clone();
    let each = chosen.iter().map(|(at, index)| (&worker.hand[*at], *index));
    let by_entry = chosen.chunk_by(|a, b| a.0 == b.0);
    let by_entry = by_entry.map(|jobs| {
        (&worker.hand[jobs[0].0], jobs.iter().map(|(_, index)| *index).collect::<Vec<_>>())
    });
    match how {
        How::Complete => {
            let all = by_entry.map(|(held, indexes)| done(held, &indexes, &holder, world));
            let (plain, rest): (Vec<_>, Vec<_>) = all.partition(Completion::is_plain);
            let finish = Call::Finish { holder: holder.clone(), batch: plain };
            let complete = Call::Complete { holder, batch: rest };
            let is_empty = |call: &Call| call.settles().is_none_or(|(_, jobs)| jobs.is_empty());
            [finish, complete].into_iter().filter(|call| !is_empty(call)).collect()
        }
        How::Retry { backoff_ms } => {
            let batch = each.map(|(held, index)| failed(held, index, backoff_ms)).collect();
            vec![Call::Retry { holder, batch }]
        }
        How::Bury { keep, ran } => {
            let batch = each.map(|(held, index)| hopeless(held, index, ran)).collect();
            vec![Call::Bury { holder, batch, keep }]
        }
        How::Release => {
            let batch = by_entry.map(|(held, indexes)| unrun(held, &indexes)).collect();
            vec![Call::Release { holder, batch }]
        }
    }
}

fn done(held: &Held, indexes: &[usize], holder: &str, world: &World) -> Completion {
    // The local clock lets a worker believe that it has what it has lost, but not when settling.
    let lease = world.entry(&held.id).and_then(|entry| entry.lease.as_ref());
    let is_fresh = lease.is_some_and(|lease| lease.holder == holder && !lease.ran_out);
    let job = |&index: &usize| {
        let record = &held.job(index).record;
        Completed {
            index,
            id: record.id.clone(),
            name: record.name.clone(),
            run: record.attempt + 1,
            duration_us: 250,
            unique: record.unique,
        }
    };
    let jobs = indexes.iter().map(job).collect();
    let check_owner = !is_fresh || held.died > 0;
    let size = held.left.iter().map(|(_, job)| job.record.encode().len()).sum();
    Completion { entry: held.id.clone(), check_owner, total: held.total, size, jobs }
}

fn failed(held: &Held, index: usize, backoff_ms: u64) -> Retry {
    let record = &held.job(index).record;
    Retry {
        entry: held.id.clone(),
        total: held.total,
        index,
        id: record.id.clone(),
        name: record.name.clone(),
        record: held.counted(index, 1),
        backoff_ms,
        run: record.attempt + 1,
        duration_us: 250,
        error: "boom".into(),
    }
}

fn hopeless(held: &Held, index: usize, ran: bool) -> Burial {
    let record = &held.job(index).record;
    Burial {
        entry: held.id.clone(),
        total: held.total,
        index,
        id: record.id.clone(),
        name: record.name.clone(),
        unique: record.unique,
        reason: "retries_exhausted",
        error: "boom".into(),
        run: if ran { record.attempt + 1 } else { 0 },
        duration_us: 250,
        lost: record.lost + held.died,
        raw: vec!["j".into(), held.counted(index, u32::from(ran))],
    }
}

fn unrun(held: &Held, indexes: &[usize]) -> Release {
    let job = |&index: &usize| {
        let Job { record, due_ms } = held.job(index);
        let mut value = held.counted(index, 0);
        if let Some(due_ms) = due_ms {
            value = with_due(&value, *due_ms);
        }
        Released { index, id: record.id.clone(), name: record.name.clone(), value }
    };
    let jobs = indexes.iter().map(job).collect();
    Release { entry: held.id.clone(), total: held.total, jobs }
}
