//! Dead jobs: why, with what error, and back again.

use std::time::Duration;

use chasquimq::{
    AddOptions, ConsumerConfig, DlqEntry, ErrorKind, HandlerError, JobRetryOverride, RawJob,
};
use chasquimq_testkit::{shared_server, unique_queue};

use crate::support::{Worker, config, drained, key, producer};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_job_tells_its_error_its_runs_and_when_it_died() {
    let (server, queue) = (shared_server().await, unique_queue("dead"));
    let producer = producer(server, &queue).await;
    let twice = JobRetryOverride { max_attempts: Some(2), backoff: None };
    let id = producer
        .add_with_options(1, AddOptions::new().with_name("send").with_retry(twice))
        .await
        .unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async {
        Err(HandlerError::new("no route"))
    });
    worker.ran(2).await;
    drained(server, &queue).await;
    let dead = producer.peek_dlq(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].job_id.as_str(), dead[0].name.as_str()), (id.as_str(), "send"));
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].detail.as_deref()),
        ("retries_exhausted", Some("no route"))
    );
    assert_eq!((dead[0].attempt, dead[0].lost), (2, 0));
    assert!(dead[0].failed_at_ms > 1_600_000_000_000);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_timeouts_and_hopeless_jobs_have_their_reasons() {
    let (server, queue) = (shared_server().await, unique_queue("reasons"));
    let producer = producer(server, &queue).await;
    producer.add_bulk(vec![1, 2, 3]).await.unwrap();
    let config = ConsumerConfig {
        max_attempts: 1,
        job_timeout: Some(Duration::from_millis(200)),
        ..config(&queue)
    };
    let worker = Worker::start(&server.url(), config, |job| async move {
        match job.payload {
            1 => panic!("lost my head"),
            2 => std::future::pending().await,
            _ => Err(HandlerError::unrecoverable("never")),
        }
    });
    worker.ran(3).await;
    drained(server, &queue).await;
    let mut dead: Vec<(String, String)> = producer
        .peek_dlq(10)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| (entry.reason, entry.detail.unwrap_or_default()))
        .collect();
    dead.sort();
    let expected = [
        ("retries_exhausted", "panicked: lost my head"),
        ("retries_exhausted", "timed out after 200ms"),
        ("unrecoverable", "never"),
    ];
    assert_eq!(dead, expected.map(|(reason, detail)| (reason.to_owned(), detail.to_owned())));
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_kept_whole_and_never_pending() {
    let (server, queue) = (shared_server().await, unique_queue("garbage"));
    let (producer, stream) = (producer(server, &queue).await, key(&queue, "stream"));
    server.command(&["XADD", &stream, "*", "j", "\u{1}\u{2}"]).await;
    server.command(&["XADD", &stream, "*", "reason", "mine", "x", "1"]).await;
    producer.add(5).await.unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(1).await;
    drained(server, &queue).await;
    let dead = producer.peek_dlq(10).await.unwrap();
    let reasons: Vec<&str> = dead.iter().map(|entry| entry.reason.as_str()).collect();
    assert_eq!(reasons, ["decode_failed", "malformed"]);
    assert_eq!(&dead[0].payload[..], b"\x01\x02");
    let raw = server.command(&["XRANGE", &key(&queue, "dlq"), "-", "+"]).await;
    let fields: Vec<String> =
        raw.array()[1].array()[1].array().iter().map(chasquimq_testkit::Reply::text).collect();
    assert!(
        fields.ends_with(&["reason".into(), "mine".into(), "x".into(), "1".into()]),
        "{fields:?}"
    );
    assert_eq!(server.command(&["XPENDING", &stream, "default"]).await.array()[0].int(), 0);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_gives_fresh_attempts_and_passes_over_what_cannot_be_read() {
    let (server, queue) = (shared_server().await, unique_queue("replay"));
    let producer = producer(server, &queue).await;
    let stream = key(&queue, "stream");
    server.command(&["XADD", &stream, "*", "j", "garbage"]).await;
    producer.add_bulk((0..20).collect()).await.unwrap();
    let once = ConsumerConfig { max_attempts: 1, ..config(&queue) };
    let worker =
        Worker::start(&server.url(), once.clone(), |_| async { Err(HandlerError::new("down")) });
    worker.ran(20).await;
    drained(server, &queue).await;
    worker.finish().await;

    assert_eq!(producer.replay_dlq(5).await.unwrap(), 5);
    assert_eq!(producer.replay_dlq(100).await.unwrap(), 15);
    let worker = Worker::start(&server.url(), once, |_| async { Ok(()) });
    worker.ran(20).await;
    drained(server, &queue).await;
    assert_eq!(worker.payloads(), (0..20).collect::<Vec<_>>());
    assert!(worker.runs.lock().unwrap().iter().all(|job| job.attempt == 0));
    let left = producer.peek_dlq(10).await.unwrap();
    assert_eq!(
        left.iter().map(|entry| entry.reason.as_str()).collect::<Vec<_>>(),
        ["decode_failed"]
    );
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_passes_over_what_a_live_job_has_the_id_of() {
    let (server, queue) = (shared_server().await, unique_queue("taken"));
    let producer = producer(server, &queue).await;
    for id in ["x", "y", "z"] {
        producer.add_with_id(id, 1).await.unwrap();
    }
    let once = ConsumerConfig { max_attempts: 1, concurrency: 1, ..config(&queue) };
    let worker = Worker::start(&server.url(), once, |_| async { Err(HandlerError::new("down")) });
    worker.ran(3).await;
    drained(server, &queue).await;
    worker.finish().await;
    let later = AddOptions::new().with_id("x");
    producer.add_in_with_options(Duration::from_mins(1), 1, later).await.unwrap();
    assert_eq!(producer.replay_dlq(1).await.unwrap(), 1);
    assert_eq!(producer.replay_dlq(1).await.unwrap(), 1);
    assert_eq!(producer.replay_dlq(1).await.unwrap(), 0);
    let left = producer.peek_dlq(10).await.unwrap();
    assert_eq!(left.iter().map(|job| job.job_id.as_str()).collect::<Vec<_>>(), ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_sends_a_job_that_dies_again_at_once_no_second_time() {
    let (server, queue) = (shared_server().await, unique_queue("again"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..600).collect()).await.unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async {
        Err(HandlerError::unrecoverable("never"))
    });
    worker.ran(600).await;
    drained(server, &queue).await;
    assert_eq!(producer.replay_dlq(usize::MAX).await.unwrap(), 600);
    worker.ran(1200).await;
    drained(server, &queue).await;
    assert_eq!(worker.count(), 1200);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_at_the_same_time_send_each_job_once() {
    let (server, queue) = (shared_server().await, unique_queue("both"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..600).collect()).await.unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async {
        Err(HandlerError::unrecoverable("never"))
    });
    worker.ran(600).await;
    drained(server, &queue).await;
    let both = tokio::join!(producer.replay_dlq(usize::MAX), producer.replay_dlq(usize::MAX));
    assert_eq!(both.0.unwrap() + both.1.unwrap(), 600);
    worker.ran(1200).await;
    drained(server, &queue).await;
    assert_eq!(worker.count(), 1200);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_deletes_the_oldest_whatever_they_are() {
    let (server, queue) = (shared_server().await, unique_queue("purge"));
    let producer = producer(server, &queue).await;
    server.command(&["XADD", &key(&queue, "stream"), "*", "j", "garbage"]).await;
    producer.add_bulk((0..1200).collect()).await.unwrap();
    let once = ConsumerConfig { max_attempts: 1, ..config(&queue) };
    let worker = Worker::start(&server.url(), once, |_| async { Err(HandlerError::new("down")) });
    worker.ran(1200).await;
    drained(server, &queue).await;
    worker.finish().await;
    let all = producer.peek_dlq(2000).await.unwrap();
    assert_eq!(all.len(), 1201);
    assert_eq!(producer.purge_dlq(0).await.unwrap(), 0);
    assert_eq!(producer.purge_dlq(1100).await.unwrap(), 1100);
    let left = producer.peek_dlq(2000).await.unwrap();
    let ids = |dead: &[DlqEntry]| dead.iter().map(|job| job.dlq_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&left), ids(&all[1100..]));
    assert_eq!(producer.purge_dlq(usize::MAX).await.unwrap(), 101);
    assert!(producer.peek_dlq(1).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_jobs_are_chosen_by_id_name_and_reason() {
    let (server, queue) = (shared_server().await, unique_queue("chosen"));
    let producer = producer(server, &queue).await;
    // More than are looked at in one go, so that what is asked for lies behind a page of others.
    producer.add_bulk((0..150).collect()).await.unwrap();
    let named = |id: &str| AddOptions::new().with_id(id).with_name("send");
    producer.add_with_options(150, named("a")).await.unwrap();
    producer.add_with_options(151, named("b")).await.unwrap();
    let once = ConsumerConfig { max_attempts: 1, concurrency: 1, ..config(&queue) };
    let worker = Worker::start(&server.url(), once, |job| async move {
        Err(match job.payload {
            150 => HandlerError::new("down"),
            _ => HandlerError::unrecoverable("never"),
        })
    });
    worker.ran(152).await;
    drained(server, &queue).await;
    worker.finish().await;

    let ids = async |dlq: chasquimq::Dlq<'_>| {
        let dead = dlq.peek(10).await.unwrap();
        dead.into_iter().map(|job| job.job_id).collect::<Vec<_>>()
    };
    let dlq = || producer.dlq();
    assert_eq!(ids(dlq().with_name("send")).await, ["a", "b"]);
    assert_eq!(ids(dlq().with_name("send").with_reason("unrecoverable")).await, ["b"]);
    assert_eq!(ids(dlq().with_job_id("b").with_job_id("a")).await, ["a", "b"]);
    assert_eq!(ids(dlq().with_reason("retries_exhausted")).await, ["a"]);
    for refused in [dlq().with_reason("boredom"), dlq().with_job_id("a").with_job_id("")] {
        let refused = refused.purge(1).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    }

    assert_eq!(dlq().with_name("send").replay(1).await.unwrap(), 1);
    assert_eq!(dlq().with_name("send").purge(10).await.unwrap(), 1);
    assert_eq!(dlq().with_name("send").purge(10).await.unwrap(), 0);
    assert_eq!(producer.peek_dlq(500).await.unwrap().len(), 150);
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(1).await;
    assert_eq!(worker.payloads(), [150]);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_another_type_is_dead_without_a_run() {
    let (server, queue) = (shared_server().await, unique_queue("type"));
    let config_ = chasquimq::ProducerConfig { queue_name: queue.clone(), ..Default::default() };
    let texts = chasquimq::Producer::connect(&server.url(), config_).await.unwrap();
    texts.add("seven").await.unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    drained(server, &queue).await;
    let dead = texts.peek_dlq(1).await.unwrap();
    assert_eq!((dead[0].reason.as_str(), dead[0].attempt), ("decode_failed", 0));
    assert_eq!(worker.count(), 0);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_no_decoder_should_see_is_dead_without_a_run() {
    let (server, queue) = (shared_server().await, unique_queue("deep"));
    let producer = producer(server, &queue).await;
    let stream = key(&queue, "stream");
    let record = |payload: &[u8]| {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0x98, 1, 0, 0, 0xa1, b'x', 0xa0, 0xc5][..], &length, payload, &[0x01, 0xc0]].concat()
    };
    let deep = record(&[0x91].repeat(60_000));
    let huge = record(&[0xdd, 0xff, 0xff, 0xff, 0xff]);
    let newer = [0x98, 2, 0, 0, 0xa1, b'y', 0xa0, 0xc4, 0, 1, 0xc0];
    let entry = [&record(&[7])[..], &deep, &newer, &huge, &record(&[8])].concat();
    server.command(&[b"XADD", stream.as_bytes(), b"*", b"j", &entry]).await;
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(2).await;
    drained(server, &queue).await;
    assert_eq!(worker.payloads(), [7, 8], "the entry's other jobs run");
    let dead = producer.peek_dlq(10).await.unwrap();
    let told: Vec<_> = dead.iter().map(|job| (&*job.reason, job.attempt)).collect();
    assert_eq!(told, [("decode_failed", 0); 3]);
    let mut details: Vec<_> = dead.iter().filter_map(|job| job.detail.as_deref()).collect();
    details.sort_unstable();
    let expected = [
        "the payload of 5 bytes cannot be decoded: cut short",
        "the payload of 60000 bytes cannot be decoded: nested too deep",
        "the record cannot be read: unknown format version",
    ];
    assert_eq!(details, expected);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_no_worker_would_take_is_not_added() {
    let (server, queue) = (shared_server().await, unique_queue("refused"));
    let producer = producer(server, &queue).await;
    for payload in [[0x91].repeat(100), vec![], vec![1, 2], vec![0xc1]] {
        let job = RawJob { payload: payload.into(), options: AddOptions::new(), delay: None };
        let refused = producer.add_raw(vec![job]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Encode, "{refused}");
    }
    assert_eq!(server.command(&["EXISTS", &key(&queue, "stream")]).await.int(), 0);
}
