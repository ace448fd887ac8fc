//! A TCP proxy between the code under test and its server that misbehaves when told to.
//!
//! Each connection is two pumps, one a direction, with a buffer of 16 KiB each. What a test asks for holds
//! for every byte that has not been passed on yet, from the moment the call returns.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const BUFFER: usize = 16 * 1024;

#[derive(Clone, Copy, Default)]
struct Mode {
    stalled: bool,
    drops_replies: bool,
    refuses: bool,
    /// Connections made before the last cut are dead.
    cuts: u64,
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

    /// `redis://127.0.0.1:port`, through the proxy.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has taken so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes every connection, in both directions.
    pub fn cut(&self) {
        self.mode.send_modify(|mode| mode.cuts += 1);
    }

    /// Holds everything back, or lets it flow again; nothing is lost or closed.
    pub fn stall(&self, stalled: bool) {
        self.mode.send_modify(|mode| mode.stalled = stalled);
    }

    /// Passes commands on and swallows their replies, or stops doing so. A connection that has lost a reply
    /// is of no use afterwards: [`ChaosProxy::cut`] it.
    pub fn drop_replies(&self, drops_replies: bool) {
        self.mode.send_modify(|mode| mode.drops_replies = drops_replies);
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
                    connections.spawn(connect(client, upstream, mode.clone(), now.cuts));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// `born` is the number of cuts before this connection.
async fn connect(client: TcpStream, upstream: u16, mode: watch::Receiver<Mode>, born: u64) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut cut = mode.clone();
    // The first to end ends the connection: both sockets close when their halves are dropped.
    tokio::select! {
        _ = cut.wait_for(|mode| mode.cuts > born) => {}
        _ = pump(client_read, server_write, mode.clone(), born, |_| false) => {}
        _ = pump(server_read, client_write, mode, born, |mode| mode.drops_replies) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    born: u64,
    swallows: fn(&Mode) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        let now = *mode.wait_for(|mode| !mode.stalled).await.map_err(io::Error::other)?;
        if length == 0 || now.cuts > born {
            return Ok(());
        }
        if !swallows(&now) {
            to.write_all(&buffer[..length]).await?;
        }
    }
}
