//! The common way out of `running`: jobs that are done, nothing in the way. It takes a third of the
//! server's time that the general script takes, and tells of several jobs in one event entry.

use super::moves::{Completed, Completion, SMALL, Stored};
use super::packing::{column, decimal, is_line};
use super::transport::{Arg, Reply, bytes, int};
use super::{Store, flag, scripts};
use crate::error::Result;

impl Completion {
    /// Whether nobody else can hold or has held the entry, nothing was sent of it before, all its jobs are
    /// done, no id is to be released, and what is to be told of them fits into a line.
    pub fn is_plain(&self) -> bool {
        let plain =
            |job: &Completed| !job.unique && is_line(job.id.as_bytes()) && is_line(&job.name);
        !self.check_owner && self.jobs.len() == self.total && self.jobs.iter().all(plain)
    }
}

impl Store {
    /// running -> done, for entries that are all [plain](Completion::is_plain).
    pub async fn finish(
        &self,
        group: &str,
        consumer: &str,
        batch: &[&Completion],
    ) -> Result<Vec<Stored>> {
        let entries = batch.len();
        let mut args = self.preamble(group, consumer, 5 + entries * 2);
        let may_linger = batch.iter().all(|entry| entry.size <= SMALL);
        args.extend([flag(may_linger), int(entries as u64)]);
        args.extend(batch.iter().map(|entry| bytes(&entry.entry)));
        if self.events.enabled {
            tell(batch, self.pack(), &mut args);
        }
        let k = self.keys();
        let keys = [&k.stream, &k.settled, &k.events, &k.lingering];
        self.finished(&self.run(&scripts::FINISH, &keys, args).await?, entries)
    }

    fn finished(&self, reply: &Reply, entries: usize) -> Result<Vec<Stored>> {
        match reply.items() {
            [] if reply.int() == entries as i64 => Ok((0..entries).map(|_| Stored::Yes).collect()),
            [_, dropped, each @ ..] if each.len() == entries => {
                self.dropped(dropped.int() as u64);
                Ok(each.iter().map(stored).collect())
            }
            _ => Err(super::unexpected("a settlement")),
        }
    }
}

fn stored(answer: &Reply) -> Stored {
    if answer.int() == 1 { Stored::Yes } else { Stored::No }
}

/// Adds what is told of the jobs: at most `pack` of them in one event entry.
fn tell(batch: &[&Completion], pack: usize, args: &mut Vec<Arg>) {
    let mut at = 1;
    // The jobs of one entry, or of several with one job each.
    for run in batch.chunk_by(|a, b| a.total == 1 && b.total == 1) {
        let jobs: Vec<&Completed> = run.iter().flat_map(|entry| &entry.jobs).collect();
        for (n, chunk) in jobs.chunks(pack).enumerate() {
            let (first, last) = match run {
                [_] => (at, at),
                _ => (at + n * pack, at + n * pack + chunk.len() - 1),
            };
            args.extend([first, last, chunk.len()].map(|n| int(n as u64)));
            args.extend(columns(chunk));
        }
        at += run.len();
    }
}

fn columns(jobs: &[&Completed]) -> [Arg; 4] {
    [
        column(jobs, |job, to| to.extend_from_slice(job.id.as_bytes())),
        column(jobs, |job, to| to.extend_from_slice(&job.name)),
        column(jobs, |job, to| decimal(job.run.into(), to)),
        column(jobs, |job, to| decimal(job.duration_us, to)),
    ]
}
