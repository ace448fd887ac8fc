//! What dead workers leave behind: names, and entries that were deleted while they were pending.

use std::sync::Arc;
use std::time::Duration;

use chasquimq::ConsumerConfig;
use chasquimq::metrics::testing::InMemorySink;
use chasquimq_testkit::{Server, eventually, shared_server, unique_queue};

use crate::support::{Worker, drained, key, producer, quick};

async fn consumers(server: &Server, queue: &str) -> Vec<String> {
    let about = server.command(&["XINFO", "CONSUMERS", &key(queue, "stream"), "default"]).await;
    about.array().iter().map(|consumer| consumer.array()[1].text()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_workers_leave_no_names_and_no_jobs_behind() {
    let (server, queue) = (shared_server().await, unique_queue("janitor"));
    let producer = producer(server, &queue).await;
    producer.add_bulk((0..30).collect()).await.unwrap();
    for n in 0..3 {
        let ten = ConsumerConfig {
            concurrency: 10,
            prefetch: Some(0),
            ..quick(&queue, &format!("dead-{n}"))
        };
        let doomed = Worker::doomed(server, ten).await;
        doomed.ran(10).await;
        doomed.crash();
    }
    assert_eq!(consumers(server, &queue).await, ["dead-0", "dead-1", "dead-2"]);
    let heir = Worker::start(&server.url(), quick(&queue, "heir"), |_| async { Ok(()) });
    heir.ran(30).await;
    drained(server, &queue).await;
    eventually("nobody dead is remembered", Duration::from_secs(20), async || {
        consumers(server, &queue).await.iter().all(|name| name == "heir")
    })
    .await;
    assert_eq!(heir.payloads(), (0..30).collect::<Vec<_>>());
    heir.finish().await;
    assert_eq!(consumers(server, &queue).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_whose_name_is_forgotten_works_on() {
    let (server, queue) = (shared_server().await, unique_queue("idle"));
    let producer = producer(server, &queue).await;
    let worker = Worker::start(&server.url(), quick(&queue, "idle"), |job| async move {
        tokio::time::sleep(Duration::from_millis(job.payload)).await;
        Ok(())
    });
    producer.add(0).await.unwrap();
    worker.ran(1).await;
    drained(server, &queue).await;
    let forget = ["XGROUP", "DELCONSUMER", &key(&queue, "stream"), "default", "idle"];
    assert_eq!(server.command(&forget).await.int(), 0, "it held nothing");
    producer.add(1500).await.unwrap();
    worker.ran(2).await;
    drained(server, &queue).await;
    assert_eq!(worker.count(), 2, "three leases long, it was renewed and never run again");
    assert_eq!(worker.finish().await.finished, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_deleted_while_its_worker_is_dead_is_pending_no_more() {
    let (server, queue) = (shared_server().await, unique_queue("ghost"));
    producer(server, &queue).await.add_bulk(vec![1, 2]).await.unwrap();
    let doomed = Worker::doomed(server, quick(&queue, "dead")).await;
    doomed.ran(2).await;
    doomed.crash();
    let stream = key(&queue, "stream");
    let oldest = server.command(&["XRANGE", &stream, "-", "+", "COUNT", "1"]).await;
    let ghost = oldest.array()[0].array()[0].text();
    assert_eq!(server.command(&["XDEL", &stream, &ghost]).await.int(), 1);
    let told = Arc::new(InMemorySink::new());
    let heir = ConsumerConfig { metrics: told.clone(), ..quick(&queue, "heir") };
    let heir = Worker::start(&server.url(), heir, |_| async { Ok(()) });
    eventually("nothing pending", Duration::from_secs(20), async || {
        server.command(&["XPENDING", &stream, "default"]).await.array()[0].int() == 0
    })
    .await;
    assert_eq!(heir.payloads(), [2]);
    heir.finish().await;
    assert_eq!(told.record().ghost_entries, 1);
}
