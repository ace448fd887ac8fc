//! Connections: the only file that names the client library, fred.
//!
//! What the library would do and the queue cannot bear, and what stands against it here:
//!
//! - It sends commands again whose reply was lost: one attempt a command; the caller decides.
//! - It queues without bound while disconnected: a bounded queue, and permits before it.
//! - It waits for ever on a silent socket: every command has a deadline, every connection a watchdog.
//! - It takes some arrays that begin with a string for pub/sub messages: RESP3, where those are a
//!   type of their own, and scripts that answer with an integer first.
//! - It knows few error codes: [`classify`] reads the server's own text.

use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientInterface, ClientLike, EventInterface, PubsubInterface};
use fred::prelude::{Builder, Config, ReconnectPolicy};
use fred::types::config::{ReconnectError, UnresponsiveConfig};
use fred::types::{ClusterHash, CustomCommand, Resp3Frame, RespVersion, Value};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;

use crate::config::ConnectionTuning;
use crate::error::{Error, ErrorKind, Result};

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
    body: String,
    sha: String,
}

impl Script {
    /// A script of this text.
    pub fn new(body: &str) -> Self {
        Self { body: body.to_owned(), sha: fred::util::sha1_hash(body) }
    }
}

/// One connection to the server that owns a slot, shared by all who hold it.
pub struct Link {
    client: Client,
    slot: u16,
    permits: Semaphore,
    deadline: Duration,
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
        let client = build(url, tuning, deadline)?;
        let reached = timeout(tuning.connect_timeout + tuning.command_timeout, client.init()).await;
        let unreachable =
            |error: Error| error.context(format_args!("connecting to {}", redact(url)));
        match reached {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(unreachable(from_client(&error))),
            Err(_) => return Err(unreachable(Error::new(ErrorKind::Timeout, "no answer in time"))),
        }
        let slot = fred::util::redis_keyslot(key);
        Ok(Self { client, slot, permits: Semaphore::new(tuning.max_in_flight), deadline })
    }

    /// Sends one command, once. It waits for a reconnect, but never past its deadline.
    pub async fn call(&self, command: &'static str, args: Vec<Arg>) -> Result<Reply> {
        Reply::read(self.send(command, args, false).await?)
    }

    /// Sends one command that may block the connection, and the server's side of it, for a while.
    pub async fn block(&self, command: &'static str, args: Vec<Arg>) -> Result<Reply> {
        Reply::read(self.send(command, args, true).await?)
    }

    /// Runs a script by its hash, or by its text where the server does not know it yet.
    pub async fn run(&self, script: &Script, keys: &[&Bytes], args: Vec<Arg>) -> Result<Reply> {
        let mut all = Vec::with_capacity(2 + keys.len() + args.len());
        all.push(script.sha.as_str().into());
        all.push(int(keys.len() as u64));
        all.extend(keys.iter().map(|key| bytes(key)));
        all.extend(args);
        match self.call("EVALSHA", all.clone()).await {
            Err(error) if is_noscript(&error) => {
                all[0] = script.body.as_str().into();
                self.call("EVAL", all).await
            }
            result => result,
        }
    }

    async fn send(
        &self,
        command: &'static str,
        args: Vec<Arg>,
        blocks: bool,
    ) -> Result<Resp3Frame> {
        let closed = || Error::new(ErrorKind::Shutdown, "the connection was closed");
        let _permit = match timeout(self.deadline, self.permits.acquire()).await {
            Ok(permit) => permit.map_err(|_| closed())?,
            Err(_) => {
                return Err(Error::new(ErrorKind::Unavailable, "too many commands await a reply"));
            }
        };
        let custom = CustomCommand::new_static(command, ClusterHash::Custom(self.slot), blocks);
        self.client.custom_raw(custom, args).await.map_err(|error| from_client(&error))
    }

    /// Wakes the command that blocks `other`, whose reply then comes at once.
    pub async fn unblock(&self, other: &Link) {
        for id in other.client.connection_ids().into_values() {
            if let Err(error) = self.call("CLIENT", vec!["UNBLOCK".into(), id.into()]).await {
                tracing::debug!(%error, "could not wake the reader; it wakes by itself");
            }
        }
    }

    /// Listens to a channel. Messages may be missed while disconnected; see [`Link::reconnects`].
    pub async fn subscribe(&self, channel: &Bytes) -> Result<Messages> {
        let messages = self.client.message_rx();
        self.client
            .subscribe(String::from_utf8_lossy(channel).into_owned())
            .await
            .map_err(|error| from_client(&error))?;
        Ok(Messages(messages))
    }

    /// Tells of each new connection after the first.
    pub fn reconnects(&self) -> Reconnects {
        Reconnects(self.client.reconnect_rx())
    }

    /// Closes the connection after the replies that are due; commands sent later fail.
    pub async fn close(&self) {
        self.permits.close();
        if let Ok(Err(error)) = timeout(Duration::from_secs(1), self.client.quit()).await {
            tracing::debug!(%error, "closing the connection");
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
pub struct Reconnects(broadcast::Receiver<fred::types::config::Server>);

impl Reconnects {
    /// Waits for the next one.
    pub async fn next(&mut self) {
        if let Err(broadcast::error::RecvError::Closed) = self.0.recv().await {
            std::future::pending::<()>().await;
        }
    }
}

fn build(url: &str, tuning: &ConnectionTuning, deadline: Duration) -> Result<Client> {
    let mut config = Config::from_url(url).map_err(|error| {
        Error::config(format!("the URL {} cannot be used: {}", redact(url), error.details()))
    })?;
    config.version = RespVersion::RESP3;
    config.fail_fast = true;
    let (min, max) = (millis(tuning.reconnect_min), millis(tuning.reconnect_max));
    let mut policy = ReconnectPolicy::new_exponential(0, min, max, 2);
    policy.set_jitter(min);
    Builder::from_config(config)
        .set_policy(policy)
        .with_connection_config(|connection| {
            connection.connection_timeout = tuning.connect_timeout;
            connection.internal_command_timeout = tuning.command_timeout;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = tuning.max_in_flight + 64;
            connection.reconnect_on_auth_error = true;
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(deadline),
                interval: Duration::from_secs(1),
            };
            connection.reconnect_errors = vec![
                ReconnectError::ClusterDown,
                ReconnectError::Loading,
                ReconnectError::MasterDown,
                ReconnectError::ReadOnly,
            ];
        })
        .with_performance_config(|performance| {
            performance.default_command_timeout = deadline;
        })
        .build()
        .map_err(|error| from_client(&error))
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// The URL without its password.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".into() };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => url.to_owned(),
    }
}

fn is_noscript(error: &Error) -> bool {
    error.to_string().starts_with("NOSCRIPT")
}

/// Whether the server does not know a command that a script called, or its form.
pub fn is_unknown_command(error: &Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    error.kind() == ErrorKind::Server && text.contains("unknown") && text.contains("command")
}

fn from_client(error: &fred::error::Error) -> Error {
    use fred::error::ErrorKind as Theirs;
    let kind = match error.kind() {
        Theirs::IO
        | Theirs::Canceled
        | Theirs::Tls
        | Theirs::Protocol
        | Theirs::Sentinel
        | Theirs::Routing => ErrorKind::Connection,
        Theirs::Timeout => ErrorKind::Timeout,
        Theirs::Backpressure => ErrorKind::Unavailable,
        Theirs::Auth => ErrorKind::Auth,
        Theirs::Config | Theirs::Url => ErrorKind::Config,
        _ => return server_error(error.details()),
    };
    Error::new(kind, error.details().to_owned())
}

fn server_error(text: &str) -> Error {
    Error::new(classify(text), text.to_owned())
}

/// The kind of an error reply, by the code in its text: at its start, or, inside a script on Redis
/// before 7, behind the script's own words.
pub fn classify(text: &str) -> ErrorKind {
    const CODES: &[(&str, ErrorKind)] = &[
        ("OOM", ErrorKind::OutOfMemory),
        ("NOGROUP", ErrorKind::NoGroup),
        ("UNBLOCKED the stream key no longer exists", ErrorKind::NoGroup),
        ("WRONGTYPE", ErrorKind::WrongType),
        ("NOAUTH", ErrorKind::Auth),
        ("WRONGPASS", ErrorKind::Auth),
        ("NOPERM", ErrorKind::Auth),
        ("READONLY", ErrorKind::Unavailable),
        ("LOADING", ErrorKind::Unavailable),
        ("MASTERDOWN", ErrorKind::Unavailable),
        ("CLUSTERDOWN", ErrorKind::Unavailable),
        ("TRYAGAIN", ErrorKind::Unavailable),
        ("MISCONF", ErrorKind::Unavailable),
        ("NOREPLICAS", ErrorKind::Unavailable),
        ("BUSY ", ErrorKind::Unavailable),
        ("UNBLOCKED", ErrorKind::Unavailable),
    ];
    let spoken = |code: &str| {
        text.trim_start_matches('-').starts_with(code)
            || text.split(": ").skip(1).any(|part| part.trim_start_matches('-').starts_with(code))
    };
    if let Some((_, kind)) = CODES.iter().find(|(code, _)| spoken(code)) {
        return *kind;
    }
    let denied = ["ACL failure in script", "can't run this command", "can't access"];
    if denied.iter().any(|words| text.contains(words)) {
        ErrorKind::Auth
    } else {
        ErrorKind::Server
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_code_at_the_start_and_behind_a_script_s_words() {
        for (text, kind) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::OutOfMemory),
            (
                "ERR Error running script (call to f_1): @user_script:3: -OOM command not allowed",
                ErrorKind::OutOfMemory,
            ),
            (
                "ERR Error running script (call to f_1): @user_script: 3: WRONGTYPE Operation",
                ErrorKind::WrongType,
            ),
            ("READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("BUSY Redis is busy running a script.", ErrorKind::Unavailable),
            ("BUSYGROUP Consumer Group name already exists", ErrorKind::Server),
            ("NOPERM this user has no permissions to run the 'xadd' command", ErrorKind::Auth),
            ("ERR ACL failure in script: User x has no permissions", ErrorKind::Auth),
            ("UNBLOCKED the stream key no longer exists", ErrorKind::NoGroup),
            ("UNBLOCKED force unblock from blocking operation", ErrorKind::Unavailable),
            ("ERR something new", ErrorKind::Server),
        ] {
            assert_eq!(classify(text), kind, "{text}");
        }
    }

    #[test]
    fn passwords_never_show() {
        assert_eq!(redact("redis://user:p@ss@host:1/0"), "redis://***@host:1/0");
        assert_eq!(redact("redis://host:1"), "redis://host:1");
        assert_eq!(redact("user:secret"), "(not a URL)");
    }
}
