//! Reading new entries, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;

use super::transport::{Link, bytes, int};
use super::{Entry, replies};
use crate::error::Result;

/// The connection a reader blocks on.
pub(crate) struct Intake {
    pub(super) link: Link,
    pub(super) stream: Bytes,
}

impl Intake {
    /// Waits at most `wait` for new entries; none when the wait ends first or is ended.
    pub async fn read(
        &self,
        group: &str,
        consumer: &str,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Entry>> {
        let args = vec![
            "GROUP".into(),
            group.into(),
            consumer.into(),
            "COUNT".into(),
            int(count as u64),
            "BLOCK".into(),
            int(wait.as_millis().max(1) as u64),
            "STREAMS".into(),
            bytes(&self.stream),
            ">".into(),
        ];
        let reply = self.link.block("XREADGROUP", args).await?;
        Ok(replies::delivered(reply))
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.link.close().await;
    }
}
