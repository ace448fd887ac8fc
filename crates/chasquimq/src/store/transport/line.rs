//! A connection that is never dialled again: what is sent over it goes to one server, in order.
//!
//! WAIT and WAITAOF speak of the writes of their own connection. Over another one they would say that
//! all is well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::errors::{from_client, is_noscript};
use super::session::Session;
use super::{Arg, Call, Link, Reply, int, left, within};
use crate::error::{Error, ErrorKind, Result};

/// How often a command looks whether its connection has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Who shall have the writes before they count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Assurance {
    /// So many replicas.
    pub replicas: u32,
    /// The disk of the primary.
    pub disk: bool,
    /// How long to wait for them.
    pub within: Duration,
}

impl Assurance {
    /// Whether nothing more than the primary's memory is asked for.
    pub fn is_none(&self) -> bool {
        self.replicas == 0 && !self.disk
    }

    /// The command that waits, and what it is asked for.
    fn command(&self) -> Vec<(&'static str, Vec<Arg>)> {
        let ms = int((self.within.as_millis() as u64).max(1));
        let mut commands = vec![];
        if self.disk {
            commands.push(("WAITAOF", vec![int(1), int(0), ms.clone()]));
        }
        if self.replicas > 0 {
            commands.push(("WAIT", vec![int(self.replicas.into()), ms]));
        }
        commands
    }
}

/// What has been assured.
#[derive(Clone, Copy, Debug, Default)]
struct Assured {
    /// The writes before this number.
    covers: u64,
    of: Assurance,
    /// Replicas that have them, and whether the disk has.
    got: (u32, bool),
}

/// One connection, as long as it lasts.
pub struct Line {
    session: Session,
    slot: u16,
    writes: AtomicU64,
    assured: Mutex<Assured>,
}

impl Link {
    /// Opens a connection of its own to the server that owns the slot now.
    pub async fn line(&self) -> Result<Line> {
        let at = self.places.owner(self.slot).await?;
        let session = Session::reach(self.places.client_for_once(&at), at).await?;
        let (writes, assured) = (AtomicU64::new(0), Mutex::default());
        Ok(Line { session, slot: self.slot, writes, assured })
    }
}

impl Line {
    /// Runs a script, once.
    pub async fn run(&self, call: &Call<'_>, until: Instant) -> Result<Reply> {
        let reply = match self.send("EVALSHA", &call.args, until).await {
            Err(error) if is_noscript(&error) => {
                self.send("EVAL", &call.with_text(), until).await?
            }
            result => result?,
        };
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(reply)
    }

    /// Waits until the writes so far are where they shall be. Those who wait at the same time share
    /// a command; it is an error of the kind `Unknown` when it fell short.
    pub async fn assure(&self, want: &Assurance, until: Instant) -> Result<()> {
        let mine = self.writes.load(Ordering::SeqCst);
        let mut assured = self.assured.lock().await;
        if assured.covers < mine || assured.of != *want {
            let covers = self.writes.load(Ordering::SeqCst);
            let mut got = (0, false);
            for (command, args) in want.command() {
                let reply = self.send(command, &args, until).await?;
                if let [local, ..] = reply.items() {
                    got.1 = local.int() > 0;
                } else {
                    got.0 = u32::try_from(reply.int()).unwrap_or(0);
                }
            }
            *assured = Assured { covers, of: *want, got };
        }
        let (replicas, disk) = assured.got;
        let short = if replicas < want.replicas {
            format!("{replicas} replicas acknowledged it of {} asked", want.replicas)
        } else if want.disk && !disk {
            "the append-only file did not have it".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::Unknown,
            format!("{short} within {} ms", want.within.as_millis()),
        ))
    }

    async fn send(&self, command: &'static str, args: &[Arg], until: Instant) -> Result<Reply> {
        let custom = CustomCommand::new_static(command, ClusterHash::Custom(self.slot), false);
        let client = self.session.client.with_options(&within(left(until)?));
        let ended = async {
            while !self.session.task.is_finished() {
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            frame = Box::pin(client.custom_raw(custom, args.to_vec())) => {
                Reply::read(frame.map_err(|error| from_client(&error))?)
            }
            () = ended => Err(Error::new(ErrorKind::Connection, "the connection broke")),
        }
    }
}
