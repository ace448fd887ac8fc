//! What the store tells the metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use super::support::{GROUP, ME, Queue, done, failed, hopeless, job, unrun};
use crate::store::{Due, Replay, Search};

#[tokio::test]
async fn events_that_cannot_be_written_are_counted_and_their_jobs_settled() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "c", "d", "three"]).await;
    queue.complete(&[done(&ids[4], 3, &[0])]).await;
    assert_eq!(queue.told.record().events_dropped, 0);
    queue.run(&["DEL", &queue.key("events")]).await;
    queue.run(&["SET", &queue.key("events"), "x"]).await;
    let mut dropped = Vec::new();
    for way in 0..4 {
        match way {
            0 => drop(queue.complete(&[done(&ids[0], 1, &[0]), done(&ids[4], 3, &[1, 2])]).await),
            1 => drop(queue.retry(&[failed(&ids[1], 1, 0)]).await),
            2 => drop(queue.bury(&[hopeless(&ids[2], 1, 0)]).await),
            _ => drop(queue.release(&[unrun(&ids[3], 1, &[0])]).await),
        }
        dropped.push(queue.told.record().events_dropped);
    }
    assert_eq!(
        dropped,
        [3, 5, 7, 8],
        "one an event: completions, failed and retry, failed and dlq"
    );
    assert!(queue.dump().await.pending.is_empty());
}

#[tokio::test]
async fn each_verb_is_timed_under_its_name() {
    let queue = Queue::new().await;
    let (store, lease) = (&queue.store, Duration::from_secs(30));
    store.enter(GROUP).await.unwrap();
    let ids = queue.deliver(&["a", "b", "c", "d", "e"]).await;
    queue.complete(&[done(&ids[0], 1, &[0])]).await;
    queue.retry(&[failed(&ids[1], 1, 0)]).await;
    queue.bury(&[hopeless(&ids[2], 1, 0)]).await;
    store.finish(GROUP, ME, &[&done(&ids[4], 1, &[0])]).await.unwrap();
    store.renew(GROUP, ME, &ids[3..]).await.unwrap();
    store.claim(GROUP, ME, lease, 5, &"0-0".into()).await.unwrap();
    store.missed(GROUP, ME, 0, &[], 5).await.unwrap();
    queue.release(&[unrun(&ids[3], 1, &[0])]).await;
    store.add(&[job("e", false)], 0, 1).await.unwrap();
    store.add(&[job("f", true)], 0, 1).await.unwrap();
    store.schedule(&[(job("g", true), Due::In(60_000))], 0).await.unwrap();
    store.cancel(&["g".to_owned()]).await.unwrap();
    store.promote("p", lease, 10).await.unwrap();
    store.unlock("p").await.unwrap();
    store.inspect().await.unwrap();
    store.forget_consumers(Duration::from_mins(1), 1).await.unwrap();
    let dlq_id = store.dead(&mut Search::new(vec![]), 1).await.unwrap().remove(0).dlq_id;
    store.replay(&[Replay { dlq_id, job: job("h", false) }]).await.unwrap();
    store.purge(&mut Search::new(vec![]), 1).await.unwrap();
    store.leave(GROUP, "nobody").await.unwrap();
    let told = queue.told.record().store_commands;
    // Shared parts, and what is sent only after an outcome that stayed unknown.
    let others = ["settling", "record", "sending", "withdraw", "choosing"];
    let verbs: BTreeSet<_> =
        super::FILES.iter().copied().filter(|file| !others.contains(file)).collect();
    assert_eq!(told.iter().map(|(verb, _)| *verb).collect::<BTreeSet<_>>(), verbs);
    assert_eq!(told.len(), verbs.len(), "each once: {told:?}");
    assert!(told.iter().all(|(_, took)| *took > Duration::ZERO && *took < Duration::from_secs(10)));
}
