//! What a server holds, asked over a connection that nobody harms.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chasquimq::{DlqEntry, Producer, ProducerConfig};
use chasquimq_testkit::{Reply, Server};
use tokio::time::sleep;

use crate::log::Dead;
use crate::workload::{Payload, QUEUE};

/// Jobs that may be dead at the end; a run makes fewer.
const MOST_DEAD: usize = 1_000_000;

/// Switches off statistics that take a server a megabyte. Redis 6.2 does not know them.
pub async fn lighten(server: &Server) {
    server.command(&["CONFIG", "SET", "latency-tracking", "no"]).await;
}

/// Looks at one server.
pub struct Inspector<'a> {
    server: &'a Server,
    producer: Producer<Payload>,
}

impl<'a> Inspector<'a> {
    pub async fn of(server: &'a Server) -> Result<Self> {
        let config = ProducerConfig { queue_name: QUEUE.into(), ..ProducerConfig::default() };
        let producer = Producer::connect(&server.url(), config).await?;
        Ok(Self { server, producer })
    }

    /// Waits until the queue holds no job; whether it does in time.
    pub async fn drained(&self, within: Duration) -> bool {
        let (stream, delayed) = (self.producer.stream_key(), self.producer.delayed_key());
        // Both at one moment: a job can move from one to the other between two looks.
        let both = "return redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2])";
        self.becomes(within, ["EVAL", both, "2", &stream, &delayed], |reply| {
            *reply == Reply::Int(0)
        })
        .await
    }

    /// Consumers in the group, after waiting until there are no more than `most`.
    pub async fn consumers(&self, most: u64, within: Duration) -> u64 {
        let mut found = 0;
        let stream = self.producer.stream_key();
        self.becomes(within, ["XINFO", "GROUPS", &stream], |reply| {
            found = field(reply, "consumers");
            found <= most
        })
        .await;
        found
    }

    /// All dead jobs.
    pub async fn dead(&self) -> Result<Vec<Dead>> {
        let dead = self.producer.peek_dlq(MOST_DEAD).await?;
        ensure!(dead.len() < MOST_DEAD, "more dead jobs than a run can make");
        dead.into_iter().map(read).collect()
    }

    /// What is there for ever beside the dead jobs, the events and the empty stream; the first two it
    /// removes. What expires, such as locks and the memory of what was sent, goes by itself.
    pub async fn leftovers(&self) -> Result<Vec<String>> {
        let stream = self.producer.stream_key();
        let prefix = stream.strip_suffix("stream").context("the stream's key ends otherwise")?;
        self.server.command(&["DEL", &self.producer.dlq_key(), &format!("{prefix}events")]).await;
        let mut found = Vec::new();
        for key in self.server.command(&["KEYS", "*"]).await.array() {
            let key = key.text();
            let expires = self.server.command(&["PTTL", &key]).await.int() != -1;
            if !expires && key != stream {
                let kind = self.server.command(&["TYPE", &key]).await.text();
                found.push(format!("{key} ({kind})"));
            }
        }
        if self.server.command(&["XLEN", &stream]).await != Reply::Int(0) {
            found.push(format!("entries in {stream}"));
        }
        Ok(found)
    }

    /// Memory in use, in bytes, after waiting until it is no more than `most`.
    pub async fn memory(&self, most: u64, within: Duration) -> u64 {
        let mut used = u64::MAX;
        self.becomes(within, ["INFO", "memory"], |reply| {
            used = used_memory(&reply.text());
            used <= most
        })
        .await;
        used
    }

    async fn becomes<const N: usize>(
        &self,
        within: Duration,
        command: [&str; N],
        mut is_so: impl FnMut(&Reply) -> bool,
    ) -> bool {
        let deadline = Instant::now() + within;
        while !is_so(&self.server.command(&command).await) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(50)).await;
        }
        true
    }
}

fn read(entry: DlqEntry) -> Result<Dead> {
    let payload: Payload = rmp_serde::from_slice(&entry.payload)
        .with_context(|| format!("the dead job {} cannot be read", entry.dlq_id))?;
    Ok(Dead {
        n: payload.n,
        hash: payload.fingerprint(),
        reason: entry.reason,
        error: entry.detail.unwrap_or_default(),
        lost: entry.lost,
    })
}

/// A number of the first group.
fn field(groups: &Reply, name: &str) -> u64 {
    let pairs = groups.array().first().map_or(&[][..], Reply::array).chunks_exact(2);
    let value = pairs.filter(|pair| pair[0].text() == name).map(|pair| pair[1].int()).next();
    value.map_or(0, |value| value as u64)
}

fn used_memory(info: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(u64::MAX)
}
