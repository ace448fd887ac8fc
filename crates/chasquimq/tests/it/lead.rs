//! One collector a queue: the leading promoter, and whoever leads after its death.

use std::io::Write;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use chasquimq::metrics::testing::InMemorySink;
use chasquimq::{ConsumerConfig, LockOutcome, PromoterTick, QueueCounts};
use chasquimq_testkit::{Server, eventually, shared_server, unique_queue};
use tokio::time::sleep;

use crate::support::{Worker, config, key, producer};

/// Set in the child process: `url queue`.
const CHILD: &str = "CHASQUIMQ_CHILD_LEADER";
const LOCK_SECS: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test of its own: the body of the child process, which leads until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_leader() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (url, queue) = order.split_once(' ').unwrap();
    let _worker = Worker::start(url, leading(queue, "child"), |_| async { Ok(()) });
    std::future::pending::<()>().await;
}

/// A worker that moves one job at a time, so that what is left behind can be seen.
fn leading(queue: &str, name: &str) -> ConsumerConfig {
    ConsumerConfig {
        consumer_id: name.into(),
        delayed_promote_batch: 1,
        delayed_lock_ttl_secs: LOCK_SECS,
        ..config(queue)
    }
}

fn spawn_leader(url: &str, queue: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lead::child_leader", "--nocapture"])
        .env(CHILD, format!("{url} {queue}"))
        .spawn()
        .unwrap()
}

async fn wait_for_leader(server: &Server, queue: &str, name: &str) {
    let lock = key(queue, "promoter");
    eventually(&format!("{name} leads"), PATIENCE, async || {
        let leader = server.command(&["GET", &lock]).await;
        !leader.is_nil() && leader.text() == name
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_is_killed_one_other_leads_and_tells_the_truth() {
    let (server, queue) = (shared_server().await, unique_queue("lead"));
    let producer = producer(server, &queue).await;
    let mut child = spawn_leader(&server.url(), &queue);
    wait_for_leader(server, &queue, "child").await;
    let sink = Arc::new(InMemorySink::new());
    let heir =
        ConsumerConfig { metrics: Arc::<InMemorySink>::clone(&sink), ..leading(&queue, "heir") };
    let heir = Worker::start(&server.url(), heir, |_| async { Ok(()) });
    let told = || sink.record();
    eventually("it sees another lead", PATIENCE, async || {
        told().lock_outcomes == [LockOutcome::Held]
    })
    .await;
    producer.add_in_bulk(Duration::from_hours(1), vec![1, 2, 3]).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((told().promoter_ticks, told().queue_counts), (vec![], vec![]), "one collector");
    // Due while nobody leads: the heir finds both overdue.
    producer.add_in_bulk(Duration::from_millis(1), vec![4, 5]).await.unwrap();

    heir.ran(2).await;
    // A job may start before the reply that promoted it is told.
    eventually("two ticks and a count are told", PATIENCE, async || {
        told().promoter_ticks.len() >= 2 && !told().queue_counts.is_empty()
    })
    .await;
    let led = told();
    assert_eq!(led.lock_outcomes, [LockOutcome::Held, LockOutcome::Acquired]);
    let lag = led.promoter_ticks[0].oldest_pending_lag_ms;
    let first = PromoterTick { promoted: 1, depth: 4, oldest_pending_lag_ms: lag };
    let second = PromoterTick { promoted: 1, depth: 3, oldest_pending_lag_ms: 0 };
    assert_eq!(led.promoter_ticks[..2], [first, second]);
    assert!((1..PATIENCE.as_millis()).contains(&lag.into()), "overdue since the kill: {lag}");
    writeln!(std::io::stdout(), "the heir led with {lag} ms of lag").unwrap();
    let counts = led.queue_counts[0];
    let expected = QueueCounts { delayed: 4, ..counts };
    assert_eq!((counts, counts.retrying, counts.dead), (expected, 0, 0), "told at once");

    // For as long as three locks last nothing else is won or lost, and it goes on telling.
    sleep(Duration::from_secs(3 * LOCK_SECS)).await;
    eventually("it counts again", PATIENCE, async || told().queue_counts.len() >= 2).await;
    let led = told();
    assert_eq!(led.lock_outcomes, [LockOutcome::Held, LockOutcome::Acquired]);
    assert_eq!(led.queue_counts[1], QueueCounts { delayed: 3, ..Default::default() });
    let idle = PromoterTick { promoted: 0, depth: 3, oldest_pending_lag_ms: 0 };
    assert_eq!(led.promoter_ticks.last(), Some(&idle));
    heir.finish().await;
}
