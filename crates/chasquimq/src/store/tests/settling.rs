//! complete, retry, bury, release: the four ways out of `running`, for entries of one job.

use bytes::Bytes;

use super::support::{GROUP, ME, OTHER, Queue, done, failed, hopeless, job, text, unrun, verdicts};
use crate::config::EventsConfig;
use crate::store::{Burial, Completion, Due};

const DEAD: &str = "id=job-0 n=send reason=retries_exhausted error=boom attempt=3 lost=1 \
                    failed_at_ms=now source_id=";

/// The completion without a look at the owner.
fn unchecked(completion: Completion) -> Completion {
    Completion { check_owner: false, ..completion }
}

#[tokio::test]
async fn complete_acknowledges_deletes_frees_the_id_and_tells() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "c"]).await;
    queue.run(&["HSET", &queue.key("unique"), "job-0", "1", "other", "1"]).await;
    let mut batch = [done(&ids[0], 1, &[0]), unchecked(done(&ids[2], 1, &[0]))];
    batch[0].jobs[0].unique = true;
    assert_eq!(verdicts(&queue.complete(&batch).await), "yy");
    let after = queue.dump().await;
    assert_eq!(after.values(), ["b"]);
    assert_eq!(after.pending, [(text(&ids[1]), ME.to_owned(), 1)]);
    assert_eq!(after.unique, ["other".to_owned()].into());
    assert_eq!(after.events, ["e=completed id=job-0 n=send attempt=1 duration_us=250"; 2]);
    assert!(after.settled.is_empty() && after.odd.is_empty());
    for again in [batch, [done(&ids[2], 1, &[0]), unchecked(done(&ids[0], 1, &[0]))]] {
        assert_eq!(verdicts(&queue.complete(&again).await), "nn");
        assert_eq!(queue.dump().await, after);
    }
}

#[tokio::test]
async fn complete_leaves_what_another_holds_and_what_is_not_there() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.hand_to(OTHER, &ids[1]).await;
    let batch = [done(&ids[0], 1, &[0]), done(&ids[1], 1, &[0]), done(&"7-7".into(), 1, &[0])];
    assert_eq!(verdicts(&queue.complete(&batch).await), "ynn");
    let after = queue.dump().await;
    assert_eq!((after.values(), after.events.len()), (vec!["b"], 1));
}

#[tokio::test]
async fn retry_delays_the_job_and_tells() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.run(&["HSET", &queue.key("unique"), "job-0", "1"]).await;
    let before = queue.now().await;
    assert_eq!(verdicts(&queue.retry(&[failed(&ids[0], 1, 0)]).await), "y");
    let now = queue.now().await;
    let after = queue.dump().await;
    assert_eq!(after.values(), ["b"]);
    assert_eq!(after.pending, [(text(&ids[1]), ME.to_owned(), 1)]);
    assert_eq!(after.jobs, [("job-0".to_owned(), "retry-0".to_owned())].into());
    assert_eq!(after.retrying, 1);
    assert!((before + 5000..=now + 5000).contains(&after.delayed["job-0"]), "{after:?}");
    assert_eq!(after.unique, ["job-0".to_owned()].into(), "the job is still live");
    let told = [
        "e=failed id=job-0 n=send attempt=2 duration_us=250 reason=boom",
        "e=retry-scheduled id=job-0 n=send attempt=3 backoff_ms=5000",
    ];
    assert_eq!(after.events, told);
    assert_eq!(verdicts(&queue.retry(&[failed(&ids[0], 1, 0)]).await), "n");
    assert_eq!(queue.dump().await, after);
}

#[tokio::test]
async fn retry_wakes_the_promoter_for_an_earlier_job_only() {
    let queue = Queue::new().await;
    let mut wakes = queue.store.wakes().await.unwrap();
    let ids = queue.deliver(&["a", "b", "c"]).await;
    let hour = Due::In(3_600_000);
    queue.store.schedule(&[(job("later", false), hour)], 0).await.unwrap();
    wakes.next().await;
    let retry = |n: usize, backoff_ms| {
        let id = format!("job-{n}");
        crate::store::Retry { id: id.into(), backoff_ms, ..failed(&ids[n], 1, 0) }
    };
    queue.retry(&[retry(0, 7_200_000)]).await;
    queue.retry(&[retry(1, 60_000), retry(2, 50_000)]).await;
    let told: i64 = wakes.next().await.parse().unwrap();
    let after = queue.dump().await;
    assert_eq!(
        told, after.delayed["job-2"],
        "the first word is of the earliest of them: {after:?}"
    );
}

#[tokio::test]
async fn bury_stores_the_job_with_its_reason_frees_the_id_and_tells() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.run(&["HSET", &queue.key("unique"), "job-0", "1"]).await;
    let burial = || Burial { unique: true, ..hopeless(&ids[0], 1, 0) };
    assert_eq!(verdicts(&queue.bury(&[burial()]).await), "y");
    let after = queue.dump().await;
    assert_eq!(after.values(), ["b"]);
    assert_eq!(after.dlq, [format!("{DEAD}{} j=dead-0", text(&ids[0]))]);
    assert!(after.unique.is_empty());
    let told = [
        "e=failed id=job-0 n=send attempt=3 duration_us=250 reason=boom",
        "e=dlq id=job-0 n=send attempt=3 reason=retries_exhausted",
    ];
    assert_eq!(after.events, told);
    assert_eq!(verdicts(&queue.bury(&[burial()]).await), "n");
    assert_eq!(queue.dump().await, after);
}

#[tokio::test]
async fn bury_of_a_job_that_never_ran_tells_of_no_failure() {
    let queue = Queue::new().await;
    let id = queue.deliver(&["junk"]).await.remove(0);
    let raw: Vec<Bytes> = ["x", "1", "y", "2"].map(Bytes::from).into();
    let burial = Burial { id: "".into(), name: Bytes::new(), run: 0, raw, ..hopeless(&id, 1, 0) };
    queue.bury(&[burial]).await;
    let after = queue.dump().await;
    assert!(after.dlq[0].ends_with(&format!("source_id={} x=1 y=2", text(&id))), "{after:?}");
    assert_eq!(after.events, ["e=dlq id= n= attempt=0 reason=retries_exhausted"]);
}

#[tokio::test]
async fn bury_of_an_entry_with_ever_so_many_fields_does_not_get_stuck() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["junk", "b"]).await;
    let raw: Vec<Bytes> = (0..20_000).map(|n| Bytes::from(n.to_string())).collect();
    let burials = [Burial { raw, ..hopeless(&ids[0], 1, 0) }, hopeless(&ids[1], 1, 0)];
    assert_eq!(verdicts(&queue.bury(&burials).await), "yy");
    let after = queue.dump().await;
    assert!(after.dlq[0].contains(" 0=1 2=3 "), "{:.200}", after.dlq[0]);
    assert!(after.stream.is_empty() && after.pending.is_empty());
}

#[tokio::test]
async fn bury_keeps_the_newest_dead_jobs_when_there_is_a_bound() {
    let queue = Queue::new().await;
    for n in 0..5 {
        let id = queue.deliver(&["a"]).await.remove(0);
        let raw = vec!["j".into(), Bytes::from(n.to_string())];
        let burial = Burial { raw, ..hopeless(&id, 1, 0) };
        queue.store.bury(GROUP, ME, &[burial], 2).await.unwrap();
    }
    let kept: Vec<_> = queue.dump().await.dlq;
    assert!(kept.len() == 2 && kept[0].ends_with("j=3") && kept[1].ends_with("j=4"), "{kept:?}");
}

#[tokio::test]
async fn release_appends_the_record_as_it_is_given() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.age(&ids[0]).await;
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[0], 1, &[0])]).await), "y");
    let after = queue.dump().await;
    assert_eq!(after.values(), ["b", "back-0"], "its counters are the caller's business");
    assert_eq!(after.pending, [(text(&ids[1]), ME.to_owned(), 1)]);
    assert_eq!(after.events, ["e=released id=job-0 n=send"]);
    assert_eq!(verdicts(&queue.release(&[unrun(&ids[0], 1, &[0])]).await), "n");
    assert_eq!(queue.dump().await, after);
}

#[tokio::test]
async fn retry_counts_a_job_once_that_failed_under_two_leases() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a"]).await;
    queue.retry(&[failed(&ids[0], 1, 0), failed(&ids[0], 1, 0)]).await;
    let after = queue.dump().await;
    assert_eq!((after.delayed.len(), after.retrying), (1, 1));
}

#[tokio::test]
async fn retry_leaves_delayed_jobs_alone_whatever_their_ids() {
    let queue = Queue::new().await;
    let blank = |n: usize| (job(&" ".repeat(n), true), Due::In(60_000));
    let jobs: Vec<_> = (1..=256).map(blank).collect();
    queue.store.schedule(&jobs, 0).await.unwrap();
    let ids = queue.deliver(&["a"]).await;
    queue.retry(&[failed(&ids[0], 1, 0)]).await;
    let after = queue.dump().await;
    assert_eq!((after.delayed.len(), after.jobs.len()), (257, 257));
}

#[tokio::test]
async fn settling_what_another_holds_changes_nothing() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b"]).await;
    queue.hand_to(OTHER, &ids[0]).await;
    let before = queue.dump().await;
    let theirs = &ids[0];
    assert_eq!(verdicts(&queue.complete(&[done(theirs, 1, &[0])]).await), "n");
    assert_eq!(verdicts(&queue.complete(&[done(theirs, 2, &[1])]).await), "n");
    assert_eq!(verdicts(&queue.retry(&[failed(theirs, 1, 0)]).await), "n");
    assert_eq!(verdicts(&queue.bury(&[hopeless(theirs, 1, 0)]).await), "n");
    assert_eq!(verdicts(&queue.release(&[unrun(theirs, 1, &[0])]).await), "n");
    assert_eq!(queue.dump().await, before);
    let both = [done(theirs, 1, &[0]), done(&ids[1], 1, &[0])];
    assert_eq!(verdicts(&queue.complete(&both).await), "ny", "one's own beside it is settled");
}

#[tokio::test]
async fn retry_knows_its_own_in_any_order_among_those_of_others() {
    let queue = Queue::new().await;
    let ids = queue.deliver(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]).await;
    queue.hand_to(OTHER, &ids[4]).await;
    let mixed = [7, 4, 9, 0, 2].map(|n| failed(&ids[n], 1, 0));
    assert_eq!(verdicts(&queue.retry(&mixed).await), "ynyyy");
    assert_eq!(verdicts(&queue.retry(&mixed).await), "nnnnn");
    let rest = [1, 3, 5, 6, 8].map(|n| failed(&ids[n], 1, 0));
    assert_eq!(verdicts(&queue.retry(&rest).await), "yyyyy");
}

#[tokio::test]
async fn settling_publishes_nothing_when_events_are_off() {
    let off = EventsConfig { enabled: false, ..EventsConfig::default() };
    let queue = Queue::with(chasquimq_testkit::shared_server().await, off).await;
    let ids = queue.deliver(&["a", "b", "c", "d"]).await;
    queue.complete(&[done(&ids[0], 1, &[0])]).await;
    queue.retry(&[failed(&ids[1], 1, 0)]).await;
    queue.bury(&[hopeless(&ids[2], 1, 0)]).await;
    queue.release(&[unrun(&ids[3], 1, &[0])]).await;
    let after = queue.dump().await;
    assert_eq!((after.values(), after.dlq.len(), after.jobs.len()), (vec!["back-0"], 1, 1));
    assert!(after.events.is_empty());
}

#[tokio::test]
async fn settling_keeps_the_events_stream_bounded() {
    let few = EventsConfig { max_stream_len: 100, ..EventsConfig::default() };
    let queue = Queue::with(chasquimq_testkit::shared_server().await, few).await;
    for _ in 0..10 {
        let ids = queue.deliver(&["x"; 100]).await;
        let batch: Vec<_> = ids.iter().map(|id| done(id, 1, &[0])).collect();
        assert_eq!(verdicts(&queue.complete(&batch).await), "y".repeat(100));
    }
    let events = queue.dump().await.events.len();
    assert!((100..=300).contains(&events), "{events}");
}
