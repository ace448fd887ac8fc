//! The only door to Redis: verbs, not commands.
//!
//! A [`Store`] speaks for one queue over one shared connection; a [`Intake`] is the connection of
//! its own that a reader blocks on. Each verb but those that wait is timed for the metrics.

mod adding;
mod dead;
mod exam;
pub(crate) mod feed;
mod finish;
mod hello;
mod intake;
pub(crate) mod keys;
pub(crate) mod moves;
pub(crate) mod packing;
pub(crate) mod replies;
pub(crate) mod scripts;
mod sending;
pub(crate) mod transport;
pub(crate) mod wire;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

pub(crate) use adding::Terms;
pub(crate) use dead::{DeadEntry, Replay, Search};
pub(crate) use exam::{Denied, Exam};
pub(crate) use hello::Hello;
pub(crate) use intake::Intake;
pub use keys::Keys;
pub(crate) use moves::{Burial, Completed, Completion, Release, Released, Retry, Stored};
pub(crate) use packing::Active;
use sending::Sendings;
pub(crate) use transport::Assurance;
pub use transport::redact;
use transport::{Arg, Link, Reply, Script, bytes, int};
pub(crate) use transport::{Messages, Reconnects};

use crate::config::{ConnectionTuning, EventsConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Guarded, QueueCounts};
use crate::version::ServerVersion;

/// The most a script is given at once, so that it does not hold up the server.
const CHUNK: usize = 500;

/// One queue on one server.
pub(crate) struct Store {
    link: Link,
    keys: Keys,
    server: ServerVersion,
    events: EventsConfig,
    metrics: Option<Arc<Guarded>>,
    sendings: Sendings,
    url: String,
    tuning: ConnectionTuning,
}

/// A job to be added: its encoded record, and what the store must know of it.
#[derive(Clone, Debug)]
pub(crate) struct NewJob {
    pub id: Arc<str>,
    pub name: String,
    pub unique: bool,
    pub record: Bytes,
}

/// When a delayed job is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// So many milliseconds from now, by the server's clock.
    In(u64),
    /// At this time, in milliseconds since the epoch.
    At(u64),
}

/// An entry as it was delivered.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub id: Bytes,
    /// Field, value, field, value, …
    pub fields: SmallVec<[Bytes; 2]>,
    /// Deliveries, this one included.
    pub deliveries: u32,
    /// One character a job, `1` = settled; empty when none is.
    pub settled: Bytes,
}

/// What a look for abandoned entries found.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    pub entries: Vec<Entry>,
    pub cursor: Bytes,
    pub ghosts: u64,
}

/// What a promoter tick did.
#[derive(Debug)]
pub(crate) enum Tick {
    /// Another promoter leads.
    Held { lock_left: Duration },
    /// This promoter leads.
    Led { promoted: u64, depth: u64, lag_ms: u64, next_due: Option<Duration>, fault: Option<Error> },
}

impl Store {
    /// Connects, and refuses a server that is too old. Metrics are told how long each verb took.
    pub async fn connect(
        url: &str,
        queue: &str,
        tuning: &ConnectionTuning,
        events: &EventsConfig,
        metrics: Option<Arc<Guarded>>,
    ) -> Result<Self> {
        let keys = Keys::new(queue)?;
        let link = Link::connect(url, &keys.stream, tuning, Duration::ZERO).await?;
        let server = Hello::ask(&link).await.and_then(Hello::served);
        let server =
            server.map_err(|error| error.context(format_args!("looking at {}", redact(url))))?;
        tracing::debug!(server = server.server, version = server.version, "connected");
        let (url, tuning, events) = (url.to_owned(), tuning.clone(), events.clone());
        let metrics = metrics.filter(|metrics| metrics.is_heard());
        let sendings = Sendings::default();
        Ok(Self { link, keys, server, events, metrics, sendings, url, tuning })
    }

    /// Which server it is.
    pub fn server(&self) -> &ServerVersion {
        &self.server
    }

    /// The queue's keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Warns of a server that may throw the queue away when memory runs short.
    pub async fn warn_of_eviction(&self) {
        let Ok(info) = self.call("info", "INFO", vec!["memory".into()]).await else { return };
        let text = info.text();
        let policy = text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        if let Some(policy) = policy.filter(|policy| policy.starts_with("allkeys")) {
            tracing::warn!(
                policy,
                "the server may evict the queue when memory runs short: set maxmemory-policy noeviction"
            );
        }
    }

    /// Removes delayed and retrying jobs; per id whether there was one.
    pub async fn cancel(&self, ids: &[String]) -> Result<Vec<bool>> {
        let mut cancelled = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let mut args = vec![self.cap(true)];
            args.extend(chunk.iter().map(|id| Arg::from(id.as_str())));
            let k = &self.keys;
            let keys = [&k.delayed, &k.jobs, &k.unique, &k.events, &k.retrying];
            let reply = self.run(&scripts::CANCEL, &keys, args).await?;
            cancelled.extend(flags(&reply));
        }
        Ok(cancelled)
    }

    /// Makes the consumer group where it is missing; refuses a queue that another group consumes.
    pub async fn enter(&self, group: &str) -> Result<bool> {
        let keys = [&self.keys.stream, &self.keys.lingering];
        let reply = self.run(&scripts::ENTER, &keys, vec![group.into()]).await?;
        if let Some(other) = reply.items().get(1) {
            return Err(Error::config(format!(
                "the queue is consumed by group {:?} already; a job is deleted when it is done, so a \
                 second group {group:?} would miss jobs: use one group a queue",
                other.text()
            )));
        }
        Ok(reply.items().first().is_some_and(|made| made.int() == 1))
    }

    /// Removes a consumer that holds nothing.
    pub async fn leave(&self, group: &str, consumer: &str) -> Result<bool> {
        let args = vec![group.into(), consumer.into()];
        Ok(self.run(&scripts::LEAVE, &[&self.keys.stream], args).await?.int() == 1)
    }

    /// Opens the connection a reader blocks on.
    pub async fn intake(&self, longest_wait: Duration) -> Result<Intake> {
        let link = Link::connect(&self.url, &self.keys.stream, &self.tuning, longest_wait).await?;
        Ok(Intake { link, stream: self.keys.stream.clone() })
    }

    /// Ends the wait of a reader that has nothing to read.
    pub async fn wake(&self, intake: &Intake) {
        self.link.unblock(&intake.link).await;
    }

    /// Takes over entries whose holder has been silent for `lease`.
    pub async fn claim(
        &self,
        group: &str,
        consumer: &str,
        lease: Duration,
        count: usize,
        cursor: &Bytes,
    ) -> Result<Claimed> {
        let args = vec![
            group.into(),
            consumer.into(),
            int(lease.as_millis() as u64),
            int(count as u64),
            bytes(cursor),
        ];
        let reply =
            self.run(&scripts::CLAIM, &[&self.keys.stream, &self.keys.settled], args).await?;
        replies::claimed(&reply).ok_or_else(|| unexpected("claim"))
    }

    /// Entries that were delivered to this consumer within the last `longest_ms` and that it does not
    /// know of: the reply that brought them was lost.
    pub async fn missed(
        &self,
        group: &str,
        consumer: &str,
        longest_ms: u64,
        known: &[Bytes],
        most: usize,
    ) -> Result<Vec<Entry>> {
        let mut args = vec![group.into(), consumer.into(), int(longest_ms), int(most as u64)];
        args.extend(known.iter().map(bytes));
        let reply =
            self.run(&scripts::MISSED, &[&self.keys.stream, &self.keys.settled], args).await?;
        Ok(replies::taken(reply.items().get(1..).unwrap_or_default()))
    }

    /// Starts leases anew; per entry whether it was still this consumer's.
    pub async fn renew(&self, group: &str, consumer: &str, ids: &[Bytes]) -> Result<Vec<bool>> {
        let mut renewed = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let mut args = vec![group.into(), consumer.into()];
            args.extend(chunk.iter().map(bytes));
            let reply = self.run(&scripts::RENEW, &[&self.keys.stream], args).await?;
            renewed.extend(flags(&reply));
        }
        Ok(renewed)
    }

    /// Takes or renews the lead and moves due jobs to the stream.
    pub async fn promote(&self, holder: &str, lock_ttl: Duration, count: usize) -> Result<Tick> {
        let args = vec![
            holder.into(),
            int(lock_ttl.as_millis() as u64),
            int(count as u64),
            self.cap(self.events.verbose),
        ];
        let k = &self.keys;
        let keys = [&k.promoter, &k.delayed, &k.jobs, &k.stream, &k.events, &k.retrying];
        let reply = self.run(&scripts::PROMOTE, &keys, args).await?;
        replies::tick(&reply).ok_or_else(|| unexpected("promote"))
    }

    /// Gives up the lead.
    pub async fn unlock(&self, holder: &str) -> Result<()> {
        self.run(&scripts::UNLOCK, &[&self.keys.promoter], vec![holder.into()]).await.map(drop)
    }

    /// Listens for jobs that are due earlier than any before.
    pub async fn wakes(&self) -> Result<Messages> {
        self.link.subscribe(&self.keys.wake).await
    }

    /// Tells of reconnects, after which subscriptions are gone.
    pub fn reconnects(&self) -> Reconnects {
        self.link.reconnects()
    }

    /// Removes at most so many consumers that hold nothing and have been silent for so long.
    pub async fn forget_consumers(&self, silence: Duration, most: usize) -> Result<u64> {
        let args = vec![int(silence.as_millis() as u64), int(most as u64)];
        let reply = self.run(&scripts::JANITOR, &[&self.keys.stream], args).await?;
        Ok(reply.int().max(0) as u64)
    }

    /// What the queue holds.
    pub async fn inspect(&self) -> Result<QueueCounts> {
        let k = &self.keys;
        let keys = [&k.stream, &k.delayed, &k.retrying, &k.dlq, &k.lingering];
        let reply = self.run(&scripts::INSPECT, &keys, vec![]).await?;
        replies::counts(&reply).ok_or_else(|| unexpected("inspect"))
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.link.close().await;
    }

    async fn run(&self, script: &Script, keys: &[&Bytes], args: Vec<Arg>) -> Result<Reply> {
        let begun = self.clock();
        let reply = self.link.run(script, keys, args).await;
        self.timed(script.name, begun);
        reply
    }

    async fn call(
        &self,
        verb: &'static str,
        command: &'static str,
        args: Vec<Arg>,
    ) -> Result<Reply> {
        let begun = self.clock();
        let reply = self.link.call(command, args).await;
        self.timed(verb, begun);
        reply
    }

    /// The time, if anybody wants to know how long a verb takes.
    fn clock(&self) -> Option<Instant> {
        self.metrics.as_ref().map(|_| Instant::now())
    }

    fn timed(&self, verb: &'static str, begun: Option<Instant>) {
        let (Some(metrics), Some(begun)) = (&self.metrics, begun) else { return };
        let took = begun.elapsed();
        metrics.tell(|sink| sink.store_command(verb, took));
    }

    /// Events to keep, as scripts want it: 0 publishes nothing.
    fn cap(&self, wanted: bool) -> Arg {
        int(if self.events.enabled && wanted { self.events.max_stream_len.max(1) } else { 0 })
    }
}

fn flag(on: bool) -> Arg {
    if on { "1".into() } else { "0".into() }
}

/// What follows the leading integer, as truth values.
fn flags(reply: &Reply) -> impl Iterator<Item = bool> + '_ {
    reply.items().iter().skip(1).map(|item| item.int() == 1)
}

fn unexpected(verb: &str) -> Error {
    Error::new(ErrorKind::Server, format!("the server answered {verb} in an unknown shape"))
}
