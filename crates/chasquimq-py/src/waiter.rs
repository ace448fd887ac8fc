//! Where a thread waits for its call. Threads that wait carry the network's work on themselves, one of
//! them at a time: no other thread has to be woken for a call, or to wake the caller when it has ended.
//! When none has called for a while the keeper does it, so that connections are looked after between calls.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, thread};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::errors::Failure;
use crate::mailbox::{Mailbox, Value};
use crate::runtime::Owner;

/// How long no thread may have called before the keeper takes over: that costs a call two switches of threads.
const IDLE: Duration = Duration::from_millis(100);

/// What the threads that wait have in common: one for a process.
pub struct Waiting {
    /// Its tasks run in the thread that waits in it.
    runtime: Runtime,
    rounds: AtomicUsize,
    /// The keeper is to make way for a call.
    called: Notify,
}

impl Waiting {
    pub fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let waiting =
            Arc::new(Self { runtime, rounds: AtomicUsize::new(0), called: Notify::new() });
        let keeper = Arc::clone(&waiting);
        thread::Builder::new().name("chasquimq-keeper".into()).spawn(move || keeper.keep())?;
        Ok(waiting)
    }

    fn keep(&self) {
        let mut before = 0;
        loop {
            thread::sleep(IDLE);
            let rounds = self.rounds.load(Ordering::Relaxed);
            if rounds == before {
                self.runtime.block_on(self.called.notified());
            }
            before = rounds;
        }
    }

    /// Waits so long for a call. One that takes longer goes on without its caller, which may be interrupted.
    fn wait(&self, mut call: Call, within: Duration) -> Result<Outcome, Call> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.called.notify_waiters();
        self.runtime.block_on(async {
            match timeout(within, &mut call).await {
                Ok(outcome) => Ok(outcome),
                Err(_) => Err(Call::Begun(match call {
                    Call::New(call) => tokio::spawn(call),
                    Call::Begun(task) => task,
                })),
            }
        })
    }
}

type Outcome = Result<Value, Failure>;

enum Call {
    New(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    Begun(JoinHandle<Outcome>),
}

impl Future for Call {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match &mut *self {
            Self::New(call) => call.as_mut().poll(context),
            Self::Begun(task) => {
                Pin::new(task).poll(context).map(|joined| joined.unwrap_or(Err(Failure::Lost)))
            }
        }
    }
}

/// One call of a thread that waits for it.
#[pyclass(frozen, module = "chasquimq._native")]
pub struct Waiter {
    owner: Owner,
    /// None before it is made, while it is waited for and after it has ended.
    call: Mutex<Option<Call>>,
}

#[pymethods]
impl Waiter {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self { owner: Owner::here()?, call: Mutex::default() })
    }

    /// Waits so long for the reply, or its error; none when the time is over.
    fn wait<'py>(&self, py: Python<'py>, ms: u64) -> PyResult<Option<(Bound<'py, PyAny>,)>> {
        let waiting = self.owner.waiting("this call")?;
        let call = lock(&self.call).take().ok_or(Failure::Lost)?;
        match py.detach(|| waiting.wait(call, Duration::from_millis(ms))) {
            Ok(outcome) => Ok(Some((outcome?.into_py(py)?,))),
            Err(call) => {
                *lock(&self.call) = Some(call);
                Ok(None)
            }
        }
    }
}

/// Who is to have the reply of a call.
#[derive(FromPyObject)]
pub enum Caller<'py> {
    /// An event loop.
    Mailbox(PyRef<'py, Mailbox>),
    /// A thread that waits.
    Waiter(PyRef<'py, Waiter>),
}

impl Caller<'_> {
    /// Has a call carried out; `what` names the object in the error of a forked child.
    pub fn call(
        self,
        owner: Owner,
        what: impl Display,
        ticket: u64,
        call: impl Future<Output = Outcome> + Send + 'static,
    ) -> PyResult<()> {
        match self {
            Self::Mailbox(mailbox) => {
                let slot = mailbox.slot();
                owner.runtime(what)?.spawn(async move { slot.reply(ticket, call.await) });
            }
            Self::Waiter(waiter) => {
                owner.waiting(what)?;
                *lock(&waiter.call) = Some(Call::New(Box::pin(call)));
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
