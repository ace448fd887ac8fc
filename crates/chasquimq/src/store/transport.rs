//! Connections: the only module that names the client library, fred.
//!
//! What the library would do and the queue cannot bear, and what stands against it here:
//!
//! - It sends commands again whose reply was lost: one attempt a command; the caller decides.
//! - It fails commands that it has not sent yet while it reconnects: those are sent again.
//! - It queues without bound while disconnected: a bounded queue, and permits before it.
//! - It does not always notice a dead connection, and after its queue was full it no longer
//!   flushes: every command has a deadline, and a client that keeps silent past it is replaced.
//! - It takes arrays of 3 to 5 that begin with `message`, `subscribe` and the like for pub/sub
//!   messages, in RESP3 too, and gives every later reply to the wrong command: scripts answer with
//!   a number first, other commands with nested arrays or none.
//! - It knows few error codes: [`classify`] reads the server's own text.

mod dial;
mod errors;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientInterface, ClientLike, EventInterface, PubsubInterface};
use fred::prelude::Builder;
use fred::types::config::{Options, Server};
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, Resp3Frame, Value};
use tokio::sync::{Semaphore, SemaphorePermit, broadcast, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use dial::prepare;
pub use dial::redact;
pub use errors::{classify, is_unknown_command};
use errors::{from_client, is_noscript, server_error, was_not_sent};

use crate::config::ConnectionTuning;
use crate::error::{Error, ErrorKind, Result};

/// A wait too short to send anything in; to the library, zero means for ever.
const SHORTEST: Duration = Duration::from_millis(2);

/// One argument of a command. Bytes and texts convert into it.
pub type Arg = Value;

/// A number as an argument.
pub fn int(value: u64) -> Arg {
    Value::Integer(value as i64)
}

/// Shared bytes as an argument, not copied.
pub fn bytes(value: &Bytes) -> Arg {
    Value::Bytes(value.clone())
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// A string of bytes.
    Bytes(Bytes),
    /// A list; maps are lists of alternating keys and values.
    List(Vec<Reply>),
}

impl Reply {
    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Reply] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// The number, or the number a text spells; 0 for anything else.
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(n) => *n,
            Self::Bytes(b) => std::str::from_utf8(b).ok().and_then(|s| s.parse().ok()).unwrap_or(0),
            _ => 0,
        }
    }

    /// The text, invalid UTF-8 replaced; empty for anything else.
    pub fn text(&self) -> String {
        if let Self::Bytes(b) = self {
            String::from_utf8_lossy(b).into_owned()
        } else {
            String::new()
        }
    }

    /// The bytes; empty for anything else.
    pub fn bytes(&self) -> Bytes {
        if let Self::Bytes(b) = self { b.clone() } else { Bytes::new() }
    }

    fn read(frame: Resp3Frame) -> Result<Self> {
        Ok(match frame {
            Resp3Frame::Number { data, .. } => Self::Int(data),
            Resp3Frame::BlobString { data, .. }
            | Resp3Frame::SimpleString { data, .. }
            | Resp3Frame::BigNumber { data, .. }
            | Resp3Frame::VerbatimString { data, .. } => Self::Bytes(data),
            Resp3Frame::Boolean { data, .. } => Self::Int(i64::from(data)),
            Resp3Frame::Double { data, .. } => Self::Bytes(data.to_string().into()),
            Resp3Frame::SimpleError { data, .. } => return Err(server_error(&data)),
            Resp3Frame::BlobError { data, .. } => {
                return Err(server_error(&String::from_utf8_lossy(&data)));
            }
            Resp3Frame::Array { data, .. } | Resp3Frame::Push { data, .. } => {
                Self::List(data.into_iter().map(Self::read).collect::<Result<_>>()?)
            }
            Resp3Frame::Map { data, .. } => Self::List(
                data.into_iter()
                    .flat_map(|(k, v)| [k, v])
                    .map(Self::read)
                    .collect::<Result<_>>()?,
            ),
            Resp3Frame::Set { data, .. } => {
                Self::List(data.into_iter().map(Self::read).collect::<Result<_>>()?)
            }
            Resp3Frame::Null | Resp3Frame::Hello { .. } | Resp3Frame::ChunkedString(_) => Self::Nil,
        })
    }
}

/// A Lua script and its SHA-1, by which the server knows it.
pub struct Script {
    /// The verb, for metrics.
    pub name: &'static str,
    body: String,
    sha: String,
}

impl Script {
    /// A script of this verb and text.
    pub fn new(name: &'static str, body: &str) -> Self {
        Self { name, body: body.to_owned(), sha: fred::util::sha1_hash(body) }
    }

    /// Its text.
    #[cfg(test)]
    pub fn text(&self) -> &str {
        &self.body
    }

    /// The script with what it is given.
    pub fn with(&self, keys: &[&Bytes], given: Vec<Arg>) -> Call<'_> {
        let mut args = Vec::with_capacity(2 + keys.len() + given.len());
        args.push(self.sha.as_str().into());
        args.push(int(keys.len() as u64));
        args.extend(keys.iter().map(|key| bytes(key)));
        args.extend(given);
        Call { script: self, args }
    }
}

/// A script with what it is given, which can be sent any number of times.
pub struct Call<'s> {
    /// The script.
    pub script: &'s Script,
    args: Vec<Arg>,
}

/// One connection to the server that owns a slot, shared by all who hold it.
pub struct Link {
    sessions: watch::Sender<Arc<Session>>,
    builder: Builder,
    slot: u16,
    permits: Semaphore,
    max_in_flight: u32,
    deadline: Duration,
}

/// A client and the task that drives it, which ends with it.
struct Session {
    client: Client,
    task: ConnectHandle,
}

impl Session {
    fn open(client: Client) -> Self {
        let task = client.connect();
        Self { client, task }
    }

    /// Connects; the first failure counts.
    async fn reach(builder: &Builder) -> Result<Self> {
        let mut builder = builder.clone();
        builder.with_config(|config| config.fail_fast = true);
        let client = builder.build().map_err(|error| from_client(&error))?;
        let (mut connected, mut failed) = (client.reconnect_rx(), client.error_rx());
        let session = Self::open(client);
        tokio::select! {
            biased;
            Ok(_) = connected.recv() => Ok(session),
            Ok((error, _)) = failed.recv() => Err(from_client(&error)),
            else => Err(Error::new(ErrorKind::Connection, "the connection was closed")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Whoever listens for reconnects holds the session, too.
        self.sessions.borrow().task.abort();
    }
}

impl Link {
    /// Connects for the keys that share `key`'s slot. `longest_wait` is the longest a blocking
    /// command will be asked to wait, zero on a connection without any.
    pub async fn connect(
        url: &str,
        key: &Bytes,
        tuning: &ConnectionTuning,
        longest_wait: Duration,
    ) -> Result<Self> {
        let deadline = tuning.command_timeout + 2 * longest_wait;
        let builder = prepare(url, tuning, deadline)?;
        let within = tuning.connect_timeout + tuning.command_timeout;
        let late = |_| Err(Error::new(ErrorKind::Timeout, "no answer in time"));
        let reached = timeout(within, Session::reach(&builder)).await.unwrap_or_else(late);
        let session = reached
            .map_err(|error| error.context(format_args!("connecting to {}", redact(url))))?;
        let sessions = watch::Sender::new(Arc::new(session));
        let slot = fred::util::redis_keyslot(key);
        let permits = Semaphore::new(tuning.max_in_flight);
        let max_in_flight = u32::try_from(tuning.max_in_flight).unwrap_or(u32::MAX);
        Ok(Self { sessions, builder, slot, permits, max_in_flight, deadline })
    }

    /// Sends one command, once. It waits for a reconnect, but never past its deadline.
    pub async fn call(&self, command: &'static str, args: Vec<Arg>) -> Result<Reply> {
        self.send(command, &args, false, Instant::now() + self.deadline).await
    }

    /// Sends one command that may block the connection, and the server's side of it, for a while.
    pub async fn block(&self, command: &'static str, args: Vec<Arg>) -> Result<Reply> {
        self.send(command, &args, true, Instant::now() + self.deadline).await
    }

    /// How long a command may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs a script, once.
    pub async fn run(&self, script: &Script, keys: &[&Bytes], args: Vec<Arg>) -> Result<Reply> {
        self.run_until(&script.with(keys, args), Instant::now() + self.deadline).await
    }

    /// Runs a script by its hash, or by its text where the server does not know it yet.
    pub async fn run_until(&self, call: &Call<'_>, until: Instant) -> Result<Reply> {
        let reply = match self.send("EVALSHA", &call.args, false, until).await {
            Err(error) if is_noscript(&error) => {
                let mut args = call.args.clone();
                args[0] = call.script.body.as_str().into();
                self.send("EVAL", &args, false, until).await?
            }
            result => result?,
        };
        debug_assert!(
            matches!(reply.items().first().unwrap_or(&reply), Reply::Int(_)),
            "a script must answer with a number first"
        );
        Ok(reply)
    }

    async fn send(
        &self,
        command: &'static str,
        args: &[Arg],
        blocks: bool,
        until: Instant,
    ) -> Result<Reply> {
        let _permit = self.permits(1, until).await?;
        let custom = CustomCommand::new_static(command, ClusterHash::Custom(self.slot), blocks);
        loop {
            let session = Arc::clone(&self.sessions.borrow());
            let left = left(until)?;
            let client = session.client.with_options(&within(left));
            // Boxed, or it would make every future above it some KiB larger.
            match Box::pin(client.custom_raw(custom.clone(), args.to_vec())).await {
                Err(error) if was_not_sent(&error) => sleep(SHORTEST).await,
                Err(error) => return Err(self.failed(&session, &error, left)),
                Ok(frame) => return Reply::read(frame).inspect_err(|e| self.refused(&session, e)),
            }
        }
    }

    async fn permits(&self, count: u32, until: Instant) -> Result<SemaphorePermit<'_>> {
        match timeout_at(until, self.permits.acquire_many(count)).await {
            Ok(permits) => {
                permits.map_err(|_| Error::new(ErrorKind::Shutdown, "the connection was closed"))
            }
            Err(_) => Err(unsent()),
        }
    }

    /// A client that was silent for most of a deadline may be silent for ever.
    fn failed(
        &self,
        session: &Arc<Session>,
        error: &fred::error::Error,
        waited: Duration,
    ) -> Error {
        let stuck = match error.kind() {
            fred::error::ErrorKind::Timeout if 2 * waited < self.deadline => false,
            fred::error::ErrorKind::Timeout => {
                session.client.is_connected() || session.task.is_finished()
            }
            kind => *kind == fred::error::ErrorKind::Backpressure,
        };
        if stuck {
            self.replace(session);
        }
        from_client(error)
    }

    /// Where the primary has become a replica, the new one is looked for.
    fn refused(&self, session: &Arc<Session>, error: &Error) {
        let text = error.to_string();
        if ["READONLY", "MASTERDOWN"].iter().any(|code| text.contains(code)) {
            self.replace(session);
        }
    }

    /// Opens another session in the place of this one, which lives until its last command ends.
    fn replace(&self, stale: &Arc<Session>) {
        self.sessions.send_if_modified(|current| {
            let Ok(client) = self.builder.build() else { return false };
            let is_current = Arc::ptr_eq(current, stale) && !self.permits.is_closed();
            if is_current {
                tracing::warn!("the connection is of no use any more: connecting anew");
                *current = Arc::new(Session::open(client));
            }
            is_current
        });
    }

    /// Wakes the command that blocks `other`, whose reply then comes at once.
    pub async fn unblock(&self, other: &Link) {
        let ids = other.sessions.borrow().client.connection_ids();
        for id in ids.into_values() {
            if let Err(error) = self.call("CLIENT", vec!["UNBLOCK".into(), id.into()]).await {
                tracing::debug!(%error, "could not wake the reader; it wakes by itself");
            }
        }
    }

    /// Listens to a channel. Messages may be missed while disconnected; see [`Link::reconnects`].
    pub async fn subscribe(&self, channel: &Bytes) -> Result<Messages> {
        let until = Instant::now() + self.deadline;
        // The library expects no reply, so a refusal would be taken for the reply to whatever comes
        // next: that must be a PING, with nothing behind it.
        let _alone = self.permits(self.max_in_flight, until).await?;
        let session = Arc::clone(&self.sessions.borrow());
        let hash = ClusterHash::Custom(self.slot);
        let ping = CustomCommand::new_static("PING", hash.clone(), false);
        let options = Options { cluster_hash: Some(hash), ..within(left(until)?) };
        let client = session.client.with_options(&options);
        let messages = session.client.message_rx();
        let channel = String::from_utf8_lossy(channel).into_owned();
        let (sent, answered) =
            tokio::join!(client.subscribe(channel), client.custom_raw(ping, Vec::<Arg>::new()));
        sent.map_err(|error| from_client(&error))?;
        let answered = answered.map_err(|e| self.failed(&session, &e, self.deadline))?;
        Reply::read(answered).inspect_err(|_| self.replace(&session))?;
        Ok(Messages(messages))
    }

    /// Tells of each new connection after the first.
    pub fn reconnects(&self) -> Reconnects {
        let sessions = self.sessions.subscribe();
        let connected = sessions.borrow().client.reconnect_rx();
        Reconnects { sessions, connected }
    }

    /// Closes the connection after the replies that are due; commands sent later fail.
    pub async fn close(&self) {
        self.permits.close();
        let session = Arc::clone(&self.sessions.borrow());
        if let Ok(Err(error)) = timeout(Duration::from_secs(1), session.client.quit()).await {
            tracing::debug!(%error, "closing the connection");
        }
    }

    /// Closes the connection without waiting for a blocking command on it; commands fail.
    pub async fn disconnect(&self) {
        self.permits.close();
        let session = Arc::clone(&self.sessions.borrow());
        session.task.abort();
        let ended = async {
            while !session.task.is_finished() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(Duration::from_secs(1), ended).await.is_err() {
            tracing::debug!("a connection that was closed still ends");
        }
    }
}

/// Messages of the subscribed channel.
pub struct Messages(broadcast::Receiver<fred::types::Message>);

impl Messages {
    /// Waits for the next one; its text, empty when some were missed.
    pub async fn next(&mut self) -> String {
        match self.0.recv().await {
            Ok(message) => message.value.into_string().unwrap_or_default(),
            Err(broadcast::error::RecvError::Lagged(_)) => String::new(),
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// New connections after the first.
pub struct Reconnects {
    sessions: watch::Receiver<Arc<Session>>,
    connected: broadcast::Receiver<Server>,
}

impl Reconnects {
    /// Waits for the next one. A client that was replaced counts at once: what is sent to the new
    /// one waits until it is connected.
    pub async fn next(&mut self) {
        let replaced = tokio::select! {
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) = self.connected.recv() => return,
            replaced = self.sessions.changed() => replaced,
        };
        if replaced.is_err() {
            return std::future::pending().await;
        }
        self.connected = self.sessions.borrow_and_update().client.reconnect_rx();
    }
}

fn unsent() -> Error {
    let why = "not sent: the connection is down, or too many commands await a reply";
    Error::new(ErrorKind::Unavailable, why)
}

/// What is left of the time, if it is enough to send anything.
fn left(until: Instant) -> Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left < SHORTEST { Err(unsent()) } else { Ok(left) }
}

fn within(time: Duration) -> Options {
    Options { timeout: Some(time), ..Options::default() }
}
