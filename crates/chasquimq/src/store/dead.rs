//! Dead jobs: looked through from the oldest on, a page at a time.

use bytes::Bytes;

use super::replies;
use super::transport::{Arg, Reply, bytes, int};
use super::{CHUNK, NewJob, Store, flag, flags, scripts, unexpected};
use crate::error::Result;

/// A dead job as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct DeadEntry {
    pub dlq_id: String,
    pub fields: Vec<(String, Bytes)>,
}

/// A dead job on its way back.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub dlq_id: String,
    pub job: NewJob,
}

/// Which dead jobs are looked for, and where the look has come to. Those that die after its first page
/// are not looked at.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// Each a field and a value it may have; one value of each field that is named must fit.
    conditions: Vec<(&'static str, String)>,
    from: Bytes,
    to: Bytes,
    is_over: bool,
}

impl Search {
    pub fn new(conditions: Vec<(&'static str, String)>) -> Self {
        Self { conditions, from: Bytes::from_static(b"-"), to: Bytes::new(), is_over: false }
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Where to look, and how many to choose.
    fn bounds(&self, most: usize) -> [Arg; 3] {
        [bytes(&self.from), bytes(&self.to), int(most.min(CHUNK) as u64)]
    }

    fn conditions(&self) -> impl Iterator<Item = Arg> {
        self.conditions.iter().flat_map(|(field, value)| [(*field).into(), value.as_str().into()])
    }

    /// Goes on behind the page; what was chosen of it.
    fn turn<'r>(&mut self, reply: &'r Reply) -> Result<&'r [Reply]> {
        let [more, from, to, chosen @ ..] = reply.items() else {
            return Err(unexpected("a search of dead jobs"));
        };
        (self.from, self.to, self.is_over) = (from.bytes(), to.bytes(), more.int() == 0);
        Ok(chosen)
    }
}

impl Store {
    /// The next dead jobs that fit, at most `most`; none does not mean that the search is over.
    pub async fn dead(&self, search: &mut Search, most: usize) -> Result<Vec<DeadEntry>> {
        let args = search.bounds(most).into_iter().chain(search.conditions()).collect();
        let reply = self.run(&scripts::DEAD, &[&self.keys.dlq], args).await?;
        Ok(replies::dead(search.turn(&reply)?))
    }

    /// Moves dead jobs back to the stream; per job whether it was moved.
    pub async fn replay(&self, jobs: &[Replay]) -> Result<Vec<bool>> {
        let mut replayed = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(CHUNK) {
            let mut args = vec![self.cap(true)];
            for Replay { dlq_id, job } in chunk {
                args.extend([dlq_id.as_str().into(), bytes(&job.record)]);
                args.extend([(&*job.id).into(), job.name.as_str().into(), flag(job.unique)]);
            }
            let k = &self.keys;
            let keys = [&k.dlq, &k.stream, &k.unique, &k.events];
            let reply = self.run(&scripts::REPLAY, &keys, args).await?;
            replayed.extend(flags(&reply));
        }
        Ok(replayed)
    }

    /// Deletes the next dead jobs that fit, at most `most`; how many went.
    pub async fn purge(&self, search: &mut Search, most: usize) -> Result<usize> {
        let mut args = search.bounds(most).to_vec();
        args.push(self.cap(true));
        args.extend(search.conditions());
        let reply = self.run(&scripts::PURGE, &[&self.keys.dlq, &self.keys.events], args).await?;
        let purged = search.turn(&reply)?.first().map_or(0, Reply::int);
        Ok(usize::try_from(purged).unwrap_or(0))
    }
}
