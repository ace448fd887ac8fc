//! PURE: one queue as it should be. Where each job stands, and who holds it; no clock, no server.
//!
//! What only the server can know (ids of entries, times in milliseconds) is learnt once, when it
//! first shows, and must stay.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::store::wire::{Item, Record, decode_all};

/// A queue.
#[derive(Debug, Default)]
pub struct World {
    /// Ready and running jobs, in the stream's order.
    pub entries: Vec<Entry>,
    pub delayed: Vec<Delayed>,
    pub dead: Vec<Dead>,
    /// Ids chosen by callers, of live jobs.
    pub unique: BTreeSet<String>,
    /// Calls that added jobs: carried out, or withdrawn.
    pub calls: BTreeMap<u64, Fate>,
    /// Jobs in doubt, with the call they went with, and whether their ids were chosen.
    pub doubts: BTreeMap<String, (u64, bool)>,
    /// Who leads the promoters.
    pub leader: Option<String>,
    /// Kind and job id of what has been told since the last look.
    pub told: Vec<(&'static str, String)>,
    /// Whether `waiting` and `promoted` are told, too.
    pub verbose: bool,
}

/// An entry of the stream.
#[derive(Debug)]
pub struct Entry {
    pub id: Option<Bytes>,
    pub slots: Vec<Slot>,
    pub lease: Option<Lease>,
}

/// A job's place in an entry.
#[derive(Debug)]
pub struct Slot {
    pub job: Job,
    pub is_settled: bool,
}

/// A job, and when it was due if it was delayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub record: Record,
    pub due_ms: Option<u64>,
}

/// Who has an entry.
#[derive(Clone, Debug)]
pub struct Lease {
    pub holder: String,
    pub deliveries: u32,
    pub ran_out: bool,
}

/// A job that waits.
#[derive(Debug)]
pub struct Delayed {
    pub record: Record,
    /// How long from when it was stored.
    pub wait_ms: u64,
    pub due_ms: Option<u64>,
    pub is_due: bool,
    pub is_retry: bool,
}

/// A job that is given up.
#[derive(Debug)]
pub struct Dead {
    pub id: Option<Bytes>,
    pub source: Bytes,
    pub record: Record,
    pub reason: &'static str,
    pub error: String,
    pub run: u32,
    pub lost: u32,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Stored,
    Withdrawn,
}

/// The records of a value.
pub fn jobs(value: &Bytes) -> Vec<Job> {
    let job = |Item { record, due_ms, .. }| Job { record, due_ms };
    decode_all(value).expect("records").into_iter().map(job).collect()
}

/// The one record of a value.
pub fn record(value: &Bytes) -> Record {
    jobs(value).remove(0).record
}

/// An entry's id as it is ordered.
pub fn order(id: &Bytes) -> (u64, u64) {
    let text = std::str::from_utf8(id).expect("an id");
    let (ms, n) = text.split_once('-').expect("an id");
    (ms.parse().expect("an id"), n.parse().expect("an id"))
}

impl Entry {
    pub fn new(jobs: impl IntoIterator<Item = Job>) -> Self {
        let slot = |job| Slot { job, is_settled: false };
        Self { id: None, slots: jobs.into_iter().map(slot).collect(), lease: None }
    }

    /// What is settled, as the store notes it; nothing while nothing is.
    pub fn bitmap(&self) -> Option<String> {
        let map: String =
            self.slots.iter().map(|slot| if slot.is_settled { '1' } else { '0' }).collect();
        map.contains('1').then_some(map)
    }

    pub fn is_held_by(&self, holder: &str) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.holder == holder)
    }

    fn has_run_out(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.ran_out)
    }
}

impl Delayed {
    /// The place in the order in which they become ready.
    pub fn score(&self) -> u64 {
        self.due_ms.expect("seen before") * 2 - u64::from(self.is_retry)
    }
}

/// Where jobs come to the workers, and where leases end.
impl World {
    pub fn entry(&self, id: &Bytes) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id.as_ref() == Some(id))
    }

    pub fn entry_mut(&mut self, id: &Bytes) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id.as_ref() == Some(id))
    }

    pub fn tell(&mut self, kind: &'static str, id: &str) {
        self.told.push((kind, id.to_owned()));
    }

    /// The oldest ready entries go to a consumer.
    pub fn read(&mut self, holder: &str, count: usize) -> Vec<&Entry> {
        let mut ids = Vec::new();
        let ready = self.entries.iter_mut().filter(|entry| entry.lease.is_none());
        for entry in ready.take(count) {
            let holder = holder.to_owned();
            entry.lease = Some(Lease { holder, deliveries: 1, ran_out: false });
            ids.extend(entry.id.clone());
        }
        self.named(&ids)
    }

    /// Entries whose lease ran out go to a consumer; so many are looked at as XAUTOCLAIM does.
    pub fn claim(&mut self, holder: &str, count: usize, cursor: &Bytes) -> Vec<&Entry> {
        let after = |entry: &&mut Entry| {
            entry.lease.is_some() && entry.id.as_ref().is_some_and(|id| order(id) >= order(cursor))
        };
        let pending = self.entries.iter_mut().filter(after).take(count * 10);
        let mut ids = Vec::new();
        for entry in pending.filter(|entry| entry.has_run_out()).take(count) {
            let lease = entry.lease.as_mut().expect("pending");
            *lease = Lease {
                holder: holder.to_owned(),
                deliveries: lease.deliveries + 1,
                ran_out: false,
            };
            ids.extend(entry.id.clone());
        }
        self.named(&ids)
    }

    /// What a consumer holds without knowing of it.
    pub fn missed(&self, holder: &str, known: &[Bytes]) -> Vec<&Entry> {
        let is_missed = |entry: &&Entry| {
            let is_known = entry.id.as_ref().is_some_and(|id| known.contains(id));
            entry.is_held_by(holder) && !entry.has_run_out() && !is_known
        };
        self.entries.iter().filter(is_missed).collect()
    }

    fn named(&self, ids: &[Bytes]) -> Vec<&Entry> {
        ids.iter().filter_map(|id| self.entry(id)).collect()
    }

    /// Leases begin anew, where they are still this consumer's.
    pub fn renew(&mut self, holder: &str, ids: &[Bytes]) -> Vec<bool> {
        let renew = |id| {
            let mine = self.entry_mut(id).filter(|entry| entry.is_held_by(holder));
            mine.and_then(|entry| entry.lease.as_mut()).map(|lease| lease.ran_out = false).is_some()
        };
        ids.iter().map(renew).collect()
    }

    /// The jobs that are due go to the stream; how many, `None` when another leads.
    pub fn promote(&mut self, holder: &str, count: usize) -> Option<usize> {
        if self.leader.as_ref().is_some_and(|leader| leader != holder) {
            return None;
        }
        self.leader = Some(holder.to_owned());
        self.delayed.sort_by_cached_key(|job| {
            (!job.is_due, job.score(), job.record.id.as_bytes().to_vec())
        });
        let due = self.delayed.iter().filter(|job| job.is_due).count().min(count);
        let jobs: Vec<Job> = self
            .delayed
            .drain(..due)
            .map(|job| Job { record: job.record, due_ms: job.due_ms })
            .collect();
        for jobs in jobs.chunks((due / 16).clamp(1, 8)) {
            self.entries.push(Entry::new(jobs.iter().cloned()));
        }
        if self.verbose {
            for job in &jobs {
                self.tell("promoted", &job.record.id);
            }
        }
        Some(due)
    }

    /// Delayed jobs are taken back.
    pub fn cancel(&mut self, ids: &[String]) -> Vec<bool> {
        let cancel = |id: &String| {
            let Some(at) = self.delayed.iter().position(|job| *job.record.id == **id) else {
                return false;
            };
            self.delayed.remove(at);
            self.unique.remove(id);
            self.tell("cancelled", id);
            true
        };
        ids.iter().map(cancel).collect()
    }
}
