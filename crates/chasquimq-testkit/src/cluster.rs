//! A cluster: three primaries with a replica each.

use std::time::Duration;

use crate::eventually;
use crate::reply::Reply;
use crate::server::{Role, Server};

const PRIMARIES: usize = 3;
const PATIENCE: Duration = Duration::from_mins(1);

/// Six servers that are one cluster. A node that is silent for half a second counts as dead.
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts it and waits until every node serves.
    ///
    /// # Panics
    /// When it is not ready within a minute.
    pub async fn start() -> Self {
        let mut starting = tokio::task::JoinSet::new();
        for _ in 0..2 * PRIMARIES {
            let builder = Server::builder()
                .role(Role::Node)
                .config("cluster-node-timeout", "1500")
                .config("cluster-replica-validity-factor", "0")
                .config("repl-diskless-sync-delay", "0")
                .config("repl-ping-replica-period", "1");
            starting.spawn(builder.start());
        }
        let cluster = Self { nodes: starting.join_all().await };
        cluster.meet().await;
        cluster.replicate().await;
        eventually("every node serves", PATIENCE, async || cluster.is_whole().await).await;
        cluster
    }

    /// `redis-cluster://…` with every node's address.
    pub fn url(&self) -> String {
        let (first, others) = (&self.nodes[0], &self.nodes[1..]);
        let others = others.iter().map(|node| format!("node=127.0.0.1:{}", node.port()));
        format!("{}?{}", first.url(), others.collect::<Vec<_>>().join("&"))
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> i64 {
        self.run(&["CLUSTER", "KEYSLOT", key]).await.int()
    }

    /// The primary that owns the key's slot, as a node that answers knows it.
    ///
    /// # Panics
    /// When no node answers, or nobody owns the slot.
    pub async fn owner(&self, key: &str) -> &Server {
        let slot = self.slot(key).await;
        let ranges = self.run(&["CLUSTER", "SLOTS"]).await;
        let owned =
            |range: &&Reply| (range.array()[0].int()..=range.array()[1].int()).contains(&slot);
        let range = ranges.array().iter().find(owned).expect("somebody owns the slot");
        let port = range.array()[2].array()[1].int();
        let node = self.nodes.iter().find(|node| i64::from(node.port()) == port);
        node.expect("the owner is one of the nodes")
    }

    /// Primaries other than the owner of the key's slot.
    pub async fn others(&self, key: &str) -> Vec<&Server> {
        let owner = self.owner(key).await.port();
        let mut others = Vec::new();
        for node in &self.nodes {
            let role = node.try_command(&["ROLE"]).await;
            let is_primary = role.is_ok_and(|role| role.array()[0].text() == "master");
            if is_primary && node.port() != owner {
                others.push(node);
            }
        }
        others
    }

    /// Moves the key's slot to another primary while it is in use: announced, every key one by one, done.
    /// `pause` after each key makes the way longer.
    ///
    /// # Panics
    /// When a node refuses a step.
    pub async fn move_slot(&self, key: &str, to: &Server, pause: Duration) {
        let (from, slot) = (self.owner(key).await, self.slot(key).await.to_string());
        let (giver, taker) = (id(from).await, id(to).await);
        done(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &giver]).await;
        done(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &taker]).await;
        loop {
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await;
            let Some(key) = keys.array().first().map(Reply::text) else { break };
            let port = to.port().to_string();
            done(from, &["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await;
            tokio::time::sleep(pause).await;
        }
        for node in [to, from] {
            done(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &taker]).await;
        }
    }

    async fn meet(&self) {
        let share = 16384 / PRIMARIES + 1;
        for (index, node) in self.nodes.iter().take(PRIMARIES).enumerate() {
            let slots =
                (index * share..16384.min((index + 1) * share)).map(|slot| slot.to_string());
            let words = ["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            done(node, &words.into_iter().chain(slots).collect::<Vec<_>>()).await;
            let epoch = (index + 1).to_string();
            done(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        }
        for node in &self.nodes[1..] {
            done(node, &["CLUSTER", "MEET", "127.0.0.1", &self.nodes[0].port().to_string()]).await;
        }
        eventually("all nodes know each other", PATIENCE, async || {
            self.all_say(&["CLUSTER", "INFO"], "cluster_known_nodes:6").await
        })
        .await;
    }

    async fn replicate(&self) {
        let (primaries, replicas) = self.nodes.split_at(PRIMARIES);
        for (primary, replica) in primaries.iter().zip(replicas) {
            let primary = id(primary).await;
            eventually("the replica knows its primary", PATIENCE, async || {
                replica.command(&["CLUSTER", "REPLICATE", &primary]).await.error().is_none()
            })
            .await;
        }
    }

    async fn is_whole(&self) -> bool {
        let mut up = true;
        for replica in &self.nodes[PRIMARIES..] {
            let info = replica.command(&["INFO", "replication"]).await.text();
            up &= info.contains("master_link_status:up");
        }
        for primary in &self.nodes[..PRIMARIES] {
            let info = primary.command(&["INFO", "replication"]).await.text();
            up &= info.contains("state=online");
        }
        up && self.all_say(&["CLUSTER", "INFO"], "cluster_state:ok").await
            && self.all_say(&["CLUSTER", "INFO"], "cluster_slots_assigned:16384").await
    }

    async fn all_say(&self, command: &[&str], words: &str) -> bool {
        for node in &self.nodes {
            if !node.command(command).await.text().contains(words) {
                return false;
            }
        }
        true
    }

    /// The answer of the first node that gives one.
    async fn run(&self, command: &[&str]) -> Reply {
        for node in &self.nodes {
            if let Ok(reply) = node.try_command(command).await {
                return reply;
            }
        }
        panic!("no node of the cluster answers");
    }
}

async fn id(node: &Server) -> String {
    node.command(&["CLUSTER", "MYID"]).await.text()
}

async fn done<A: AsRef<[u8]>>(node: &Server, command: &[A]) {
    let reply = node.command(command).await;
    assert_eq!(reply.error(), None);
}
