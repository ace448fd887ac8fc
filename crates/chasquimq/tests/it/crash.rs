//! A worker process killed with -9: its jobs finish elsewhere.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chasquimq_testkit::{shared_server, unique_queue};

use crate::support::{Worker, config, drained, producer};

/// Set in the child process: `url queue`.
const CHILD: &str = "CHASQUIMQ_CHILD_WORKER";

/// Not a test of its own: the body of the child process, which runs jobs that never end.
#[tokio::test(flavor = "multi_thread")]
async fn child_worker() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (url, queue) = order.split_once(' ').unwrap();
    let worker = Worker::start(url, config(queue), |_| std::future::pending());
    let mut out = std::io::stdout().lock();
    worker.ran(100).await;
    writeln!(out, "holding 100").unwrap();
    std::future::pending::<()>().await;
}

fn spawn_worker(url: &str, queue: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_worker", "--nocapture"])
        .env(CHILD, format!("{url} {queue}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_killed_process_finish_elsewhere_within_a_lease() {
    let (server, queue) = (shared_server().await, unique_queue("kill9"));
    producer(server, &queue).await.add_bulk((0..100).collect()).await.unwrap();
    let mut child = spawn_worker(&server.url(), &queue);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let holding = tokio::task::spawn_blocking(move || {
        lines.map_while(Result::ok).any(|line| line.contains("holding 100"))
    });
    assert!(holding.await.unwrap());
    let heir = Worker::start(&server.url(), config(&queue), |_| async { Ok(()) });
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = Instant::now();
    heir.ran(100).await;
    drained(server, &queue).await;
    let took = killed.elapsed();
    let told =
        format!("100 jobs ran at the kill, and again elsewhere {took:?} later: 100 duplicates");
    writeln!(std::io::stdout(), "{told}").unwrap();
    assert_eq!(heir.payloads(), (0..100).collect::<Vec<_>>(), "each of the 100 exactly once more");
    assert!(took < Duration::from_secs(1 + 2), "{took:?}");
    heir.finish().await;
}
