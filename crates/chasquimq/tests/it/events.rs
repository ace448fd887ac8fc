//! The events stream: every listener sees all of it, over reconnects and restarts.

use std::collections::HashSet;
use std::time::Duration;

use chasquimq::events::{Event, From, Tail, TailOptions, Tailed, tail};
use chasquimq::{AddOptions, ConsumerConfig, EventsConfig, HandlerError, Producer, ProducerConfig};
use chasquimq_testkit::{ChaosProxy, Server, eventually, shared_server, unique_queue};

use crate::support::{Worker, config, drained, key, producer};

async fn follow(url: &str, queue: &str, from: From) -> Tail {
    let options = TailOptions { from, block: Duration::from_millis(200), ..Default::default() };
    tail(url, queue, options).await.unwrap()
}

async fn take(tail: &mut Tail, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), tail.next()).await;
        match next.expect("events stopped coming").unwrap() {
            Tailed::Event(event) => events.push(event),
            gap @ Tailed::Gap { .. } => panic!("{gap:?}"),
        }
    }
    events
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn field<'a>(event: &'a Event, name: &str) -> &'a str {
    event.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_s_life_is_told_in_order_with_its_fields() {
    let (server, queue) = (shared_server().await, unique_queue("told"));
    let producer = producer(server, &queue).await;
    let mut tail = follow(&server.url(), &queue, From::Now).await;
    let options = AddOptions::new().with_name("send");
    let id = producer.add_in_with_options(Duration::from_millis(20), 1, options).await.unwrap();
    let config = ConsumerConfig { max_attempts: 2, ..config(&queue) };
    let worker =
        Worker::start(&server.url(), config, |_| async { Err(HandlerError::new("no route")) });
    worker.ran(2).await;
    let events = take(&mut tail, 5).await;
    assert_eq!(names(&events), ["delayed", "failed", "retry-scheduled", "failed", "dlq"]);
    assert!(events.iter().all(|event| event.job_id == id && event.job_name == "send"));
    assert_eq!(field(&events[0], "delay_ms"), "20");
    assert_eq!((field(&events[1], "attempt"), field(&events[1], "reason")), ("1", "no route"));
    assert_eq!((field(&events[2], "attempt"), field(&events[2], "backoff_ms")), ("2", "10"));
    assert_eq!(
        (field(&events[4], "attempt"), field(&events[4], "reason")),
        ("2", "retries_exhausted")
    );
    worker.finish().await;
    assert_eq!(producer.replay_dlq(1).await.unwrap(), 1);
    assert_eq!(names(&take(&mut tail, 1).await), ["replayed"]);
    let later = producer.add_in(Duration::from_mins(1), 2).await.unwrap();
    producer.cancel_delayed(&later).await.unwrap();
    assert_eq!(names(&take(&mut tail, 2).await), ["delayed", "cancelled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_a_job_is_told_on_request() {
    let (server, queue) = (shared_server().await, unique_queue("verbose"));
    let verbose = EventsConfig { verbose: true, ..EventsConfig::default() };
    let chatty =
        ProducerConfig { queue_name: queue.clone(), events: verbose.clone(), ..Default::default() };
    let producer = Producer::<u32>::connect(&server.url(), chatty).await.unwrap();
    let mut tail = follow(&server.url(), &queue, From::Now).await;
    let named = || AddOptions::new().with_name("send");
    let minute = Duration::from_mins(1);
    let late = producer.add_in_with_options(minute, 1, named()).await.unwrap();
    producer.cancel_delayed(&late).await.unwrap();
    producer.add_with_options(1, named().with_id("now")).await.unwrap();
    let soon = Duration::from_millis(300);
    producer.add_in_with_options(soon, 2, named().with_id("soon")).await.unwrap();
    let config = ConsumerConfig { events: verbose, ..config(&queue) };
    let worker = Worker::start(&server.url(), config, |_| async { Ok(()) });
    let events = take(&mut tail, 9).await;
    let of = |id: &str| {
        let his: Vec<_> = events.iter().filter(|event| event.job_id == id).cloned().collect();
        names(&his).join(" ")
    };
    assert_eq!(of(&late), "delayed cancelled");
    assert_eq!(of("now"), "waiting active completed");
    assert_eq!(of("soon"), "delayed promoted active completed");
    assert!(events.iter().all(|event| event.job_name == "send"), "{events:?}");
    let active: Vec<_> = events.iter().filter(|event| event.name == "active").collect();
    assert!(active.iter().all(|event| field(event, "attempt") == "1"));
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopping_worker_hands_back_is_told() {
    let (server, queue) = (shared_server().await, unique_queue("released"));
    producer(server, &queue).await.add(1).await.unwrap();
    let mut tail = follow(&server.url(), &queue, From::Now).await;
    let config = ConsumerConfig { shutdown_deadline_secs: 0, ..config(&queue) };
    let worker = Worker::start(&server.url(), config, |_| std::future::pending());
    worker.ran(1).await;
    worker.finish().await;
    assert_eq!(names(&take(&mut tail, 1).await), ["released"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_miss_nothing_over_a_cut_and_a_restart() {
    let server = Server::builder().aof(true).start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    let mut one = follow(&server.url(), "q", From::Now).await;
    let mut other = follow(&proxy.url(), "q", From::Now).await;
    producer(&server, "q").await.add_bulk((0..10_000).collect()).await.unwrap();
    let patient = ConsumerConfig { claim_min_idle_ms: 30_000, ..config("q") };
    let worker = Worker::start(&server.url(), patient, |_| async { Ok(()) });
    let mut seen = take(&mut other, 300).await;
    proxy.cut();
    seen.extend(take(&mut other, 300).await);
    let cursor = other.cursor().to_owned();
    drop(other);
    worker.ran(10_000).await;
    drained(&server, "q").await;
    server.kill9();
    server.restart().await;
    let mut resumed = follow(&server.url(), "q", From::After(cursor)).await;
    seen.extend(take(&mut resumed, 9400).await);
    let all = take(&mut one, 10_000).await;
    assert_eq!(seen, all);
    let jobs: HashSet<_> = all.iter().map(|event| &event.job_id).collect();
    assert_eq!(jobs.len(), 10_000, "none twice");
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_falls_behind_is_told_of_the_gap() {
    let (server, queue) = (shared_server().await, unique_queue("gap"));
    let producer = producer(server, &queue).await;
    producer.add_in_bulk(Duration::from_mins(1), (0..10).collect()).await.unwrap();
    let mut tail = follow(&server.url(), &queue, From::Beginning).await;
    let last = take(&mut tail, 10).await.pop().unwrap();
    producer.add_in_bulk(Duration::from_mins(1), (0..10).collect()).await.unwrap();
    server.command(&["XTRIM", &key(&queue, "events"), "MAXLEN", "3"]).await;
    let mut late = follow(&server.url(), &queue, From::After(last.id.clone())).await;
    let first = tokio::time::timeout(Duration::from_secs(5), late.next()).await.unwrap().unwrap();
    assert_eq!(first, Tailed::Gap { after: last.id });
    assert_eq!(take(&mut late, 3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_key_of_the_wrong_type_stops_no_job() {
    let server = Server::start().await;
    server.command(&["SET", &key("q", "events"), "not a stream"]).await;
    let producer = producer(&server, "q").await;
    producer.add_bulk((0..50).collect()).await.unwrap();
    let worker = Worker::start(&server.url(), config("q"), |job| async move {
        if job.attempt == 0 { Err(HandlerError::new("once")) } else { Ok(()) }
    });
    worker.ran(100).await;
    drained(&server, "q").await;
    eventually("nothing is left", Duration::from_secs(5), || async {
        server.command(&["XLEN", &key("q", "stream")]).await.int() == 0
    })
    .await;
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_several_events_can_be_resumed_in_its_middle() {
    let (server, queue) = (shared_server().await, unique_queue("packed"));
    let events = key(&queue, "events");
    let lines = |values: &str| values.replace(' ', "\n");
    let (jobs, names) = (lines("a b c"), lines("send  mail"));
    let packed = ["XADD", &events, "5-5", "e", "completed", "id", &jobs, "n", &names, "k", "3"];
    server.command(&packed).await;
    server.command(&["XADD", &events, "5-6", "e", "dlq", "id", "d", "n", "", "k", "2"]).await;
    let mut tail = follow(&server.url(), &queue, From::Beginning).await;
    let all = take(&mut tail, 4).await;
    let seen = |e: &Event| (e.id.clone(), e.name.clone(), e.job_id.clone(), e.job_name.clone());
    let told = |id: &str, event: &str, job: &str, name: &str| {
        (id.to_owned(), event.to_owned(), job.to_owned(), name.to_owned())
    };
    assert_eq!(
        all.iter().map(seen).collect::<Vec<_>>(),
        [
            told("5-5:1", "completed", "a", "send"),
            told("5-5:2", "completed", "b", ""),
            told("5-5", "completed", "c", "mail"),
            told("5-6", "dlq", "d", ""),
        ],
        "one that does not hold what it says is one event"
    );
    for (n, event) in all.iter().enumerate() {
        let mut tail = follow(&server.url(), &queue, From::After(event.id.clone())).await;
        assert_eq!(take(&mut tail, 3 - n).await, all[n + 1..]);
    }
    server.command(&["XDEL", &events, "5-5"]).await;
    let mut late = follow(&server.url(), &queue, From::After("5-5:1".into())).await;
    assert_eq!(late.next().await.unwrap(), Tailed::Gap { after: "5-5:1".into() });
    assert_eq!(take(&mut late, 1).await, all[3..]);
    let bad = TailOptions { from: From::After("5-5:x".into()), ..Default::default() };
    let error = chasquimq::events::tail(&server.url(), &queue, bad).await.err().unwrap();
    assert!(error.to_string().contains("is not an event id"), "{error}");
}
