//! Where calls of queues are carried out. Threads that wait for theirs carry the network's work on
//! themselves, one of them at a time: no other thread has to be woken for a call, or to wake the caller
//! when it has ended. So does an event loop that has nothing else to do than to wait for a call of its own.
//! Calls that nobody waits for are the keeper's, a thread; and when none has called for a while it takes
//! over, so that connections are looked after between calls.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, Thread};
use std::time::Duration;
use std::{future, io};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::beside::Beside;
use crate::errors::Failure;
use crate::mailbox::{Mailbox, Slot, Value};
use crate::runtime::Owner;

/// How long no thread may have called before the keeper takes over: that costs a call two switches of threads.
const IDLE: Duration = Duration::from_millis(100);

/// What the callers of a process have in common.
pub struct Waiting {
    /// Its tasks run in the thread that waits in it.
    runtime: Runtime,
    rounds: AtomicUsize,
    /// The keeper is to make way for a caller that waits.
    called: Notify,
    keeper: OnceLock<Thread>,
    /// Calls that nobody waits for.
    kept: AtomicUsize,
}

impl Waiting {
    pub fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let waiting = Arc::new(Self {
            runtime,
            rounds: AtomicUsize::new(0),
            called: Notify::new(),
            keeper: OnceLock::new(),
            kept: AtomicUsize::new(0),
        });
        let of_keeper = Arc::clone(&waiting);
        let keeper = thread::Builder::new().name("chasquimq-keeper".into());
        let keeper = keeper.spawn(move || of_keeper.keep())?;
        waiting.keeper.get_or_init(|| keeper.thread().clone());
        Ok(waiting)
    }

    fn keep(&self) {
        let mut before = 0;
        loop {
            thread::park_timeout(IDLE);
            let rounds = self.rounds.load(Ordering::Relaxed);
            if rounds == before || self.kept.load(Ordering::Acquire) > 0 {
                self.runtime.block_on(self.called.notified());
            }
            before = rounds;
        }
    }

    /// An event loop beside its calls.
    pub fn beside(&self) -> io::Result<Beside> {
        let _its_own = self.runtime.enter();
        Beside::new()
    }

    /// Has a call carried out that nobody waits for.
    fn spawn(&'static self, call: impl Future<Output = ()> + Send + 'static) {
        let kept = Kept::new(self);
        self.runtime.spawn(async move {
            call.await;
            drop(kept);
        });
        self.wake_keeper();
    }

    /// Waits for a call: so long, and until there is something to do `beside` it. One that takes longer
    /// goes on without its caller, which may be interrupted.
    fn wait(
        &self,
        mut call: Call,
        within: Duration,
        beside: Option<&Beside>,
    ) -> Result<Outcome, Call> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.called.notify_waiters();
        let outcome = self.runtime.block_on(async {
            let asked_away = async {
                match beside {
                    Some(beside) => beside.has_work().await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                outcome = &mut call => Ok(outcome),
                () = asked_away => Err(call.begun()),
                () = sleep(within) => Err(call.begun()),
            }
        });
        if self.kept.load(Ordering::Acquire) > 0 {
            self.wake_keeper();
        }
        outcome
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }
}

/// A call that nobody waits for, while it lasts.
struct Kept(&'static Waiting);

impl Kept {
    fn new(waiting: &'static Waiting) -> Self {
        waiting.kept.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, Ordering::AcqRel);
    }
}

type Outcome = Result<Value, Failure>;

enum Call {
    New(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    Begun(JoinHandle<Outcome>),
}

impl Call {
    /// It goes on without a caller, as a task of the runtime that this is called in.
    fn begun(self) -> Self {
        Self::Begun(match self {
            Self::New(call) => tokio::spawn(call),
            Self::Begun(task) => task,
        })
    }
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
    /// The mailbox of the event loop that waits.
    slot: Option<Arc<Slot>>,
}

#[pymethods]
impl Waiter {
    /// For a thread, or for the event loop of this mailbox.
    #[new]
    #[pyo3(signature = (mailbox=None, /))]
    fn new(mailbox: Option<&Mailbox>) -> PyResult<Self> {
        let slot = mailbox.map(Mailbox::slot);
        Ok(Self { owner: Owner::here()?, call: Mutex::default(), slot })
    }

    /// Waits so long for the reply, or its error; none when the time is over.
    fn wait<'py>(&self, py: Python<'py>, ms: u64) -> PyResult<Option<(Bound<'py, PyAny>,)>> {
        let (waiting, call) = self.begin()?;
        match py.detach(|| waiting.wait(call, Duration::from_millis(ms), None)) {
            Ok(outcome) => Ok(Some((outcome?.into_py(py)?,))),
            Err(call) => {
                *lock(&self.call) = Some(call);
                Ok(None)
            }
        }
    }

    /// Waits so many seconds for the reply, but no longer than the event loop has nothing else to do; none
    /// when it is over before: then the mailbox gets the reply, under this ticket.
    fn wait_idly<'py>(
        &self,
        py: Python<'py>,
        ticket: u64,
        seconds: f64,
    ) -> PyResult<Option<(Bound<'py, PyAny>,)>> {
        let slot = Arc::clone(self.slot.as_ref().ok_or(Failure::Lost)?);
        let (waiting, call) = self.begin()?;
        let within = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let reply = if slot.beside().is_none_or(Beside::has_work_now) {
            Err(call) // without having stopped the keeper for it
        } else {
            py.detach(|| waiting.wait(call, within, slot.beside()))
        };
        match reply {
            Ok(outcome) => Ok(Some((outcome?.into_py(py)?,))),
            Err(call) => {
                waiting.spawn(async move { slot.reply(ticket, call.await) });
                Ok(None)
            }
        }
    }
}

impl Waiter {
    fn begin(&self) -> PyResult<(&'static Waiting, Call)> {
        let waiting = self.owner.waiting("this call")?;
        Ok((waiting, lock(&self.call).take().ok_or(Failure::Lost)?))
    }
}

/// Who is to have the reply of a call.
pub enum Caller<'py> {
    /// An event loop.
    Mailbox(Bound<'py, Mailbox>),
    /// A thread that waits.
    Waiter(Bound<'py, Waiter>),
}

/// Not derived: that would make an exception of each variant that does not fit, for which a thread lets go
/// of the interpreter, and might come back too late.
impl<'py> FromPyObject<'_, 'py> for Caller<'py> {
    type Error = PyErr;

    fn extract(caller: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(mailbox) = caller.cast::<Mailbox>() {
            return Ok(Self::Mailbox(mailbox.to_owned()));
        }
        Ok(Self::Waiter(caller.cast::<Waiter>()?.to_owned()))
    }
}

impl Caller<'_> {
    /// The mailbox of the event loop, if it is one.
    pub fn slot(&self) -> Option<Arc<Slot>> {
        match self {
            Self::Mailbox(mailbox) => Some(mailbox.get().slot()),
            Self::Waiter(waiter) => waiter.get().slot.clone(),
        }
    }

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
                let slot = mailbox.get().slot();
                owner.waiting(what)?.spawn(async move { slot.reply(ticket, call.await) });
            }
            Self::Waiter(waiter) => {
                owner.waiting(what)?;
                *lock(&waiter.get().call) = Some(Call::New(Box::pin(call)));
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
