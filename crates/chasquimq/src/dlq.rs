//! The dead-letter queue: look at dead jobs, send them back, delete them.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::job::JobId;
use crate::metrics::DlqReason;
use crate::producer::Producer;
use crate::store::wire::{self, Item};
use crate::store::{DeadEntry, NewJob, Replay, Search, Store};

/// Fields of a dead job.
const JOB_ID: &str = "id";
const REASON: &str = "reason";

/// A dead job.
#[derive(Clone, Debug)]
pub struct DlqEntry {
    /// Its id in the dead-letter queue.
    pub dlq_id: String,
    /// The stream entry it came from.
    pub source_id: String,
    /// The job's id; empty when its record could not be read.
    pub job_id: JobId,
    /// The job's name; empty when it has none.
    pub name: String,
    /// Why it died: see [`DlqReason::as_str`](crate::DlqReason::as_str).
    pub reason: String,
    /// The last error, or what was wrong with the entry: at most 8 KiB, a space for each control
    /// character but line ends and tabs.
    pub detail: Option<String>,
    /// The run that gave up; 0 when no handler ran on the last delivery.
    pub attempt: u32,
    /// Deliveries whose worker died.
    pub lost: u32,
    /// When it died, in milliseconds since the epoch, by the server's clock.
    pub failed_at_ms: u64,
    /// The payload's msgpack, or the raw value when the record could not be read.
    pub payload: Bytes,
}

/// The dead jobs of a queue, or those that are asked for: `producer.dlq().with_name("send")`. Several
/// values of one kind are alternatives, and values of several kinds must all fit.
#[derive(Clone)]
#[must_use]
pub struct Dlq<'p> {
    store: &'p Store,
    conditions: Vec<(&'static str, String)>,
}

impl<T> Producer<T> {
    /// All dead jobs, to choose from.
    pub fn dlq(&self) -> Dlq<'_> {
        Dlq { store: &self.inner.store, conditions: vec![] }
    }

    /// The oldest dead jobs: [`Dlq::peek`].
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn peek_dlq(&self, limit: usize) -> Result<Vec<DlqEntry>> {
        self.dlq().peek(limit).await
    }

    /// Sends the oldest dead jobs back: [`Dlq::replay`].
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn replay_dlq(&self, limit: usize) -> Result<usize> {
        self.dlq().replay(limit).await
    }

    /// Deletes the oldest dead jobs: [`Dlq::purge`].
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn purge_dlq(&self, limit: usize) -> Result<usize> {
        self.dlq().purge(limit).await
    }
}

impl Dlq<'_> {
    /// Those of this id. None has an empty one: a record that cannot be read is found by its reason.
    pub fn with_job_id(self, job_id: impl Into<String>) -> Self {
        self.with(JOB_ID, job_id)
    }

    /// Those of this name.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        self.with("n", name)
    }

    /// Those that died for this reason: one of [`DlqReason::NAMES`].
    pub fn with_reason(self, reason: impl Into<String>) -> Self {
        self.with(REASON, reason)
    }

    /// The oldest, at most `limit`. They stay dead.
    ///
    /// # Errors
    /// `Config` for an empty id or an unknown reason, and those of the connection and the server.
    pub async fn peek(&self, limit: usize) -> Result<Vec<DlqEntry>> {
        let (mut search, mut found) = (self.search()?, vec![]);
        while found.len() < limit && !search.is_over() {
            let page = self.store.dead(&mut search, limit - found.len()).await?;
            found.extend(page.into_iter().map(DlqEntry::read));
        }
        Ok(found)
    }

    /// Sends the oldest back to the queue with fresh attempts, at most `limit`; how many went. Those
    /// that cannot be read are passed over and stay, and so do those with a chosen id that a live job
    /// has, and those that die meanwhile.
    ///
    /// # Errors
    /// As [`Dlq::peek`]; the error says how many went before it.
    pub async fn replay(&self, limit: usize) -> Result<usize> {
        let (mut search, mut replayed) = (self.search()?, 0);
        while replayed < limit && !search.is_over() {
            let one_page = self.replay_page(&mut search, limit - replayed).await;
            replayed += one_page.map_err(|error| after(replayed, "sent back", error))?;
        }
        Ok(replayed)
    }

    /// Deletes the oldest for good, at most `limit`, those that cannot be read included; how many
    /// went. Those that die meanwhile stay.
    ///
    /// # Errors
    /// As [`Dlq::peek`]; the error says how many went before it.
    pub async fn purge(&self, limit: usize) -> Result<usize> {
        let (mut search, mut purged) = (self.search()?, 0);
        while purged < limit && !search.is_over() {
            let one_page = self.store.purge(&mut search, limit - purged).await;
            purged += one_page.map_err(|error| after(purged, "deleted", error))?;
        }
        Ok(purged)
    }

    fn with(mut self, field: &'static str, value: impl Into<String>) -> Self {
        self.conditions.push((field, value.into()));
        self
    }

    fn search(&self) -> Result<Search> {
        for (field, value) in &self.conditions {
            match *field {
                JOB_ID if value.is_empty() => return Err(Error::config("job_id is empty")),
                REASON if !DlqReason::NAMES.contains(&value.as_str()) => {
                    let known = DlqReason::NAMES.join(", ");
                    let refusal = format!("reason is {value:?}; it must be one of: {known}");
                    return Err(Error::config(refusal));
                }
                _ => {}
            }
        }
        Ok(Search::new(self.conditions.clone()))
    }

    /// How many of the next page went.
    async fn replay_page(&self, search: &mut Search, limit: usize) -> Result<usize> {
        let page = self.store.dead(search, usize::MAX).await?;
        let (mut jobs, mut replayed) = (page.iter().filter_map(resurrect), 0);
        loop {
            // Some of them may have to stay.
            let batch: Vec<Replay> = jobs.by_ref().take(limit - replayed).collect();
            if batch.is_empty() {
                return Ok(replayed);
            }
            let moved = self.store.replay(&batch).await?;
            replayed += moved.into_iter().filter(|moved| *moved).count();
        }
    }
}

/// What stopped it, and how far it had come.
fn after(count: usize, done: &str, error: Error) -> Error {
    if count == 0 { error } else { error.context(format_args!("{count} dead jobs were {done}")) }
}

impl DlqEntry {
    pub(crate) fn read(entry: DeadEntry) -> Self {
        let text = |name: &str| {
            let bytes = field(&entry, name).map_or(&[][..], |value| value);
            String::from_utf8_lossy(bytes).into_owned()
        };
        let item = item(&entry);
        let raw = field(&entry, "j").cloned().unwrap_or_default();
        Self {
            source_id: text("source_id"),
            job_id: text(JOB_ID),
            name: text("n"),
            reason: text(REASON),
            detail: Some(text("error")).filter(|detail| !detail.is_empty()),
            attempt: text("attempt").parse().unwrap_or(0),
            lost: text("lost").parse().unwrap_or(0),
            failed_at_ms: text("failed_at_ms").parse().unwrap_or(0),
            payload: item.map_or(raw, |item| item.record.payload),
            dlq_id: entry.dlq_id,
        }
    }
}

/// The first field of this name: the queue's own stand before those of a foreign entry.
fn field<'a>(entry: &'a DeadEntry, name: &str) -> Option<&'a Bytes> {
    entry.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
}

fn item(entry: &DeadEntry) -> Option<Item> {
    let mut items = wire::decode_all(field(entry, "j")?).ok()?;
    if items.len() == 1 { items.pop() } else { None }
}

pub(crate) fn resurrect(entry: &DeadEntry) -> Option<Replay> {
    let Item { record: old, raw, .. } = item(entry)?;
    let fresh = wire::with_counts(&raw, 0, 0).ok()?;
    let name = String::from_utf8_lossy(&old.name).into_owned();
    let job = NewJob { id: old.id, name, unique: old.unique, record: fresh.into() };
    Some(Replay { dlq_id: entry.dlq_id.clone(), job })
}
