//! Dead jobs: listing them, replay, and purge.

use bytes::Bytes;

use super::support::{Queue, hopeless, job, verdicts};
use crate::store::{Burial, NewJob, Replay};

impl Queue<'_> {
    /// Buries this many jobs: their ids in the dead-letter queue.
    async fn dead(&self, count: usize) -> Vec<String> {
        for _ in 0..count {
            let id = self.deliver(&["x"]).await.remove(0);
            assert_eq!(verdicts(&self.bury(&[hopeless(&id, 1, 0)]).await), "y");
        }
        let all = self.store.dead(None, 100).await.unwrap();
        all.into_iter().map(|dead| dead.dlq_id).collect()
    }

    async fn replay(&self, dlq_id: &str, job: NewJob) -> bool {
        let replay = Replay { dlq_id: dlq_id.to_owned(), job };
        self.store.replay(&[replay]).await.unwrap()[0]
    }
}

#[tokio::test]
async fn dead_jobs_are_listed_page_by_page() {
    let queue = Queue::new().await;
    let ids = queue.dead(3).await;
    let first = queue.store.dead(None, 2).await.unwrap();
    let rest = queue.store.dead(Some(&first[1].dlq_id), 2).await.unwrap();
    let pages: Vec<_> = first.iter().chain(&rest).map(|dead| dead.dlq_id.clone()).collect();
    assert_eq!(pages, ids);
    let fields: Vec<_> = rest[0].fields.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["id", "n", "reason", "error", "attempt", "lost", "failed_at_ms", "source_id", "j"];
    assert_eq!(fields, expected);
    assert_eq!(rest[0].fields[8].1, "dead-0");
}

#[tokio::test]
async fn dead_jobs_of_any_name_are_listed() {
    let queue = Queue::new().await;
    let entry = queue.deliver(&["x"]).await.remove(0);
    let raw: Vec<Bytes> = ["message", "subscribe"].map(Bytes::from).into();
    let burial = Burial { name: "subscribe".into(), raw, ..hopeless(&entry, 1, 0) };
    queue.bury(&[burial]).await;
    let dead = queue.store.dead(None, 10).await.unwrap();
    assert_eq!(dead[0].fields[8], ("message".to_owned(), Bytes::from("subscribe")));
}

#[tokio::test]
async fn replay_appends_the_job_and_removes_it_from_the_dead() {
    let queue = Queue::new().await;
    let ids = queue.dead(2).await;
    assert!(queue.replay(&ids[0], job("a", false)).await);
    let after = queue.dump().await;
    assert_eq!((after.values(), after.dlq.len()), (vec!["record-a"], 1));
    assert_eq!(after.events.last().unwrap(), "e=replayed id=a n=send");
    assert!(!queue.replay(&ids[0], job("a", false)).await, "it is no longer dead");
    assert_eq!(queue.dump().await, after);
}

#[tokio::test]
async fn replay_holds_a_unique_id_again_unless_another_job_has_it() {
    let queue = Queue::new().await;
    let ids = queue.dead(2).await;
    assert!(queue.replay(&ids[0], job("a", true)).await);
    let before = queue.dump().await;
    assert_eq!(before.unique, ["a".to_owned()].into());
    assert!(!queue.replay(&ids[1], job("a", true)).await);
    assert_eq!(queue.dump().await, before);
    assert_eq!(queue.store.add(&[job("a", true)], 0, 1).await.unwrap(), [false]);
}

#[tokio::test]
async fn purge_deletes_the_oldest_and_tells_of_each() {
    let queue = Queue::new().await;
    queue.dead(2).await;
    queue.run(&["XADD", &queue.key("dlq"), "*", "colour", "red"]).await;
    let before = queue.dump().await;
    assert_eq!(queue.store.purge(2).await.unwrap(), 2);
    let after = queue.dump().await;
    assert_eq!(after.dlq, before.dlq[2..]);
    let told = &after.events[before.events.len()..];
    assert_eq!(told, ["e=purged id=job-0 n=send"; 2]);
    assert_eq!(queue.store.purge(5).await.unwrap(), 1, "what others wrote goes, too");
    let empty = queue.dump().await;
    assert_eq!((empty.dlq.len(), empty.events.last().unwrap().as_str()), (0, "e=purged id= n="));
    assert_eq!(queue.store.purge(5).await.unwrap(), 0);
    assert_eq!(queue.dump().await, empty);
}
