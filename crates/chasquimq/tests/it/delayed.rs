//! Delayed jobs: on time, cancelled, found by id.

use std::time::{Duration, Instant, SystemTime};

use chasquimq::{AddOptions, ErrorKind, HandlerError, Promoter, PromoterConfig};
use chasquimq_testkit::{eventually, shared_server, unique_queue};
use tokio_util::sync::CancellationToken;

use crate::support::{Worker, config, drained, key, producer};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_delay_stays_short_on_an_idle_queue() {
    let (server, queue) = (shared_server().await, unique_queue("delay"));
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    let producer = producer(server, &queue).await;
    producer.add(0).await.unwrap();
    worker.ran(1).await;
    let added = Instant::now();
    producer.add_in(Duration::from_millis(80), 1).await.unwrap();
    worker.ran(2).await;
    let took = added.elapsed();
    assert!(took >= Duration::from_millis(75) && took < Duration::from_millis(600), "{took:?}");
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_the_past_is_now() {
    let (server, queue) = (shared_server().await, unique_queue("past"));
    let producer = producer(server, &queue).await;
    producer.add_at(SystemTime::now() - Duration::from_mins(1), 1).await.unwrap();
    producer.add_in(Duration::ZERO, 2).await.unwrap();
    assert_eq!(server.command(&["XLEN", &key(&queue, "stream")]).await.int(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_beyond_the_limit_is_refused_and_nothing_is_stored() {
    let (server, queue) = (shared_server().await, unique_queue("far"));
    let producer = producer(server, &queue).await;
    let error = producer.add_in(Duration::from_hours(744), 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("max_delay_secs"), "{error}");
    assert_eq!(server.command(&["ZCARD", &key(&queue, "delayed")]).await.int(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_and_retrying_jobs_are_cancelled_by_their_id() {
    let (server, queue) = (shared_server().await, unique_queue("cancel"));
    let producer = producer(server, &queue).await;
    let delayed = producer.add_in(Duration::from_mins(1), 1).await.unwrap();
    let retrying = producer.add(2).await.unwrap();
    let mut config = config(&queue);
    config.retry.initial_backoff_ms = 60_000;
    config.retry.max_backoff_ms = 60_000;
    let worker =
        Worker::start(&server.url(), config, |_| async { Err(HandlerError::new("later")) });
    worker.ran(1).await;
    let waiting = key(&queue, "delayed");
    eventually("the retry is stored", Duration::from_secs(5), || async {
        server.command(&["ZCARD", &waiting]).await.int() == 2
    })
    .await;
    assert!(producer.cancel_delayed(&delayed).await.unwrap());
    assert!(producer.cancel_delayed(&retrying).await.unwrap());
    assert!(!producer.cancel_delayed(&delayed).await.unwrap());
    for suffix in ["delayed", "jobs"] {
        assert_eq!(server.command(&["EXISTS", &key(&queue, suffix)]).await.int(), 0, "{suffix}");
    }
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_live_job_an_id_across_producers_and_kinds() {
    let (server, queue) = (shared_server().await, unique_queue("unique"));
    let (one, other) = (producer(server, &queue).await, producer(server, &queue).await);
    one.add_in_with_id(Duration::from_millis(100), "order-7", 1).await.unwrap();
    let noise: Vec<u64> = (100..600).collect();
    one.add_bulk(noise).await.unwrap();
    other.add_with_id("order-7", 2).await.unwrap();
    other
        .add_in_with_options(Duration::from_secs(1), 3, AddOptions::new().with_id("order-7"))
        .await
        .unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(501).await;
    drained(server, &queue).await;
    assert_eq!(worker.payloads().iter().filter(|p| **p < 100).collect::<Vec<_>>(), [&1]);

    one.add_with_id("order-7", 4).await.unwrap();
    worker.ran(502).await;
    drained(server, &queue).await;
    assert_eq!(server.command(&["EXISTS", &key(&queue, "unique")]).await.int(), 0);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoter_alone_serves_consumers_without_one() {
    let (server, queue) = (shared_server().await, unique_queue("promoter"));
    let stop = CancellationToken::new();
    let promoter = PromoterConfig { queue_name: queue.clone(), ..Default::default() };
    let promoting = tokio::spawn(Promoter::new(server.url(), promoter).run(stop.clone()));
    let mut config = config(&queue);
    config.delayed_enabled = false;
    let worker = Worker::start(&server.url(), config, |_| async { Ok(()) });
    producer(server, &queue)
        .await
        .add_in_bulk(Duration::from_millis(30), (0..700).collect())
        .await
        .unwrap();
    worker.ran(700).await;
    assert_eq!(worker.payloads(), (0..700).collect::<Vec<_>>());
    worker.finish().await;
    stop.cancel();
    promoting.await.unwrap().unwrap();
    assert_eq!(server.command(&["EXISTS", &key(&queue, "promoter")]).await.int(), 0);
}
