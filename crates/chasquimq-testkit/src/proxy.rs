//! A TCP proxy between the code under test and its server that misbehaves when told to.
//!
//! Each connection is two pumps, one a direction, with a buffer of 16 KiB each. What a test asks for holds
//! for every byte that has not been passed on yet, from the moment the call returns.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::login::Login;

const BUFFER: usize = 16 * 1024;

/// How long each byte takes while a connection dribbles.
const DRIBBLE: Duration = Duration::from_millis(1);

/// What holds now. The counts are of calls so far: a connection compares them with those at its birth.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Mode {
    stalled: bool,
    dribbles: bool,
    drops_replies: bool,
    refuses: bool,
    cuts: u64,
    half_closes: u64,
    lost_replies: u64,
}

/// A proxy on a port of 127.0.0.1. Dropping it closes everything.
pub struct ChaosProxy {
    port: u16,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl ChaosProxy {
    /// Starts a well-behaved proxy to `upstream` on 127.0.0.1.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let mode = watch::Sender::new(Mode::default());
        let accepted = Arc::new(AtomicU64::new(0));
        let accepting =
            tokio::spawn(accept(listener, upstream, mode.subscribe(), Arc::clone(&accepted)));
        Self { port, mode, accepted, accepting }
    }

    /// `redis://127.0.0.1:port`, through the proxy; with user and password as in
    /// [`Server::url`](crate::Server::url).
    pub fn url(&self) -> String {
        let login = Login::of_environment().map(|login| login.words() + "@").unwrap_or_default();
        format!("redis://{login}127.0.0.1:{}", self.port)
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has taken so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes every connection, in both directions, and lets the replies of the next ones through.
    pub fn cut(&self) {
        self.mode.send_modify(|mode| {
            mode.cuts += 1;
            mode.drops_replies = false;
        });
    }

    /// Holds everything back, or lets it flow again; nothing is lost or closed.
    pub fn stall(&self, stalled: bool) {
        self.mode.send_modify(|mode| mode.stalled = stalled);
    }

    /// Passes commands on and swallows their replies until [`ChaosProxy::cut`]: a reply that came after a
    /// lost one would be taken for it.
    pub fn drop_replies(&self) {
        self.mode.send_modify(|mode| mode.drops_replies = true);
    }

    /// Closes every connection in place of its next reply: the command before it is done.
    pub fn lose_replies(&self) {
        self.mode.send_modify(|mode| mode.lost_replies += 1);
    }

    /// Ends every connection in the direction of the client alone: it reads the end of the stream, while
    /// what it still sends reaches the server.
    pub fn half_close(&self) {
        self.mode.send_modify(|mode| mode.half_closes += 1);
    }

    /// Passes everything on one byte a millisecond, or at once again.
    pub fn dribble(&self, dribbles: bool) {
        self.mode.send_modify(|mode| mode.dribbles = dribbles);
    }

    /// Resets new connections at once, or takes them again; those that stand are left alone.
    pub fn refuse(&self, refuses: bool) {
        self.mode.send_modify(|mode| mode.refuses = refuses);
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Owns all connections: when it is aborted they end with it.
async fn accept(
    listener: TcpListener,
    upstream: u16,
    mode: watch::Receiver<Mode>,
    accepted: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let now = *mode.borrow();
                if now.refuses {
                    // Without lingering the peer sees a reset, as from a port that nobody listens on.
                    let _ = client.set_zero_linger();
                } else {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(connect(client, upstream, mode.clone(), now));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// `born` is what held when this connection was made.
async fn connect(client: TcpStream, upstream: u16, mode: watch::Receiver<Mode>, born: Mode) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client_read, client_write) = client.into_split();
    let (server_read, mut server_write) = server.into_split();
    let mut cut = mode.clone();
    let passes = |mode: &Mode| pass_unless(mode.cuts > born.cuts);
    // The first to end ends the connection: both sockets close when their halves are dropped.
    tokio::select! {
        _ = cut.wait_for(|mode| mode.cuts > born.cuts) => {}
        _ = pump(&mut client_read, &mut server_write, mode.clone(), passes) => {}
        _ = answer(server_read, client_write, mode, born) => {}
    }
}

/// The way back, which can end before the way there.
async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: watch::Receiver<Mode>,
    born: Mode,
) -> io::Result<()> {
    let mut half_closed = mode.clone();
    let fate = |mode: &Mode| {
        if mode.drops_replies {
            return Fate::Swallow;
        }
        pass_unless(mode.cuts > born.cuts || mode.lost_replies > born.lost_replies)
    };
    tokio::select! {
        result = pump(&mut from, &mut to, mode, fate) => return result,
        _ = half_closed.wait_for(|mode| mode.half_closes > born.half_closes) => {}
    }
    to.shutdown().await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map(drop)
}

/// What becomes of bytes that have arrived.
#[derive(PartialEq)]
enum Fate {
    Pass,
    Swallow,
    Cut,
}

fn pass_unless(cut: bool) -> Fate {
    if cut { Fate::Cut } else { Fate::Pass }
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    fate: impl Fn(&Mode) -> Fate,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        let now = *mode.wait_for(|mode| !mode.stalled).await.map_err(io::Error::other)?;
        match fate(&now) {
            _ if length == 0 => return Ok(()),
            Fate::Cut => return Ok(()),
            Fate::Swallow => {}
            Fate::Pass => write(to, &buffer[..length], &mode).await?,
        }
    }
}

async fn write(
    to: &mut OwnedWriteHalf,
    mut bytes: &[u8],
    mode: &watch::Receiver<Mode>,
) -> io::Result<()> {
    while mode.borrow().dribbles && !bytes.is_empty() {
        to.write_all(&bytes[..1]).await?;
        bytes = &bytes[1..];
        sleep(DRIBBLE).await;
    }
    to.write_all(bytes).await
}
