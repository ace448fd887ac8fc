//! Adding: jobs to the stream, one or several an entry, and to the delayed ones.

use bytes::BytesMut;
use futures::stream::{FuturesOrdered, TryStreamExt};

use super::packing::{column, is_line};
use super::transport::{Arg, Reply, bytes, int};
use super::{CHUNK, Due, NewJob, Store, flag, flags, scripts};
use crate::error::{Error, ErrorKind, Result};

/// Scripts of one bulk add that are on their way at once: the server runs one while the next is written.
const SENT_AHEAD: usize = 4;

/// The most bytes that several jobs share an entry for.
const FULL: usize = 256 * 1024;

impl Store {
    /// Appends jobs, at most `pack` an entry; per job whether it is new. All or none for up to 500
    /// entries.
    pub async fn add(&self, jobs: &[NewJob], max_queue_len: u64, pack: usize) -> Result<Vec<bool>> {
        let verbose = self.events.enabled && self.events.verbose;
        if let ([job], 0, false) = (jobs, max_queue_len, verbose)
            && !job.unique
        {
            let args = vec![bytes(&self.keys().stream), "*".into(), "j".into(), bytes(&job.record)];
            return self.call(scripts::ADD.name, "XADD", args).await.map(|_| vec![true]);
        }
        let entries: Vec<_> = entries(jobs, pack, verbose).collect();
        // Where the queue is bounded, none of a later script may get the room that an earlier lacked.
        let ahead = if max_queue_len == 0 { SENT_AHEAD } else { 1 };
        let (mut under_way, mut added) = (FuturesOrdered::new(), Vec::with_capacity(jobs.len()));
        for chunk in entries.chunks(CHUNK) {
            if under_way.len() == ahead {
                added.extend(under_way.try_next().await?.unwrap_or_default());
            }
            under_way.push_back(self.append(chunk, max_queue_len, verbose));
        }
        while let Some(new) = under_way.try_next().await? {
            added.extend(new);
        }
        Ok(added)
    }

    /// Appends the entries of one script.
    async fn append(
        &self,
        entries: &[&[NewJob]],
        max_queue_len: u64,
        verbose: bool,
    ) -> Result<Vec<bool>> {
        let mut args = Vec::with_capacity(2 + entries.len() * 5);
        args.extend([int(max_queue_len), self.cap(verbose)]);
        for jobs in entries {
            args.extend(entry(jobs));
            if verbose {
                args.extend(told(jobs));
            }
        }
        let keys = [&self.keys().stream, &self.keys().unique, &self.keys().events];
        let reply = self.run(&scripts::ADD, &keys, args).await?;
        let new = accepted(&reply, max_queue_len)?;
        Ok(entries.iter().zip(new).flat_map(|(jobs, new)| jobs.iter().map(move |_| new)).collect())
    }

    /// Stores delayed jobs; per job whether it is new. All or none for up to 500.
    pub async fn schedule(&self, jobs: &[(NewJob, Due)], max_delayed: u64) -> Result<Vec<bool>> {
        let mut added = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(CHUNK) {
            let mut args = vec![bytes(&self.keys.wake), int(max_delayed), self.cap(true)];
            for (job, due) in chunk {
                let (kind, ms) = match due {
                    Due::In(ms) => ("in", *ms),
                    Due::At(ms) => ("at", *ms),
                };
                args.extend([job.id.as_str().into(), flag(job.unique), kind.into(), int(ms)]);
                args.extend([bytes(&job.record), job.name.as_str().into()]);
            }
            let k = &self.keys;
            let keys = [&k.delayed, &k.jobs, &k.unique, &k.events];
            let reply = self.run(&scripts::SCHEDULE, &keys, args).await?;
            added.extend(accepted(&reply, max_delayed)?);
        }
        Ok(added)
    }
}

/// Jobs by the entry that they share. One whose id was chosen has an entry of its own: whether it is
/// new is decided for it alone.
fn entries(jobs: &[NewJob], pack: usize, verbose: bool) -> impl Iterator<Item = &[NewJob]> {
    let shares = move |job: &NewJob| {
        let fits = !verbose || is_line(job.id.as_bytes()) && is_line(job.name.as_bytes());
        !job.unique && fits
    };
    let mut rest = jobs;
    std::iter::from_fn(move || {
        let mut bytes = rest.first()?.record.len();
        let mut count = 1;
        while count < pack && count < rest.len() && shares(&rest[count - 1]) && shares(&rest[count])
        {
            bytes += rest[count].record.len();
            if bytes > FULL {
                break;
            }
            count += 1;
        }
        let (entry, after) = rest.split_at(count);
        rest = after;
        Some(entry)
    })
}

fn entry(jobs: &[NewJob]) -> [Arg; 2] {
    match jobs {
        [job] if job.unique => [job.id.as_str().into(), bytes(&job.record)],
        [job] => ["".into(), bytes(&job.record)],
        several => {
            let mut value =
                BytesMut::with_capacity(several.iter().map(|job| job.record.len()).sum());
            for job in several {
                value.extend_from_slice(&job.record);
            }
            ["".into(), bytes(&value.freeze())]
        }
    }
}

fn told(jobs: &[NewJob]) -> [Arg; 3] {
    [
        column(jobs, |job, to| to.extend_from_slice(job.id.as_bytes())),
        column(jobs, |job, to| to.extend_from_slice(job.name.as_bytes())),
        int(jobs.len() as u64),
    ]
}

/// Reads the reply of add and schedule: {1, new…} or {0, held}.
fn accepted(reply: &Reply, max: u64) -> Result<Vec<bool>> {
    let items = reply.items();
    if items.first().is_some_and(|ok| ok.int() == 1) {
        return Ok(flags(reply).collect());
    }
    let held = items.get(1).map_or(0, Reply::int);
    Err(Error::new(
        ErrorKind::QueueFull,
        format!(
            "the queue holds {held} jobs and may hold {max}: nothing was added; add again later"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn job(unique: bool, size: usize) -> NewJob {
        let record = Bytes::from(vec![0; size]);
        NewJob { id: "i".into(), name: String::new(), unique, record }
    }

    fn sizes(jobs: &[NewJob], pack: usize) -> Vec<usize> {
        entries(jobs, pack, false).map(<[NewJob]>::len).collect()
    }

    #[test]
    fn jobs_share_entries_but_for_those_with_an_id_of_their_own() {
        let plain = || job(false, 10);
        assert_eq!(sizes(&[], 4), [0; 0]);
        assert_eq!(sizes(&[plain(), plain(), plain()], 1), [1, 1, 1]);
        assert_eq!(sizes(&[plain(), plain(), plain()], 2), [2, 1]);
        let mixed = [plain(), plain(), job(true, 10), plain(), plain()];
        assert_eq!(sizes(&mixed, 4), [2, 1, 2]);
        let large = [job(false, FULL / 2), job(false, FULL / 2), plain(), job(false, 2 * FULL)];
        assert_eq!(sizes(&large, 4), [2, 1, 1]);
        let lines = [NewJob { name: "a\nb".into(), ..plain() }, plain()];
        assert_eq!(entries(&lines, 4, true).count(), 2);
    }
}
