//! Adding: jobs to the stream, one or several an entry, and to the delayed ones.

use std::iter;
use std::task::Poll;

use bytes::BytesMut;
use futures::poll;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::task::yield_now;

use super::packing::{column, is_line};
use super::sending::Number;
use super::transport::{Arg, Assurance, Call, Reply, bytes, int};
use super::{CHUNK, Due, NewJob, Store, flag, flags, scripts, unexpected};
use crate::error::{Error, ErrorKind, Result};

/// Entries a script of a bulk that takes several: the server runs one while the next is encoded.
const PART: usize = CHUNK / 2;

/// Scripts of one bulk that are on their way at once.
const SENT_AHEAD: usize = 8;

/// The most bytes that several jobs share an entry for.
const FULL: usize = 256 * 1024;

/// How jobs are added.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// Entries the stream may hold, and jobs that may be delayed; 0 is no bound.
    pub max_queue_len: u64,
    /// Jobs that may share an entry.
    pub pack: usize,
    /// Who shall have them before they count.
    pub assurance: Assurance,
}

/// A call that is to be made.
struct Part {
    number: Number,
    call: Call<'static>,
    /// Jobs of each entry.
    sizes: Vec<usize>,
    /// Whether the reply tells which are new.
    is_examined: bool,
}

/// A call that was made: how many jobs went with it, and what became of it.
struct Sent {
    call: Number,
    jobs: usize,
    new: Result<Vec<bool>>,
}

impl Store {
    /// Adds jobs, those that are due now and those that are delayed. All or none for up to 500 of
    /// either.
    ///
    /// Jobs that are added again after an error that carried their ids are left out where they had
    /// been added. An error carries ids when some of the jobs may have been added.
    pub async fn add_all(
        &self,
        now: impl IntoIterator<Item = NewJob, IntoIter: ExactSizeIterator>,
        mut later: Vec<(NewJob, Due)>,
        terms: Terms,
    ) -> Result<()> {
        let now = now.into_iter();
        if !self.sendings.is_in_doubt() {
            return self.send_all(now, &later, terms).await;
        }
        let mut now: Vec<_> = now.collect();
        let ids = now.iter().chain(later.iter().map(|(job, _)| job)).filter(|job| job.unique);
        let added = self.added_before(ids.map(|job| &*job.id), &terms.assurance).await;
        let all =
            || now.iter().chain(later.iter().map(|(job, _)| job)).map(|job| String::from(&*job.id));
        let added = added.map_err(|error| error.with_job_ids(all().collect()))?;
        now.retain(|job| !added.contains(&*job.id));
        later.retain(|(job, _)| !added.contains(&*job.id));
        self.send_all(now.into_iter(), &later, terms).await?;
        self.sendings.resolve(added.iter());
        Ok(())
    }

    async fn send_all(
        &self,
        now: impl ExactSizeIterator<Item = NewJob>,
        later: &[(NewJob, Due)],
        terms: Terms,
    ) -> Result<()> {
        let (now, mut sent) = self.append_all(now, terms).await;
        if sent.iter().all(|sent| sent.new.is_ok()) {
            sent.extend(self.schedule_all(later, terms).await);
        }
        let jobs = now.iter().chain(later.iter().map(|(job, _)| job));
        self.outcome(jobs, sent).map(drop)
    }

    /// Appends jobs; per job whether it is new.
    #[cfg(test)]
    pub async fn add(&self, jobs: &[NewJob], max_queue_len: u64, pack: usize) -> Result<Vec<bool>> {
        let terms = Terms { max_queue_len, pack, ..Terms::default() };
        let (jobs, sent) = self.append_all(jobs.iter().cloned(), terms).await;
        self.outcome(jobs.iter(), sent)
    }

    /// Stores delayed jobs; per job whether it is new.
    #[cfg(test)]
    pub async fn schedule(&self, jobs: &[(NewJob, Due)], max_delayed: u64) -> Result<Vec<bool>> {
        let terms = Terms { max_queue_len: max_delayed, pack: 1, ..Terms::default() };
        let sent = self.schedule_all(jobs, terms).await;
        self.outcome(jobs.iter().map(|(job, _)| job), sent)
    }

    /// What became of jobs, of which the first went with the first call.
    fn outcome<'j>(
        &self,
        jobs: impl Iterator<Item = &'j NewJob>,
        sent: Vec<Sent>,
    ) -> Result<Vec<bool>> {
        let is_unknown =
            |sent: &Sent| sent.new.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unknown);
        if sent.iter().any(|sent| sent.new.is_err())
            && sent.iter().any(|sent| sent.new.is_ok() || is_unknown(sent))
        {
            let calls = sent.iter().flat_map(|sent| iter::repeat_n(sent.call, sent.jobs));
            let doubted: Vec<_> = jobs.zip(calls).collect();
            self.sendings.doubt(doubted.iter().copied());
            let ids = doubted.into_iter().map(|(job, _)| String::from(&*job.id)).collect();
            let worst = sent.iter().position(is_unknown);
            let worst = worst.or_else(|| sent.iter().position(|sent| sent.new.is_err()));
            let error = worst.and_then(|at| sent.into_iter().nth(at)?.new.err());
            return Err(error.unwrap_or_else(|| unexpected("add")).with_job_ids(ids));
        }
        let mut new = Vec::new();
        for sent in sent {
            new.extend(sent.new?);
        }
        Ok(new)
    }

    /// Appends jobs, until a call fails; those under way then are waited for. Returns the jobs that
    /// calls were made for, too.
    async fn append_all(
        &self,
        mut jobs: impl ExactSizeIterator<Item = NewJob>,
        terms: Terms,
    ) -> (Vec<NewJob>, Vec<Sent>) {
        let (mut made, mut sent) = (Vec::with_capacity(jobs.len()), Vec::new());
        if jobs.len() <= CHUNK {
            made.extend(jobs);
            for part in self.parts(&made, terms) {
                sent.push(self.send(part, terms).await);
            }
            return (made, sent);
        }
        let mut under_way = FuturesOrdered::new();
        let (size, ahead) = stride(jobs.len(), terms);
        'all: while jobs.len() > 0 {
            let begun = made.len();
            made.extend(jobs.by_ref().take(size));
            for part in self.parts(&made[begun..], terms) {
                if under_way.len() == ahead {
                    sent.extend(under_way.next().await);
                }
                if sent.iter().any(|sent: &Sent| sent.new.is_err()) {
                    break 'all;
                }
                under_way.push_back(self.send(part, terms));
                if let Poll::Ready(answered) = poll!(under_way.next()) {
                    sent.extend(answered);
                }
                // It goes out before the next is made.
                yield_now().await;
            }
        }
        while let Some(one) = under_way.next().await {
            sent.push(one);
        }
        (made, sent)
    }

    /// The calls that append these jobs.
    fn parts(&self, jobs: &[NewJob], terms: Terms) -> Vec<Part> {
        let verbose = self.events.enabled && self.events.verbose;
        let entries: Vec<_> = entries(jobs, terms.pack, verbose).collect();
        entries.chunks(CHUNK).map(|entries| self.part(entries, terms, verbose)).collect()
    }

    fn part(&self, entries: &[&[NewJob]], terms: Terms, verbose: bool) -> Part {
        let number = self.sendings.number();
        let is_plain = terms.max_queue_len == 0 && !verbose;
        let is_examined = !is_plain || entries.iter().any(|jobs| jobs[0].unique);
        let call = if is_examined {
            self.examine(number, entries, terms, verbose)
        } else {
            self.put(number, entries)
        };
        Part { number, call, sizes: entries.iter().map(|jobs| jobs.len()).collect(), is_examined }
    }

    /// Nothing in the way: the usual add, and the least for the server to do.
    fn put(&self, number: Number, entries: &[&[NewJob]]) -> Call<'static> {
        let (map, remember) = self.sent(number);
        let mut args = Vec::with_capacity(2 + entries.len());
        args.extend(remember);
        args.extend(entries.iter().map(|jobs| value(jobs)));
        scripts::PUT.with(&[&self.keys().stream, &map], args)
    }

    /// Whether they are new and there is room for them is found out first, and they are told of.
    fn examine(
        &self,
        number: Number,
        entries: &[&[NewJob]],
        terms: Terms,
        verbose: bool,
    ) -> Call<'static> {
        let (map, remember) = self.sent(number);
        let mut args = Vec::with_capacity(4 + entries.len() * 5);
        args.extend(remember);
        args.extend([int(terms.max_queue_len), self.cap(verbose)]);
        for jobs in entries {
            args.extend(entry(jobs));
            if verbose {
                args.extend(told(jobs));
            }
        }
        let k = self.keys();
        let keys = [&k.stream, &k.unique, &k.events, &map, &k.lingering];
        scripts::ADD.with(&keys, args)
    }

    async fn send(&self, part: Part, terms: Terms) -> Sent {
        let Part { number, call, sizes, is_examined } = part;
        let jobs = sizes.iter().sum();
        let new = self.deliver(&call, &terms.assurance).await.and_then(|reply| {
            if !is_examined {
                return Ok(vec![true; jobs]);
            }
            let new = accepted(&reply, sizes.len(), terms.max_queue_len)?;
            Ok(sizes.iter().zip(new).flat_map(|(jobs, new)| iter::repeat_n(new, *jobs)).collect())
        });
        Sent { call: number, jobs, new }
    }

    /// Stores delayed jobs, until a call fails.
    async fn schedule_all(&self, jobs: &[(NewJob, Due)], terms: Terms) -> Vec<Sent> {
        let mut sent = Vec::new();
        for chunk in jobs.chunks(CHUNK) {
            let call = self.sendings.number();
            let (map, remember) = self.sent(call);
            let mut args = Vec::with_capacity(5 + chunk.len() * 6);
            args.extend(remember);
            args.extend([bytes(&self.keys.wake), int(terms.max_queue_len), self.cap(true)]);
            for (job, due) in chunk {
                let (kind, ms) = match due {
                    Due::In(ms) => ("in", *ms),
                    Due::At(ms) => ("at", *ms),
                };
                args.extend([(&*job.id).into(), flag(job.unique), kind.into(), int(ms)]);
                args.extend([bytes(&job.record), job.name.as_str().into()]);
            }
            let k = &self.keys;
            let keys = [&k.delayed, &k.jobs, &k.unique, &k.events, &map];
            let reply = self.deliver(&scripts::SCHEDULE.with(&keys, args), &terms.assurance).await;
            let new = reply.and_then(|reply| accepted(&reply, chunk.len(), terms.max_queue_len));
            let failed = new.is_err();
            sent.push(Sent { call, jobs: chunk.len(), new });
            if failed {
                break;
            }
        }
        sent
    }
}

/// Of a bulk that takes several scripts: jobs a script, and scripts on their way at once.
fn stride(jobs: usize, terms: Terms) -> (usize, usize) {
    let pack = terms.pack.max(1);
    // Where the queue is bounded, none of a later script may get the room that an earlier lacked.
    let is_bounded = terms.max_queue_len > 0;
    let entries = if is_bounded || jobs <= CHUNK * pack { CHUNK } else { PART };
    (entries * pack, if is_bounded { 1 } else { SENT_AHEAD })
}

/// Jobs by the entry that they share. One whose id was chosen has an entry of its own: whether it is
/// new is decided for it alone.
fn entries(jobs: &[NewJob], pack: usize, verbose: bool) -> impl Iterator<Item = &[NewJob]> {
    let shares = move |job: &NewJob| {
        let fits = !verbose || is_line(job.id.as_bytes()) && is_line(job.name.as_bytes());
        !job.unique && fits
    };
    let mut rest = jobs;
    iter::from_fn(move || {
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

/// The id that is to be held unique, and the value.
fn entry(jobs: &[NewJob]) -> [Arg; 2] {
    let id = match jobs {
        [job] if job.unique => &job.id,
        _ => "",
    };
    [id.into(), value(jobs)]
}

fn value(jobs: &[NewJob]) -> Arg {
    match jobs {
        [job] => bytes(&job.record),
        several => {
            let mut value =
                BytesMut::with_capacity(several.iter().map(|job| job.record.len()).sum());
            for job in several {
                value.extend_from_slice(&job.record);
            }
            bytes(&value.freeze())
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

/// Reads the reply of add and schedule: {1, new…}, {1} for what was carried out before, or {0, held}.
fn accepted(reply: &Reply, count: usize, max: u64) -> Result<Vec<bool>> {
    match reply.items() {
        [ok] if ok.int() == 1 => return Ok(vec![true; count]),
        [ok, ..] if ok.int() == 1 => return Ok(flags(reply).collect()),
        _ => {}
    }
    let items = reply.items();
    let held = items.get(1).map_or(0, Reply::int);
    Err(Error::new(
        ErrorKind::QueueFull,
        format!(
            "the queue holds {held} entries of at most {max}: nothing was added; add again later"
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
