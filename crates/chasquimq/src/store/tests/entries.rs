//! Entries of several jobs: settled one by one, in any order, in any way, and sent twice.

use bytes::Bytes;

use super::support::{GROUP, ME, OTHER, Queue, done, failed, hopeless, text, unrun, verdicts};
use crate::store::{Completion, Stored};

const TOTAL: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Way {
    Complete,
    CompleteUnchecked,
    Retry,
    Bury,
    Release,
}

const WAYS: [Way; 5] = [Way::Complete, Way::CompleteUnchecked, Way::Retry, Way::Bury, Way::Release];

async fn settle(queue: &Queue<'_>, entry: &Bytes, way: Way, index: usize) -> Vec<Stored> {
    match way {
        Way::Complete => queue.complete(&[done(entry, TOTAL, &[index])]).await,
        Way::CompleteUnchecked => {
            let completion = done(entry, TOTAL, &[index]);
            queue.complete(&[Completion { check_owner: false, ..completion }]).await
        }
        Way::Retry => queue.retry(&[failed(entry, TOTAL, index)]).await,
        Way::Bury => queue.bury(&[hopeless(entry, TOTAL, index)]).await,
        Way::Release => queue.release(&[unrun(entry, TOTAL, &[index])]).await,
    }
}

/// Settles the three jobs in this order and these ways, everything twice, and looks after each.
async fn settle_in_order(order: &[usize], ways: &[Way]) {
    let queue = Queue::new().await;
    let entry = queue.deliver(&["three"]).await.remove(0);
    let mut bitmap = *b"000";
    for (step, (&index, &way)) in order.iter().zip(ways).enumerate() {
        assert_eq!(verdicts(&settle(&queue, &entry, way, index).await), "y", "{way:?} {index}");
        bitmap[index] = b'1';
        let after = queue.dump().await;
        let held = after.pending.contains(&(text(&entry), ME.to_owned(), 1));
        let settled = after.settled.get(&text(&entry)).map(String::as_bytes);
        let is_last = step == TOTAL - 1;
        assert_eq!(held, !is_last);
        assert_eq!(settled, (!is_last).then_some(&bitmap[..]));
        for again in WAYS {
            assert_eq!(verdicts(&settle(&queue, &entry, again, index).await), "n", "{again:?}");
        }
        assert_eq!(queue.dump().await, after, "sending a settlement twice changed something");
    }
    check_that_each_is_where_it_went(&queue, order, ways).await;
}

async fn check_that_each_is_where_it_went(queue: &Queue<'_>, order: &[usize], ways: &[Way]) {
    let after = queue.dump().await;
    let (mut jobs, mut dead, mut back, mut told) = (0, 0, vec![], vec![]);
    for (index, way) in order.iter().zip(ways) {
        let id = format!("id=job-{index}");
        match way {
            Way::Complete | Way::CompleteUnchecked => told.push(format!("e=completed {id}")),
            Way::Retry => {
                jobs += 1;
                assert_eq!(after.jobs[&format!("job-{index}")], format!("retry-{index}"));
                assert!(after.delayed.contains_key(&format!("job-{index}")));
                told.extend([format!("e=failed {id}"), format!("e=retry-scheduled {id}")]);
            }
            Way::Bury => {
                assert!(after.dlq[dead].contains(&format!("j=dead-{index}")), "{after:?}");
                dead += 1;
                told.extend([format!("e=failed {id}"), format!("e=dlq {id}")]);
            }
            Way::Release => {
                back.push(format!("back-{index}"));
                told.push(format!("e=released {id}"));
            }
        }
    }
    assert_eq!((after.jobs.len(), after.delayed.len(), after.dlq.len()), (jobs, jobs, dead));
    assert_eq!(after.values(), back);
    let heard = after.events.iter().map(|event| event.split(" n=").next().unwrap());
    assert_eq!(heard.collect::<Vec<_>>(), told);
}

#[tokio::test]
async fn whatever_the_order_and_the_way_no_job_is_lost_or_told_twice() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    // All triples of ways; five and six share no factor, so every order meets every way.
    for (n, order) in (0..WAYS.len().pow(3)).zip(orders.iter().cycle()) {
        let way = |n: usize| WAYS[n % WAYS.len()];
        settle_in_order(order, &[way(n), way(n / 5), way(n / 25)]).await;
    }
}

#[tokio::test]
async fn complete_counts_only_the_jobs_that_were_not_settled_before() {
    let queue = Queue::new().await;
    let entry = queue.deliver(&["three"]).await.remove(0);
    assert_eq!(verdicts(&queue.complete(&[done(&entry, TOTAL, &[0])]).await), "y");
    // The reply was lost, and more jobs of the entry have ended meanwhile.
    assert_eq!(verdicts(&queue.complete(&[done(&entry, TOTAL, &[0, 1])]).await), "y");
    assert_eq!(queue.dump().await.settled[&text(&entry)], "110");
    let all = Completion { check_owner: false, ..done(&entry, TOTAL, &[0, 1, 2]) };
    assert_eq!(verdicts(&queue.complete(&[all]).await), "y");
    let after = queue.dump().await;
    assert!(after.stream.is_empty() && after.pending.is_empty() && after.settled.is_empty());
    let told = |n| format!("e=completed id=job-{n} n=send attempt=1 duration_us=250");
    assert_eq!(after.events, [told(0), told(1), told(2)]);
}

#[tokio::test]
async fn complete_of_a_whole_entry_writes_no_bitmap() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["three", "one"]).await;
    let batch = [done(&ids[0], TOTAL, &[2, 0, 1]), done(&ids[1], 1, &[0])];
    assert_eq!(verdicts(&queue.complete(&batch).await), "yy");
    let after = queue.dump().await;
    assert!(after.stream.is_empty() && after.settled.is_empty() && after.odd.is_empty());
    assert_eq!(after.events.len(), 4);
    assert_eq!(verdicts(&queue.complete(&batch).await), "nn");
    assert_eq!(queue.dump().await, after);
}

#[tokio::test]
async fn complete_of_one_entry_twice_in_a_batch() {
    let queue = Queue::new().await;
    let entry = queue.deliver(&["three"]).await.remove(0);
    let batch = [[0], [1], [2], [2]].map(|indexes| done(&entry, TOTAL, &indexes));
    assert_eq!(verdicts(&queue.complete(&batch).await), "yyyn");
    let after = queue.dump().await;
    assert!(after.stream.is_empty() && after.settled.is_empty());
    assert_eq!(after.events.len(), 3);
}

#[tokio::test]
async fn complete_by_one_who_lost_the_entry_leaves_no_bitmap_behind() {
    let queue = Queue::new().await;
    let entry = queue.deliver(&["three"]).await.remove(0);
    queue.complete(&[done(&entry, TOTAL, &[0])]).await;
    queue.hand_to(OTHER, &entry).await;
    let rest = [done(&entry, TOTAL, &[1, 2])];
    queue.store.complete(GROUP, OTHER, &rest.each_ref()).await.unwrap();
    let after = queue.dump().await;
    let late = Completion { check_owner: false, ..done(&entry, TOTAL, &[1]) };
    assert_eq!(verdicts(&queue.complete(&[late]).await), "n");
    assert_eq!(queue.dump().await, after);
    assert!(after.settled.is_empty());
}

#[tokio::test]
async fn release_of_several_jobs_makes_one_entry_of_them() {
    let queue = Queue::new().await;
    let entry = queue.deliver(&["three"]).await.remove(0);
    queue.complete(&[done(&entry, TOTAL, &[1])]).await;
    assert_eq!(verdicts(&queue.release(&[unrun(&entry, TOTAL, &[0, 2])]).await), "y");
    let after = queue.dump().await;
    assert_eq!(after.values(), ["back-0back-2"]);
    assert!(after.pending.is_empty() && after.settled.is_empty());
    assert_eq!(after.events[1..], ["e=released id=job-0 n=send", "e=released id=job-2 n=send"]);
}

#[tokio::test]
async fn release_puts_back_those_of_an_entry_that_are_not_settled() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["three"]).await;
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[0], TOTAL, &[1])]).await), "y");
    // Sent once more because the reply was lost, with another that was ready by then.
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[0], TOTAL, &[1, 2])]).await), "y");
    let after = queue.dump().await;
    assert_eq!(after.values(), ["three", "back-1", "back-2"]);
    assert_eq!(after.settled[&text(&ids[0])], "011");
    assert_eq!(after.events, ["e=released id=job-1 n=send", "e=released id=job-2 n=send"]);
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[0], TOTAL, &[2, 1])]).await), "n");
    assert_eq!(queue.dump().await, after);
}

#[tokio::test]
async fn claim_hands_over_what_is_settled() {
    let queue = Queue::new().await;
    let entry = queue.deliver(&["three"]).await.remove(0);
    queue.complete(&[done(&entry, TOTAL, &[1])]).await;
    queue.age(&entry).await;
    let lease = std::time::Duration::from_secs(30);
    let claimed = queue.store.claim(GROUP, OTHER, lease, 10, &"0-0".into()).await.unwrap();
    assert_eq!(claimed.entries[0].settled, "010");
    let rest = [done(&entry, TOTAL, &[0, 2])];
    assert_eq!(verdicts(&queue.complete(&rest).await), "n", "it is no longer mine");
    let theirs = queue.store.complete(GROUP, OTHER, &rest.each_ref()).await.unwrap();
    assert_eq!(verdicts(&theirs), "y");
    assert!(queue.dump().await.stream.is_empty());
}
