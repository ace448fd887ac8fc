//! schedule, promote, unlock, cancel, inspect.

use std::time::Duration;

use bytes::Bytes;
use chasquimq_testkit::Reply;

use super::support::{GROUP, ME, Queue, done, failed, hopeless, job};
use crate::error::ErrorKind;
use crate::metrics::QueueCounts;
use crate::store::wire::{Record, decode_all};
use crate::store::{Due, NewJob, Tick};

const LOCK: Duration = Duration::from_secs(5);

impl Queue<'_> {
    async fn schedule(&self, id: &str, unique: bool, due: Due) -> Vec<bool> {
        self.store.schedule(&[(job(id, unique), due)], 0).await.unwrap()
    }

    /// Ticks as `holder`, who must lead: jobs promoted, still delayed, and ms until the next.
    async fn lead(&self, holder: &str, count: usize) -> (u64, u64, Option<Duration>) {
        match self.store.promote(holder, LOCK, count).await.unwrap() {
            Tick::Led { promoted, depth, next_due, fault: None, .. } => (promoted, depth, next_due),
            other => panic!("{other:?}"),
        }
    }
}

fn in_an_hour() -> Due {
    Due::In(3_600_000)
}

#[tokio::test]
async fn schedule_counts_from_the_server_s_clock() {
    let queue = Queue::new().await;
    let before = queue.now().await;
    assert_eq!(queue.schedule("a", false, Due::In(1500)).await, [true]);
    let now = queue.now().await;
    queue.schedule("b", true, Due::At(4_102_444_800_123)).await;
    let after = queue.dump().await;
    assert!((before + 1500..=now + 1500).contains(&after.delayed["a"]), "{after:?}");
    assert_eq!(after.delayed["b"], 4_102_444_800_123);
    let record = |id: &str| (id.to_owned(), format!("record-{id}"));
    assert_eq!(after.jobs, [record("a"), record("b")].into());
    assert_eq!(after.unique, ["b".to_owned()].into());
    assert_eq!(after.events[0], "e=delayed id=a n=send delay_ms=1500");
    assert!(after.events[1].starts_with("e=delayed id=b n=send delay_ms="), "{after:?}");
    assert!(after.stream.is_empty() && after.odd.is_empty());
}

#[tokio::test]
async fn schedule_of_a_live_unique_id_changes_nothing() {
    let queue = Queue::new().await;
    queue.store.add(&[job("ready", true)], 0, 1).await.unwrap();
    queue.schedule("late", true, in_an_hour()).await;
    let before = queue.dump().await;
    let again = [(job("ready", true), Due::In(5)), (job("late", true), Due::In(5))];
    assert_eq!(queue.store.schedule(&again, 0).await.unwrap(), [false, false]);
    assert_eq!(queue.store.add(&[job("late", true)], 0, 1).await.unwrap(), [false]);
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn schedule_is_all_or_nothing_when_too_many_are_delayed() {
    let queue = Queue::new().await;
    queue.store.schedule(&[(job("a", false), in_an_hour())], 2).await.unwrap();
    let before = queue.dump().await;
    let two = [(job("b", true), in_an_hour()), (job("c", false), in_an_hour())];
    let error = queue.store.schedule(&two, 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn schedule_wakes_the_promoter_for_an_earlier_job_only() {
    let queue = Queue::new().await;
    let mut wakes = queue.store.wakes().await.unwrap();
    queue.schedule("first", false, Due::At(4_000_000_000_000)).await;
    queue.schedule("later", false, Due::At(4_000_000_000_001)).await;
    queue.schedule("earlier", false, Due::At(3_999_999_999_999)).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(tokio::time::timeout(LOCK, wakes.next()).await.expect("a wake-up"));
    }
    assert_eq!(told, ["4000000000000", "3999999999999"]);
}

#[tokio::test]
async fn promote_moves_what_is_due_in_order_and_no_more() {
    let queue = Queue::verbose().await;
    for (id, due) in [("b", 2000), ("a", 1000), ("c", 3000)] {
        queue.schedule(id, true, Due::At(due)).await;
    }
    queue.schedule("late", true, in_an_hour()).await;
    let (promoted, depth, next_due) = queue.lead("p-1", 2).await;
    assert_eq!((promoted, depth, next_due), (2, 2, Some(Duration::ZERO)));
    assert_eq!(queue.dump().await.values(), ["record-a@1000", "record-b@2000"]);
    let (promoted, depth, next_due) = queue.lead("p-1", 2).await;
    assert_eq!((promoted, depth), (1, 1));
    let next_due = next_due.unwrap();
    assert!(next_due > Duration::from_secs(3500) && next_due <= Duration::from_hours(1));
    let after = queue.dump().await;
    assert_eq!(after.values(), ["record-a@1000", "record-b@2000", "record-c@3000"]);
    assert_eq!(after.delayed.keys().collect::<Vec<_>>(), ["late"]);
    assert_eq!(after.jobs.keys().collect::<Vec<_>>(), ["late"]);
    assert_eq!(after.unique.len(), 4, "the ids stay held until the jobs end");
    assert_eq!(after.promoter.as_deref(), Some("p-1"));
    let promoted: Vec<_> = after.events.iter().filter(|e| e.contains("promoted")).collect();
    assert_eq!(promoted, ["e=promoted id=a n=", "e=promoted id=b n=", "e=promoted id=c n="]);
}

#[tokio::test]
async fn promote_tells_how_late_the_oldest_left_behind_is() {
    let queue = Queue::new().await;
    let now = queue.now().await;
    for (id, late) in [("a", 9000), ("b", 4000)] {
        queue.schedule(id, false, Due::At(now as u64 - late)).await;
    }
    match queue.store.promote("p-1", LOCK, 1).await.unwrap() {
        Tick::Led { promoted: 1, depth: 1, lag_ms, .. } => {
            assert!((4000..9000).contains(&lag_ms), "{lag_ms}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn promote_leaves_everything_alone_when_another_leads() {
    let queue = Queue::new().await;
    queue.lead("p-1", 10).await;
    queue.schedule("a", false, Due::At(1)).await;
    let before = queue.dump().await;
    match queue.store.promote("p-2", LOCK, 10).await.unwrap() {
        Tick::Held { lock_left } => assert!(lock_left > LOCK / 2 && lock_left <= LOCK),
        led @ Tick::Led { .. } => panic!("{led:?}"),
    }
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn promote_drops_members_without_a_record() {
    let queue = Queue::new().await;
    queue.schedule("a", false, Due::At(1)).await;
    queue.run(&["ZADD", &queue.key("delayed"), "1", "ghost"]).await;
    assert_eq!(queue.lead("p-1", 10).await, (1, 0, None));
    let after = queue.dump().await;
    assert_eq!(after.values(), ["record-a@1"]);
    assert!(after.delayed.is_empty() && after.jobs.is_empty());
}

#[tokio::test]
async fn unlock_gives_up_one_s_own_lead_only() {
    let queue = Queue::new().await;
    queue.lead("p-1", 10).await;
    queue.store.unlock("p-2").await.unwrap();
    assert_eq!(queue.dump().await.promoter.as_deref(), Some("p-1"));
    queue.store.unlock("p-1").await.unwrap();
    assert_eq!(queue.dump().await.promoter, None);
    queue.lead("p-2", 10).await;
}

#[tokio::test]
async fn cancel_removes_a_delayed_job_and_frees_its_id() {
    let queue = Queue::new().await;
    queue.schedule("a", true, in_an_hour()).await;
    queue.schedule("b", true, in_an_hour()).await;
    queue.store.add(&[job("ready", true)], 0, 1).await.unwrap();
    let ids = ["a", "nobody", "ready"].map(str::to_owned);
    assert_eq!(queue.store.cancel(&ids).await.unwrap(), [true, false, false]);
    let after = queue.dump().await;
    assert_eq!(after.delayed.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(after.jobs.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(after.unique, ["b", "ready"].map(str::to_owned).into());
    assert_eq!(after.values(), ["record-ready"]);
    assert_eq!(after.events[2..], ["e=cancelled id=a n="]);
    assert_eq!(queue.schedule("a", true, in_an_hour()).await, [true]);
}

#[tokio::test]
async fn jobs_named_like_pub_sub_messages_pass_through() {
    let queue = Queue::verbose().await;
    for name in ["message", "pmessage", "smessage", "subscribe", "unsubscribe"] {
        let named = NewJob { name: name.into(), ..job(name, true) };
        let later = (NewJob { id: format!("{name}-2").into(), ..named.clone() }, Due::At(1));
        assert_eq!(queue.store.add(&[named], 0, 1).await.unwrap(), [true]);
        assert_eq!(queue.store.schedule(&[later], 0).await.unwrap(), [true]);
        assert_eq!(queue.lead("subscribe", 10).await.0, 1);
        assert_eq!(queue.store.cancel(&[name.to_owned()]).await.unwrap(), [false]);
    }
    assert_eq!(queue.dump().await.stream.len(), 10);
}

#[tokio::test]
async fn promote_writes_the_due_time_as_the_decoder_reads_it() {
    let queue = Queue::new().await;
    let stream = queue.key("stream");
    for due_ms in [0, 127, 128, 65_536, 4_294_967_296, 1_700_000_000_123] {
        let record = Record {
            attempt: 0,
            lost: 0,
            id: "a".into(),
            name: "send".into(),
            payload: "x".into(),
            created_at_ms: 1,
            retry: None,
            unique: false,
        };
        let job = NewJob { record: record.encode().into(), ..job("a", false) };
        queue.store.schedule(&[(job, Due::At(due_ms))], 0).await.unwrap();
        queue.lead("p-1", 1).await;
        let newest = queue.run(&["XREVRANGE", &stream, "+", "-", "COUNT", "1"]).await;
        let value = newest.array()[0].array()[1].array()[1].bytes().to_vec();
        let item = decode_all(&value.into()).unwrap().remove(0);
        assert_eq!((item.record, item.due_ms), (record, Some(due_ms)));
    }
}

#[tokio::test]
async fn promote_and_cancel_take_a_job_out_of_those_that_wait_for_a_retry() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "c"]).await;
    let job =
        |n: usize| crate::store::Retry { id: format!("job-{n}").into(), ..failed(&ids[n], 1, 0) };
    queue.retry(&[job(0), job(1), job(2)]).await;
    assert_eq!(queue.dump().await.retrying, 3);
    queue.store.cancel(&["job-1".to_owned()]).await.unwrap();
    assert_eq!(queue.dump().await.retrying, 2);
    queue.run(&["ZADD", &queue.key("delayed"), "0.5", "job-2"]).await;
    assert_eq!(queue.lead("p-1", 10).await.0, 1);
    let after = queue.dump().await;
    assert_eq!(after.values(), ["retry-0@1"]);
    assert_eq!(after.retrying, 1);
    queue.run(&["SET", &queue.key("retrying"), "7"]).await;
    queue.run(&["ZADD", &queue.key("delayed"), "0.5", "job-0"]).await;
    assert_eq!(queue.lead("p-1", 10).await.0, 1);
    assert!(
        queue.run(&["EXISTS", &queue.key("retrying")]).await.int() == 0,
        "a count that was off ends"
    );
}

/// A delayed job whose record can be read.
fn sound(id: &str, payload: usize) -> NewJob {
    let record = Record {
        attempt: 0,
        lost: 0,
        id: id.into(),
        name: Bytes::new(),
        payload: vec![0; payload].into(),
        created_at_ms: 1,
        retry: None,
        unique: false,
    };
    NewJob { id: id.into(), name: String::new(), unique: false, record: record.encode().into() }
}

#[tokio::test]
async fn promote_packs_jobs_where_many_are_due_and_no_others_with_what_cannot_be_read() {
    let queue = Queue::new().await;
    let jobs: Vec<_> = (0..100).map(|n| (sound(&format!("{n:03}"), 9), Due::At(1))).collect();
    queue.store.schedule(&jobs, 0).await.unwrap();
    queue.run(&["HDEL", &queue.key("jobs"), "007"]).await;
    queue.run(&["HSET", &queue.key("jobs"), "050", "garbage"]).await;
    assert_eq!(queue.lead("p-1", 256).await, (99, 0, None));
    let stream = queue.run(&["XRANGE", &queue.key("stream"), "-", "+"]).await;
    let value = |entry: &Reply| Bytes::copy_from_slice(entry.array()[1].array()[1].bytes());
    let entries: Vec<_> = stream
        .array()
        .iter()
        .map(|entry| decode_all(&value(entry)).map(|jobs| jobs.len()))
        .collect();
    // Six an entry; one job had no record, and the garbage stands alone.
    let unreadable = entries.iter().filter(|jobs| jobs.is_err()).count();
    assert_eq!((unreadable, entries.iter().flatten().sum::<usize>()), (1, 98), "{entries:?}");
    assert!(entries.len() <= 19 && entries.iter().flatten().all(|jobs| *jobs <= 6), "{entries:?}");
    let after = queue.dump().await;
    assert!(after.jobs.is_empty() && after.delayed.is_empty());
}

#[tokio::test]
async fn promote_makes_no_entry_of_many_large_jobs() {
    let queue = Queue::new().await;
    let large = 100 * 1024;
    let jobs: Vec<_> = (0..64).map(|n| (sound(&format!("{n:03}"), large), Due::At(1))).collect();
    queue.store.schedule(&jobs, 0).await.unwrap();
    assert_eq!(queue.lead("p-1", 64).await, (64, 0, None));
    let entries = queue.run(&["XLEN", &queue.key("stream")]).await.int();
    assert_eq!(entries, 22, "three of them are more than a quarter of a MiB");
}

#[tokio::test]
async fn inspect_counts_each_state_and_changes_nothing() {
    let queue = Queue::new().await;
    assert_eq!(queue.store.inspect().await.unwrap(), QueueCounts::default());
    assert_eq!(queue.dump().await, super::support::Keyspace::default());
    // Ready before the group exists, the oldest for a minute.
    let then = queue.now().await - 60_000;
    queue.run(&["XADD", &queue.key("stream"), &format!("{then}-0"), "j", "a"]).await;
    queue.store.add(&[job("b", false)], 0, 1).await.unwrap();
    let counts = queue.store.inspect().await.unwrap();
    assert_eq!((counts.ready, counts.in_flight), (2, 0));
    assert!((60_000..120_000).contains(&counts.oldest_ready_age_ms), "{counts:?}");

    let ids = queue.deliver(&["c", "d"]).await;
    queue.complete(&[done(&ids[0], 1, &[0])]).await;
    queue.retry(&[failed(&ids[1], 1, 0)]).await;
    for n in 0..2 {
        let id = queue.deliver(&["dead"]).await.remove(0);
        queue
            .bury(&[crate::store::Burial { id: format!("dead-{n}").into(), ..hopeless(&id, 1, 0) }])
            .await;
    }
    for id in ["e", "f", "g"] {
        queue.schedule(id, false, in_an_hour()).await;
    }
    queue.store.add(&[job("h", false)], 0, 1).await.unwrap();
    let before = queue.dump().await;
    let counts = queue.store.inspect().await.unwrap();
    let QueueCounts { oldest_ready_age_ms: age, .. } = counts;
    assert!(age < 30_000, "of the one that was added last: {counts:?}");
    let expected =
        QueueCounts { ready: 1, in_flight: 2, delayed: 3, retrying: 1, dead: 2, ..counts };
    assert_eq!(counts, expected);
    assert_eq!(queue.dump().await, before);

    queue.run(&["XREADGROUP", "GROUP", GROUP, ME, "STREAMS", &queue.key("stream"), ">"]).await;
    let counts = queue.store.inspect().await.unwrap();
    assert_eq!((counts.ready, counts.in_flight, counts.oldest_ready_age_ms), (0, 3, 0));
}

#[tokio::test]
async fn record_s_name_is_told_whatever_stands_before_it() {
    let queue = Queue::new().await;
    let ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let long = "i".repeat(256);
    let mut expected = Vec::new();
    for (id, attempt) in [(ulid, 0), ("short", 127), (&*"i".repeat(40), 255), (&long, 70_000)] {
        for name in ["", "send", &"n".repeat(32), &"n".repeat(256)] {
            let (attempt, lost, created_at_ms) = (attempt, attempt / 2, 1);
            let (payload, name_bytes) = (Bytes::from("x"), Bytes::from(name.to_owned()));
            let record = Record {
                attempt,
                lost,
                id: id.into(),
                name: name_bytes,
                payload,
                created_at_ms,
                retry: None,
                unique: false,
            };
            let job = NewJob {
                id: id.into(),
                name: name.into(),
                unique: false,
                record: record.encode().into(),
            };
            queue.store.schedule(&[(job, Due::In(60_000))], 0).await.unwrap();
            queue.store.cancel(&[id.to_owned()]).await.unwrap();
            expected.push(format!("e=cancelled id={id} n={name}"));
        }
    }
    let events = queue.dump().await.events;
    let cancelled: Vec<_> =
        events.into_iter().filter(|event| event.starts_with("e=cancelled")).collect();
    assert_eq!(cancelled, expected);
}
