//! The events stream, read from one's own place.

use std::time::Duration;

use bytes::Bytes;

use super::transport::{Link, bytes, int};
use super::{Keys, redact, replies};
use crate::config::ConnectionTuning;
use crate::error::{ErrorKind, Result};

/// A connection that reads the events of one queue.
pub(crate) struct Feed {
    link: Link,
    key: Bytes,
}

/// An event as it stands in the stream: its id, and field, value, …
pub(crate) type RawEvent = (String, Vec<(String, String)>);

impl Feed {
    pub async fn connect(
        url: &str,
        queue: &str,
        tuning: &ConnectionTuning,
        longest_wait: Duration,
    ) -> Result<Self> {
        let key = Keys::new(queue)?.events;
        let link = Link::connect(url, &key, tuning, longest_wait).await?;
        tracing::debug!(url = redact(url), queue, "tailing events");
        Ok(Self { link, key })
    }

    /// The id of the newest event there ever was.
    pub async fn newest(&self) -> Result<String> {
        match self.link.call("XINFO", vec!["STREAM".into(), bytes(&self.key)]).await {
            Ok(info) => {
                let mut pairs = info.items().chunks_exact(2);
                let id = pairs.find(|pair| pair[0].text() == "last-generated-id");
                Ok(id.map_or_else(|| "0-0".into(), |pair| pair[1].text()))
            }
            Err(error) if error.kind() == ErrorKind::Server => Ok("0-0".into()),
            Err(error) => Err(error),
        }
    }

    /// Whether an event is still there.
    pub async fn has(&self, id: &str) -> Result<bool> {
        let args = vec![bytes(&self.key), id.into(), id.into(), "COUNT".into(), int(1)];
        Ok(!self.link.call("XRANGE", args).await?.items().is_empty())
    }

    /// Waits at most `wait` for events after `cursor`; at most `count`.
    pub async fn read(&self, cursor: &str, count: usize, wait: Duration) -> Result<Vec<RawEvent>> {
        let args = vec![
            "COUNT".into(),
            int(count as u64),
            "BLOCK".into(),
            int(wait.as_millis().max(1) as u64),
            "STREAMS".into(),
            bytes(&self.key),
            cursor.into(),
        ];
        let reply = self.link.block("XREAD", args).await?;
        Ok(replies::events(reply))
    }

    /// Closes the connection, whatever read waits on it.
    pub async fn close(&self) {
        self.link.disconnect().await;
    }
}
