//! `Producer`: the native half of `Queue`.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chasquimq::{AddOptions, BackoffSpec, Delay, JobRetryOverride, ProducerConfig, RawJob};
use pyo3::prelude::*;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::address::{Address, Server};
use crate::errors::Failure;
use crate::mailbox::{Mailbox, Value};
use crate::runtime::Owner;

/// Adds jobs to one queue. Connects at the first call; every call answers in a mailbox.
#[pyclass(frozen, module = "chasquimq._native")]
pub struct Producer {
    owner: Owner,
    link: Arc<Link>,
}

struct Link {
    address: Address,
    config: ProducerConfig,
    connected: OnceCell<Connected>,
    closed: CancellationToken,
}

struct Connected {
    engine: chasquimq::Producer<()>,
    server: Mutex<Option<Server>>,
}

/// What Python may set; the rest has the engine's defaults.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    queue_name: String,
    max_queue_len: Option<u64>,
    max_delay_secs: Option<u64>,
    max_payload_bytes: Option<usize>,
}

/// A job as Python describes it.
#[derive(FromPyObject)]
struct NewJob(String, Vec<u8>, Option<String>, When, Option<u32>, Option<Backoff>);

/// Milliseconds from now, or a time in milliseconds since the epoch.
#[derive(FromPyObject)]
struct When(Option<u64>, Option<u64>);

/// The attributes of `BackoffSpec`.
#[derive(FromPyObject)]
struct Backoff {
    kind: String,
    delay_ms: u64,
    max_delay_ms: Option<u64>,
    multiplier: Option<f64>,
    jitter_ms: Option<u64>,
}

#[pymethods]
impl Producer {
    #[new]
    fn new(address: Address, options: Options) -> PyResult<Self> {
        let link = Link {
            address,
            config: options.into(),
            connected: OnceCell::new(),
            closed: CancellationToken::new(),
        };
        Ok(Self { owner: Owner::here()?, link: Arc::new(link) })
    }

    /// Adds jobs; answers their ids.
    fn add(&self, mailbox: &Mailbox, ticket: u64, jobs: Vec<NewJob>) -> PyResult<()> {
        let jobs = jobs.into_iter().map(RawJob::from).collect();
        self.call(mailbox, ticket, async move |engine| engine.add_raw(jobs).await.map(Value::Ids))
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
        self.owner.runtime(&format!("queue {:?}", self.link.config.queue_name))
    }

    fn call<F, W>(&self, mailbox: &Mailbox, ticket: u64, work: W) -> PyResult<()>
    where
        W: FnOnce(chasquimq::Producer<()>) -> F + Send + 'static,
        F: Future<Output = chasquimq::Result<Value>> + Send,
    {
        let (link, slot) = (Arc::clone(&self.link), mailbox.slot());
        self.runtime()?.spawn(async move {
            let result = async { Ok(work(link.engine().await?).await?) };
            slot.reply(ticket, result.await);
        });
        Ok(())
    }
}

/// Forgotten without `close`: the connection ends all the same, in its own time.
impl Drop for Producer {
    fn drop(&mut self) {
        let link = Arc::clone(&self.link);
        match self.owner.handle() {
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
            () = self.closed.cancelled() => Err(closed()),
            connected = self.connected.get_or_try_init(|| self.connect()) => {
                connected.map(|connected| connected.engine.clone())
            }
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
        connected.engine.shutdown().await;
        let server = connected.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        match server {
            Some(server) => server.leave().await,
            None => Ok(()),
        }
    }
}

impl From<Options> for ProducerConfig {
    fn from(options: Options) -> Self {
        let defaults = Self::default();
        Self {
            queue_name: options.queue_name,
            max_queue_len: options.max_queue_len.unwrap_or(defaults.max_queue_len),
            max_delay_secs: options.max_delay_secs.unwrap_or(defaults.max_delay_secs),
            max_payload_bytes: options.max_payload_bytes.unwrap_or(defaults.max_payload_bytes),
            ..defaults
        }
    }
}

impl From<NewJob> for RawJob {
    fn from(NewJob(name, payload, id, when, max_attempts, backoff): NewJob) -> Self {
        let backoff = backoff.map(BackoffSpec::from);
        let retry = (max_attempts.is_some() || backoff.is_some())
            .then_some(JobRetryOverride { max_attempts, backoff });
        Self {
            payload: payload.into(),
            options: AddOptions { id, retry, name },
            delay: when.into(),
        }
    }
}

impl From<When> for Option<Delay> {
    fn from(When(in_ms, at_ms): When) -> Self {
        in_ms.map(Duration::from_millis).map(Delay::In).or(at_ms.map(Delay::AtMs))
    }
}

impl From<Backoff> for BackoffSpec {
    fn from(backoff: Backoff) -> Self {
        let delay = Duration::from_millis(backoff.delay_ms);
        let spec =
            if backoff.kind == "fixed" { Self::fixed(delay) } else { Self::exponential(delay) };
        Self {
            max_delay_ms: backoff.max_delay_ms,
            multiplier: backoff.multiplier,
            jitter_ms: backoff.jitter_ms,
            ..spec
        }
    }
}
