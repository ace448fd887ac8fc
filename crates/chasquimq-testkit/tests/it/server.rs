//! Servers start, are hurt, come back and never outlive their test.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use chasquimq_testkit::{Reply, Server, eventually, shared_server, unique_queue};

#[tokio::test]
async fn servers_of_ones_own_share_nothing() {
    let (one, other) = (Server::start().await, Server::start().await);
    one.command(&["SET", "key", "value"]).await;
    assert_eq!(one.command(&["GET", "key"]).await.text(), "value");
    assert_eq!(other.command(&["GET", "key"]).await, Reply::Nil);
    assert_ne!(one.port(), other.port());
    let info = one.command(&["INFO", "server"]).await.text();
    assert!(info.contains(&format!("_version:{}\r\n", one.version())), "{info}");
}

#[tokio::test]
async fn only_a_server_with_an_aof_keeps_its_data_over_a_restart() {
    for (aof, kept) in [(true, Reply::Bulk(b"value".into())), (false, Reply::Nil)] {
        let server = Server::builder().aof(aof).start().await;
        server.command(&["SET", "key", "value"]).await;
        let port = server.port();
        server.restart().await;
        assert_eq!(server.port(), port);
        assert_eq!(server.command(&["GET", "key"]).await, kept);
    }
}

#[tokio::test]
async fn a_dump_is_where_another_server_begins() {
    let one = Server::start().await;
    one.command(&["SET", "key", "value"]).await;
    let other = Server::builder().dump(one.dump().await).standalone().start().await;
    assert_eq!(other.command(&["GET", "key"]).await.text(), "value");
}

#[tokio::test]
async fn a_killed_server_is_unreachable_until_it_is_restarted() {
    let server = Server::start().await;
    server.kill9();
    server.try_command(&["PING"]).await.unwrap_err();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).is_err());

    let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    let release = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(squatter);
    };
    tokio::join!(server.restart(), release);
    assert_eq!(server.command(&["PING"]).await.text(), "PONG");
}

#[tokio::test]
async fn a_stopped_server_answers_once_it_goes_on() {
    let server = Server::start().await;
    server.stop_signal();
    let ping = server.try_command(&["PING"]);
    tokio::pin!(ping);
    tokio::time::timeout(Duration::from_millis(200), &mut ping).await.unwrap_err();
    server.cont();
    assert_eq!(ping.await.unwrap().text(), "PONG");
}

#[tokio::test]
async fn the_configuration_holds() {
    let server = Server::builder().config("maxmemory", "1mb").config("requirepass", "secret");
    let server = server.start().await;
    let limit = server.command(&["CONFIG", "GET", "maxmemory"]).await;
    assert_eq!(limit.array()[1].int(), 1024 * 1024);
    let wrong = server.command(&["AUTH", "wrong"]).await;
    assert!(wrong.error().unwrap().starts_with("WRONGPASS"), "{wrong:?}");
}

#[tokio::test]
async fn the_shared_server_is_one_and_its_queues_are_many() {
    assert_eq!(shared_server().await.port(), shared_server().await.port());
    assert_ne!(unique_queue("q"), unique_queue("q"));
}

#[tokio::test]
async fn no_server_outlives_a_test_process_that_aborts() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server::aborts_when_told_to", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("socket: ")).expect(&text).1;
    let socket = PathBuf::from(line);
    let gone = async || !socket.parent().unwrap().exists();
    eventually("its folder is removed, after the server", Duration::from_secs(5), gone).await;
}

#[tokio::test]
#[ignore = "the other process of the test above"]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
async fn aborts_when_told_to() {
    println!("socket: {}", shared_server().await.socket().display());
    std::process::abort();
}

#[tokio::test]
async fn a_user_of_the_test_s_own_logs_in_by_url() {
    let server = Server::start().await;
    let place = format!("127.0.0.1:{}", server.port());
    assert!(server.url().ends_with(&place), "{}", server.url());
    assert_eq!(
        server.url_as("app:secret").split_once("://").unwrap().1,
        format!("app:secret@{place}")
    );
}
