//! Events: what happened to jobs, told by the queue itself to whoever listens.
//!
//! Each script that changes a job writes the event in the same step (`active`: the reader, right
//! after), so nothing is told that was not stored, and nothing stored goes untold while the stream
//! can be written. The stream holds
//! plain strings, is bounded, and every listener reads all of it from a place of its own.
//!
//! | event | fields beside `e`, `id`, `n` (job name) |
//! |---|---|
//! | `waiting` (opt-in) | - |
//! | `delayed` | `delay_ms` |
//! | `promoted` (opt-in) | - |
//! | `active` (opt-in) | `attempt` (the run that begins) |
//! | `completed` | `attempt`, `duration_us` |
//! | `failed` | `attempt`, `duration_us`, `reason` (error text) |
//! | `retry-scheduled` | `attempt` (the run to come), `backoff_ms` |
//! | `dlq` | `attempt`, `reason` |
//! | `released` | - |
//! | `cancelled` | - |
//! | `replayed` | - |
//! | `purged` | - |
//!
//! Runs are numbered from 1; `attempt` 0 means that no handler ran.
//!
//! Where many jobs end at once, an entry of the stream holds several events of a kind
//! ([`EventsConfig::pack`](crate::EventsConfig::pack)): the field `k`, the last, says how many, and
//! every other but `e` holds a value of each, a line each. [`tail`] takes them apart.

mod unpack;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use crate::config::ConnectionTuning;
use crate::error::{Error, Result};
use crate::store::feed::Feed;
pub(crate) use unpack::unpack;

/// One event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Where it stands in the stream, the cursor to resume after it: `<ms since the epoch>-<number>`,
    /// with `:<place>` behind it when more events follow in the same entry.
    pub id: String,
    /// What happened: `completed`, `failed`, …
    pub name: String,
    /// The job it happened to; empty when its record could not be read.
    pub job_id: String,
    /// The job's name; empty when it has none.
    pub job_name: String,
    /// What else there is to say, in the order of the stream.
    pub fields: Vec<(String, String)>,
}

/// Where to begin.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum From {
    /// With the first event after this moment.
    #[default]
    Now,
    /// With the oldest that is kept.
    Beginning,
    /// After the event of this id.
    After(String),
}

/// How to tail.
#[derive(Clone, Debug)]
pub struct TailOptions {
    /// Where to begin. Default: now.
    pub from: From,
    /// Events asked for in one read, at most. Default 100.
    pub count: usize,
    /// How long one read waits. Default 5 s.
    pub block: Duration,
    /// Connection timeouts.
    pub connection: ConnectionTuning,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self {
            from: From::Now,
            count: 100,
            block: Duration::from_secs(5),
            connection: ConnectionTuning::default(),
        }
    }
}

/// What a tail brings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tailed {
    /// An event.
    Event(Event),
    /// The stream was cut, or made anew, past the place of this tail: events between `after` and
    /// the next one may be missing.
    Gap {
        /// The last event seen before.
        after: String,
    },
}

/// Follows the events of one queue, over reconnects and restarts of the server.
pub struct Tail {
    feed: Feed,
    options: TailOptions,
    /// The last entry read.
    read_to: String,
    /// The entry that the tail was to begin in the middle of, and how many of its events to pass over.
    within: Option<(String, usize)>,
    /// The last event handed out.
    cursor: String,
    /// `read_to` is an event that was there, not just a place.
    anchored: bool,
    ready: VecDeque<Tailed>,
}

/// Begins to follow the events of a queue.
///
/// # Errors
/// `Config` for a bad name or URL, and those of the connection.
pub async fn tail(url: &str, queue: &str, options: TailOptions) -> Result<Tail> {
    let feed = Feed::connect(url, queue, &options.connection, options.block).await?;
    let (cursor, anchored) = match &options.from {
        From::Now => (feed.newest().await?, false),
        From::Beginning => ("0-0".to_owned(), false),
        From::After(id) => (id.clone(), true),
    };
    let Cursor { entry, within } = Cursor::read(&cursor)?;
    let read_to = within.map_or_else(|| entry.to_string(), |_| entry.before());
    let within = within.map(|seen| (entry.to_string(), seen));
    let anchored = anchored && within.is_none();
    Ok(Tail { feed, options, read_to, within, cursor, anchored, ready: VecDeque::new() })
}

/// A place in the stream: behind an entry, or behind so many of its events.
pub(crate) struct Cursor {
    entry: EntryId,
    within: Option<usize>,
}

#[derive(Clone, Copy)]
struct EntryId(u64, u64);

impl Cursor {
    fn read(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| {
            let form = "`<milliseconds>-<number>`, perhaps with `:<place>` behind it";
            Error::config(format!("{text:?} is not an event id: one looks like {form}"))
        })
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (entry, within) = match text.split_once(':') {
            Some((entry, seen)) => (entry, Some(seen.parse().ok()?)),
            None => (text, None),
        };
        let (ms, number) = entry.split_once('-')?;
        Some(Self { entry: EntryId(ms.parse().ok()?, number.parse().ok()?), within })
    }
}

impl EntryId {
    /// The id right before this one.
    fn before(self) -> String {
        match self {
            Self(ms, 0) => Self(ms.saturating_sub(1), u64::MAX),
            Self(ms, number) => Self(ms, number - 1),
        }
        .to_string()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Tail {
    /// Waits for the next event. Faults of the connection and the server are waited out.
    ///
    /// # Errors
    /// Those that waiting does not mend: lack of rights, a key of another type.
    pub async fn next(&mut self) -> Result<Tailed> {
        let mut pause = Duration::from_millis(50);
        loop {
            if let Some(next) = self.ready.pop_front() {
                if let Tailed::Event(event) = &next {
                    self.cursor.clone_from(&event.id);
                }
                return Ok(next);
            }
            match self.fill().await {
                Ok(()) => pause = Duration::from_millis(50),
                Err(error) if error.kind().is_transient() => {
                    tracing::warn!(%error, "cannot read events; trying again in {pause:?}");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => return Err(error.context("reading events")),
            }
        }
    }

    /// Where to resume: the id of the last event that [`Tail::next`] gave.
    #[must_use]
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.feed.close().await;
    }

    async fn fill(&mut self) -> Result<()> {
        let TailOptions { count, block, .. } = self.options;
        let events = self.feed.read(&self.read_to, count, block).await?;
        let (Some((first, _)), Some((last, _))) = (events.first(), events.last()) else {
            return Ok(());
        };
        // Events leave the stream oldest first: where the place of this tail is still there after
        // the read, nothing between it and what was read had gone.
        let cut = match &self.within {
            Some((entry, _)) => entry != first,
            None => self.anchored && !self.feed.has(&self.read_to).await?,
        };
        let seen = self.within.take().map_or(0, |(_, seen)| if cut { 0 } else { seen });
        if cut {
            self.ready.push_back(Tailed::Gap { after: self.cursor.clone() });
        }
        self.anchored = true;
        self.read_to.clone_from(last);
        self.ready.extend(events.into_iter().flat_map(unpack).skip(seen).map(Tailed::Event));
        Ok(())
    }
}
