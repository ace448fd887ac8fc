//! A primary with two replicas, and three Sentinels that watch them.

use std::time::Duration;

use crate::eventually;
use crate::server::{Role, Server};

const PATIENCE: Duration = Duration::from_mins(1);

/// The name by which the Sentinels know the primary.
const NAME: &str = "jobs";

/// Three servers and three Sentinels. A primary that is silent for a second is replaced.
pub struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Sentinels {
    /// Starts them and waits until both replicas are in step and the Sentinels know each other.
    ///
    /// # Panics
    /// When they are not ready within a minute.
    pub async fn start() -> Self {
        let mut servers = vec![server(None).await];
        for _ in 0..2 {
            servers.push(server(Some(servers[0].port())).await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(sentinel(servers[0].port()).await);
        }
        let all = Self { servers, sentinels };
        eventually("all are in step", PATIENCE, async || all.is_whole().await).await;
        all
    }

    /// `redis-sentinel://…` with every Sentinel's address.
    pub fn url(&self) -> String {
        let (first, others) = (&self.sentinels[0], &self.sentinels[1..]);
        let others = others.iter().map(|other| format!("&node=127.0.0.1:{}", other.port()));
        let others: String = others.collect();
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName={NAME}{others}", first.port())
    }

    /// The primary, as the first Sentinel knows it.
    ///
    /// # Panics
    /// When it is none of the servers.
    pub async fn primary(&self) -> &Server {
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let port = self.sentinels[0].command(&command).await.array()[1].int();
        let server = self.servers.iter().find(|server| i64::from(server.port()) == port);
        server.expect("the primary is one of the servers")
    }

    async fn is_whole(&self) -> bool {
        let replication = self.servers[0].command(&["INFO", "replication"]).await.text();
        let mut whole = replication.matches("state=online").count() == 2;
        for sentinel in &self.sentinels {
            let info = sentinel.command(&["INFO", "sentinel"]).await.text();
            whole &= info.contains("slaves=2,sentinels=3");
        }
        whole
    }
}

async fn server(primary: Option<u16>) -> Server {
    let mut builder = Server::builder()
        .role(Role::Alone)
        .config("repl-diskless-sync-delay", "0")
        .config("repl-ping-replica-period", "1");
    if let Some(port) = primary {
        builder = builder.config("replicaof", &format!("127.0.0.1 {port}"));
    }
    builder.start().await
}

async fn sentinel(primary: u16) -> Server {
    Server::builder()
        .role(Role::Sentinel)
        .config("sentinel monitor", &format!("{NAME} 127.0.0.1 {primary} 2"))
        .config("sentinel down-after-milliseconds", &format!("{NAME} 1000"))
        .config("sentinel failover-timeout", &format!("{NAME} 1000"))
        .config("sentinel parallel-syncs", &format!("{NAME} 2"))
        .start()
        .await
}
