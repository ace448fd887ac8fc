//! A delivered job, from its delivery to its ending.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::held::{Entry, Hold};
use crate::lifecycle::{Outcome, Standing};
use crate::store::wire::Record;

/// The raw value of a delivery: a job, or an entry that is none.
#[derive(Debug)]
pub(crate) enum Content {
    Job { record: Record, raw: Bytes },
    Foreign { fields: Vec<Bytes> },
}

/// One delivered job. Dropped without an [`Ending`] it goes back to the queue, attempt unchanged.
#[derive(Debug)]
pub struct Delivery {
    pub(super) parts: Option<Box<Parts>>,
    pub(super) hold: Arc<Hold>,
}

/// What a delivery is made of; moves into its ending.
#[derive(Debug)]
pub(crate) struct Parts {
    pub entry: Arc<Entry>,
    pub index: usize,
    pub content: Content,
    pub name: Arc<str>,
    /// Deliveries whose worker died, this one's redeliveries included.
    pub lost: u32,
    /// When it was due, in ms since the epoch, server's clock; `None` when it was not delayed.
    pub due_ms: Option<u64>,
}

impl Parts {
    pub fn record(&self) -> Option<&Record> {
        match &self.content {
            Content::Job { record, .. } => Some(record),
            Content::Foreign { .. } => None,
        }
    }

    /// Bytes of its record.
    pub fn size(&self) -> usize {
        match &self.content {
            Content::Job { raw, .. } => raw.len(),
            Content::Foreign { fields } => fields.iter().map(Bytes::len).sum(),
        }
    }

    pub fn standing(&self) -> Standing<'_> {
        let record = self.record();
        Standing {
            attempt: record.map_or(0, |record| record.attempt),
            lost: self.lost,
            retry: record.and_then(|record| record.retry.as_deref()),
        }
    }
}

static NO_PAYLOAD: Bytes = Bytes::new();

impl Delivery {
    /// The job's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.record().map_or("", |record| &record.id)
    }

    /// The job's id, to be kept beyond the delivery without a copy.
    #[must_use]
    pub fn shared_id(&self) -> Arc<str> {
        self.record().map(|record| Arc::clone(&record.id)).unwrap_or_default()
    }

    /// The job's name; empty when it has none.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.parts.as_ref().map_or_else(|| "".into(), |parts| Arc::clone(&parts.name))
    }

    /// The payload's msgpack.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        self.record().map_or(&NO_PAYLOAD, |record| &record.payload)
    }

    /// Runs that ended in an error so far.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.record().map_or(0, |record| record.attempt)
    }

    /// Deliveries whose worker died so far.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.parts.as_ref().map_or(0, |parts| parts.lost)
    }

    /// When the producer made the job, in milliseconds since the epoch, producer's clock.
    #[must_use]
    pub fn created_at_ms(&self) -> u64 {
        self.record().map_or(0, |record| record.created_at_ms)
    }

    /// The job's own retry rule.
    #[must_use]
    pub fn retry(&self) -> Option<&crate::job::JobRetryOverride> {
        self.record().and_then(|record| record.retry.as_deref())
    }

    /// Says how the delivery ended; give the ending to [`Session::settle`](super::Session::settle).
    #[must_use]
    pub fn end(mut self, outcome: Outcome, duration: Duration) -> Ending {
        Ending { parts: self.parts.take(), outcome, duration, resent: false }
    }

    fn record(&self) -> Option<&Record> {
        self.parts.as_ref().and_then(|parts| parts.record())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            let interrupted = Outcome::Interrupted;
            let parts = Some(parts);
            self.hold.settle([Ending {
                parts,
                outcome: interrupted,
                duration: Duration::ZERO,
                resent: false,
            }]);
        }
    }
}

/// How a delivery ended, to be stored.
#[derive(Debug)]
pub struct Ending {
    pub(super) parts: Option<Box<Parts>>,
    pub(super) outcome: Outcome,
    pub(super) duration: Duration,
    /// Sent before, with the reply lost: an answer of "not yours" may then mean "stored".
    pub(super) resent: bool,
}
