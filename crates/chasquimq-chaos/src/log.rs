//! What the processes of a run write down: one JSON line before and one after each act.
//!
//! Each process appends to a file of its own, each line with one write of less than 4 KB, so that a
//! process that is killed leaves whole lines behind. All times are nanoseconds since the epoch: the
//! processes and the server share one machine, so one clock.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::workload::Kind;

/// Nanoseconds since the epoch.
pub type Nanos = u64;

/// One line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Line {
    /// A job is about to be added. `n` is its number, unique in a run; `key` the id it shares with
    /// others, if any.
    Sent { n: u64, key: Option<String>, hash: u64, kind: Kind, delay_ms: u64, at: Nanos },
    /// What the add answered.
    Answered { n: u64, answer: Answer, at: Nanos },
    /// A handler begins. `run` numbers the runs of a worker.
    Started(Start),
    /// A handler is about to return.
    Finished { worker: String, run: u64, ok: bool, at: Nanos },
    /// The runner did harm, from then till then.
    Fault(Fault),
    /// Memory in bytes and open files of a worker.
    Sample { worker: String, rss: u64, fds: u64, at: Nanos },
    /// What the server held when all was over.
    State(State),
}

/// What came of an add.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    /// Accepted.
    Ok,
    /// Refused: nothing was added.
    Error,
    /// No reply came: it may have been added.
    Unknown,
}

/// The start of a handler.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Start {
    pub worker: String,
    pub run: u64,
    pub n: u64,
    pub id: String,
    /// Of the payload as it arrived.
    pub hash: u64,
    pub attempt: u32,
    pub lost: u32,
    pub at: Nanos,
}

/// A fault and whom it hit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Fault {
    pub what: Harm,
    /// The worker or producer; empty when all are concerned.
    pub whom: String,
    pub from: Nanos,
    pub to: Nanos,
}

/// Kinds of harm.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Harm {
    /// The connections were closed.
    Cut,
    /// Nothing passed.
    Stall,
    /// The connections were closed in one direction.
    HalfClose,
    /// One byte a millisecond passed.
    Dribble,
    /// Commands were done, and the connections closed in place of the replies.
    LostReply,
    /// A worker was killed with SIGKILL.
    Kill,
    /// A worker was stopped with SIGTERM.
    Stop,
    /// The server forgot its scripts.
    FlushScripts,
    /// The server closed all connections.
    KillClients,
    /// The server was killed with SIGKILL and started again.
    Crash,
}

/// What the server held when all was over.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct State {
    /// Whether the queue became empty in time.
    pub drained: bool,
    pub dead: Vec<Dead>,
    /// Keys that are there though nothing is left to do, with what they hold.
    pub leftovers: Vec<String>,
    /// Consumers in the group while the last workers lived, and how many those were.
    pub consumers: u64,
    pub living: u64,
    /// Bytes that the server used before the first job and after the last.
    pub memory_before: u64,
    pub memory_after: u64,
    /// What a process did that it must not: ended by itself, or did not end when told to.
    pub misdeeds: Vec<String>,
}

/// A dead job.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Dead {
    pub n: u64,
    pub hash: u64,
    pub reason: String,
    pub error: String,
    pub lost: u32,
}

/// The log of one process.
pub struct Log(File);

impl Log {
    /// Appends to this file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(Self).with_context(|| format!("opening the log {}", path.display()))
    }

    /// Writes one line at once.
    pub fn write(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&self.0).write_all(&text).context("writing to a log")
    }
}

/// All lines of a folder's logs. A last line that a crash cut short is left out.
pub fn read(folder: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for file in folder.read_dir().context("reading the logs")? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let told = || format!("{}: {line:?}", path.display());
            lines.push(serde_json::from_str(line).with_context(told)?);
        }
    }
    Ok(lines)
}

/// The time.
pub fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
