//! Queues on a cluster: their slots move and their owners die under load, and nothing is lost.

use std::time::Duration;

use chasquimq::{ErrorKind, Producer, ProducerConfig};
use chasquimq_testkit::{Cluster, eventually};
use futures::future::join_all;

use crate::load::Load;
use crate::remains::Baseline;
use crate::support::key;

/// Queues that each have another owner.
async fn queues(cluster: &Cluster) -> Vec<String> {
    let (mut queues, mut owners) = (Vec::new(), Vec::new());
    for n in 0.. {
        let queue = format!("q{n}");
        let owner = cluster.owner(&key(&queue, "stream")).await.port();
        if !owners.contains(&owner) {
            owners.push(owner);
            queues.push(queue);
        }
        if queues.len() == 3 {
            break;
        }
    }
    queues
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_and_an_owner_that_dies_lose_nothing() {
    let cluster = Cluster::start().await;
    let queues = queues(&cluster).await;
    let url = cluster.url();
    let baseline = Baseline::of(&cluster.nodes()[0]).await;
    let loads = join_all(queues.iter().map(|queue| Load::connect(&url, queue))).await;
    let hot = key(&queues[0], "stream");
    let trouble = async {
        join_all(loads.iter().map(Load::goes_on)).await;
        let to = cluster.others(&hot).await[0];
        cluster.move_slot(&hot, to, Duration::from_millis(30)).await;
        assert_eq!(cluster.owner(&hot).await.port(), to.port());
        join_all(loads.iter().map(Load::goes_on)).await;
        to.kill9();
        eventually("its replica takes over", Duration::from_secs(45), async || {
            cluster.owner(&hot).await.port() != to.port()
        })
        .await;
        // As a replica of its successor, without which nothing counts as accepted.
        to.restart().await;
        join_all(loads.iter().map(Load::goes_on)).await;
        assert_ne!(cluster.owner(&hot).await.port(), to.port(), "another one owns the slot now");
        loads.iter().for_each(Load::stop);
    };
    let keys: Vec<_> = queues.iter().map(|queue| key(queue, "stream")).collect();
    tokio::join!(join_all(loads.iter().map(Load::run)), trouble);
    for (load, key) in loads.into_iter().zip(&keys) {
        load.ends(cluster.owner(key).await, &baseline).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_one_node_says_what_is_wrong_with_it() {
    let cluster = Cluster::start().await;
    let other = cluster.others(&key("q", "stream")).await[0];
    let url = format!("redis://127.0.0.1:{}", other.port());
    let config = ProducerConfig { queue_name: "q".into(), ..Default::default() };
    // Newer servers are asked for more when connecting, and so are found out earlier.
    let error = match Producer::connect(&url, config).await {
        Ok(producer) => producer.add(1).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("redis-cluster://"), "{error}");
}
