//! What is refused, by whom, and how it is told: at connect, and by real servers later.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chasquimq_testkit::{ChaosProxy, Server, eventually, shared_server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::link::{PATIENCE, check_echo, impatient, link};
use super::support::{Keyspace, Queue, job};
use crate::config::{ConnectionTuning, EventsConfig};
use crate::error::{Error, ErrorKind};
use crate::store::transport::{Link, Script};
use crate::store::{Due, Store};

async fn refusal(url: &str, tuning: &ConnectionTuning) -> Error {
    let events = EventsConfig::default();
    Store::connect(url, "q", tuning, &events, None).await.err().expect("a refusal")
}

/// A server on 127.0.0.1 that answers HELLO as Redis of this version would.
async fn server_that_says(version: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, version));
        }
    });
    url
}

async fn answer(mut stream: TcpStream, version: &str) {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let hello = format!("%2\r\n+server\r\n+redis\r\n+version\r\n+{version}\r\n");
    while let Ok(Some(line)) = lines.next_line().await {
        let reply = match line.as_str() {
            "HELLO" | "HELLO 3" => hello.as_str(),
            "CLIENT" | "INFO" => "-ERR unknown command\r\n",
            _ => continue,
        };
        if write.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_in_one_sentence() {
    let url = server_that_says("6.0.16").await;
    let error = refusal(&url, &impatient(2_000)).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains(&url) && text.contains("the server is redis 6.0.16"), "{text}");
    assert!(text.contains("use Redis 6.2 or later") && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn where_nobody_listens_the_error_names_the_place() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("redis://:secret@127.0.0.1:{}", listener.local_addr().unwrap().port());
    drop(listener);
    let started = Instant::now();
    let error = refusal(&url, &ConnectionTuning::default()).await;
    assert_eq!(error.kind(), ErrorKind::Connection);
    let text = error.to_string();
    let place = url.replace(":secret@", "***@");
    assert_eq!(text, format!("connecting to {place}: Connection refused"));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn where_nobody_answers_the_error_comes_within_the_deadline() {
    let proxy = ChaosProxy::start(shared_server().await.port()).await;
    proxy.stall(true);
    let started = Instant::now();
    let error = refusal(&proxy.url(), &impatient(300)).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains(&proxy.url()), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn passwords_never_show_in_errors() {
    let server = Server::builder().config("requirepass", "right").start().await;
    let port = server.port();
    for (url, kind) in [
        (format!("redis://:hush@127.0.0.1:{port}"), ErrorKind::Auth),
        (format!("redis://hush:hush@127.0.0.1:{port}"), ErrorKind::Auth),
        (format!("redis://127.0.0.1:{port}"), ErrorKind::Auth),
        (format!("redis://:hush@127.0.0.1:{port}/notadb"), ErrorKind::Config),
        ("redis://:hush@127.0.0.1:notaport".into(), ErrorKind::Config),
        ("redis://user:hu?sh@host".into(), ErrorKind::Config),
        ("http://user:hush@127.0.0.1:1".into(), ErrorKind::Config),
        ("user:hush@host".into(), ErrorKind::Config),
        ("redis-sentinel://host:1?sentinelPassword=hush".into(), ErrorKind::Config),
    ] {
        let error = refusal(&url, &impatient(1_000)).await;
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hush") && !told.contains("hu?"), "{url}: {told}");
        assert_eq!(error.kind(), kind, "{url}: {told}");
    }
}

#[tokio::test]
async fn any_password_is_sent_as_it_is() {
    let password = "p w\"d'\\ \r\nFLUSHALL ü#%";
    let server = Server::start().await;
    let user = ["ACL", "SETUSER", "o'neil", "on", &format!(">{password}"), "~*", "&*", "+@all"];
    assert_eq!(server.command(&user).await.error(), None);
    let hex =
        |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
    let place = format!("127.0.0.1:{}", server.port());
    let url = format!("redis://{}:{}@{place}", hex("o'neil"), hex(password));
    for longest_wait in [Duration::ZERO, Duration::from_secs(1)] {
        let key = Bytes::from("{q}");
        let link = Link::connect(&url, &key, &impatient(1_000), longest_wait).await.unwrap();
        check_echo(&link, "let in").await;
    }
    let url = format!("redis://{}:{}@{place}", hex("o'neil"), hex("p w\"d'\\"));
    assert_eq!(refusal(&url, &impatient(1_000)).await.kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn the_server_is_known_by_its_name_and_version() {
    let server = shared_server().await;
    let queue = Queue::new().await;
    let known = queue.store.server();
    assert_eq!(known.version, server.version());
    assert!(server.name().starts_with(&known.server), "{known}");
    assert_eq!(queue.dump().await, Keyspace::default(), "looking changed something");
}

#[tokio::test]
async fn a_command_that_is_denied_is_an_error_of_rights() {
    let server = Server::start().await;
    let user = ["ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-xadd"];
    assert_eq!(server.command(&user).await.error(), None);
    let queue = Queue::as_user(&server, "reader:pw").await;
    for unique in [false, true] {
        let error = queue.store.add(&[job("a", unique)], 0, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    }
    let error = queue.store.schedule(&[(job("a", true), Due::In(9))], 0).await;
    assert_eq!(error.unwrap(), [true], "events are not worth an error");
    assert_eq!(queue.dump().await.unique, ["a".to_owned()].into());
}

#[tokio::test]
async fn a_replica_is_unavailable_and_the_link_lives_on_when_it_is_promoted() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let before = server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(before.error(), None);
    for unique in [false, true] {
        let error = queue.store.add(&[job("a", unique)], 0, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    for id in ["a", "b"] {
        assert_eq!(queue.store.add(&[job(id, true)], 0, 1).await.unwrap(), [true]);
    }
    assert_eq!(queue.dump().await.values(), ["record-a", "record-b"]);
}

#[tokio::test]
async fn a_server_that_is_loading_is_unavailable_until_it_has_loaded() {
    // It answers while it loads, but only every 2 MiB.
    let slow = Server::builder().config("key-load-delay", "20000").config("rdbcompression", "no");
    let server = slow.start().await;
    for n in 0..100 {
        server.command(&["SET", &format!("k{n}"), &"x".repeat(256 * 1024)]).await;
    }
    server.command(&["SAVE"]).await;
    let url = server.url();
    let link = link(&url, &impatient(3_000)).await;
    let run = Script::new("test", "return redis.call('DBSIZE')");
    let (loading, ()) = tokio::join!(
        async {
            let mut told = None;
            let loaded = async || match link.run(&run, &[], vec![]).await {
                Ok(reply) => reply.int() == 100 && told.is_some(),
                Err(error) if error.to_string().contains("LOADING") => {
                    told = Some(error.kind());
                    false
                }
                Err(_) => false,
            };
            eventually("it has loaded", PATIENCE, loaded).await;
            told
        },
        server.restart(),
    );
    assert_eq!(loading, Some(ErrorKind::Unavailable));
    check_echo(&link, "hello").await;
}

#[tokio::test]
async fn a_password_that_changes_under_way_is_an_error_of_rights() {
    let server = Server::start().await;
    let link = link(&server.url(), &impatient(500)).await;
    check_echo(&link, "hello").await;
    server.command(&["CONFIG", "SET", "requirepass", "new"]).await;
    server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let refused = async || link.call("PING", vec![]).await.is_err();
    eventually("it is refused", PATIENCE, refused).await;
    server.command(&["CONFIG", "SET", "requirepass", ""]).await;
    let accepted = async || link.call("PING", vec![]).await.is_ok();
    eventually("it is let in again", PATIENCE, accepted).await;
    check_echo(&link, "hello").await;
}
