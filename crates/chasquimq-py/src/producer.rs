//! `Producer`: the native half of `Queue`.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chasquimq::ProducerConfig;
use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adding;
use crate::address::{Address, Server};
use crate::credentials::Credentials;
use crate::errors::Failure;
use crate::mailbox::{Mailbox, Value};
use crate::options::ProducerOptions;
use crate::runtime::Owner;

/// How long `close` waits for the replies of calls under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// Adds jobs to one queue. Connects at the first call; every call answers in a mailbox.
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
    #[pyo3(signature = (mailbox, ticket, rows, pack=None, /))]
    fn add(
        &self,
        mailbox: &Mailbox,
        ticket: u64,
        rows: &Bound<'_, PyList>,
        pack: Option<usize>,
    ) -> PyResult<()> {
        let jobs = adding::jobs(rows)?;
        self.call(mailbox, ticket, async move |engine: chasquimq::Producer<()>| {
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
    fn cancel_delayed(&self, mailbox: &Mailbox, ticket: u64, job_id: String) -> PyResult<()> {
        let work = async move |engine: chasquimq::Producer<()>| {
            engine.cancel_delayed(&job_id).await.map(Value::Flag)
        };
        self.call(mailbox, ticket, work)
    }

    /// Answers the oldest dead jobs.
    fn peek_dlq(&self, mailbox: &Mailbox, ticket: u64, limit: usize) -> PyResult<()> {
        self.call(mailbox, ticket, async move |engine| {
            engine.peek_dlq(limit).await.map(Value::Dead)
        })
    }

    /// Sends the oldest dead jobs back; answers how many.
    fn replay_dlq(&self, mailbox: &Mailbox, ticket: u64, limit: usize) -> PyResult<()> {
        self.call(mailbox, ticket, async move |engine| {
            engine.replay_dlq(limit).await.map(Value::Count)
        })
    }

    /// Closes the connection.
    fn close(&self, mailbox: &Mailbox, ticket: u64) -> PyResult<()> {
        let (link, slot) = (Arc::clone(&self.link), mailbox.slot());
        self.runtime()?.spawn(async move {
            let result = link.close().await;
            slot.reply(ticket, result.map(|()| Value::Nothing));
        });
        Ok(())
    }
}

impl Producer {
    fn runtime(&self) -> PyResult<&'static tokio::runtime::Handle> {
        let owner = if let Some(owner) = self.owner.get() {
            owner
        } else {
            let here = Owner::here()?;
            self.owner.get_or_init(|| here)
        };
        owner.runtime(&format!("queue {:?}", self.link.config.queue_name))
    }

    fn call<F, W>(&self, mailbox: &Mailbox, ticket: u64, work: W) -> PyResult<()>
    where
        W: FnOnce(chasquimq::Producer<()>) -> F + Send + 'static,
        F: Future<Output = chasquimq::Result<Value>> + Send,
    {
        let (link, slot) = (Arc::clone(&self.link), mailbox.slot());
        let call = self.link.calls.track_future(async move {
            let result = async { Ok(work(link.engine().await?).await?) };
            slot.reply(ticket, result.await);
        });
        let runtime = self.runtime()?;
        if let Some(credentials) = &self.credentials {
            credentials.listen(mailbox);
        }
        runtime.spawn(call);
        Ok(())
    }
}

/// Forgotten without `close`: the connection ends all the same, in its own time.
impl Drop for Producer {
    fn drop(&mut self) {
        let Some(owner) = self.owner.get() else { return };
        let link = Arc::clone(&self.link);
        match owner.handle() {
            Some(runtime) if link.connected.initialized() => {
                runtime.spawn(async move { link.close().await });
            }
            Some(_) => {}
            // What it holds belongs to the parent.
            None => std::mem::forget(link),
        }
    }
}

impl Link {
    async fn engine(&self) -> Result<chasquimq::Producer<()>, Failure> {
        let closed = || Failure::Closed(format!("queue {:?}", self.config.queue_name));
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
        let engine = chasquimq::Producer::connect(&server.url, self.config.clone()).await?;
        Ok(Connected { engine, server: Mutex::new(Some(server)) })
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
