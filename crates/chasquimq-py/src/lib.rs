//! `chasquimq._native`: the engine for Python. Converts and delegates.
//!
//! **No Rust thread ever attaches to the interpreter**, and no Rust task owns a Python object. Results
//! wait in a [`mailbox`] until the event loop, woken through a file descriptor, fetches them all in one
//! call; a thread of Python's own that waits for its call, or a loop that has nothing else to do, fetches
//! the result from a [`waiter`]. So the interpreter may end at any moment: nothing of ours can wait for its
//! lock or touch it, and a thread that comes back to it too late is halted for good.
//!
//! For the same reason nothing here runs Python code while a handler's thread is in a call of ours:
//! before Python 3.14 such a thread is unwound when the interpreter ends, which Rust frames do not survive.

mod adding;
mod address;
mod beside;
mod cli;
mod consumer;
mod credentials;
mod desk;
mod errors;
mod job;
mod logs;
mod mailbox;
mod options;
mod producer;
mod runtime;
mod tail;
mod waiter;

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use super::adding::{Added, without_ids};
    #[pymodule_export]
    use super::cli::run_cli;
    #[pymodule_export]
    use super::consumer::Consumer;
    #[pymodule_export]
    use super::credentials::Credentials;
    #[pymodule_export]
    use super::job::Job;
    #[pymodule_export]
    use super::logs::{drain_log, set_log_levels};
    #[pymodule_export]
    use super::mailbox::Mailbox;
    #[pymodule_export]
    use super::producer::Producer;
    #[pymodule_export]
    use super::tail::Tail;
    #[pymodule_export]
    use super::version;
    #[pymodule_export]
    use super::waiter::Waiter;
}

/// The version of the package and of the engine in it.
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
