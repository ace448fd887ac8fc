//! What a queue leaves behind when all its jobs have ended and all its workers have stopped: nothing but
//! its empty stream, the events, the dead, and what goes by itself.

use std::time::Duration;

use chasquimq_testkit::{Reply, Server, eventually};

use crate::support::key;

/// Memory that a server may keep beside 2%: fragments, scripts, its own books.
const SLACK: u64 = 1024 * 1024;

/// What a server used before it had a queue.
pub struct Baseline(u64);

impl Baseline {
    pub async fn of(server: &Server) -> Self {
        Self(used_memory(server).await)
    }

    /// Checks that nothing is left of a queue, and that the server uses no more than before once the
    /// events and the dead, which are to stay, are deleted.
    pub async fn regained(&self, server: &Server, queue: &str) {
        nothing_left(server, queue).await;
        server.command(&["DEL", &key(queue, "events"), &key(queue, "dlq")]).await;
        let most = self.0 + self.0 / 50 + SLACK;
        let what = format!("memory within {most} bytes, from {} before", self.0);
        eventually(&what, Duration::from_secs(10), async || used_memory(server).await <= most)
            .await;
    }
}

/// Checks that nothing is left of a queue.
pub async fn nothing_left(server: &Server, queue: &str) {
    let stream = key(queue, "stream");
    let mut left = Vec::new();
    for found in server.command(&["KEYS", &key(queue, "*")]).await.array() {
        let found = found.text();
        let expires = found.starts_with(&key(queue, "sent:"))
            && server.command(&["PTTL", &found]).await.int() > 0;
        if !expires && !["stream", "events", "dlq"].map(|stays| key(queue, stays)).contains(&found)
        {
            left.push(found);
        }
    }
    assert_eq!(left, [""; 0], "keys");
    assert_eq!(server.command(&["XLEN", &stream]).await, Reply::Int(0), "entries");
    let pending = server.command(&["XPENDING", &stream, "default"]).await;
    assert_eq!(pending.array()[0], Reply::Int(0), "pending entries");
    let consumers = server.command(&["XINFO", "CONSUMERS", &stream, "default"]).await;
    assert_eq!(consumers, Reply::Array(vec![]), "consumers");
}

/// Memory in use, without what is kept for replicas.
async fn used_memory(server: &Server) -> u64 {
    // Statistics of a command's latency take a server a megabyte, once it has been called.
    server.command(&["CONFIG", "RESETSTAT"]).await;
    let info = server.command(&["INFO", "memory"]).await.text();
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|bytes| bytes.parse::<u64>().unwrap())
    };
    // Redis 6.2 does not know the first, which comprises the second.
    let replicas = field("mem_total_replication_buffers").or(field("mem_replication_backlog"));
    field("used_memory").unwrap() - replicas.unwrap()
}
