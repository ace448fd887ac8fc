//! Calls that add jobs, carried out once however often they are sent.
//!
//! A lost reply says nothing of whether its command was carried out, and a command on its way over a
//! dead connection may still arrive after it was sent again over another. So each call has a number,
//! which the server notes in the same script that adds: whichever sending comes first is carried
//! out, the others change nothing, also when the jobs have been done meanwhile.
//!
//! When no sending was answered in time the jobs stay in doubt. The store knows for minutes which
//! call each of them went with: when one of these ids is added again, that call is withdrawn first,
//! which tells whether it was carried out and sees to it that otherwise it never will be. Once that
//! has been told, an id that was chosen is free for another job when this one has ended: the server
//! knows of it while it lives. Of one that was not, the store alone knows.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::transport::{Arg, Assurance, Call, Line, Reply, int, is_unknown_command};
use super::{CHUNK, NewJob, Store, flags, scripts};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobId;

/// How long the server remembers a call after the last one of its bitmap, beside the time that one
/// may take. A packet that is late by more than this has long been given up by TCP.
const REMEMBERED: Duration = Duration::from_mins(5);
/// Calls a bitmap: 2 KiB.
const CALLS_A_MAP: u64 = 8192;
/// Ids in doubt that are remembered at most.
const MOST_DOUBTS: usize = 1 << 18;
/// The first and the longest pause before a call is sent again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// The number of a call, by which the server knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Number(u64);

/// Numbers the calls of one store, and remembers those that remained in doubt.
pub(super) struct Sendings {
    /// No other store's, in this process or another.
    session: String,
    next: AtomicU64,
    is_in_doubt: AtomicBool,
    doubts: Mutex<Doubts>,
    /// The connection whose writes are waited for.
    line: tokio::sync::Mutex<Option<Arc<Line>>>,
    /// Whether WAITAOF has been found to work.
    has_aof: AtomicBool,
}

#[derive(Default)]
struct Doubts {
    calls: HashMap<Arc<str>, Doubt>,
    oldest: VecDeque<(Arc<str>, Instant)>,
}

struct Doubt {
    call: Number,
    since: Instant,
    /// Whether the id was chosen, so that the server keeps it from being added twice.
    is_chosen: bool,
}

impl Default for Sendings {
    fn default() -> Self {
        // A forked process may repeat its parent's random numbers, but not its id.
        let session = format!("{:x}-{:016x}", std::process::id(), rand::random::<u64>());
        Self {
            session,
            next: AtomicU64::new(0),
            is_in_doubt: AtomicBool::new(false),
            doubts: Mutex::default(),
            line: tokio::sync::Mutex::default(),
            has_aof: AtomicBool::new(false),
        }
    }
}

impl Sendings {
    /// A number that no other call has.
    pub fn number(&self) -> Number {
        Number(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether it is unknown of any jobs whether they were added.
    pub fn is_in_doubt(&self) -> bool {
        self.is_in_doubt.load(Ordering::Acquire)
    }

    /// The next call has this number, and those after it the following ones.
    #[cfg(test)]
    pub fn next_is(&self, number: u64) {
        self.next.store(number, Ordering::Relaxed);
    }

    /// Jobs of which nobody knows whether the call that they went with was carried out.
    pub fn doubt<'j>(&self, jobs: impl Iterator<Item = (&'j NewJob, Number)>) {
        let since = Instant::now();
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, call) in jobs {
            if doubts.oldest.len() == MOST_DOUBTS {
                doubts.forget_oldest();
            }
            let doubt = Doubt { call, since, is_chosen: job.unique };
            doubts.calls.insert(Arc::clone(&job.id), doubt);
            doubts.oldest.push_back((Arc::clone(&job.id), since));
        }
        self.is_in_doubt.store(true, Ordering::Release);
    }

    /// These jobs have been told to be added. Those whose ids were chosen are in doubt no longer.
    pub fn resolve<'i>(&self, ids: impl Iterator<Item = &'i JobId>) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            if doubts.calls.get(id.as_str()).is_some_and(|doubt| doubt.is_chosen) {
                doubts.calls.remove(id.as_str());
            }
        }
    }

    /// The calls that jobs of these ids went with, where they are in doubt.
    fn calls<'i>(&self, ids: impl Iterator<Item = &'i str>) -> Vec<(JobId, Number)> {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        while doubts.oldest.front().is_some_and(|(_, since)| since.elapsed() > REMEMBERED) {
            doubts.forget_oldest();
        }
        self.is_in_doubt.store(!doubts.oldest.is_empty(), Ordering::Release);
        let found =
            ids.filter_map(|id| doubts.calls.get(id).map(|doubt| (id.to_owned(), doubt.call)));
        found.collect()
    }
}

impl Doubts {
    fn forget_oldest(&mut self) {
        let Some((id, since)) = self.oldest.pop_front() else { return };
        if self.calls.get(&id).is_some_and(|doubt| doubt.since == since) {
            self.calls.remove(&id);
        }
    }
}

impl Store {
    /// The bitmap that a call has its bits in, its first bit, and how long to remember it.
    pub(super) fn sent(&self, call: Number) -> (Bytes, [Arg; 2]) {
        let Number(number) = call;
        let key = self.keys.sent(&self.sendings.session, number / CALLS_A_MAP);
        (key, [int(number % CALLS_A_MAP * 2), self.remember_ms()])
    }

    fn remember_ms(&self) -> Arg {
        int((REMEMBERED + 2 * self.link.deadline()).as_millis() as u64)
    }

    /// Sends a call until it is answered, for as long as one command may take. An error is of the kind
    /// `Unknown` when it may have been carried out.
    ///
    /// With an assurance it also waits until the jobs are where they shall be; the kind is `Unknown`,
    /// too, when that fell short.
    pub(super) async fn deliver(&self, call: &Call<'_>, assurance: &Assurance) -> Result<Reply> {
        let within = self.link.deadline();
        let until = Instant::now() + within;
        let (mut pause, mut in_doubt) = (PAUSES.0, false);
        loop {
            // A connection that fell silent must leave time for another.
            let attempt = (Instant::now() + within * 3 / 5).min(until);
            let begun = self.clock();
            let reply = if assurance.is_none() {
                self.link.run_until(call, attempt).await
            } else {
                self.assured(call, assurance, attempt).await
            };
            self.timed(call.script.name, begun);
            let Err(error) = reply else { return reply };
            in_doubt |= error.kind().is_outcome_unknown();
            let ends = Instant::now() + pause >= until || error.kind() == ErrorKind::Unknown;
            if ends || !in_doubt || !error.kind().is_transient() {
                return Err(if in_doubt { unknown(error) } else { error });
            }
            tracing::debug!(%error, verb = call.script.name, "no reply: sending it again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Sends a call over the connection whose writes are waited for, and waits.
    async fn assured(
        &self,
        call: &Call<'_>,
        assurance: &Assurance,
        until: Instant,
    ) -> Result<Reply> {
        let line = timeout_at(until, self.line()).await;
        let late = |_| Err(Error::new(ErrorKind::Unavailable, "no connection in time"));
        let line = line.unwrap_or_else(late)?;
        let sent = async {
            let reply = line.run(call, until).await?;
            let stored = line.assure(assurance, until + assurance.within).await;
            // The jobs are added, whatever is wrong with waiting; what another connection or server
            // may mend is a reason to send the call again.
            stored.map(|()| reply).map_err(|error| match error.kind() {
                kind if kind.is_outcome_unknown() => error,
                ErrorKind::Unavailable => error.of_kind(ErrorKind::Connection),
                _ => error.of_kind(ErrorKind::Unknown),
            })
        };
        let sent = sent.await;
        if sent.as_ref().is_err_and(|error| error.kind() != ErrorKind::Unknown) {
            let mut current = self.sendings.line.lock().await;
            current.take_if(|current| Arc::ptr_eq(current, &line));
        }
        sent
    }

    async fn line(&self) -> Result<Arc<Line>> {
        let mut current = self.sendings.line.lock().await;
        if let Some(line) = &*current {
            return Ok(Arc::clone(line));
        }
        let line = Arc::new(self.link.line().await?);
        *current = Some(Arc::clone(&line));
        Ok(line)
    }

    /// Refuses an assurance that this server cannot give.
    pub(crate) async fn check(&self, assurance: &Assurance) -> Result<()> {
        if !assurance.disk || self.sendings.has_aof.load(Ordering::Relaxed) {
            return Ok(());
        }
        let asked = self.call("waitaof", "WAITAOF", vec![int(1), int(0), int(1)]).await;
        let Err(error) = asked else {
            self.sendings.has_aof.store(true, Ordering::Relaxed);
            return Ok(());
        };
        Err(if is_unknown_command(&error) {
            let server = self.server();
            let why = format!(
                "durability \"aof\" needs WAITAOF, which {server} does not know: use Redis \
                 or Valkey 7.2 or later, or durability \"replica\""
            );
            Error::new(ErrorKind::Unsupported, why).with_source(error)
        } else if error.to_string().contains("appendonly") {
            let why =
                "durability \"aof\" needs an append-only file: set appendonly yes on the server";
            Error::config(why).with_source(error)
        } else {
            error
        })
    }

    /// Of jobs that are added again, those that had been added: their calls, whose replies were lost,
    /// were carried out. The other calls are withdrawn.
    pub(super) async fn added_before<'i>(
        &self,
        ids: impl Iterator<Item = &'i str>,
        assurance: &Assurance,
    ) -> Result<HashSet<JobId>> {
        let doubted = self.sendings.calls(ids);
        let calls: Vec<_> =
            doubted.iter().map(|(_, call)| *call).collect::<HashSet<_>>().into_iter().collect();
        let mut added = HashSet::new();
        for calls in calls.chunks(CHUNK) {
            let (mut keys, mut args) = (Vec::new(), vec![self.remember_ms()]);
            for call in calls {
                let (key, [bit, _]) = self.sent(*call);
                keys.push(key);
                args.push(bit);
            }
            let keys: Vec<_> = keys.iter().collect();
            let reply = self.deliver(&scripts::WITHDRAW.with(&keys, args), assurance).await?;
            added.extend(
                calls.iter().zip(flags(&reply)).filter_map(|(call, added)| added.then_some(*call)),
            );
        }
        let ids = doubted.into_iter().filter(|(_, call)| added.contains(call));
        Ok(ids.map(|(id, _)| id).collect())
    }
}

fn unknown(error: Error) -> Error {
    let why = format!(
        "no word of whether it was stored as asked ({error}); adding again under the same id, \
         with the same producer and within 5 minutes, is safe"
    );
    Error::new(ErrorKind::Unknown, why).with_source(error)
}
