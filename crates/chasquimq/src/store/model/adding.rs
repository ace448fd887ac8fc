//! PURE: jobs come into the world.

use super::world::{Delayed, Entry, Fate, Job, World, record};
use crate::error::ErrorKind;
use crate::store::{Due, NewJob};

/// Per job whether it is new; or why none was added.
pub type Added = Result<Vec<bool>, ErrorKind>;

/// A call of one script that adds jobs, by its number.
#[derive(Clone, Debug)]
pub struct Packet {
    pub number: u64,
    pub jobs: Vec<(NewJob, Option<Due>)>,
    pub bound: u64,
    pub pack: usize,
}

impl Packet {
    pub fn is_delayed(&self) -> bool {
        self.jobs.iter().any(|(_, due)| due.is_some())
    }

    /// The jobs by the entry they share: those with a chosen id stand alone.
    fn entries(&self) -> Vec<Vec<&NewJob>> {
        let mut entries: Vec<Vec<&NewJob>> = vec![];
        for (job, _) in &self.jobs {
            match entries.last_mut() {
                Some(entry) if entry.len() < self.pack && !job.unique && !entry[0].unique => {
                    entry.push(job);
                }
                _ => entries.push(vec![job]),
            }
        }
        entries
    }
}

impl World {
    /// A packet arrives, for the first time or not.
    pub fn arrive(&mut self, packet: &Packet) -> Added {
        let is_plain = !packet.is_delayed() && packet.bound == 0 && !self.verbose;
        let is_plain = is_plain && packet.jobs.iter().all(|(job, _)| !job.unique);
        match self.calls.get(&packet.number) {
            Some(Fate::Stored) => return Ok(vec![true; packet.jobs.len()]),
            // Nobody listens: the shortest script does not say it.
            Some(Fate::Withdrawn) if is_plain => return Ok(vec![true; packet.jobs.len()]),
            Some(Fate::Withdrawn) => return Err(ErrorKind::QueueFull),
            None => {}
        }
        let (held, more) = if packet.is_delayed() {
            (self.delayed.len(), packet.jobs.len())
        } else {
            (self.entries.len(), packet.entries().len())
        };
        if packet.bound > 0 && (held + more) as u64 > packet.bound {
            self.calls.insert(packet.number, Fate::Withdrawn);
            return Err(ErrorKind::QueueFull);
        }
        self.calls.insert(packet.number, Fate::Stored);
        Ok(if packet.is_delayed() { self.schedule(packet) } else { self.append(packet) })
    }

    fn append(&mut self, packet: &Packet) -> Vec<bool> {
        let mut new = Vec::new();
        for jobs in packet.entries() {
            let is_new = !jobs[0].unique || self.unique.insert(jobs[0].id.as_ref().into());
            new.extend(jobs.iter().map(|_| is_new));
            if !is_new {
                continue;
            }
            if self.verbose {
                for job in &jobs {
                    self.tell("waiting", &job.id);
                }
            }
            let job = |job: &&NewJob| Job { record: record(&job.record), due_ms: None };
            self.entries.push(Entry::new(jobs.iter().map(job)));
        }
        new
    }

    fn schedule(&mut self, packet: &Packet) -> Vec<bool> {
        let mut new = Vec::new();
        for (job, due) in &packet.jobs {
            let is_new = !job.unique || self.unique.insert(job.id.as_ref().into());
            new.push(is_new);
            if !is_new {
                continue;
            }
            let (wait_ms, due_ms) = match due {
                Some(Due::In(ms)) => (*ms, None),
                Some(Due::At(ms)) => (0, Some(*ms)),
                None => unreachable!("not delayed"),
            };
            let (record, is_due) = (record(&job.record), wait_ms == 0);
            self.delayed.push(Delayed { record, wait_ms, due_ms, is_due, is_retry: false });
            self.tell("delayed", &job.id);
        }
        new
    }

    /// A producer adds jobs: what it is told, and the packets that were sent for it.
    pub fn add(&mut self, wish: &Packet) -> (Result<(), ErrorKind>, Vec<Packet>) {
        let added: Vec<_> = wish
            .jobs
            .iter()
            .map(|(job, _)| job.id.clone())
            .filter(|id| self.was_added(wish, id))
            .collect();
        let left = wish.jobs.iter().filter(|(job, _)| !job.unique || !added.contains(&job.id));
        let (later, now): (Vec<_>, Vec<_>) = left.cloned().partition(|(_, due)| due.is_some());
        let (mut sent, mut answer) = (Vec::new(), Ok(()));
        for jobs in [now, later].into_iter().filter(|jobs| !jobs.is_empty()) {
            let number = wish.number + sent.len() as u64;
            let packet = Packet { number, jobs, ..wish.clone() };
            let arrived = self.arrive(&packet);
            sent.push(packet);
            if let Err(error) = arrived {
                answer = Err(error);
                break;
            }
        }
        match (answer, &sent[..]) {
            (Ok(()), _) => self
                .doubts
                .retain(|id, (_, chosen)| !(*chosen && added.iter().any(|new| **new == **id))),
            (Err(_), [first, second]) => {
                self.doubt(first);
                self.doubt(second);
            }
            _ => {}
        }
        (answer, sent)
    }

    /// Whether a job had been added by a call in doubt; else that call never will be carried out.
    fn was_added(&mut self, wish: &Packet, id: &str) -> bool {
        let is_again = wish.jobs.iter().any(|(job, _)| *job.id == *id && job.unique);
        let call = self.doubts.get(id).filter(|_| is_again);
        call.is_some_and(|(call, _)| {
            *self.calls.entry(*call).or_insert(Fate::Withdrawn) == Fate::Stored
        })
    }

    /// Nobody knows whether the packet was carried out.
    pub fn doubt(&mut self, packet: &Packet) {
        for (job, _) in &packet.jobs {
            self.doubts.insert(job.id.as_ref().into(), (packet.number, job.unique));
        }
    }
}
