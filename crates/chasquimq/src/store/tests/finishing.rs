//! finish: the plain way out of `running`, and events of which several stand in one entry.

use super::support::{GROUP, ME, OTHER, Queue, done, failed, text, verdicts};
use crate::config::EventsConfig;
use crate::store::{Completion, Retry, Stored};

/// An entry of one job under a fresh lease.
fn plain(entry: &bytes::Bytes, id: &str) -> Completion {
    let mut done = Completion { check_owner: false, ..done(entry, 1, &[0]) };
    done.jobs[0].id = id.into();
    done
}

async fn finish(queue: &Queue<'_>, batch: &[Completion]) -> Vec<Stored> {
    assert!(batch.iter().all(Completion::is_plain));
    let batch: Vec<_> = batch.iter().collect();
    queue.store.finish(GROUP, ME, &batch).await.unwrap()
}

async fn packing(pack: usize) -> Queue<'static> {
    let events = EventsConfig { pack, ..EventsConfig::default() };
    Queue::with(chasquimq_testkit::shared_server().await, events).await
}

#[tokio::test]
async fn finish_acknowledges_deletes_and_tells_of_several_jobs_in_an_entry() {
    let queue = packing(2).await;
    let ids = queue.deliver(&["a", "b", "c", "d"]).await;
    let batch = [plain(&ids[0], "x"), plain(&ids[1], "y"), plain(&ids[3], "z")];
    assert_eq!(verdicts(&finish(&queue, &batch).await), "yyy");
    let after = queue.dump().await;
    assert_eq!(after.values(), ["c"]);
    assert_eq!(after.pending, [(text(&ids[2]), ME.to_owned(), 1)]);
    assert_eq!(
        after.events,
        [
            "e=completed id=x\ny n=send\nsend attempt=1\n1 duration_us=250\n250 k=2",
            "e=completed id=z n=send attempt=1 duration_us=250",
        ]
    );
    assert!(after.settled.is_empty() && after.odd.is_empty());
    assert_eq!(verdicts(&finish(&queue, &batch).await), "nnn", "settled before");
    assert_eq!(queue.dump().await, after);
}

#[tokio::test]
async fn a_late_finish_leaves_no_bitmap_of_an_entry_that_another_has_settled_in_part() {
    let queue = packing(2).await;
    let ids = queue.deliver(&["ab"]).await;
    queue.hand_to(OTHER, &ids[0]).await;
    let part = done(&ids[0], 2, &[1]);
    let part = queue.store.complete(GROUP, OTHER, &[&part]).await.unwrap();
    assert_eq!(verdicts(&part), "y");
    assert_eq!(queue.dump().await.settled.len(), 1);
    let whole = Completion { check_owner: false, ..done(&ids[0], 2, &[0, 1]) };
    assert_eq!(verdicts(&finish(&queue, &[whole]).await), "y");
    let after = queue.dump().await;
    assert!(after.values().is_empty() && after.pending.is_empty(), "{after:?}");
    assert!(after.settled.is_empty(), "{:?}", after.settled);
}

#[tokio::test]
async fn finish_does_the_same_when_nothing_is_to_be_told() {
    let silent = EventsConfig { enabled: false, ..EventsConfig::default() };
    let queue = Queue::with(chasquimq_testkit::shared_server().await, silent).await;
    let ids = queue.deliver(&["a", "b", "c"]).await;
    assert_eq!(verdicts(&finish(&queue, &[plain(&ids[1], "y")]).await), "y");
    let batch = [plain(&ids[0], "x"), plain(&ids[1], "y")];
    assert_eq!(verdicts(&finish(&queue, &batch).await), "yn");
    let after = queue.dump().await;
    assert_eq!((after.values(), after.pending.len(), after.events.len()), (vec!["c"], 1, 0));
}

#[tokio::test]
async fn finish_tells_only_of_what_it_stored() {
    let queue = packing(3).await;
    let ids = queue.deliver(&["a", "b", "c", "d", "e"]).await;
    finish(&queue, &[plain(&ids[1], "before")]).await;
    let several = Completion { check_owner: false, ..done(&ids[4], 2, &[0, 1]) };
    let batch = [
        plain(&ids[0], "x"),
        plain(&ids[1], "before"),
        plain(&ids[2], "z"),
        plain(&ids[3], "w"),
        several,
    ];
    assert_eq!(verdicts(&finish(&queue, &batch).await), "ynyyy");
    let after = queue.dump().await;
    assert!(after.stream.is_empty() && after.pending.is_empty());
    let told = |id: &str| format!("e=completed id={id} n=send attempt=1 duration_us=250");
    let both = "e=completed id=job-0\njob-1 n=send\nsend attempt=1\n1 duration_us=250\n250 k=2";
    assert_eq!(after.events, [told("before"), told("x"), told("z"), told("w"), both.to_owned()]);
}

#[tokio::test]
async fn finish_counts_the_events_it_could_not_write() {
    let queue = packing(2).await;
    let ids = queue.deliver(&["a", "b", "c"]).await;
    queue.run(&["SET", &queue.key("events"), "x"]).await;
    let batch = [plain(&ids[0], "x"), plain(&ids[1], "y"), plain(&ids[2], "z")];
    assert_eq!(verdicts(&finish(&queue, &batch).await), "yyy");
    assert_eq!(queue.told.record().events_dropped, 3);
}

#[tokio::test]
async fn finish_is_not_for_what_needs_a_look() {
    let entry = "1-1".into();
    assert!(plain(&entry, "x").is_plain());
    assert!(!done(&entry, 1, &[0]).is_plain(), "another may hold it");
    assert!(!Completion { check_owner: false, ..done(&entry, 2, &[1]) }.is_plain(), "a part");
    assert!(!plain(&entry, "two\nlines").is_plain());
    let mut chosen = plain(&entry, "x");
    chosen.jobs[0].unique = true;
    assert!(!chosen.is_plain(), "its id is to be released");
}

#[tokio::test]
async fn retries_are_told_several_an_entry_unless_a_text_has_lines() {
    let queue = packing(2).await;
    let ids = queue.deliver(&["a", "b", "c", "d", "e", "f"]).await;
    queue.hand_to(OTHER, &ids[3]).await;
    let retry = |n: usize, error: &str| Retry {
        id: format!("r{n}").into(),
        error: error.into(),
        ..failed(&ids[n], 1, 0)
    };
    let all = [retry(0, "boom"), retry(1, "bang")];
    assert_eq!(verdicts(&queue.retry(&all).await), "yy");
    assert_eq!(verdicts(&queue.retry(&[retry(2, "one"), retry(3, "late")]).await), "yn");
    assert_eq!(verdicts(&queue.retry(&[retry(4, "two\nlines"), retry(5, "one")]).await), "yy");
    let failed = |n: usize, error: &str| {
        format!("e=failed id=r{n} n=send attempt=2 duration_us=250 reason={error}")
    };
    let again = |n: usize| format!("e=retry-scheduled id=r{n} n=send attempt=3 backoff_ms=5000");
    let both = "id=r0\nr1 n=send\nsend";
    assert_eq!(
        queue.dump().await.events,
        [
            format!("e=failed {both} attempt=2\n2 duration_us=250\n250 reason=boom\nbang k=2"),
            format!("e=retry-scheduled {both} attempt=3\n3 backoff_ms=5000\n5000 k=2"),
            failed(2, "one"),
            again(2),
            failed(4, "two\nlines"),
            again(4),
            failed(5, "one"),
            again(5),
        ]
    );
    assert!(queue.dump().await.pending.iter().all(|(_, holder, _)| holder == OTHER));
}
