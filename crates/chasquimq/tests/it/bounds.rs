//! Bounds: full queues, large payloads, bad names: an error at the door, and nothing lost.

use chasquimq::{AddOptions, Consumer, ConsumerConfig, ErrorKind, Producer, ProducerConfig};
use chasquimq_testkit::{shared_server, unique_queue};
use tokio_util::sync::CancellationToken;

use crate::support::{Worker, config, drained, key, producer};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_the_next_job_and_keeps_every_other() {
    let (server, queue) = (shared_server().await, unique_queue("full"));
    let config_ =
        ProducerConfig { queue_name: queue.clone(), max_queue_len: 1000, ..Default::default() };
    let producer = Producer::connect(&server.url(), config_).await.unwrap();
    producer.add_bulk((0..999).collect()).await.unwrap();
    producer.add(999).await.unwrap();
    let error = producer.add(1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert!(error.to_string().contains("1000"), "{error}");
    let error = producer.add_bulk(vec![1001, 1002]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(1000).await;
    drained(server, &queue).await;
    assert_eq!(worker.payloads(), (0..1000).collect::<Vec<_>>());
    producer.add(1003).await.unwrap();
    worker.ran(1001).await;
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_refused_before_it_is_sent() {
    let (server, queue) = (shared_server().await, unique_queue("refuse"));
    let config =
        ProducerConfig { queue_name: queue.clone(), max_payload_bytes: 100, ..Default::default() };
    let producer: Producer<String> = Producer::connect(&server.url(), config).await.unwrap();
    let large = producer.add("x".repeat(101)).await.unwrap_err();
    assert_eq!(large.kind(), ErrorKind::Encode);
    let name = AddOptions::new().with_name("n".repeat(257));
    assert_eq!(
        producer.add_with_options("x".into(), name).await.unwrap_err().kind(),
        ErrorKind::Config
    );
    let id = AddOptions::new().with_id("");
    assert_eq!(
        producer.add_with_options("x".into(), id).await.unwrap_err().kind(),
        ErrorKind::Config
    );
    let mut bulk = vec!["x".to_owned(); 1999];
    bulk.push("x".repeat(101));
    assert_eq!(producer.add_bulk(bulk).await.unwrap_err().kind(), ErrorKind::Encode);
    assert_eq!(server.command(&["EXISTS", &key(&queue, "stream")]).await.int(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_and_limits_are_refused_where_they_are_given() {
    let server = shared_server().await;
    for queue in ["", "a b", "a{b}"] {
        let config = ProducerConfig { queue_name: queue.into(), ..Default::default() };
        let Err(error) = Producer::<u64>::connect(&server.url(), config).await else {
            panic!("{queue}")
        };
        assert_eq!(error.kind(), ErrorKind::Config, "{queue:?}");
    }
    let config = ConsumerConfig { concurrency: 0, ..Default::default() };
    let consumer = Consumer::<u64>::new(server.url(), config);
    let error = consumer.run(|_| async { Ok(()) }, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("concurrency"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_group_is_refused_because_it_would_miss_jobs() {
    let (server, queue) = (shared_server().await, unique_queue("groups"));
    producer(server, &queue).await.add(1).await.unwrap();
    let worker = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    worker.ran(1).await;
    let other = ConsumerConfig { group: "other".into(), ..config(&queue) };
    let consumer = Consumer::<u64>::new(server.url(), other);
    let error = consumer.run(|_| async { Ok(()) }, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("one group a queue"), "{error}");
    worker.finish().await;
}
