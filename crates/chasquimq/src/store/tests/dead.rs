//! Dead jobs: listing them, replay, and purge.

use bytes::Bytes;

use super::support::{Queue, hopeless, job, verdicts};
use crate::store::{Burial, DeadEntry, NewJob, Replay, Search};

impl Queue<'_> {
    /// Buries this many jobs: their ids in the dead-letter queue.
    async fn dead(&self, count: usize) -> Vec<String> {
        for _ in 0..count {
            let id = self.deliver(&["x"]).await.remove(0);
            assert_eq!(verdicts(&self.bury(&[hopeless(&id, 1, 0)]).await), "y");
        }
        let all = self.store.dead(&mut Search::new(vec![]), 100).await.unwrap();
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
    let mut search = Search::new(vec![]);
    let first = queue.store.dead(&mut search, 2).await.unwrap();
    let rest = queue.store.dead(&mut search, 2).await.unwrap();
    assert!(search.is_over());
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
    let dead = queue.store.dead(&mut Search::new(vec![]), 10).await.unwrap();
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
    assert_eq!(queue.store.purge(&mut Search::new(vec![]), 2).await.unwrap(), 2);
    let after = queue.dump().await;
    assert_eq!(after.dlq, before.dlq[2..]);
    let told = &after.events[before.events.len()..];
    assert_eq!(told, ["e=purged id=job-0 n=send"; 2]);
    assert_eq!(
        queue.store.purge(&mut Search::new(vec![]), 5).await.unwrap(),
        1,
        "what others wrote goes, too"
    );
    let empty = queue.dump().await;
    assert_eq!((empty.dlq.len(), empty.events.last().unwrap().as_str()), (0, "e=purged id= n="));
    assert_eq!(queue.store.purge(&mut Search::new(vec![]), 5).await.unwrap(), 0);
    assert_eq!(queue.dump().await, empty);
}

/// The ids of what a search finds, in as many pages as it takes.
async fn found(queue: &Queue<'_>, conditions: &[(&'static str, &str)]) -> Vec<String> {
    let conditions = conditions.iter().map(|(field, value)| (*field, (*value).to_owned()));
    let (mut search, mut found) = (Search::new(conditions.collect()), vec![]);
    while !search.is_over() {
        found.extend(queue.store.dead(&mut search, 3).await.unwrap());
    }
    let id = |dead: &DeadEntry| {
        let id = dead.fields.iter().find(|(field, _)| field == "id");
        id.map_or_else(String::new, |(_, id)| String::from_utf8_lossy(id).into_owned())
    };
    found.iter().map(id).collect()
}

#[tokio::test]
async fn dead_jobs_are_found_by_any_value_of_every_field_that_is_named() {
    let queue = Queue::new().await;
    let dlq = queue.key("dlq");
    for (id, name, reason) in
        [("a", "send", "x"), ("b", "send", "y"), ("c", "pay", "y"), ("b", "pay", "z")]
    {
        queue.run(&["XADD", &dlq, "*", "id", id, "n", name, "reason", reason, "n", "none"]).await;
    }
    queue.run(&["XADD", &dlq, "*", "colour", "red"]).await;
    assert_eq!(found(&queue, &[]).await, ["a", "b", "c", "b", ""]);
    assert_eq!(found(&queue, &[("id", "b")]).await, ["b", "b"]);
    assert_eq!(found(&queue, &[("n", "pay")]).await, ["c", "b"]);
    assert_eq!(found(&queue, &[("n", "none")]).await, [""; 0], "the first counts");
    assert_eq!(found(&queue, &[("id", "")]).await, [""]);
    assert_eq!(found(&queue, &[("id", "a"), ("id", "c")]).await, ["a", "c"]);
    assert_eq!(found(&queue, &[("n", "send"), ("reason", "y")]).await, ["b"]);
    assert_eq!(found(&queue, &[("n", "send"), ("reason", "z")]).await, [""; 0]);
}

#[tokio::test]
async fn choosing_looks_at_no_job_that_dies_after_its_first_page() {
    let queue = Queue::new().await;
    let dlq = queue.key("dlq");
    let mut search = Search::new(vec![]);
    assert_eq!(queue.store.purge(&mut search, 1).await.unwrap(), 0, "there is none, nor a key");
    assert!(search.is_over());
    let (mut look, mut purge) = (Search::new(vec![]), Search::new(vec![]));
    for _ in 0..3 {
        queue.run(&["XADD", &dlq, "*", "id", "old"]).await;
    }
    assert_eq!(queue.store.dead(&mut look, 1).await.unwrap().len(), 1);
    assert_eq!(queue.store.purge(&mut purge, 1).await.unwrap(), 1);
    // Others take the rest away, and as many die.
    queue.run(&["XTRIM", &dlq, "MAXLEN", "0"]).await;
    for _ in 0..3 {
        queue.run(&["XADD", &dlq, "*", "id", "new"]).await;
    }
    assert!(queue.store.dead(&mut look, 9).await.unwrap().is_empty());
    assert_eq!(queue.store.purge(&mut purge, 9).await.unwrap(), 0);
    assert!(look.is_over() && purge.is_over());
    assert_eq!(queue.dump().await.dlq.len(), 3);
}

#[tokio::test]
async fn choosing_looks_at_few_large_jobs_at_once() {
    let queue = Queue::new().await;
    let (dlq, large) = (queue.key("dlq"), "x".repeat(600_000));
    for _ in 0..3 {
        queue.run(&["XADD", &dlq, "*", "id", "a", "j", &large]).await;
    }
    let mut search = Search::new(vec![]);
    assert_eq!(queue.store.dead(&mut search, 9).await.unwrap().len(), 2);
    assert_eq!(queue.store.purge(&mut search, 9).await.unwrap(), 1);
    assert_eq!(queue.store.purge(&mut Search::new(vec![]), 9).await.unwrap(), 2);
}

#[tokio::test]
async fn choosing_passes_over_dead_jobs_that_do_not_fit_a_page_at_a_time() {
    let queue = Queue::new().await;
    let dlq = queue.key("dlq");
    for n in 0..250 {
        queue.run(&["XADD", &dlq, "*", "id", &n.to_string(), "n", "pay"]).await;
    }
    assert_eq!(found(&queue, &[("id", "249"), ("id", "0")]).await, ["0", "249"]);
    let mut search = Search::new(vec![("id", "249".to_owned())]);
    assert_eq!(queue.store.purge(&mut search, 1).await.unwrap(), 0, "the first page");
    assert_eq!(queue.store.purge(&mut search, 1).await.unwrap(), 0, "the second");
    let before = queue.dump().await;
    assert_eq!(queue.store.purge(&mut search, 1).await.unwrap(), 1, "the third");
    let after = queue.dump().await;
    assert_eq!(after.dlq, before.dlq[..249]);
    assert_eq!(after.events, ["e=purged id=249 n=pay"]);
}
