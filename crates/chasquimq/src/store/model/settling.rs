//! PURE: jobs leave the workers' hands.

use bytes::Bytes;

use super::world::{Dead, Delayed, Entry, World, jobs, record};
use crate::store::{Burial, Completion, Release, Replay, Retry};

impl World {
    /// Whether a job waits for this holder to settle it.
    pub fn is_open(&self, id: &Bytes, index: usize, holder: &str) -> bool {
        let entry = self.entry(id).filter(|entry| entry.is_held_by(holder));
        entry.is_some_and(|entry| !entry.slots[index].is_settled)
    }

    fn settle(&mut self, id: &Bytes, index: usize) {
        if let Some(entry) = self.entry_mut(id) {
            entry.slots[index].is_settled = true;
        }
    }

    /// Entries whose jobs are all settled go.
    fn leave(&mut self) {
        self.entries.retain(|entry| entry.slots.iter().any(|slot| !slot.is_settled));
    }

    /// The short way: whoever holds the entry, it is done.
    pub fn finish(&mut self, batch: &[Completion]) -> Vec<bool> {
        let finish = |done: &Completion| {
            let Some(at) = self.entries.iter().position(|e| e.id.as_ref() == Some(&done.entry))
            else {
                return false;
            };
            self.entries.remove(at);
            done.jobs.iter().for_each(|job| self.tell("completed", &job.id));
            true
        };
        batch.iter().map(finish).collect()
    }

    pub fn complete(&mut self, holder: &str, batch: &[Completion]) -> Vec<bool> {
        let complete = |done: &Completion| {
            let looks = done.check_owner || done.jobs.len() < done.total;
            let Some(entry) = self.entry_mut(&done.entry) else { return false };
            if looks && !entry.is_held_by(holder) {
                return false;
            }
            let mut new = done.jobs.clone();
            new.retain(|job| !std::mem::replace(&mut entry.slots[job.index].is_settled, true));
            for job in &new {
                if job.unique {
                    self.unique.remove(&*job.id);
                }
                self.tell("completed", &job.id);
            }
            !new.is_empty()
        };
        let answer = batch.iter().map(complete).collect();
        self.leave();
        answer
    }

    pub fn retry(&mut self, holder: &str, batch: &[Retry]) -> Vec<bool> {
        let is_ours = |job: &Retry| self.is_open(&job.entry, job.index, holder);
        let answer: Vec<bool> = batch.iter().map(is_ours).collect();
        for (job, _) in batch.iter().zip(&answer).filter(|(_, ours)| **ours) {
            self.delayed.retain(|other| other.record.id != job.id);
            self.delayed.push(Delayed {
                record: record(&job.record),
                wait_ms: job.backoff_ms,
                due_ms: None,
                is_due: job.backoff_ms == 0,
                is_retry: true,
            });
            self.settle(&job.entry, job.index);
            self.tell("failed", &job.id);
            self.tell("retry-scheduled", &job.id);
        }
        self.leave();
        answer
    }

    pub fn bury(&mut self, holder: &str, batch: &[Burial], keep: usize) -> Vec<bool> {
        let bury = |job: &Burial| {
            if !self.is_open(&job.entry, job.index, holder) {
                return false;
            }
            self.settle(&job.entry, job.index);
            self.dead.push(Dead {
                id: None,
                source: job.entry.clone(),
                record: record(&job.raw[1]),
                reason: job.reason,
                error: job.error.clone(),
                run: job.run,
                lost: job.lost,
            });
            if keep > 0 && self.dead.len() > keep {
                self.dead.drain(..self.dead.len() - keep);
            }
            if job.unique {
                self.unique.remove(&*job.id);
            }
            if job.run > 0 {
                self.tell("failed", &job.id);
            }
            self.tell("dlq", &job.id);
            true
        };
        let answer = batch.iter().map(bury).collect();
        self.leave();
        answer
    }

    pub fn release(&mut self, holder: &str, batch: &[Release]) -> Vec<bool> {
        let release = |back: &Release| {
            let is_open = |index| self.is_open(&back.entry, index, holder);
            let open: Vec<_> = back.jobs.iter().filter(|job| is_open(job.index)).collect();
            if open.is_empty() {
                return false;
            }
            self.entries.push(Entry::new(open.iter().flat_map(|job| jobs(&job.value))));
            for job in open {
                self.settle(&back.entry, job.index);
                self.tell("released", &job.id);
            }
            true
        };
        let answer = batch.iter().map(release).collect();
        self.leave();
        answer
    }

    pub fn purge(&mut self, ids: &[String], most: usize) -> Vec<bool> {
        let is_asked_for = |id: &str| ids.is_empty() || ids.iter().any(|asked| asked == id);
        let mut gone = vec![];
        self.dead.retain(|dead| {
            let goes = gone.len() < most && is_asked_for(&dead.record.id);
            gone.extend(goes.then(|| dead.record.id.clone()));
            !goes
        });
        for id in &gone {
            self.tell("purged", id);
        }
        vec![true; gone.len()]
    }

    pub fn replay(&mut self, batch: &[Replay]) -> Vec<bool> {
        let replay = |Replay { dlq_id, job }: &Replay| {
            let is_it = |dead: &Dead| dead.id.as_ref().is_some_and(|id| id == dlq_id.as_bytes());
            let Some(at) = self.dead.iter().position(is_it) else { return false };
            if job.unique && !self.unique.insert(job.id.as_ref().into()) {
                return false;
            }
            self.dead.remove(at);
            self.entries.push(Entry::new(jobs(&job.record)));
            self.tell("replayed", &job.id);
            true
        };
        batch.iter().map(replay).collect()
    }

    /// All that a holder has.
    pub fn held_by(&self, holder: &str) -> usize {
        self.entries.iter().filter(|entry| entry.is_held_by(holder)).count()
    }
}
