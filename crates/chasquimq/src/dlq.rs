//! The dead-letter queue: look at dead jobs, send them back, delete them.

use bytes::Bytes;

use crate::error::Result;
use crate::job::JobId;
use crate::producer::Producer;
use crate::store::wire::{self, Item};
use crate::store::{DeadEntry, NewJob, Replay};

/// How many dead jobs are looked at in one round trip.
const PAGE: usize = 500;
/// How many dead jobs one script deletes: other commands wait meanwhile.
const PURGED_AT_ONCE: usize = 100;

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

impl<T> Producer<T> {
    /// The oldest dead jobs, at most `limit`. They stay dead.
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn peek_dlq(&self, limit: usize) -> Result<Vec<DlqEntry>> {
        let dead = self.inner.store.dead(None, limit).await?;
        Ok(dead.into_iter().map(DlqEntry::read).collect())
    }

    /// Sends the oldest dead jobs back to the queue with fresh attempts, at most `limit`; how many
    /// went. Those that cannot be read are passed over and stay, and so do those with a chosen id that a
    /// live job has.
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn replay_dlq(&self, limit: usize) -> Result<usize> {
        // Those that die again meanwhile come last, and are left for the next time.
        let mut unseen = self.inner.store.dead_count().await?;
        let (mut replayed, mut after) = (0, None);
        while replayed < limit && unseen > 0 {
            let count = PAGE.min(limit - replayed).min(unseen);
            let page = self.inner.store.dead(after.as_deref(), count).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.dlq_id.clone());
            unseen = unseen.saturating_sub(page.len());
            let jobs: Vec<Replay> = page.iter().filter_map(resurrect).collect();
            let moved = self.inner.store.replay(&jobs).await?;
            replayed += moved.into_iter().filter(|moved| *moved).count();
        }
        Ok(replayed)
    }

    /// Deletes the oldest dead jobs for good, at most `limit`, those that cannot be read included; how
    /// many went.
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn purge_dlq(&self, limit: usize) -> Result<usize> {
        let mut purged = 0;
        while purged < limit {
            let most = PURGED_AT_ONCE.min(limit - purged);
            let gone = self.inner.store.purge(most).await?;
            purged += gone;
            if gone < most {
                break;
            }
        }
        Ok(purged)
    }
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
            job_id: text("id"),
            name: text("n"),
            reason: text("reason"),
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
