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
//! - It follows a cluster and Sentinels in ways of its own: see [`places`].

mod dial;
mod errors;
mod line;
mod login;
mod places;
mod reply;
mod session;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::{ClientInterface, ClientLike, EventInterface, PubsubInterface};
use fred::types::config::{Options, Server};
use fred::types::{ClusterHash, CustomCommand};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, broadcast, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use dial::prepare;
#[cfg(feature = "fuzzing")]
pub(crate) use dial::prepare as prepare_url;
pub use dial::redact;
use errors::{Refusal, from_client, is_noscript, was_not_sent};
pub use errors::{classify, is_unknown_command};
pub use line::{Assurance, Line};
use places::{Address, Places};
pub use reply::{Arg, Reply, bytes, int};
use session::Session;

use crate::config::ConnectionTuning;
use crate::error::{Error, ErrorKind, Result};

/// A wait too short to send anything in; to the library, zero means for ever.
const SHORTEST: Duration = Duration::from_millis(2);

/// A reply that is as late as this raises the question whether its server still owns the slot.
const LATE: Duration = Duration::from_millis(500);

/// Between two tries at a slot that is on its way to another server.
const PAUSE: Duration = Duration::from_millis(20);

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

impl Call<'_> {
    /// What EVAL takes, for a server that does not know the script yet.
    fn with_text(&self) -> Vec<Arg> {
        let mut args = self.args.clone();
        args[0] = self.script.body.as_str().into();
        args
    }
}

/// One connection to the server that owns a slot, shared by all who hold it.
pub struct Link {
    sessions: watch::Sender<Arc<Session>>,
    places: Places,
    slot: u16,
    permits: Semaphore,
    max_in_flight: u32,
    deadline: Duration,
    longest_wait: Duration,
    /// Held by the one who finds out where the slot is.
    looking: Mutex<()>,
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
        let builder = prepare(url, tuning, deadline, !longest_wait.is_zero())?;
        let places = Places::new(builder, tuning.connect_timeout);
        let slot = fred::util::redis_keyslot(key);
        let reach = async {
            let at = places.owner(slot).await?;
            Session::reach(places.client(&at, true)?, at).await
        };
        let within = tuning.connect_timeout + tuning.command_timeout;
        let late = |_| Err(Error::new(ErrorKind::Timeout, "no answer in time"));
        let reached = timeout(within, reach).await.unwrap_or_else(late);
        let session = reached
            .map_err(|error| error.context(format_args!("connecting to {}", redact(url))))?;
        let sessions = watch::Sender::new(Arc::new(session));
        let permits = Semaphore::new(tuning.max_in_flight);
        let max_in_flight = u32::try_from(tuning.max_in_flight).unwrap_or(u32::MAX);
        let looking = Mutex::new(());
        Ok(Self { sessions, places, slot, permits, max_in_flight, deadline, longest_wait, looking })
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
                self.send("EVAL", &call.with_text(), false, until).await?
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
            let reply = Box::pin(client.custom_raw(custom.clone(), args.to_vec()));
            match self.unless_overtaken(&session, blocks, reply).await? {
                Err(error) if was_not_sent(&error) => sleep(SHORTEST).await,
                Err(error) => return Err(self.failed(&session, &error, left)),
                Ok(frame) => match Reply::read(frame) {
                    Err(error) if self.is_elsewhere(&session, &error).await => sleep(PAUSE).await,
                    Err(error) => return Err(self.explained(error)),
                    Ok(reply) => return Ok(reply),
                },
            }
        }
    }

    /// Waits for a reply, but no longer than its server owns the slot.
    async fn unless_overtaken<T>(
        &self,
        session: &Arc<Session>,
        blocks: bool,
        reply: impl Future<Output = T>,
    ) -> Result<T> {
        if self.places.is_fixed() {
            return Ok(reply.await);
        }
        let late = Instant::now() + if blocks { self.longest_wait + LATE } else { LATE };
        let overtaken = async {
            while self.is_current(session) {
                sleep(LATE).await;
                if Instant::now() >= late || !session.client.is_connected() {
                    Box::pin(self.look(session)).await;
                }
            }
        };
        tokio::select! {
            biased;
            reply = reply => Ok(reply),
            () = overtaken => {
                let why = "another server became the primary before the reply came";
                Err(Error::new(ErrorKind::Connection, why))
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
            self.replace(session, &session.at);
        }
        from_client(error)
    }

    /// Whether a command was refused only because another server is to be asked, or this one later.
    async fn is_elsewhere(&self, session: &Arc<Session>, error: &Error) -> bool {
        match Refusal::of(error) {
            None => false,
            // The address may lead to another server by now.
            Some(Refusal::NotPrimary) if self.places.is_fixed() => {
                self.replace(session, &session.at);
                false
            }
            Some(_) if self.places.is_fixed() => false,
            // Following it would not help: scripts name keys that do not exist, for which the other
            // server has no answer before the whole slot is there.
            Some(Refusal::Moving) => true,
            Some(refusal) => {
                Box::pin(self.look(session)).await;
                refusal == Refusal::Moved || !self.is_current(session)
            }
        }
    }

    fn explained(&self, error: Error) -> Error {
        if !self.places.is_fixed() || Refusal::of(&error) != Some(Refusal::Moved) {
            return error;
        }
        Error::config(
            "the server is one node of a cluster: its URL must begin with redis-cluster://",
        )
        .with_source(error)
    }

    /// Finds out where the slot is served now, and goes there.
    async fn look(&self, session: &Arc<Session>) {
        let Ok(_alone) = self.looking.try_lock() else { return };
        match self.places.owner(self.slot).await {
            Ok(at) if at != session.at => self.replace(session, &at),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "looking for the primary"),
        }
    }

    fn is_current(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.sessions.borrow(), session)
    }

    /// Opens another session in the place of this one, which lives until its last command ends.
    fn replace(&self, stale: &Arc<Session>, at: &Address) {
        self.sessions.send_if_modified(|current| {
            let Ok(client) = self.places.client(at, false) else { return false };
            let is_current = Arc::ptr_eq(current, stale) && !self.permits.is_closed();
            if is_current {
                tracing::warn!("the connection is of no use any more: connecting anew");
                *current = Arc::new(Session::open(client, at.clone()));
            }
            is_current
        });
    }

    /// Wakes the command that blocks `other`, whose reply then comes at once.
    pub async fn unblock(&self, other: &Link) {
        let (ours, theirs) =
            (Arc::clone(&self.sessions.borrow()), Arc::clone(&other.sessions.borrow()));
        // The number of a connection means nothing to another server.
        let ids =
            if ours.at == theirs.at { theirs.client.connection_ids() } else { HashMap::new() };
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
        let both = async {
            tokio::join!(client.subscribe(channel), client.custom_raw(ping, Vec::<Arg>::new()))
        };
        let (sent, answered) = self.unless_overtaken(&session, false, Box::pin(both)).await?;
        sent.map_err(|error| from_client(&error))?;
        let answered = answered.map_err(|e| self.failed(&session, &e, self.deadline))?;
        Reply::read(answered).inspect_err(|_| self.replace(&session, &session.at))?;
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
