//! The connection in trouble: nothing is sent twice, nothing waits past its deadline, all recovers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chasquimq_testkit::{ChaosProxy, Server, eventually, shared_server, unique_queue};
use futures::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::link::{PATIENCE, check_echo, impatient, link};
use crate::config::ConnectionTuning;
use crate::error::{Error, ErrorKind};
use crate::store::transport::{Link, Reply, Script, bytes};

/// A stream of its own, and the proxy through which it is written.
struct Bed {
    server: &'static Server,
    proxy: ChaosProxy,
    stream: String,
}

impl Bed {
    async fn new() -> Self {
        let server = shared_server().await;
        let proxy = ChaosProxy::start(server.port()).await;
        Self { server, proxy, stream: unique_queue("outage") }
    }

    async fn link(&self, tuning: &ConnectionTuning) -> Link {
        link(&self.proxy.url(), tuning).await
    }

    async fn add(&self, link: &Link) -> Result<Reply, Error> {
        let stream = self.stream.as_str();
        link.call("XADD", vec![stream.into(), "*".into(), "a".into(), "b".into()]).await
    }

    /// Entries that the server holds.
    async fn added(&self) -> i64 {
        self.server.command(&["XLEN", &self.stream]).await.int()
    }

    /// Breaks the connection, lets nobody in, and waits until `link` has noticed.
    async fn close(&self, link: &Link) {
        self.proxy.refuse(true);
        self.proxy.cut();
        wait_until_down(link).await;
    }
}

/// Waits until commands wait for a new connection.
async fn wait_until_down(link: &Link) {
    let waits =
        async || timeout(Duration::from_millis(20), link.call("PING", vec![])).await.is_err();
    eventually("it is down", PATIENCE, waits).await;
}

fn kind(result: Result<Reply, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn a_command_whose_reply_was_lost_is_not_sent_again() {
    let bed = Bed::new().await;
    let link = bed.link(&impatient(5_000)).await;
    let script = Script::new("test", "redis.call('XADD', KEYS[1], '*', 'a', 'b') return 1");
    let key = Bytes::from(bed.stream.clone());
    link.run(&script, &[&key], vec![]).await.unwrap();
    bed.proxy.drop_replies();
    let lose = async {
        eventually("both are executed", PATIENCE, async || bed.added().await == 3).await;
        bed.proxy.cut();
    };
    let keys = [&key];
    let (add, run, ()) = tokio::join!(bed.add(&link), link.run(&script, &keys, vec![]), lose);
    assert!(kind(add) == ErrorKind::Connection && kind(run) == ErrorKind::Connection);
    check_echo(&link, "connected again").await;
    assert_eq!(bed.added().await, 3);
}

#[tokio::test]
async fn a_stalled_connection_times_out_and_recovers() {
    let bed = Bed::new().await;
    let link = bed.link(&impatient(400)).await;
    bed.proxy.stall(true);
    for _ in 0..3 {
        let started = Instant::now();
        assert_eq!(kind(link.call("PING", vec![]).await), ErrorKind::Timeout);
        let took = started.elapsed();
        assert!(
            took >= Duration::from_millis(390) && took < Duration::from_millis(800),
            "{took:?}"
        );
    }
    bed.proxy.stall(false);
    eventually("it answers", PATIENCE, async || link.call("PING", vec![]).await.is_ok()).await;
    for n in 0..20 {
        check_echo(&link, &n.to_string()).await;
    }
}

#[tokio::test]
async fn a_command_waits_for_a_server_that_comes_back_in_time() {
    let server = Server::builder().aof(true).start().await;
    let link = link(&server.url(), &impatient(10_000)).await;
    let add = vec!["s".into(), "*".into(), "a".into(), "b".into()];
    server.kill9();
    wait_until_down(&link).await;
    let (added, ()) = tokio::join!(link.call("XADD", add), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.restart().await;
    });
    added.unwrap();
    assert_eq!(server.command(&["XLEN", "s"]).await.int(), 1);
}

#[tokio::test]
async fn commands_sent_while_the_connection_is_down_are_all_executed_once() {
    let bed = Bed::new().await;
    let link = bed.link(&impatient(10_000)).await;
    bed.close(&link).await;
    let adds = join_all((0..200).map(|_| bed.add(&link)));
    let (added, ()) = tokio::join!(adds, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bed.proxy.refuse(false);
    });
    for result in added {
        result.unwrap();
    }
    assert_eq!(bed.added().await, 200);
}

#[tokio::test]
async fn a_connection_that_breaks_under_load_tells_only_of_what_was_under_way() {
    let bed = Bed::new().await;
    let link = bed.link(&impatient(10_000)).await;
    let is_over = AtomicBool::new(false);
    let load = join_all((0..8).map(async |_| {
        let (mut stored, mut unknown) = (0, 0);
        while !is_over.load(Ordering::Relaxed) {
            match bed.add(&link).await {
                Ok(_) => stored += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
                    unknown += 1;
                }
            }
        }
        (stored, unknown)
    }));
    let cuts = async {
        for _ in 0..10 {
            let before = bed.added().await;
            let more = async || bed.added().await > before + 50;
            eventually("more is added", PATIENCE, more).await;
            bed.proxy.cut();
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (outcomes, ()) = tokio::join!(load, cuts);
    let stored: i64 = outcomes.iter().map(|(stored, _)| stored).sum();
    let unknown: i64 = outcomes.iter().map(|(_, unknown)| unknown).sum();
    assert!(unknown <= 8 * 10, "at most what was in flight at each cut: {unknown}");
    let added = bed.added().await;
    assert!((stored..=stored + unknown).contains(&added), "{stored} {unknown} {added}");
}

#[tokio::test]
async fn a_command_that_timed_out_in_the_queue_is_not_executed_later() {
    let bed = Bed::new().await;
    let link = bed.link(&impatient(300)).await;
    bed.close(&link).await;
    for result in join_all((0..20).map(|_| bed.add(&link))).await {
        assert_eq!(kind(result), ErrorKind::Timeout);
    }
    bed.proxy.refuse(false);
    eventually("it is back", PATIENCE, async || link.call("PING", vec![]).await.is_ok()).await;
    assert_eq!(bed.added().await, 0);
}

#[tokio::test]
async fn no_more_is_in_flight_than_allowed() {
    let bed = Bed::new().await;
    let link = bed.link(&ConnectionTuning { max_in_flight: 8, ..impatient(500) }).await;
    bed.proxy.stall(true);
    let started = Instant::now();
    let results = join_all((0..300).map(|_| bed.add(&link))).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    let count =
        |wanted| results.iter().filter(|r| matches!(r, Err(e) if e.kind() == wanted)).count();
    assert_eq!(count(ErrorKind::Timeout) + count(ErrorKind::Unavailable), 300);
    assert!(count(ErrorKind::Timeout) <= 16, "{}", count(ErrorKind::Timeout));
    bed.proxy.stall(false);
    eventually("it is back", PATIENCE, async || link.call("PING", vec![]).await.is_ok()).await;
    assert!(bed.added().await <= 16);
}

#[tokio::test]
async fn callers_who_give_up_early_do_not_wedge_the_connection() {
    let bed = Bed::new().await;
    let link = bed.link(&ConnectionTuning { max_in_flight: 8, ..impatient(30_000) }).await;
    bed.close(&link).await;
    for _ in 0..200 {
        let _given_up = timeout(Duration::from_millis(1), bed.add(&link)).await;
    }
    bed.proxy.refuse(false);
    for n in 0..20 {
        timeout(PATIENCE, check_echo(&link, &n.to_string())).await.expect("it was not flushed");
    }
}

#[tokio::test]
async fn new_connections_are_told_of_and_channels_can_be_listened_to_again() {
    let bed = Bed::new().await;
    let link = bed.link(&impatient(5_000)).await;
    let mut reconnects = link.reconnects();
    let channel = Bytes::from(bed.stream.clone());
    link.subscribe(&channel).await.unwrap();
    assert!(timeout(Duration::from_millis(50), reconnects.next()).await.is_err());
    bed.proxy.cut();
    timeout(PATIENCE, reconnects.next()).await.unwrap();
    let mut messages = link.subscribe(&channel).await.unwrap();
    bed.server.command(&["PUBLISH", &bed.stream, "hello"]).await;
    assert_eq!(timeout(PATIENCE, messages.next()).await.unwrap(), "hello");
}

/// A way to the server whose standing connections can be frozen for good: open, and silent.
struct Tunnel {
    port: u16,
    frozen: watch::Sender<u64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Tunnel {
    async fn to(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let frozen = watch::Sender::new(0);
        let freezes = frozen.subscribe();
        let accepting = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut frozen, born) = (freezes.clone(), *freezes.borrow());
                all.spawn(async move {
                    let mut server =
                        TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await.unwrap();
                    let freeze = async { drop(frozen.wait_for(|frozen| *frozen > born).await) };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                        () = freeze => {}
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { port, frozen, accepting }
    }

    async fn link(&self, longest_wait: Duration) -> Link {
        let url = format!("redis://127.0.0.1:{}", self.port);
        Link::connect(&url, &Bytes::from("{q}"), &impatient(500), longest_wait).await.unwrap()
    }

    fn freeze(&self) {
        self.frozen.send_modify(|frozen| *frozen += 1);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test]
async fn a_dead_connection_is_replaced_although_commands_keep_coming() {
    let tunnel = Tunnel::to(shared_server().await.port()).await;
    let link = tunnel.link(Duration::ZERO).await;
    let mut reconnects = link.reconnects();
    tunnel.freeze();
    let ping = async || link.call("PING", vec![]).await.is_ok();
    let within = Duration::from_secs(2);
    let pings = eventually("it answers", within, async || {
        timeout(Duration::from_millis(50), ping()).await.unwrap_or(false)
    });
    let (_lost, ()) = tokio::join!(link.call("PING", vec![]), pings);
    timeout(PATIENCE, reconnects.next()).await.unwrap();
    check_echo(&link, "aligned").await;
}

#[tokio::test]
async fn a_dead_connection_is_replaced_although_it_takes_no_more_bytes() {
    let tunnel = Tunnel::to(shared_server().await.port()).await;
    let link = tunnel.link(Duration::ZERO).await;
    tunnel.freeze();
    let heavy = Bytes::from(vec![b'x'; 1024 * 1024]);
    let echo = || link.call("ECHO", vec![bytes(&heavy)]);
    for result in join_all((0..32).map(|_| echo())).await {
        assert_eq!(kind(result), ErrorKind::Timeout);
    }
    assert_eq!(echo().await.unwrap().bytes(), heavy);
}

#[tokio::test]
async fn a_dead_connection_is_replaced_although_it_blocks() {
    let tunnel = Tunnel::to(shared_server().await.port()).await;
    let wait = Duration::from_millis(300);
    let link = tunnel.link(wait).await;
    let pop = || link.block("BLPOP", vec!["{q}-nothing".into(), "0.3".into()]);
    assert_eq!(pop().await.unwrap(), Reply::Nil);
    let (popped, ()) = tokio::join!(pop(), async {
        tokio::time::sleep(wait / 3).await;
        tunnel.freeze();
    });
    assert_eq!(kind(popped), ErrorKind::Timeout);
    assert_eq!(pop().await.unwrap(), Reply::Nil);
}
