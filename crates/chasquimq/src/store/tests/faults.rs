//! A server without memory, and keys of a wrong type: nothing is lost, nothing half-written.

use std::time::Duration;

use chasquimq_testkit::Server;

use super::support::{GROUP, ME, Queue, done, failed, hopeless, job, unrun, verdicts};
use crate::error::{Error, ErrorKind};
use crate::store::{Due, Replay, Retry, Search, Stored, Tick};

const LOCK: Duration = Duration::from_secs(5);

/// The kind of the one fault in a batch of one.
fn fault(stored: &[Stored]) -> ErrorKind {
    match stored {
        [Stored::Failed(error)] => error.kind(),
        other => panic!("{other:?}"),
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn without_memory(server: &Server) {
    let reply = server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(reply.error(), None);
}

#[tokio::test]
async fn out_of_memory_jobs_can_still_be_settled_and_promoted() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let ids = queue.deliver(&["a", "b", "c", "d", "three", "e"]).await;
    queue.store.schedule(&[(job("due", true), Due::At(1))], 0).await.unwrap();
    without_memory(&server).await;
    assert_eq!(verdicts(&queue.retry(&[failed(&ids[0], 1, 0)]).await), "y");
    assert_eq!(verdicts(&queue.bury(&[hopeless(&ids[1], 1, 0)]).await), "y");
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[2], 1, &[0])]).await), "y");
    assert_eq!(verdicts(&queue.complete(&[done(&ids[3], 1, &[0])]).await), "y");
    let finished = queue.store.finish(GROUP, ME, &[&done(&ids[5], 1, &[0])]).await.unwrap();
    assert_eq!(verdicts(&finished), "y");
    assert_eq!(verdicts(&queue.complete(&[done(&ids[4], 3, &[0, 2])]).await), "y");
    assert_eq!(verdicts(&queue.retry(&[failed(&ids[4], 3, 1)]).await), "y");
    let tick = queue.store.promote("p-1", LOCK, 10).await.unwrap();
    assert!(matches!(tick, Tick::Led { promoted: 1, fault: None, .. }), "{tick:?}");
    let after = queue.dump().await;
    assert_eq!(after.values(), ["back-0", "record-due@1"]);
    assert_eq!((after.delayed.len(), after.dlq.len(), after.events.len()), (2, 1, 12));
    let counts = queue.store.inspect().await.unwrap();
    assert_eq!((counts.ready, counts.retrying, counts.dead), (2, 2, 1));
    assert!(after.pending.is_empty() && after.settled.is_empty());
}

#[tokio::test]
async fn out_of_memory_nothing_is_added() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let id = queue.deliver(&["dead"]).await.remove(0);
    queue.bury(&[hopeless(&id, 1, 0)]).await;
    let dlq_id = queue.store.dead(&mut Search::new(vec![]), 1).await.unwrap().remove(0).dlq_id;
    let before = queue.dump().await;
    without_memory(&server).await;
    let due = Due::In(5);
    for unique in [false, true] {
        let add = queue.store.add(&[job("a", unique)], 0, 1).await;
        assert_eq!(kind(add), ErrorKind::OutOfMemory);
        let bounded = queue.store.add(&[job("a", unique), job("b", unique)], 100, 1).await;
        assert_eq!(kind(bounded), ErrorKind::OutOfMemory);
        let schedule = queue.store.schedule(&[(job("a", unique), due)], 0).await;
        assert_eq!(kind(schedule), ErrorKind::OutOfMemory);
        let replay = Replay { dlq_id: dlq_id.clone(), job: job("a", unique) };
        assert_eq!(kind(queue.store.replay(&[replay]).await), ErrorKind::OutOfMemory);
    }
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn out_of_memory_a_consumer_can_come_and_go() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    queue.store.schedule(&[(job("a", true), Due::In(60_000))], 0).await.unwrap();
    without_memory(&server).await;
    assert!(queue.store.enter(GROUP).await.unwrap());
    assert!(queue.store.leave(GROUP, ME).await.unwrap());
    assert_eq!(queue.store.cancel(&["a".to_owned()]).await.unwrap(), [true]);
    assert!(queue.dump().await.jobs.is_empty());
}

#[tokio::test]
async fn a_place_of_the_wrong_type_fails_the_job_and_leaves_it_pending() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "three"]).await;
    for key in ["delayed", "dlq"] {
        queue.run(&["SET", &queue.key(key), "x"]).await;
    }
    let before = queue.dump().await;
    for (total, id) in [(1, &ids[0]), (3, &ids[2])] {
        assert_eq!(fault(&queue.retry(&[failed(id, total, 0)]).await), ErrorKind::WrongType);
        assert_eq!(fault(&queue.bury(&[hopeless(id, total, 0)]).await), ErrorKind::WrongType);
    }
    assert_eq!(queue.dump().await, before);
    queue.run(&["DEL", &queue.key("delayed"), &queue.key("dlq")]).await;
    queue.run(&["SET", &queue.key("jobs"), "x"]).await;
    let before = queue.dump().await;
    assert_eq!(fault(&queue.retry(&[failed(&ids[0], 1, 0)]).await), ErrorKind::WrongType);
    assert_eq!(queue.dump().await, before);
    queue.run(&["DEL", &queue.key("jobs")]).await;
    assert_eq!(verdicts(&queue.retry(&[failed(&ids[0], 1, 0)]).await), "y");
    assert_eq!(verdicts(&queue.bury(&[hopeless(&ids[1], 1, 0)]).await), "y");
}

#[tokio::test]
async fn a_stream_of_the_wrong_type_fails_everything_and_moves_nothing() {
    let queue = Queue::new().await;
    queue.store.schedule(&[(job("a", false), Due::At(1))], 0).await.unwrap();
    queue.run(&["SET", &queue.key("stream"), "x"]).await;
    let before = queue.dump().await;
    let entry = "1-1".into();
    assert_eq!(kind(queue.store.add(&[job("b", true)], 0, 1).await), ErrorKind::WrongType);
    assert_eq!(kind(queue.store.add(&[job("b", false)], 0, 1).await), ErrorKind::WrongType);
    assert_eq!(kind(queue.store.enter(GROUP).await), ErrorKind::WrongType);
    assert_eq!(kind(queue.store.promote("p-1", LOCK, 10).await), ErrorKind::WrongType);
    let settled = queue.store.complete(GROUP, ME, &[&done(&entry, 1, &[0])]).await;
    assert_eq!(kind(settled), ErrorKind::WrongType);
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn adding_holds_no_id_when_a_key_is_of_the_wrong_type() {
    let queue = Queue::new().await;
    let mixed = [job("a", false), job("b", true)];
    let later = mixed.clone().map(|job| (job, Due::In(60_000)));
    for key in ["unique", "jobs", "delayed"] {
        queue.run(&["SET", &queue.key(key), "x"]).await;
        let before = queue.dump().await;
        assert_eq!(kind(queue.store.schedule(&later, 0).await), ErrorKind::WrongType, "{key}");
        if key == "unique" {
            assert_eq!(kind(queue.store.add(&mixed, 0, 1).await), ErrorKind::WrongType);
        }
        assert_eq!(queue.dump().await, before, "{key}");
        queue.run(&["DEL", &queue.key(key)]).await;
    }
    assert_eq!(queue.store.schedule(&later, 0).await.unwrap(), [true, true]);
    queue.run(&["DEL", &queue.key("jobs")]).await;
    queue.run(&["SET", &queue.key("jobs"), "x"]).await;
    let before = queue.dump().await;
    assert_eq!(kind(queue.store.cancel(&["b".to_owned()]).await), ErrorKind::WrongType);
    assert_eq!(queue.dump().await, before);
}

#[tokio::test]
async fn events_of_the_wrong_type_stop_nothing() {
    let queue = Queue::verbose().await;
    queue.run(&["SET", &queue.key("events"), "x"]).await;
    let ids = queue.deliver(&["a", "b", "c", "d"]).await;
    assert_eq!(verdicts(&queue.complete(&[done(&ids[0], 1, &[0])]).await), "y");
    assert_eq!(verdicts(&queue.retry(&[failed(&ids[1], 1, 0)]).await), "y");
    assert_eq!(verdicts(&queue.bury(&[hopeless(&ids[2], 1, 0)]).await), "y");
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[3], 1, &[0])]).await), "y");
    assert_eq!(queue.store.add(&[job("e", true)], 0, 1).await.unwrap(), [true]);
    let later = [(job("f", true), Due::At(1)), (job("g", true), Due::In(60_000))];
    assert_eq!(queue.store.schedule(&later, 0).await.unwrap(), [true, true]);
    assert_eq!(queue.store.cancel(&["g".to_owned()]).await.unwrap(), [true]);
    let tick = queue.store.promote("p-1", LOCK, 10).await.unwrap();
    assert!(matches!(tick, Tick::Led { promoted: 1, fault: None, .. }), "{tick:?}");
    let dead = queue.store.dead(&mut Search::new(vec![]), 1).await.unwrap().remove(0);
    let replay = Replay { dlq_id: dead.dlq_id, job: job("h", true) };
    assert_eq!(queue.store.replay(&[replay]).await.unwrap(), [true]);
    let after = queue.dump().await;
    assert_eq!(after.values(), ["back-0", "record-e", "record-f@1", "record-h"]);
    assert_eq!((after.delayed.len(), after.dlq.len(), after.pending.len()), (1, 0, 0));
}

#[tokio::test]
async fn a_retry_that_cannot_be_counted_as_one_still_happens() {
    let queue = Queue::new().await;
    queue.run(&["LPUSH", &queue.key("retrying"), "x"]).await;
    let ids = queue.deliver(&["a", "b"]).await;
    let job = |n: usize| Retry { id: format!("job-{n}").into(), ..failed(&ids[n], 1, 0) };
    assert_eq!(verdicts(&queue.retry(&[job(0), job(1)]).await), "yy");
    queue.store.cancel(&["job-0".to_owned()]).await.unwrap();
    queue.run(&["ZADD", &queue.key("delayed"), "1", "job-1"]).await;
    let tick = queue.store.promote("p-1", LOCK, 10).await.unwrap();
    assert!(matches!(tick, Tick::Led { promoted: 1, fault: None, .. }), "{tick:?}");
    assert_eq!(queue.store.inspect().await.unwrap().retrying, 0);
}
