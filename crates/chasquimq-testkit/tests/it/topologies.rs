//! Clusters and Sentinels are what they say, and bring up another primary by themselves.

use std::time::Duration;

use chasquimq_testkit::{Cluster, Sentinels, eventually};

const PATIENCE: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_a_slot_and_survives_its_owner() {
    let cluster = Cluster::start().await;
    let owner = cluster.owner("key").await;
    assert_eq!(owner.command(&["SET", "key", "value"]).await.text(), "OK");
    let to = cluster.others("key").await[0];
    cluster.move_slot("key", to, Duration::ZERO).await;
    assert_eq!(to.command(&["GET", "key"]).await.text(), "value");
    assert!(owner.command(&["GET", "key"]).await.error().unwrap().starts_with("MOVED"));
    // Without a write over this connection, WAIT would have nothing to wait for.
    assert_eq!(to.command(&["SET", "key", "value"]).await.text(), "OK");
    assert_eq!(to.command(&["WAIT", "1", "5000"]).await.int(), 1);
    to.kill9();
    eventually("another owner", PATIENCE, async || {
        let owner = cluster.owner("key").await;
        owner.port() != to.port() && owner.command(&["GET", "key"]).await.text() == "value"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_replace_a_primary_that_is_killed() {
    let sentinels = Sentinels::start().await;
    let primary = sentinels.primary().await;
    assert_eq!(primary.command(&["ROLE"]).await.array()[0].text(), "master");
    assert!(sentinels.url().starts_with("redis-sentinel://127.0.0.1:"));
    primary.kill9();
    eventually("another primary", PATIENCE, async || {
        sentinels.primary().await.port() != primary.port()
    })
    .await;
    let role = sentinels.primary().await.command(&["ROLE"]).await;
    assert_eq!(role.array()[0].text(), "master");
}
