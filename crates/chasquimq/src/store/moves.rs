//! Settling: the four ways out of `running`, each a batch for one script.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::packing::{column, decimal, is_line};
use super::transport::{Arg, Reply, bytes, classify, int};
use super::{Store, flag, scripts};
use crate::error::{Error, Result};

/// Bytes of an entry that may linger after it was acknowledged. The search by which XDEL
/// finds an entry is among its neighbours in a node, 4 KiB by default: larger ones have few.
pub(super) const SMALL: usize = 1024;

/// What became of one item of a batch.
#[derive(Debug)]
pub(crate) enum Stored {
    /// It was stored.
    Yes,
    /// The entry is no longer this consumer's, or the job was settled before; nothing changed.
    No,
    /// It could not be stored; nothing changed and it may be tried again.
    Failed(Error),
}

/// Jobs of one entry that are done.
#[derive(Debug)]
pub(crate) struct Completion {
    pub entry: Bytes,
    /// Whether another consumer may hold the entry by now, or has had it before, or this was sent
    /// before.
    pub check_owner: bool,
    pub total: usize,
    /// Bytes of its jobs' records.
    pub size: usize,
    pub jobs: SmallVec<[Completed; 1]>,
}

/// One job that is done.
#[derive(Clone, Debug)]
pub(crate) struct Completed {
    pub index: usize,
    pub id: Arc<str>,
    pub name: Bytes,
    pub run: u32,
    pub duration_us: u64,
    pub unique: bool,
}

/// A job that will run again.
#[derive(Debug)]
pub(crate) struct Retry {
    pub entry: Bytes,
    pub total: usize,
    pub index: usize,
    pub id: Arc<str>,
    pub name: Bytes,
    pub record: Bytes,
    pub backoff_ms: u64,
    pub run: u32,
    pub duration_us: u64,
    pub error: String,
}

/// A job that is given up.
#[derive(Debug)]
pub(crate) struct Burial {
    pub entry: Bytes,
    pub total: usize,
    pub index: usize,
    pub id: Arc<str>,
    pub name: Bytes,
    pub unique: bool,
    pub reason: &'static str,
    pub error: String,
    /// The run that gave up; 0 when none ran.
    pub run: u32,
    pub duration_us: u64,
    pub lost: u32,
    /// Field, value, …: the record under `j`, or the fields of an entry that is none of ours.
    pub raw: Vec<Bytes>,
}

/// Jobs of one entry that go back unrun.
#[derive(Debug)]
pub(crate) struct Release {
    pub entry: Bytes,
    pub total: usize,
    pub jobs: Vec<Released>,
}

/// One job that goes back.
#[derive(Debug)]
pub(crate) struct Released {
    pub index: usize,
    pub id: Arc<str>,
    pub name: Bytes,
    /// Its record, as it stands in the new entry.
    pub value: Bytes,
}

impl Store {
    /// running -> done, whatever the owner, the entry and the id.
    pub async fn complete(
        &self,
        group: &str,
        consumer: &str,
        batch: &[&Completion],
    ) -> Result<Vec<Stored>> {
        let k = self.keys();
        let keys = [&k.stream, &k.settled, &k.events, &k.lingering, &k.unique];
        let mut args = self.preamble(group, consumer, 3 + batch.len() * 10);
        for entry in batch {
            args.extend([bytes(&entry.entry), flag(entry.check_owner), int(entry.total as u64)]);
            args.push(int(entry.jobs.len() as u64));
            for job in &entry.jobs {
                args.extend([int(job.index as u64), (&*job.id).into(), bytes(&job.name)]);
                args.extend([int(job.run.into()), int(job.duration_us), flag(job.unique)]);
            }
        }
        self.results(&self.run(&scripts::COMPLETE, &keys, args).await?, batch.len())
    }

    /// running -> delayed.
    pub async fn retry(&self, group: &str, consumer: &str, batch: &[Retry]) -> Result<Vec<Stored>> {
        let k = self.keys();
        let keys =
            [&k.stream, &k.settled, &k.events, &k.lingering, &k.delayed, &k.jobs, &k.retrying];
        let mut args = self.preamble(group, consumer, 8 + batch.len() * 10);
        let may_linger = batch.iter().all(|job| job.total == 1 && job.record.len() <= SMALL);
        args.extend([bytes(&k.wake), flag(may_linger), int(batch.len() as u64)]);
        let entries = || batch.iter().map(|job| &job.entry);
        let ends = [entries().min_by_key(|id| place(id)), entries().max_by_key(|id| place(id))];
        args.extend(ends.map(|end| end.map_or("0-0".into(), bytes)));
        for job in batch {
            args.extend([bytes(&job.entry), int(job.total as u64), int(job.index as u64)]);
            args.extend([(&*job.id).into(), bytes(&job.record), int(job.backoff_ms)]);
        }
        if self.events.enabled {
            let in_lines = batch.iter().all(Retry::is_told_in_lines);
            let pack = if in_lines { self.pack() } else { 1 };
            for (n, jobs) in batch.chunks(pack).enumerate() {
                args.extend([int((n * pack + 1) as u64), int(jobs.len() as u64)]);
                args.extend(told(jobs));
            }
        }
        self.results(&self.run(&scripts::RETRY, &keys, args).await?, batch.len())
    }

    /// running -> dead. Keeps the newest `keep` dead jobs, or all when it is 0.
    pub async fn bury(
        &self,
        group: &str,
        consumer: &str,
        batch: &[Burial],
        keep: u64,
    ) -> Result<Vec<Stored>> {
        let k = self.keys();
        let keys = [&k.stream, &k.settled, &k.events, &k.lingering, &k.dlq, &k.unique];
        let mut args = self.preamble(group, consumer, 4 + batch.len() * 14);
        args.push(int(keep));
        for job in batch {
            args.extend([bytes(&job.entry), int(job.total as u64), int(job.index as u64)]);
            args.extend([(&*job.id).into(), bytes(&job.name), flag(job.unique)]);
            args.extend([job.reason.into(), job.error.as_str().into(), int(job.run.into())]);
            args.extend([int(job.duration_us), int(job.lost.into()), int(job.raw.len() as u64)]);
            args.extend(job.raw.iter().map(bytes));
        }
        self.results(&self.run(&scripts::BURY, &keys, args).await?, batch.len())
    }

    /// running -> ready.
    pub async fn release(
        &self,
        group: &str,
        consumer: &str,
        batch: &[Release],
    ) -> Result<Vec<Stored>> {
        let k = self.keys();
        let keys = [&k.stream, &k.settled, &k.events, &k.lingering];
        let mut args = self.preamble(group, consumer, 3 + batch.len() * 7);
        for entry in batch {
            args.extend([bytes(&entry.entry), int(entry.total as u64)]);
            args.push(int(entry.jobs.len() as u64));
            for job in &entry.jobs {
                args.extend([int(job.index as u64), (&*job.id).into(), bytes(&job.name)]);
                args.push(bytes(&job.value));
            }
        }
        self.results(&self.run(&scripts::RELEASE, &keys, args).await?, batch.len())
    }

    /// Reads a reply, and tells of the events that were dropped.
    fn results(&self, reply: &Reply, expected: usize) -> Result<Vec<Stored>> {
        let (stored, dropped) = results(reply, expected)?;
        self.dropped(dropped);
        Ok(stored)
    }

    pub(super) fn dropped(&self, events: u64) {
        if let Some(metrics) = self.metrics.as_ref().filter(|_| events > 0) {
            metrics.tell(|sink| sink.events_dropped(events));
        }
    }

    pub(super) fn preamble(&self, group: &str, consumer: &str, capacity: usize) -> Vec<Arg> {
        let mut args = Vec::with_capacity(capacity);
        args.extend([group.into(), consumer.into(), self.cap(true)]);
        args
    }
}

impl Retry {
    fn is_told_in_lines(&self) -> bool {
        is_line(self.id.as_bytes()) && is_line(&self.name) && is_line(self.error.as_bytes())
    }
}

/// Where an entry stands in its stream.
fn place(id: &Bytes) -> (u64, u64) {
    let text = std::str::from_utf8(id).unwrap_or_default();
    let (ms, number) = text.split_once('-').unwrap_or_default();
    (ms.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

/// The fields of the events that tell of retries.
fn told(jobs: &[Retry]) -> [Arg; 7] {
    [
        column(jobs, |job, to| to.extend_from_slice(job.id.as_bytes())),
        column(jobs, |job, to| to.extend_from_slice(&job.name)),
        column(jobs, |job, to| decimal(job.run.into(), to)),
        column(jobs, |job, to| decimal(job.duration_us, to)),
        column(jobs, |job, to| to.extend_from_slice(job.error.as_bytes())),
        column(jobs, |job, to| decimal(u64::from(job.run) + 1, to)),
        column(jobs, |job, to| decimal(job.backoff_ms, to)),
    ]
}

/// An error text in a reply, as an error.
pub(super) fn fault(item: &Reply) -> Option<Error> {
    match item {
        Reply::Bytes(text) if !text.is_empty() => {
            let text = item.text();
            Some(Error::new(classify(&text), text))
        }
        _ => None,
    }
}

/// One answer an item, and how many events were dropped. A mere number: all were stored.
pub(crate) fn results(reply: &Reply, expected: usize) -> Result<(Vec<Stored>, u64)> {
    if *reply == Reply::Int(expected as i64) {
        return Ok(((0..expected).map(|_| Stored::Yes).collect(), 0));
    }
    let items = reply.items().get(1..).unwrap_or_default();
    let (items, dropped) = match items.split_at_checked(expected) {
        Some((items, [])) => (items, 0),
        Some((items, [dropped])) => (items, dropped.int() as u64),
        _ => return Err(super::unexpected("a settlement")),
    };
    let one = |item: &Reply| match fault(item) {
        Some(error) => Stored::Failed(error),
        None if item.int() == 1 => Stored::Yes,
        None => Stored::No,
    };
    Ok((items.iter().map(one).collect(), dropped))
}
