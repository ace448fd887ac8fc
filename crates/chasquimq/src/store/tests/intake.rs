//! add, enter, leave, claim, renew, and the reader's own connection.

use std::time::Duration;

use bytes::Bytes;

use super::support::{GROUP, ME, OTHER, Queue, job, text};
use crate::error::ErrorKind;
use crate::store::Claimed;

const LEASE: Duration = Duration::from_secs(30);

impl Queue<'_> {
    async fn claim(&self, consumer: &str, count: usize, cursor: &Bytes) -> Claimed {
        self.store.claim(GROUP, consumer, LEASE, count, cursor).await.unwrap()
    }
}

#[tokio::test]
async fn add_appends_in_order() {
    let queue = Queue::new().await;
    assert_eq!(queue.store.add(&[job("a", false)], 0, 1).await.unwrap(), [true]);
    let more = [job("b", false), job("c", false)];
    assert_eq!(queue.store.add(&more, 0, 1).await.unwrap(), [true, true]);
    let after = queue.dump().await;
    assert_eq!(after.values(), ["record-a", "record-b", "record-c"]);
    assert!(after.events.is_empty() && after.unique.is_empty() && after.odd.is_empty());
}

#[tokio::test]
async fn add_tells_of_waiting_jobs_when_asked_to() {
    let queue = Queue::verbose().await;
    queue.store.add(&[job("a", false), job("b", true)], 0, 1).await.unwrap();
    queue.store.add(&[job("b", true)], 0, 1).await.unwrap();
    let after = queue.dump().await;
    assert_eq!(after.values(), ["record-a", "record-b"]);
    assert_eq!(after.events, ["e=waiting id=a n=send", "e=waiting id=b n=send"]);
}

#[tokio::test]
async fn add_keeps_one_live_job_a_unique_id() {
    let queue = Queue::new().await;
    let jobs = [job("a", true), job("a", true), job("b", false), job("b", false)];
    assert_eq!(queue.store.add(&jobs, 0, 1).await.unwrap(), [true, false, true, true]);
    assert_eq!(queue.store.add(&[job("a", true)], 0, 1).await.unwrap(), [false]);
    let after = queue.dump().await;
    assert_eq!(after.values(), ["record-a", "record-b", "record-b"]);
    assert_eq!(after.unique, ["a".to_owned()].into());
}

#[tokio::test]
async fn add_is_all_or_nothing_when_the_queue_is_full() {
    let queue = Queue::new().await;
    queue.store.add(&[job("a", false), job("b", false)], 3, 1).await.unwrap();
    let before = queue.dump().await;
    let error = queue.store.add(&[job("c", true), job("d", false)], 3, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert!(error.to_string().contains("holds 2 entries of at most 3"), "{error}");
    assert_eq!(queue.dump().await, before);
    queue.store.add(&[job("c", true)], 3, 1).await.unwrap();
    assert_eq!(queue.dump().await.stream.len(), 3);
}

#[tokio::test]
async fn add_of_more_than_a_script_is_given_at_once() {
    let queue = Queue::new().await;
    let jobs: Vec<_> = (0..1203).map(|n| job(&n.to_string(), n % 2 == 0)).collect();
    assert_eq!(queue.store.add(&jobs, 0, 1).await.unwrap(), vec![true; 1203]);
    let after = queue.dump().await;
    assert_eq!(after.values()[1202], "record-1202");
    assert_eq!((after.stream.len(), after.unique.len()), (1203, 602));
}

#[tokio::test]
async fn enter_makes_the_group_from_the_beginning_and_finds_it_again() {
    let queue = Queue::new().await;
    queue.store.add(&[job("a", false)], 0, 1).await.unwrap();
    assert!(queue.store.enter(GROUP).await.unwrap());
    assert!(!queue.store.enter(GROUP).await.unwrap());
    let intake = queue.store.intake(Duration::from_secs(1)).await.unwrap();
    let read = intake.read(GROUP, ME, 10, Duration::from_millis(1)).await.unwrap();
    assert_eq!(read[0].fields[..], ["j", "record-a"]);
}

#[tokio::test]
async fn enter_refuses_a_second_group_and_leaves_no_trace_of_it() {
    let queue = Queue::new().await;
    queue.store.enter(GROUP).await.unwrap();
    let error = queue.store.enter("others").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(r#"group "workers""#), "{error}");
    let groups = queue.run(&["XINFO", "GROUPS", &queue.key("stream")]).await;
    assert_eq!(groups.array().len(), 1);
    assert!(!queue.store.enter(GROUP).await.unwrap(), "the first group goes on");
}

#[tokio::test]
async fn leave_refuses_while_entries_are_pending() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a"]).await;
    let before = queue.dump().await;
    assert!(!queue.store.leave(GROUP, ME).await.unwrap());
    assert_eq!(queue.dump().await, before);
    queue.run(&["XACK", &queue.key("stream"), GROUP, &text(&ids[0])]).await;
    assert!(queue.store.leave(GROUP, ME).await.unwrap());
    let consumers = queue.run(&["XINFO", "CONSUMERS", &queue.key("stream"), GROUP]).await;
    assert!(consumers.array().is_empty());
}

#[tokio::test]
async fn janitor_forgets_consumers_that_are_silent_and_hold_nothing() {
    let queue = Queue::new().await;
    let (stream, forget) =
        (queue.key("stream"), async |ms| queue.store.forget_consumers(ms, 1000).await.unwrap());
    assert_eq!(forget(Duration::ZERO).await, 0, "there is no stream");
    let ids = queue.deliver(&["a"]).await;
    queue.hand_to(OTHER, &ids[0]).await;
    for dead in ["w-3", "w-4", "w-5"] {
        queue.run(&["XGROUP", "CREATECONSUMER", &stream, GROUP, dead]).await;
    }
    let before = queue.dump().await;
    let names = async || {
        let consumers = queue.run(&["XINFO", "CONSUMERS", &stream, GROUP]).await;
        consumers.array().iter().map(|consumer| consumer.array()[1].text()).collect::<Vec<_>>()
    };
    assert_eq!(forget(LEASE).await, 0);
    assert_eq!(names().await.len(), 5, "none has been silent for so long");
    assert_eq!(queue.store.forget_consumers(Duration::ZERO, 2).await.unwrap(), 2);
    assert_eq!(names().await.len(), 3, "no more than were asked for");
    assert_eq!(forget(Duration::ZERO).await, 2);
    assert_eq!(names().await, [OTHER], "it holds an entry");
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn janitor_forgets_nobody_who_reads_and_a_name_comes_back_with_the_next_entry() {
    let queue = Queue::new().await;
    queue.store.enter(GROUP).await.unwrap();
    let wait = Duration::from_secs(20);
    let intake = queue.store.intake(wait).await.unwrap();
    let read = async { intake.read(GROUP, ME, 10, wait).await.unwrap() };
    let add = async {
        let blocked =
            async || queue.run(&["CLIENT", "LIST"]).await.text().contains("cmd=xreadgroup");
        chasquimq_testkit::eventually("it waits", wait, blocked).await;
        queue.store.forget_consumers(Duration::ZERO, 10).await.unwrap();
        queue.store.add(&[job("a", false)], 0, 1).await.unwrap();
    };
    let (entries, ()) = tokio::join!(read, add);
    let ids = [entries[0].id.clone()];
    assert_eq!(queue.store.renew(GROUP, ME, &ids).await.unwrap(), [true]);
    assert_eq!(queue.store.forget_consumers(Duration::ZERO, 10).await.unwrap(), 0);
    assert_eq!(queue.dump().await.pending, [(text(&ids[0]), ME.to_owned(), 1)]);
}

#[tokio::test]
async fn claim_takes_only_what_has_been_silent_for_a_lease() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.age(&ids[1]).await;
    queue.run(&["HSET", &queue.key("settled"), &text(&ids[1]), "010"]).await;
    let claimed = queue.claim(OTHER, 10, &"0-0".into()).await;
    assert_eq!((claimed.ghosts, &claimed.cursor[..]), (0, &b"0-0"[..]));
    let [entry] = &claimed.entries[..] else { panic!("{claimed:?}") };
    assert_eq!((&entry.id, entry.deliveries, &entry.settled[..]), (&ids[1], 2, &b"010"[..]));
    assert_eq!(entry.fields[..], ["j", "b"]);
    let held = [(text(&ids[0]), ME.to_owned(), 1), (text(&ids[1]), OTHER.to_owned(), 2)];
    assert_eq!(queue.dump().await.pending, held);
    queue.age(&ids[1]).await;
    assert_eq!(queue.claim(ME, 10, &"0-0".into()).await.entries[0].deliveries, 3);
}

#[tokio::test]
async fn claim_goes_on_where_it_stopped() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "c"]).await;
    for id in &ids {
        queue.age(id).await;
    }
    let first = queue.claim(OTHER, 2, &"0-0".into()).await;
    assert_eq!((first.entries.len(), &first.cursor), (2, &ids[2]));
    let second = queue.claim(OTHER, 2, &first.cursor).await;
    assert_eq!((second.entries.len(), &second.cursor[..]), (1, &b"0-0"[..]));
    assert_eq!(second.entries[0].id, ids[2]);
}

#[tokio::test]
async fn claim_acknowledges_ghosts_and_counts_them() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "c", "d"]).await;
    for id in &ids {
        queue.age(id).await;
    }
    for ghost in [&ids[0], &ids[2]] {
        queue.run(&["HSET", &queue.key("settled"), &text(ghost), "01"]).await;
        queue.run(&["XDEL", &queue.key("stream"), &text(ghost)]).await;
    }
    let claimed = queue.claim(OTHER, 10, &"0-0".into()).await;
    assert_eq!(claimed.ghosts, 2);
    let claimed: Vec<_> =
        claimed.entries.iter().map(|entry| (&entry.id, entry.deliveries)).collect();
    assert_eq!(claimed, [(&ids[1], 2), (&ids[3], 2)]);
    let after = queue.dump().await;
    let held = [(text(&ids[1]), OTHER.to_owned(), 2), (text(&ids[3]), OTHER.to_owned(), 2)];
    assert_eq!(after.pending, held);
    assert!(after.settled.is_empty(), "{:?}", after.settled);
    assert_eq!(queue.claim(OTHER, 10, &"0-0".into()).await.ghosts, 0);
}

#[tokio::test]
async fn claim_finds_ghosts_behind_many_running_entries() {
    let queue = Queue::new().await;
    let running = vec!["x"; 1200];
    queue.deliver(&running).await;
    let ghost = queue.deliver(&["ghost"]).await.remove(0);
    queue.age(&ghost).await;
    queue.run(&["XDEL", &queue.key("stream"), &text(&ghost)]).await;
    let (mut cursor, mut ghosts) = (Bytes::from("0-0"), 0);
    loop {
        let claimed = queue.claim(ME, 50, &cursor).await;
        assert!(claimed.entries.is_empty());
        ghosts += claimed.ghosts;
        cursor = claimed.cursor;
        if cursor == "0-0" {
            break;
        }
    }
    assert_eq!((ghosts, queue.dump().await.pending.len()), (1, 1200));
}

#[tokio::test]
async fn claim_looks_far_also_when_there_is_room_for_one_job_only() {
    let queue = Queue::new().await;
    queue.deliver(&vec!["running"; 900]).await;
    let lost = queue.deliver(&["lost"]).await.remove(0);
    queue.age(&lost).await;
    let claimed = queue.claim(OTHER, 1, &"0-0".into()).await;
    assert_eq!(claimed.entries.iter().map(|entry| &entry.id).collect::<Vec<_>>(), [&lost]);
}

#[tokio::test]
async fn claim_says_when_the_group_is_gone() {
    let queue = Queue::new().await;
    let gone = queue.store.claim(GROUP, ME, LEASE, 10, &"0-0".into()).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NoGroup, "{gone}");
    let intake = queue.store.intake(Duration::from_secs(1)).await.unwrap();
    let gone = intake.read(GROUP, ME, 10, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NoGroup, "{gone}");
}

#[tokio::test]
async fn missed_gives_what_the_consumer_does_not_know_of_and_counts_no_delivery() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["known", "missed", "long ago", "theirs", "gone"]).await;
    queue.age(&ids[2]).await;
    queue.hand_to(OTHER, &ids[3]).await;
    queue.run(&["XDEL", &queue.key("stream"), &text(&ids[4])]).await;
    queue.run(&["HSET", &queue.key("settled"), &text(&ids[1]), "010"]).await;
    let before = queue.dump().await;
    let missed = queue.store.missed(GROUP, ME, 30_000, &ids[..1], 10).await.unwrap();
    let [entry] = &missed[..] else { panic!("{missed:?}") };
    assert_eq!((&entry.id, entry.deliveries, &entry.settled[..]), (&ids[1], 1, &b"010"[..]));
    assert_eq!(entry.fields[..], ["j", "missed"]);
    let mut after = queue.dump().await;
    // Servers since 7.0 forget what is pending and gone when it is asked for.
    after.pending.extend(before.pending.iter().filter(|held| held.0 == text(&ids[4])).cloned());
    after.pending.dedup();
    assert_eq!(after, before);
}

#[tokio::test]
async fn missed_looks_behind_what_is_known_and_stops_at_its_limit() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&vec!["x"; 300]).await;
    let missed = queue.store.missed(GROUP, ME, 30_000, &ids[..290], 4).await.unwrap();
    let missed: Vec<_> = missed.into_iter().map(|entry| entry.id).collect();
    assert_eq!(missed, ids[290..294]);
}

#[tokio::test]
async fn renew_starts_the_lease_anew_without_a_delivery() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.age(&ids[0]).await;
    let before = queue.dump().await;
    assert_eq!(queue.store.renew(GROUP, ME, &ids).await.unwrap(), [true, true]);
    assert_eq!(queue.dump().await, before);
    assert!(queue.claim(OTHER, 10, &"0-0".into()).await.entries.is_empty());
}

#[tokio::test]
async fn renew_never_steals_back() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "c"]).await;
    queue.hand_to(OTHER, &ids[1]).await;
    queue.run(&["XACK", &queue.key("stream"), GROUP, &text(&ids[2])]).await;
    let before = queue.dump().await;
    assert_eq!(queue.store.renew(GROUP, ME, &ids).await.unwrap(), [true, false, false]);
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn renew_of_more_than_a_script_is_given_at_once() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&vec!["x"; 1201]).await;
    assert_eq!(queue.store.renew(GROUP, ME, &ids).await.unwrap(), vec![true; 1201]);
}

#[tokio::test]
async fn a_reader_that_waits_is_woken() {
    let queue = Queue::new().await;
    queue.store.enter(GROUP).await.unwrap();
    let wait = Duration::from_secs(20);
    let intake = queue.store.intake(wait).await.unwrap();
    let started = std::time::Instant::now();
    let read = async { intake.read(GROUP, ME, 10, wait).await.unwrap() };
    let wake = async {
        let clients = async || queue.run(&["CLIENT", "LIST"]).await.text();
        let blocked = async || clients().await.contains("cmd=xreadgroup");
        chasquimq_testkit::eventually("it waits", wait, blocked).await;
        queue.store.wake(&intake).await;
    };
    let (entries, ()) = tokio::join!(read, wake);
    assert!(entries.is_empty());
    assert!(started.elapsed() < wait / 2);
}

#[tokio::test]
async fn a_reader_gets_each_entry_as_it_was_added() {
    let queue = Queue::new().await;
    queue.store.enter(GROUP).await.unwrap();
    let fields = ["XADD", &queue.key("stream"), "5-1", "message", "subscribe", "x", "y"];
    queue.run(&fields).await;
    let intake = queue.store.intake(Duration::from_secs(1)).await.unwrap();
    let read = intake.read(GROUP, ME, 10, Duration::from_secs(1)).await.unwrap();
    assert_eq!(read[0].fields[..], ["message", "subscribe", "x", "y"]);
    assert_eq!((&read[0].id[..], read[0].deliveries), (&b"5-1"[..], 1));
    assert!(intake.read(GROUP, ME, 10, Duration::from_millis(1)).await.unwrap().is_empty());
}
