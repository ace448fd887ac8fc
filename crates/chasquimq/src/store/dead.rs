//! Dead jobs: looked through from the oldest on, a page at a time.

use bytes::Bytes;

use super::replies::{self, Page};
use super::transport::{Arg, Reply, bytes, int};
use super::{CHUNK, NewJob, Store, flag, flags, scripts, unexpected};
use crate::error::Result;

/// Dead jobs that one script looks at: other commands wait meanwhile.
const PAGE: usize = 100;

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

/// Which dead jobs are looked for, and where the look has come to.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// Each a field and a value it may have; one value of each field that is named must fit.
    conditions: Vec<(&'static str, String)>,
    from: Bytes,
    unseen: usize,
}

impl Search {
    /// Among the `count` oldest.
    pub fn new(conditions: Vec<(&'static str, String)>, count: usize) -> Self {
        Self { conditions, from: Bytes::from_static(b"-"), unseen: count }
    }

    /// Among all there are.
    #[cfg(test)]
    pub fn all() -> Self {
        Self::new(vec![], usize::MAX)
    }

    pub fn is_over(&self) -> bool {
        self.unseen == 0
    }

    /// Where to begin, and how many to look at and to choose.
    fn bounds(&self, most: usize) -> [Arg; 3] {
        [bytes(&self.from), int(PAGE.min(self.unseen) as u64), int(PAGE.min(most) as u64)]
    }

    fn conditions(&self) -> impl Iterator<Item = Arg> {
        self.conditions.iter().flat_map(|(field, value)| [(*field).into(), value.as_str().into()])
    }

    fn saw(&mut self, page: &Page) {
        self.from = page.from.clone();
        self.unseen = if page.looked == 0 { 0 } else { self.unseen.saturating_sub(page.looked) };
    }
}

impl Store {
    /// The next dead jobs that fit, at most `most`; none does not mean that the search is over.
    pub async fn dead(&self, search: &mut Search, most: usize) -> Result<Vec<DeadEntry>> {
        let args = search.bounds(most).into_iter().chain(search.conditions()).collect();
        let reply = self.run(&scripts::DEAD, &[&self.keys.dlq], args).await?;
        let page = replies::page(&reply).ok_or_else(|| unexpected("dead"))?;
        search.saw(&page);
        Ok(replies::dead(page.rest))
    }

    /// How many jobs are dead.
    pub async fn dead_count(&self) -> Result<usize> {
        let reply = self.call("dead", "XLEN", vec![bytes(&self.keys.dlq)]).await?;
        Ok(usize::try_from(reply.int()).unwrap_or(0))
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
        let page = replies::page(&reply).ok_or_else(|| unexpected("purge"))?;
        search.saw(&page);
        let purged = page.rest.first().map_or(0, Reply::int);
        Ok(usize::try_from(purged).unwrap_or(0))
    }
}
