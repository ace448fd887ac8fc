//! A queue moves to a newer server, by a dump of the oldest one: what was on its way arrives.

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use chasquimq::events::{From, TailOptions, Tailed, tail};
use chasquimq::{AddOptions, BackoffSpec, HandlerError, Job, JobRetryOverride, Producer};
use chasquimq_testkit::{Reply, Server, ServerKind, eventually};

use crate::remains::Baseline;
use crate::support::{Answer, Worker, drained, key, producer, quick};

const OLDEST: &str = "redis-6.2";
/// The worker that dies.
const STRAGGLER: &str = "straggler";

// The jobs, told by their numbers.
const DONE: Range<u64> = 0..10;
const DEAD: Range<u64> = 10..15;
const RETRYING: Range<u64> = 15..20;
/// Held by a worker that died.
const HELD: Range<u64> = 20..30;
/// Held by it, too, and deleted since: entries that are pending and gone.
const GHOSTS: Range<u64> = 30..35;
/// One entry, of which it has settled the first three.
const PACKED: Range<u64> = 40..48;
const SETTLED: Range<u64> = 40..43;
const WAITING: Range<u64> = 50..60;
const WAITING_PACKED: Range<u64> = 60..76;
const WAITING_KEYED: Range<u64> = 76..80;
const DELAYED: Range<u64> = 80..90;

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_the_oldest_server_goes_on_in_a_newer_one() {
    let oldest = ServerKind::all().into_iter().find(|kind| kind.name() == OLDEST);
    let Some(oldest) = oldest.filter(|_| ServerKind::chosen().unwrap().name() != OLDEST) else {
        writeln!(std::io::stdout(), "skipped: it takes {OLDEST} and a newer server").unwrap();
        return;
    };
    let old = Server::builder().kind(oldest).standalone().start().await;
    let dump = filled(&old).await;
    let baseline = Baseline::of(&Server::builder().standalone().start().await).await;
    let new = Server::builder().dump(dump).standalone().start().await;
    drop(old);
    let producer = producer(&new, "q").await;
    refuses_live_ids(&producer).await;
    let heir = Worker::start(&new.url(), quick("q", "heir"), |_| async { Ok(()) });
    drained(&new, "q").await;
    let unbroken = [HELD, SETTLED.end..PACKED.end, WAITING, WAITING_PACKED, WAITING_KEYED, DELAYED];
    let expected = RETRYING.map(|n| (n, 1)).chain(unbroken.into_iter().flatten().map(|n| (n, 0)));
    assert_eq!(runs(&heir), expected.collect::<Vec<_>>(), "each job once");
    the_dead_go_on(&producer, &new, &heir).await;
    eventually("the dead worker is forgotten", Duration::from_secs(10), async || {
        let about = new.command(&["XINFO", "CONSUMERS", &key("q", "stream"), "default"]).await;
        about.array().iter().all(|consumer| consumer.array()[1].text() != STRAGGLER)
    })
    .await;
    heir.finish().await;
    told_of_all(&new).await;
    producer.shutdown().await;
    baseline.regained(&new, "q").await;
}

/// Runs so far: the job's number and its failures, sorted.
fn runs(worker: &Worker) -> Vec<(u64, u32)> {
    let runs = worker.runs.lock().unwrap();
    let mut runs: Vec<_> = runs.iter().map(|job| (job.payload, job.attempt)).collect();
    runs.sort_unstable();
    runs
}

/// Fills a queue with jobs in every state; a dump of it.
async fn filled(server: &Server) -> PathBuf {
    let producer = producer(server, "q").await;
    in_the_hands_of_a_dead_worker(server, &producer).await;
    producer.add_bulk(WAITING.collect()).await.unwrap();
    producer.add_bulk_packed(WAITING_PACKED.collect(), 8).await.unwrap();
    for n in WAITING_KEYED {
        producer.add_with_id(format!("key-{n}"), n).await.unwrap();
    }
    producer.add_in_bulk(Duration::from_millis(1500), DELAYED.collect()).await.unwrap();
    server.dump().await
}

async fn in_the_hands_of_a_dead_worker(server: &Server, producer: &Producer<u64>) {
    let later = BackoffSpec::fixed(Duration::from_millis(2500));
    let later = JobRetryOverride { max_attempts: None, backoff: Some(later) };
    let jobs = (DONE.start..GHOSTS.end).map(|n| (n, AddOptions::new().with_retry(later.clone())));
    producer.add_bulk_with_options(jobs.collect()).await.unwrap();
    producer.add_bulk_packed(PACKED.collect(), 8).await.unwrap();
    let doomed = Worker::doomed_with(server, quick("q", STRAGGLER), handle).await;
    let (stream, settled) = (key("q", "stream"), key("q", "settled"));
    eventually("jobs in every state", Duration::from_secs(10), async || {
        let entries = HELD.count() + GHOSTS.count() + 1;
        server.command(&["XLEN", &stream]).await == Reply::Int(entries as i64)
            && server.command(&["HVALS", &settled]).await
                == Reply::Array(vec![Reply::Bulk("11100000".into())])
    })
    .await;
    doomed.crash();
    let entries = server.command(&["XRANGE", &stream, "-", "+"]).await;
    let ids = entries.array().iter().map(|entry| entry.array()[0].text());
    let ghosts = ids.skip(HELD.count()).take(GHOSTS.count());
    let delete: Vec<_> = ["XDEL".into(), stream].into_iter().chain(ghosts).collect();
    assert_eq!(server.command(&delete).await, Reply::Int(GHOSTS.count() as i64));
}

async fn handle(job: Job<u64>) -> Answer {
    match job.payload {
        n if DONE.contains(&n) || SETTLED.contains(&n) => Ok(()),
        n if DEAD.contains(&n) => Err(HandlerError::unrecoverable("dead on the old server")),
        n if RETRYING.contains(&n) => Err(HandlerError::new("once")),
        _ => std::future::pending().await,
    }
}

/// Ids that their producers chose are still taken.
async fn refuses_live_ids(producer: &Producer<u64>) {
    for n in WAITING_KEYED {
        producer.add_with_id(format!("key-{n}"), 999).await.unwrap();
    }
}

/// The dead can be read and sent back.
async fn the_dead_go_on(producer: &Producer<u64>, server: &Server, heir: &Worker) {
    let before = heir.count();
    let dead = producer.peek_dlq(100).await.unwrap();
    let told: Vec<_> = dead.iter().map(|job| (&*job.reason, job.detail.as_deref())).collect();
    assert_eq!(told, [("unrecoverable", Some("dead on the old server")); 5]);
    assert_eq!(producer.replay_dlq(100).await.unwrap(), DEAD.count());
    heir.ran(before + DEAD.count()).await;
    drained(server, "q").await;
    assert_eq!(runs(heir)[..DEAD.count()], DEAD.map(|n| (n, 0)).collect::<Vec<_>>(), "each once");
    assert_eq!(heir.count(), before + DEAD.count());
    assert_eq!(producer.peek_dlq(1).await.unwrap().len(), 0);
}

/// Events of before the move and after it are read as one.
async fn told_of_all(server: &Server) {
    let options = TailOptions { from: From::Beginning, ..TailOptions::default() };
    let mut tail = tail(&server.url(), "q", options).await.unwrap();
    let ended =
        [DONE, DEAD, RETRYING, HELD, PACKED, WAITING, WAITING_PACKED, WAITING_KEYED, DELAYED];
    let mut missing = ended.into_iter().map(Iterator::count).sum::<usize>();
    while missing > 0 {
        let next = tokio::time::timeout(Duration::from_secs(10), tail.next()).await;
        match next.expect("no event is missing").unwrap() {
            Tailed::Event(event) => missing -= usize::from(event.name == "completed"),
            gap @ Tailed::Gap { .. } => panic!("{gap:?}"),
        }
    }
}
