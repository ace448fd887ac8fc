//! The connection on a server that is well: replies stay with their commands, scripts heal.

use std::time::Duration;

use bytes::Bytes;
use chasquimq_testkit::{Server, eventually, shared_server};
use tokio::time::timeout;

use super::support::{Queue, job};
use crate::config::ConnectionTuning;
use crate::error::ErrorKind;
use crate::store::transport::{Arg, Link, Reply, Script};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn link(url: &str, tuning: &ConnectionTuning) -> Link {
    Link::connect(url, &Bytes::from("{q}"), tuning, Duration::ZERO).await.unwrap()
}

/// Gives up on a reply after `ms`, and dials again soon.
pub fn impatient(ms: u64) -> ConnectionTuning {
    ConnectionTuning {
        command_timeout: Duration::from_millis(ms),
        reconnect_min: Duration::from_millis(5),
        reconnect_max: Duration::from_millis(50),
        ..ConnectionTuning::default()
    }
}

/// Sends the server these words and checks that they come back.
pub async fn check_echo(link: &Link, words: &str) {
    assert_eq!(link.call("ECHO", vec![words.into()]).await.unwrap().text(), words);
}

fn eval(body: &'static str) -> Vec<Arg> {
    vec![body.into(), "0".into()]
}

#[tokio::test]
async fn replies_of_the_store_s_shapes_stay_with_their_commands() {
    let server = shared_server().await;
    let link = link(&server.url(), &ConnectionTuning::default()).await;
    for word in ["message", "pmessage", "smessage", "subscribe", "psubscribe", "unsubscribe"] {
        let script = Script::new("test", &format!("return {{1, '{word}', 'a', 'b'}}"));
        let reply = link.run(&script, &[], vec![]).await.unwrap();
        assert_eq!(reply.items()[1].text(), word);
        let script = Script::new("test", &format!("return {{2, {{'{word}', 'a', 'b'}}}}"));
        let reply = link.run(&script, &[], vec![]).await.unwrap();
        assert_eq!(reply.items()[1].items()[0].text(), word);
        check_echo(&link, word).await;
    }
}

/// Why every script answers with a number first. When this fails, the library has been mended.
#[tokio::test]
async fn a_list_that_begins_like_a_pub_sub_message_never_arrives() {
    let server = shared_server().await;
    for body in ["return {'subscribe', 'a', 'b'}", "return {'message', 'a', 'b'}"] {
        let link = link(&server.url(), &impatient(1_500)).await;
        let lost = link.call("EVAL", eval(body)).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Timeout);
        // The connection, whose replies would have gone to the wrong commands, was replaced.
        for words in ["one", "two", "three"] {
            check_echo(&link, words).await;
        }
    }
}

#[tokio::test]
async fn all_kinds_of_replies_are_read() {
    let server = shared_server().await;
    let link = link(&server.url(), &ConnectionTuning::default()).await;
    let reply = link.call("EVAL", eval("return {7, 'x', false, {1.9, {}}, {ok = 'fine'}}")).await;
    let list = Reply::List;
    let text = |text: &'static str| Reply::Bytes(Bytes::from(text));
    let expected = vec![
        Reply::Int(7),
        text("x"),
        Reply::Nil,
        list(vec![Reply::Int(1), list(vec![])]),
        text("fine"),
    ];
    assert_eq!(reply.unwrap(), list(expected));
    let binary: Bytes = (0..=255).collect();
    let echoed = link.call("ECHO", vec![Arg::Bytes(binary.clone())]).await.unwrap();
    assert_eq!(echoed.bytes(), binary);
    let error = link.call("EVAL", eval("return redis.error_reply('MISCONF no')")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    check_echo(&link, "still aligned").await;
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again_within_the_call() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    for id in ["a", "b"] {
        server.command(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(queue.store.add(&[job(id, true)], 0, 1).await.unwrap(), [true]);
    }
    assert_eq!(queue.dump().await.values(), ["record-a", "record-b"]);
    let calls = async || server.command(&["INFO", "commandstats"]).await.text();
    let evals =
        |calls: String| calls.lines().find(|l| l.contains("cmdstat_eval:")).map(str::to_owned);
    let before = evals(calls().await);
    queue.store.add(&[job("c", true)], 0, 1).await.unwrap();
    assert_eq!(evals(calls().await), before, "a known script goes by its hash");
}

#[tokio::test]
async fn a_link_that_is_dropped_or_closed_leaves_no_connection() {
    let server = Server::start().await;
    let clients = async || {
        let list = server.command(&["CLIENT", "LIST"]).await.text();
        list.lines().filter(|line| line.contains("addr=127.0.0.1:")).count()
    };
    let first = link(&server.url(), &ConnectionTuning::default()).await;
    let second = link(&server.url(), &ConnectionTuning::default()).await;
    let reconnects = second.reconnects();
    eventually("both are connected", PATIENCE, async || clients().await == 2).await;
    first.close().await;
    assert_eq!(first.call("PING", vec![]).await.unwrap_err().kind(), ErrorKind::Shutdown);
    drop(second);
    eventually("both are gone", PATIENCE, async || clients().await == 0).await;
    drop(reconnects);
}

#[tokio::test]
async fn it_speaks_over_a_unix_socket() {
    let server = shared_server().await;
    let url = format!("redis+unix://{}", server.socket().display());
    let link = link(&url, &ConnectionTuning::default()).await;
    check_echo(&link, "hello").await;
}

#[tokio::test]
async fn messages_of_a_channel_arrive_beside_commands() {
    let server = shared_server().await;
    let link = link(&server.url(), &ConnectionTuning::default()).await;
    let channel = Bytes::from(chasquimq_testkit::unique_queue("channel"));
    let mut messages = link.subscribe(&channel).await.unwrap();
    for n in 0..20 {
        let n = n.to_string();
        check_echo(&link, &n).await;
        server.command(&["PUBLISH", std::str::from_utf8(&channel).unwrap(), &n]).await;
        assert_eq!(timeout(PATIENCE, messages.next()).await.unwrap(), n);
    }
}

#[tokio::test]
async fn a_channel_that_is_denied_is_an_error_and_replies_stay_with_their_commands() {
    let server = Server::start().await;
    let user = ["ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "resetchannels"];
    assert_eq!(server.command(&user).await.error(), None);
    let url = format!("redis://deaf:secret@127.0.0.1:{}", server.port());
    let link = link(&url, &ConnectionTuning::default()).await;
    let echoes = async {
        for n in 0..200 {
            check_echo(&link, &n.to_string()).await;
        }
    };
    let channel = Bytes::from("denied");
    let (denied, ()) = tokio::join!(link.subscribe(&channel), echoes);
    assert_eq!(denied.err().unwrap().kind(), ErrorKind::Auth);
    check_echo(&link, "still aligned").await;
}
