//! The proxy does to a connection what the test asks for.

use std::time::{Duration, Instant};

use chasquimq_testkit::{ChaosProxy, Server, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);
/// Long enough for a reply that is not held back.
const A_WHILE: Duration = Duration::from_millis(200);
const INCR: &[u8] = b"INCR n\r\n";

async fn connected() -> (Server, ChaosProxy, TcpStream) {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.port()).await;
    let client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    (server, proxy, client)
}

async fn reply(client: &mut TcpStream) -> String {
    let mut buffer = [0; 64];
    let length = timeout(SOON, client.read(&mut buffer)).await.unwrap().unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn passes_on_and_cuts() {
    let (_server, proxy, mut client) = connected().await;
    client.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut client).await, ":1\r\n");
    proxy.cut();
    assert_eq!(reply(&mut client).await, "");

    let mut next = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    next.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut next).await, ":2\r\n");
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_stall_holds_everything_back_and_loses_nothing() {
    let (server, proxy, mut client) = connected().await;
    proxy.stall(true);
    client.write_all(INCR).await.unwrap();
    timeout(A_WHILE, client.readable()).await.unwrap_err();
    assert!(server.command(&["GET", "n"]).await.is_nil());
    proxy.stall(false);
    assert_eq!(reply(&mut client).await, ":1\r\n");
}

#[tokio::test]
async fn dropped_replies_leave_the_command_done() {
    let (server, proxy, mut client) = connected().await;
    proxy.drop_replies();
    client.write_all(INCR).await.unwrap();
    timeout(A_WHILE, client.readable()).await.unwrap_err();
    assert_eq!(server.command(&["GET", "n"]).await.int(), 1);
    proxy.cut();
    assert_eq!(reply(&mut client).await, "");
    let mut next = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    next.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut next).await, ":2\r\n");
}

#[tokio::test]
async fn refuses_newcomers_until_told_otherwise() {
    let (_server, proxy, mut standing) = connected().await;
    standing.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut standing).await, ":1\r\n");
    proxy.refuse(true);
    if let Ok(mut refused) = TcpStream::connect(("127.0.0.1", proxy.port())).await {
        let _ = refused.write_all(INCR).await;
        assert_eq!(reply(&mut refused).await, "");
    }
    standing.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut standing).await, ":2\r\n");
    proxy.refuse(false);
    let mut newcomer = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    newcomer.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut newcomer).await, ":3\r\n");
}

#[tokio::test]
async fn a_lost_reply_leaves_the_command_done_and_the_connection_cut() {
    let (server, proxy, mut client) = connected().await;
    client.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut client).await, ":1\r\n");
    proxy.lose_replies();
    client.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut client).await, "");
    assert_eq!(server.command(&["GET", "n"]).await.int(), 2);
    let mut next = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    next.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut next).await, ":3\r\n");
}

#[tokio::test]
async fn a_half_closed_connection_still_takes_commands() {
    let (server, proxy, mut client) = connected().await;
    client.write_all(INCR).await.unwrap();
    assert_eq!(reply(&mut client).await, ":1\r\n");
    proxy.half_close();
    assert_eq!(reply(&mut client).await, "");
    client.write_all(INCR).await.unwrap();
    eventually("the command is done", SOON, async || {
        server.command(&["GET", "n"]).await.int() == 2
    })
    .await;
}

#[tokio::test]
async fn a_dribble_takes_a_millisecond_a_byte_and_loses_nothing() {
    let (_server, proxy, mut client) = connected().await;
    proxy.dribble(true);
    let begun = Instant::now();
    client.write_all(&INCR.repeat(20)).await.unwrap();
    let mut answer = [0; 4];
    timeout(SOON, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b":1\r\n");
    assert!(begun.elapsed() >= Duration::from_millis(INCR.len() as u64), "{:?}", begun.elapsed());
    proxy.dribble(false);
    let expected = (2..=20).fold(String::new(), |text, n| text + &format!(":{n}\r\n"));
    let mut rest = vec![0; expected.len()];
    timeout(SOON, client.read_exact(&mut rest)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), expected);
}
