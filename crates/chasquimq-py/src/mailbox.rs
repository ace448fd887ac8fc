//! Where results wait for an event loop: filled by Rust tasks, fetched all at once.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chasquimq::events::Tailed;
use chasquimq::{DlqEntry, JobId, Report};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use rustix::io::ioctl_fionbio;

use crate::adding::Added;
use crate::beside::Beside;
use crate::errors::Failure;
use crate::logs::{self, Line};
use crate::runtime::{self, Owner};
use crate::tail;

/// What a call answers.
pub enum Value {
    Nothing,
    Flag(bool),
    Count(usize),
    Text(String),
    Added(Vec<Result<JobId, Failure>>),
    Events(Vec<Tailed>),
    Dead(Vec<DlqEntry>),
    Report(Report),
}

/// The end of the call that was given this number.
pub type Reply = (u64, Result<Value, Failure>);

/// The worker that was given this number may fetch a job; or, if so, has ended.
pub type Notice = (u64, bool);

/// All are bounded: by the calls that Python awaits, by its looks for a job, by what it connects.
#[derive(Default)]
struct Content {
    replies: Vec<Reply>,
    notices: Vec<Notice>,
    /// The numbers of credentials that are asked for.
    questions: Vec<u64>,
}

impl Content {
    fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.notices.is_empty() && self.questions.is_empty()
    }
}

/// The shared part of a mailbox: what Rust tasks hold.
pub struct Slot {
    content: Mutex<Content>,
    /// Both ends live as long as any task may ring, so that none writes to a closed or reused descriptor.
    bell: PipeWriter,
    ear: PipeReader,
    /// The loop beside a call that it waits for, where that can be.
    beside: OnceLock<Beside>,
}

impl Slot {
    /// The loop beside a call that it waits for, where that can be.
    pub fn beside(&self) -> Option<&Beside> {
        self.beside.get()
    }

    /// Leaves a reply.
    pub fn reply(&self, ticket: u64, result: Result<Value, Failure>) {
        self.leave(|content| content.replies.push((ticket, result)));
    }

    /// Tells that there are jobs, or that there will be no more.
    pub fn notify(&self, ticket: u64, ended: bool) {
        self.leave(|content| content.notices.push((ticket, ended)));
    }

    /// Tells that the credentials of this number are asked for.
    pub fn ask(&self, number: u64) {
        self.leave(|content| {
            if !content.questions.contains(&number) {
                content.questions.push(number);
            }
        });
    }

    /// Wakes the event loop.
    pub fn ring(&self) {
        // A full pipe means that the loop has not answered earlier rings: it will come anyway.
        let _ = (&self.bell).write(&[0]);
    }

    fn leave(&self, put: impl FnOnce(&mut Content)) {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = content.is_empty();
        put(&mut content);
        drop(content);
        if was_empty {
            self.ring();
        }
    }

    fn fetch(&self) -> Content {
        // First the rings, then what they announced: what comes in between rings once too often.
        let mut rings = [0; 64];
        loop {
            match (&self.ear).read(&mut rings) {
                Ok(count) if count == rings.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        std::mem::take(&mut *self.content.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

type Fetched<'py> = (u64, Option<Bound<'py, PyAny>>, Option<PyErr>);
type Drained<'py> = (Vec<Fetched<'py>>, Vec<Notice>, Vec<u64>, Vec<Line>);

/// The mailbox of one event loop.
#[pyclass(frozen, module = "chasquimq._native")]
pub struct Mailbox {
    owner: Owner,
    slot: Arc<Slot>,
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Self> {
        let owner = Owner::here()?;
        let (ear, bell) = pipe()?;
        ioctl_fionbio(&bell, true).map_err(io::Error::from)?;
        ioctl_fionbio(&ear, true).map_err(io::Error::from)?;
        let (content, beside) = (Mutex::default(), OnceLock::new());
        let slot = Arc::new(Slot { content, bell, ear, beside });
        if let Some(logs) = runtime::logs() {
            logs.listen(&slot);
        }
        Ok(Self { owner, slot })
    }

    /// Readable when there is something to drain.
    fn fileno(&self) -> i32 {
        self.slot.ear.as_raw_fd()
    }

    /// An epoll for what the loop waits at: a call that is waited for is left when something in it is ready.
    fn watch(&self) -> PyResult<i32> {
        let waiting = self.owner.waiting("this event loop")?;
        let beside = if let Some(beside) = self.slot.beside() {
            beside
        } else {
            let new = waiting.beside()?;
            self.slot.beside.get_or_init(|| new)
        };
        Ok(beside.fileno())
    }

    /// Fetches everything: replies, notices (a worker's number, whether it has ended), numbers of
    /// credentials, log lines.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Drained<'py>> {
        self.owner.runtime("this event loop")?;
        let Content { replies, notices, questions } = self.slot.fetch();
        let replies = replies.into_iter().map(|(ticket, result)| match result {
            Ok(value) => Ok((ticket, Some(value.into_py(py)?), None)),
            Err(failure) => Ok((ticket, None, Some(failure.into()))),
        });
        Ok((replies.collect::<PyResult<_>>()?, notices, questions, logs::drain_log()))
    }
}

impl Mailbox {
    /// What a task holds.
    pub fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.slot)
    }
}

impl Value {
    /// As Python has it.
    pub fn into_py(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Nothing => py.None().into_bound_py_any(py),
            Self::Flag(flag) => flag.into_bound_py_any(py),
            Self::Count(count) => count.into_bound_py_any(py),
            Self::Text(text) => text.into_bound_py_any(py),
            Self::Added(outcomes) => Added::from(outcomes).into_bound_py_any(py),
            Self::Events(events) => {
                let told = events.into_iter().map(|event| tail::told(py, event));
                told.collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)
            }
            Self::Report(Report { finished, released, abandoned, .. }) => {
                (finished, released, abandoned).into_bound_py_any(py)
            }
            Self::Dead(entries) => {
                let dicts = entries.into_iter().map(|entry| dead_entry(py, entry));
                dicts.collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)
            }
        }
    }
}

fn dead_entry(py: Python<'_>, entry: DlqEntry) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("dlq_id", entry.dlq_id)?;
    dict.set_item("source_id", entry.source_id)?;
    dict.set_item("job_id", entry.job_id)?;
    dict.set_item("name", entry.name)?;
    dict.set_item("reason", entry.reason)?;
    dict.set_item("detail", entry.detail)?;
    dict.set_item("attempt", entry.attempt)?;
    dict.set_item("lost", entry.lost)?;
    dict.set_item("failed_at_ms", entry.failed_at_ms)?;
    dict.set_item("payload", PyBytes::new(py, &entry.payload))?;
    Ok(dict)
}
