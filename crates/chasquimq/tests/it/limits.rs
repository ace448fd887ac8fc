//! A server that refuses for a while, for a reason of its own: endings wait, and nothing runs twice.

use std::time::Duration;

use chasquimq::{ConnectionTuning, ErrorKind, Producer, ProducerConfig};
use chasquimq_testkit::{Server, eventually};
use tokio_util::sync::CancellationToken;

use crate::remains::nothing_left;
use crate::support::{Worker, config, drained, key, producer};

/// A worker with a long lease that holds its jobs until it is told, and what tells it.
fn holding(url: &str) -> (Worker, CancellationToken) {
    let told = CancellationToken::new();
    let held = told.clone();
    let mut config = config("q");
    config.claim_min_idle_ms = 20_000;
    let worker = Worker::start(url, config, move |_| {
        let held = held.clone();
        async move {
            held.cancelled().await;
            Ok(())
        }
    });
    (worker, told)
}

/// Lets the jobs end while the server refuses, and then the server take their endings.
async fn endings_wait(server: &Server, worker: Worker, told: CancellationToken, end: &[&str]) {
    told.cancel();
    // Time for some tries, all of them in vain.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(server.command(&["XLEN", &key("q", "stream")]).await.int(), 30);
    assert_eq!(server.command(end).await.error(), None);
    drained(server, "q").await;
    assert_eq!(worker.count(), 30, "nothing ran again");
    assert_eq!(worker.finish().await.finished, 30);
    nothing_left(server, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_hold_endings_back_and_run_nothing_again() {
    let server = Server::start().await;
    let producer = producer(&server, "q").await;
    producer.add_bulk((0..30).collect()).await.unwrap();
    let (worker, told) = holding(&server.url());
    worker.ran(30).await;
    let set = |count| ["CONFIG", "SET", "min-replicas-to-write", count];
    assert_eq!(server.command(&set("1")).await.error(), None);
    let error = producer.add(99).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    endings_wait(&server, worker, told, &set("0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_rights_hold_endings_back_and_run_nothing_again() {
    let server = Server::start().await;
    let user = |rights| ["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", rights];
    assert_eq!(server.command(&user("+@all")).await.error(), None);
    let url = server.url_as("app:secret");
    let config = ProducerConfig { queue_name: "q".into(), ..Default::default() };
    let producer = Producer::<u64>::connect(&url, config).await.unwrap();
    producer.add_bulk((0..30).collect()).await.unwrap();
    let (worker, told) = holding(&url);
    worker.ran(30).await;
    assert_eq!(server.command(&user("-@stream")).await.error(), None);
    let error = producer.add(99).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    endings_wait(&server, worker, told, &user("+@stream")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loads_its_data_for_seconds_gets_its_worker_back() {
    // It answers while it loads, but only every 2 MiB.
    let slow = Server::builder().config("key-load-delay", "40000").config("rdbcompression", "no");
    let server = slow.start().await;
    // It is back before the server has loaded.
    let connection =
        ConnectionTuning { reconnect_max: Duration::from_millis(100), ..Default::default() };
    let tuned = ProducerConfig { queue_name: "q".into(), connection, ..Default::default() };
    let producer = Producer::<u64>::connect(&server.url(), tuned).await.unwrap();
    for n in 0..60 {
        server.command(&["SET", &format!("k{n}"), &"x".repeat(256 * 1024)]).await;
    }
    producer.add_bulk((0..30).collect()).await.unwrap();
    assert_eq!(server.command(&["SAVE"]).await.error(), None);
    let worker = Worker::start(&server.url(), config("q"), |_| async { Ok(()) });
    worker.ran(30).await;
    server.kill9();
    let seen = async {
        eventually("it loads", Duration::from_secs(10), async || {
            let reply = server.try_command(&["PING"]).await;
            reply.is_ok_and(|reply| reply.error().is_some_and(|e| e.starts_with("LOADING")))
        })
        .await;
        eventually("a job is accepted", Duration::from_secs(15), async || {
            producer.add(99).await.is_ok()
        })
        .await;
    };
    tokio::join!(server.restart(), seen);
    eventually("all run", Duration::from_secs(10), async || {
        let mut ran = worker.payloads();
        ran.dedup();
        ran.len() == 31
    })
    .await;
    drained(&server, "q").await;
    worker.finish().await;
    nothing_left(&server, "q").await;
}
