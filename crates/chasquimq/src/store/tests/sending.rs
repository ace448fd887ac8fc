//! Replies that are lost, and calls that come twice or late: each job is added once.

use std::time::Duration;

use chasquimq_testkit::{ChaosProxy, Server, eventually, shared_server};

use super::link::PATIENCE;
use super::support::{Queue, job};
use crate::config::{ConnectionTuning, EventsConfig};
use crate::error::ErrorKind;
use crate::store::{Due, NewJob, Store, Terms, scripts};

fn free() -> Terms {
    Terms { pack: 1, ..Terms::default() }
}

fn later(id: &str) -> (NewJob, Due) {
    (job(id, false), Due::In(60_000))
}

/// A queue, and a store that reaches it through a proxy.
struct Bed<'s> {
    queue: Queue<'s>,
    proxy: ChaosProxy,
    store: Store,
}

impl<'s> Bed<'s> {
    async fn new(server: &'s Server, within_ms: u64) -> Self {
        let queue = Queue::on(server).await;
        let proxy = ChaosProxy::start(server.port()).await;
        let tuning = ConnectionTuning {
            command_timeout: Duration::from_millis(within_ms),
            reconnect_max: Duration::from_millis(100),
            ..ConnectionTuning::default()
        };
        let events = EventsConfig::default();
        let store =
            Store::connect(&proxy.url(), queue.name(), &tuning, &events, None).await.unwrap();
        // Teaches the server the scripts, whose absence would be told in a reply too.
        store.add_all(vec![job("p", false)], vec![], free()).await.unwrap();
        store.add_all(vec![job("p", true)], vec![later("p")], free()).await.unwrap();
        queue.run(&["UNLINK", &queue.key("stream"), &queue.key("unique")]).await;
        queue.run(&["UNLINK", &queue.key("delayed"), &queue.key("jobs")]).await;
        Self { queue, proxy, store }
    }

    /// Swallows replies until the server holds so many jobs; then breaks the connection.
    async fn lose_reply(&self, held: i64) {
        self.proxy.drop_replies();
        eventually("it is stored", PATIENCE, async || self.held().await == held).await;
        self.proxy.cut();
    }

    async fn held(&self) -> i64 {
        let both = "return redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2])";
        let (stream, delayed) = (self.queue.key("stream"), self.queue.key("delayed"));
        self.queue.run(&["EVAL", both, "2", &stream, &delayed]).await.int()
    }

    async fn stored(&self) -> Vec<String> {
        let all = self.queue.dump().await;
        let ready: Vec<_> = all.values().into_iter().map(ToOwned::to_owned).collect();
        ready.into_iter().chain(all.jobs.into_values()).collect()
    }
}

fn jobs(count: usize, unique: bool) -> Vec<NewJob> {
    (0..count).map(|n| job(&format!("{n}"), unique)).collect()
}

#[tokio::test]
async fn sending_again_after_a_lost_reply_adds_nothing_twice() {
    for (now, delayed, pack) in [
        (jobs(1, false), vec![], 1),
        (jobs(1, true), vec![], 1),
        (jobs(100, false), vec![], 1),
        (jobs(100, false), vec![], 8),
        (jobs(3, true), vec![], 1),
        (vec![], vec![later("x"), later("y")], 1),
    ] {
        let bed = Bed::new(shared_server().await, 10_000).await;
        let entries = (now.len().div_ceil(pack) + delayed.len()) as i64;
        let what = format!("{} now, {} later", now.len(), delayed.len());
        let terms = Terms { pack, ..free() };
        let (added, ()) =
            tokio::join!(bed.store.add_all(now, delayed, terms), bed.lose_reply(entries));
        added.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(bed.held().await, entries, "{what}");
    }
}

#[tokio::test]
async fn put_is_not_repeated_when_the_job_has_been_done_meanwhile() {
    let bed = Bed::new(shared_server().await, 10_000).await;
    let done = async {
        bed.proxy.drop_replies();
        eventually("it is stored", PATIENCE, async || bed.held().await == 1).await;
        bed.queue.run(&["XTRIM", &bed.queue.key("stream"), "MAXLEN", "0"]).await;
        bed.proxy.cut();
    };
    let (added, ()) = tokio::join!(bed.store.add_all(jobs(1, false), vec![], free()), done);
    added.unwrap();
    assert_eq!(bed.held().await, 0);
}

#[tokio::test]
async fn a_full_queue_takes_what_it_took_before_the_reply_was_lost() {
    let bed = Bed::new(shared_server().await, 10_000).await;
    let terms = Terms { max_queue_len: 2, ..free() };
    let (added, ()) =
        tokio::join!(bed.store.add_all(jobs(2, false), vec![], terms), bed.lose_reply(2));
    added.unwrap();
    let error = bed.store.add_all(jobs(1, false), vec![], terms).await.unwrap_err();
    assert_eq!((error.kind(), error.job_ids().len()), (ErrorKind::QueueFull, 0));
    assert_eq!(bed.held().await, 2);
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_carries_the_ids_and_can_be_settled_later() {
    for (stored, chosen) in [(true, false), (true, true), (false, false), (false, true)] {
        let bed = Bed::new(shared_server().await, 400).await;
        let out = async {
            if stored {
                bed.proxy.drop_replies();
                eventually("it is stored", PATIENCE, async || bed.held().await == 2).await;
            } else {
                bed.proxy.stall(true);
            }
            bed.proxy.refuse(true);
        };
        let (added, ()) =
            tokio::join!(bed.store.add_all(jobs(2, chosen), vec![later("2")], free()), out);
        let error = added.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
        let told = "under the same id, with the same producer and within 5 minutes, is safe";
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.job_ids(), ["0", "1"], "those that were sent");
        bed.proxy.cut();
        bed.proxy.stall(false);
        bed.proxy.refuse(false);
        if stored {
            // As if they had been done meanwhile.
            bed.queue.run(&["DEL", &bed.queue.key("stream"), &bed.queue.key("unique")]).await;
        }
        let again = async |n: usize| {
            let added = async || {
                let again = vec![job(&n.to_string(), true)];
                bed.store.add_all(again, vec![], free()).await.is_ok()
            };
            eventually("it is added again", PATIENCE, added).await;
        };
        for n in [0, 1, 1, 0] {
            again(n).await;
        }
        let expected: &[&str] = match (stored, chosen) {
            (true, false) => &[],
            // Free for other jobs, once it has been told that these were added.
            (true, true) => &["record-1", "record-0"],
            (false, _) => &["record-0", "record-1"],
        };
        assert_eq!(bed.stored().await, expected, "stored before: {stored}, ids chosen: {chosen}");
    }
}

#[tokio::test]
async fn withdraw_tells_what_was_carried_out_and_stops_what_was_not() {
    let queue = Queue::new().await;
    let (stream, map) = (queue.key("stream"), queue.key("sent:s:0"));
    let put = async |bit: &str| {
        let text = scripts::PUT.text();
        queue.run(&["EVAL", text, "2", &stream, &map, bit, "60000", "record"]).await;
    };
    let withdraw = async |bits: &[&str]| {
        let count = bits.len().to_string();
        let mut command = vec!["EVAL", scripts::WITHDRAW.text(), &count];
        command.extend(bits.iter().map(|_| map.as_str()));
        command.push("60000");
        command.extend(bits);
        let reply = queue.run(&command).await;
        reply.array().iter().map(chasquimq_testkit::Reply::int).collect::<Vec<_>>()
    };
    put("0").await;
    for _ in 0..2 {
        assert_eq!(withdraw(&["0", "2", "16382"]).await, [1, 1, 0, 0]);
    }
    for bit in ["0", "2", "16382", "4"] {
        put(bit).await;
    }
    assert_eq!(queue.dump().await.values(), ["record", "record"]);
}

#[tokio::test]
async fn a_call_that_comes_late_is_not_carried_out_when_it_was_withdrawn() {
    let queue = Queue::new().await;
    let map = queue.key("sent:s:0");
    queue.run(&["EVAL", scripts::WITHDRAW.text(), "1", &map, "60000", "0"]).await;
    let keys = [queue.key("stream"), queue.key("unique"), queue.key("events"), map.clone()];
    let lingering = queue.key("lingering");
    let mut add = vec!["EVAL", scripts::ADD.text(), "5"];
    add.extend(keys.iter().map(String::as_str));
    add.push(&lingering);
    add.extend(["0", "60000", "0", "0", "", "record"]);
    assert_eq!(queue.run(&add).await.array()[0].int(), 0);
    let keys = ["delayed", "jobs", "unique", "events"].map(|suffix| queue.key(suffix));
    let mut schedule = vec!["EVAL", scripts::SCHEDULE.text(), "5"];
    schedule.extend(keys.iter().map(String::as_str));
    schedule.extend([&map, "0", "60000", "wake", "0", "0"]);
    schedule.extend(["id", "0", "in", "9", "record", "name"]);
    assert_eq!(queue.run(&schedule).await.array()[0].int(), 0);
    assert_eq!(queue.dump().await, super::support::Keyspace::default());
}

#[tokio::test]
async fn a_server_that_restarts_after_a_lost_reply_still_knows_of_the_call() {
    let server = Server::builder().aof(true).start().await;
    let bed = Bed::new(&server, 10_000).await;
    let restart = async {
        bed.proxy.drop_replies();
        eventually("it is stored", PATIENCE, async || bed.held().await == 50).await;
        server.kill9();
        bed.proxy.cut();
        server.restart().await;
    };
    let (added, ()) = tokio::join!(bed.store.add_all(jobs(50, false), vec![], free()), restart);
    added.unwrap();
    assert_eq!(bed.held().await, 50);
}

#[tokio::test]
async fn a_bulk_that_is_refused_half_way_tells_the_ids_and_can_be_completed() {
    let bed = Bed::new(shared_server().await, 10_000).await;
    let terms = Terms { max_queue_len: 700, ..free() };
    let error = bed.store.add_all(jobs(1200, false), vec![], terms).await.unwrap_err();
    assert_eq!((error.kind(), error.job_ids().len()), (ErrorKind::QueueFull, 1000));
    assert_eq!(bed.held().await, 500);
    bed.store.add_all(jobs(1200, true), vec![], free()).await.unwrap();
    let mut stored = bed.stored().await;
    stored.sort_unstable();
    stored.dedup();
    assert_eq!((bed.held().await, stored.len()), (1200, 1200));
}

#[tokio::test]
async fn producers_whose_connections_are_cut_again_and_again_add_each_job_once() {
    let bed = Bed::new(shared_server().await, 10_000).await;
    let adding = futures::future::join_all((0..8).map(async |producer| {
        for n in 0..100 {
            let id = |part: usize| format!("{producer}-{n}-{part}");
            let now: Vec<_> = (0..n % 3).map(|part| job(&id(part), n % 2 == 0)).collect();
            bed.store.add_all(now, vec![later(&id(9))], free()).await.unwrap();
        }
    }));
    let cutting = async {
        for round in 1..=20 {
            let more = async || bed.held().await > round * 60;
            eventually("more is added", PATIENCE, more).await;
            bed.proxy.drop_replies();
            tokio::time::sleep(Duration::from_millis(2)).await;
            bed.proxy.cut();
        }
    };
    tokio::join!(adding, cutting);
    let mut stored = bed.stored().await;
    let held = bed.held().await;
    stored.sort_unstable();
    stored.dedup();
    let count: usize = (0..100).map(|n| n % 3 + 1).sum::<usize>() * 8;
    assert_eq!((held, stored.len()), (count as i64, count));
}
