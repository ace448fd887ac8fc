//! What a process has one of: the tokio runtime and the log buffer.
//!
//! After a fork the child has none of the parent's threads. Its first use makes a state of its own,
//! appended to the chain below; the parent's is left alone. The chain only grows while the interpreter's
//! lock is held, and reading it takes no lock, so a fork finds it in order.

use std::fmt::Display;
use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::{process, thread};

use pyo3::PyResult;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::errors::Failure;
use crate::logs::{self, LogBuffer};
use crate::waiter::Waiting;

/// Threads for the network, leases and settling of workers, at most; Python's handlers run elsewhere.
const MOST_THREADS: usize = 2;

static FIRST: OnceLock<State> = OnceLock::new();

struct State {
    owner: Owner,
    /// Never dropped: at exit its threads end with the process, and nobody waits for them.
    runtime: Runtime,
    /// Where calls of queues are carried out, once there was one.
    waiting: OnceLock<Arc<Waiting>>,
    logs: LogBuffer,
    forked: OnceLock<Box<State>>,
}

/// The process that an object belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner(u32);

impl Owner {
    /// This process, its runtime started.
    pub fn here() -> PyResult<Self> {
        state().map(|state| state.owner)
    }

    /// Where calls of the process are carried out; `what` names the object in the error.
    ///
    /// # Errors
    /// In a child that was forked after the object was made.
    pub fn waiting(self, what: impl Display) -> PyResult<&'static Waiting> {
        let state = self.state(what)?;
        if let Some(waiting) = state.waiting.get() {
            return Ok(waiting);
        }
        let new = Waiting::start()?;
        Ok(state.waiting.get_or_init(|| new))
    }

    fn this() -> Self {
        Self(process::id())
    }

    fn is_here(self) -> bool {
        self == Self::this()
    }

    /// The runtime of the process; `None` in a child that was forked from it.
    pub fn handle(self) -> Option<&'static Handle> {
        last().filter(|_| self.is_here()).map(|state| state.runtime.handle())
    }

    /// The runtime of the process; `what` names the object in the error.
    ///
    /// # Errors
    /// In a child that was forked after the object was made.
    pub fn runtime(self, what: impl Display) -> PyResult<&'static Handle> {
        Ok(self.state(what)?.runtime.handle())
    }

    /// Whether this is the process; `what` names the object in the error.
    ///
    /// # Errors
    /// In a child that was forked after the object was made.
    pub fn check(self, what: impl Display) -> PyResult<()> {
        self.state(what).map(drop)
    }

    fn state(self, what: impl Display) -> PyResult<&'static State> {
        let state = last().filter(|_| self.is_here());
        state.ok_or_else(|| Failure::Forked(what.to_string()).into())
    }
}

/// The log buffer of the process that last used the engine.
pub fn logs() -> Option<&'static LogBuffer> {
    last().map(|state| &state.logs)
}

fn last() -> Option<&'static State> {
    let mut state = FIRST.get()?;
    while let Some(next) = state.forked.get() {
        state = next;
    }
    Some(state)
}

fn state() -> PyResult<&'static State> {
    let last = last();
    if let Some(state) = last.filter(|state| state.owner.is_here()) {
        return Ok(state);
    }
    let new = State::start()?;
    Ok(match last {
        None => FIRST.get_or_init(|| new),
        Some(parent) => parent.forked.get_or_init(|| Box::new(new)),
    })
}

impl State {
    fn start() -> PyResult<Self> {
        logs::install();
        chasquimq::before_fork();
        // Two on one processor would only hand each other the work.
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        let mut builder = Builder::new_multi_thread();
        let runtime =
            builder.worker_threads(threads).thread_name("chasquimq").enable_all().build()?;
        let (waiting, logs, forked) = (OnceLock::new(), LogBuffer::default(), OnceLock::new());
        Ok(Self { owner: Owner::this(), runtime, waiting, logs, forked })
    }
}
