//! `Producer`: the native half of `Queue`.

use std::fmt::{self, Display, Formatter};
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chasquimq::ProducerConfig;
use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adding;
use crate::address::{Address, Server};
use crate::credentials::Credentials;
use crate::errors::Failure;
use crate::mailbox::Value;
use crate::options::ProducerOptions;
use crate::runtime::Owner;
use crate::waiter::Caller;

/// How long `close` waits for the replies of calls under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// Adds jobs to one queue. Connects at the first call; every call answers its caller.
#[pyclass(frozen, module = "chasquimq._native")]
pub struct Producer {
    /// The process that uses it first: one that is only made may be used in any forked child.
    owner: OnceLock<Owner>,
    link: Arc<Link>,
    credentials: Option<Credentials>,
}

struct Link {
    address: Address,
    config: ProducerConfig,
    connected: OnceCell<Connected>,
    calls: TaskTracker,
    closed: CancellationToken,
}

struct Connected {
    runtime: Handle,
    engine: chasquimq::Producer<()>,
    server: Mutex<Option<Server>>,
}

#[pymethods]
impl Producer {
    #[new]
    fn new(address: Address, options: ProducerOptions) -> PyResult<Self> {
        let credentials = options.credentials.clone();
        let owner = OnceLock::new();
        if credentials.is_some() {
            // Whoever answers for them lives in this process alone.
            let _ = owner.set(Owner::here()?);
        }
        let link = Link {
            address,
            config: options.into(),
            connected: OnceCell::new(),
            calls: TaskTracker::new(),
            closed: CancellationToken::new(),
        };
        Ok(Self { owner, link: Arc::new(link), credentials })
    }

    /// Adds jobs; answers what became of them. With `pack` they are those of one caller, and so many
    /// share an entry: they have the first error in common. Without, each has its own.
    #[pyo3(signature = (caller, ticket, rows, pack=None, /))]
    fn add(
        &self,
        caller: Caller<'_>,
        ticket: u64,
        rows: &Bound<'_, PyList>,
        pack: Option<usize>,
    ) -> PyResult<()> {
        let jobs = adding::jobs(rows)?;
        self.call(caller, ticket, async move |engine: chasquimq::Producer<()>| {
            let outcomes = match pack {
                Some(pack) => {
                    engine.add_raw_packed(jobs, pack).await?.into_iter().map(Ok).collect()
                }
                None => adding::add_each(&engine, jobs).await,
            };
            Ok(Value::Added(outcomes))
        })
    }

    /// Takes a delayed job back; answers whether there was one.
    fn cancel_delayed(&self, caller: Caller<'_>, ticket: u64, job_id: String) -> PyResult<()> {
        let work = async move |engine: chasquimq::Producer<()>| {
            engine.cancel_delayed(&job_id).await.map(Value::Flag)
        };
        self.call(caller, ticket, work)
    }

    /// Answers the oldest dead jobs of those chosen.
    fn peek_dlq(
        &self,
        caller: Caller<'_>,
        ticket: u64,
        limit: usize,
        choice: Choice,
    ) -> PyResult<()> {
        self.call(caller, ticket, async move |engine| {
            choice.of(&engine).peek(limit).await.map(Value::Dead)
        })
    }

    /// Sends the oldest dead jobs of those chosen back; answers how many.
    fn replay_dlq(
        &self,
        caller: Caller<'_>,
        ticket: u64,
        limit: usize,
        choice: Choice,
    ) -> PyResult<()> {
        self.call(caller, ticket, async move |engine| {
            choice.of(&engine).replay(limit).await.map(Value::Count)
        })
    }

    /// Deletes the oldest dead jobs of those chosen; answers how many.
    fn purge_dlq(
        &self,
        caller: Caller<'_>,
        ticket: u64,
        limit: usize,
        choice: Choice,
    ) -> PyResult<()> {
        self.call(caller, ticket, async move |engine| {
            choice.of(&engine).purge(limit).await.map(Value::Count)
        })
    }

    /// Closes the connection.
    fn close(&self, caller: Caller<'_>, ticket: u64) -> PyResult<()> {
        let link = Arc::clone(&self.link);
        let close = async move { link.close().await.map(|()| Value::Nothing) };
        caller.call(self.owner()?, &*self.link, ticket, close)
    }
}

impl Producer {
    fn call<F, W>(&self, caller: Caller<'_>, ticket: u64, work: W) -> PyResult<()>
    where
        W: FnOnce(chasquimq::Producer<()>) -> F + Send + 'static,
        F: Future<Output = chasquimq::Result<Value>> + Send + 'static,
    {
        let owner = self.owner()?;
        owner.check(&*self.link)?;
        if let (Some(credentials), Some(slot)) = (&self.credentials, caller.slot()) {
            credentials.listen(&slot);
        }
        let link = Arc::clone(&self.link);
        let call = async move { Ok(work(link.engine().await?).await?) };
        let call = self.link.calls.track_future(call);
        caller.call(owner, &*self.link, ticket, call)
    }

    fn owner(&self) -> PyResult<Owner> {
        if let Some(owner) = self.owner.get() {
            return Ok(*owner);
        }
        let here = Owner::here()?;
        Ok(*self.owner.get_or_init(|| here))
    }
}

/// Job ids, names and reasons of dead jobs; none of a kind means any.
#[derive(FromPyObject)]
struct Choice(Vec<String>, Vec<String>, Vec<String>);

impl Choice {
    fn of(self, engine: &chasquimq::Producer<()>) -> chasquimq::Dlq<'_> {
        let Self(job_ids, names, reasons) = self;
        let dlq = job_ids.into_iter().fold(engine.dlq(), chasquimq::Dlq::with_job_id);
        let dlq = names.into_iter().fold(dlq, chasquimq::Dlq::with_name);
        reasons.into_iter().fold(dlq, chasquimq::Dlq::with_reason)
    }
}

impl Display for Link {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "queue {:?}", self.config.queue_name)
    }
}

/// Forgotten without `close`: the connection ends all the same, in its own time.
impl Drop for Producer {
    fn drop(&mut self) {
        let Some(owner) = self.owner.get() else { return };
        let link = Arc::clone(&self.link);
        if owner.handle().is_none() {
            // What it holds belongs to the parent.
            std::mem::forget(link);
        } else if let Some(Connected { runtime, .. }) = link.connected.get() {
            runtime.clone().spawn(async move { link.close().await });
        }
    }
}

impl Link {
    async fn engine(&self) -> Result<chasquimq::Producer<()>, Failure> {
        let closed = || Failure::Closed(self.to_string());
        tokio::select! {
            // A call that was made before `close` is waited for there, and has its way.
            biased;
            connected = self.connected.get_or_try_init(|| self.connect()) => {
                connected.map(|connected| connected.engine.clone())
            }
            () = self.closed.cancelled() => Err(closed()),
        }
    }

    async fn connect(&self) -> Result<Connected, Failure> {
        let server = self.address.resolve(&self.config.queue_name).await?;
        let engine = chasquimq::Producer::connect(&server.url, self.config.clone()).await;
        let engine = engine.map_err(|error| server.refused(error))?;
        Ok(Connected { runtime: Handle::current(), engine, server: Mutex::new(Some(server)) })
    }

    async fn close(&self) -> Result<(), Failure> {
        self.closed.cancel();
        let Some(connected) = self.connected.get() else { return Ok(()) };
        self.calls.close();
        // Those that get no reply in time end with the connection.
        let _ = timeout(PATIENCE, self.calls.wait()).await;
        connected.engine.shutdown().await;
        let server = connected.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        match server {
            Some(server) => server.leave().await,
            None => Ok(()),
        }
    }
}
