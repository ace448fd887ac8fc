//! `Tail`: the native half of `QueueEvents`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chasquimq::events::{self, Event, From, TailOptions, Tailed};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::{Address, Server};
use crate::credentials::Credentials;
use crate::errors::Failure;
use crate::mailbox::{Mailbox, Value};
use crate::runtime::Owner;

/// Events that wait for Python, at most; behind them wait those of one read.
const MOST_WAITING: usize = 1024;

/// What a gap is called among the events.
const GAP: &str = "gap";

/// Where and how to follow.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct FollowOptions {
    queue_name: String,
    last_event_id: String,
    block_ms: Option<u64>,
    count: usize,
    credentials: Option<Credentials>,
}

/// Follows the events of one queue. Connects at the first call; all answer in a mailbox.
#[pyclass(frozen, module = "chasquimq._native")]
pub struct Tail {
    owner: Owner,
    link: Arc<Link>,
    credentials: Option<Credentials>,
}

struct Link {
    address: Address,
    queue: String,
    options: TailOptions,
    opened: OnceCell<Opened>,
    following: TaskTracker,
    closed: CancellationToken,
}

struct Opened {
    /// The place it began at.
    began: String,
    told: tokio::sync::Mutex<mpsc::Receiver<Tailed>>,
    /// Why it stopped.
    failed: Arc<Mutex<Option<chasquimq::Error>>>,
    server: Mutex<Option<Server>>,
}

#[pymethods]
impl Tail {
    #[new]
    fn new(address: Address, options: FollowOptions) -> PyResult<Self> {
        let credentials = options.credentials.clone();
        let link = Link {
            address,
            queue: options.queue_name.clone(),
            options: options.into(),
            opened: OnceCell::new(),
            following: TaskTracker::new(),
            closed: CancellationToken::new(),
        };
        Ok(Self { owner: Owner::here()?, link: Arc::new(link), credentials })
    }

    /// Raises in a forked child.
    fn check(&self) -> PyResult<()> {
        self.runtime().map(drop)
    }

    /// Connects; answers the id after which it follows.
    fn open(&self, mailbox: &Mailbox, ticket: u64) -> PyResult<()> {
        self.call(mailbox, ticket, async |link| {
            link.opened().await.map(|opened| Value::Text(opened.began.clone()))
        })
    }

    /// Waits for events and answers them; none when it is closed.
    fn read(&self, mailbox: &Mailbox, ticket: u64) -> PyResult<()> {
        self.call(mailbox, ticket, async |link| link.read().await.map(Value::Events))
    }

    /// Closes the connection.
    fn close(&self, mailbox: &Mailbox, ticket: u64) -> PyResult<()> {
        self.call(mailbox, ticket, async |link| link.close().await.map(|()| Value::Nothing))
    }
}

impl Tail {
    fn runtime(&self) -> PyResult<&'static tokio::runtime::Handle> {
        self.owner.runtime(&*self.link)
    }

    fn call<F, W>(&self, mailbox: &Mailbox, ticket: u64, work: W) -> PyResult<()>
    where
        W: FnOnce(Arc<Link>) -> F + Send + 'static,
        F: Future<Output = Result<Value, Failure>> + Send,
    {
        let (link, slot) = (Arc::clone(&self.link), mailbox.slot());
        let runtime = self.runtime()?;
        if let Some(credentials) = &self.credentials {
            credentials.listen(&mailbox.slot());
        }
        runtime.spawn(async move { slot.reply(ticket, work(link).await) });
        Ok(())
    }
}

/// Forgotten without `close`: the connection ends all the same, in its own time.
impl Drop for Tail {
    fn drop(&mut self) {
        let link = Arc::clone(&self.link);
        match self.owner.handle() {
            Some(runtime) if !link.closed.is_cancelled() => {
                runtime.spawn(async move { link.close().await });
            }
            Some(_) => {}
            // What it holds belongs to the parent.
            None => std::mem::forget(link),
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QueueEvents of queue {:?}", self.queue)
    }
}

impl Link {
    async fn opened(&self) -> Result<&Opened, Failure> {
        tokio::select! {
            () = self.closed.cancelled() => Err(Failure::Closed(self.to_string())),
            opened = self.opened.get_or_try_init(|| self.open()) => opened,
        }
    }

    async fn open(&self) -> Result<Opened, Failure> {
        let server = self.address.resolve(&self.queue).await?;
        let tail = events::tail(&server.url, &self.queue, self.options.clone()).await;
        let tail = tail.map_err(|error| server.refused(error))?;
        let began = tail.cursor().to_owned();
        let (tell, told) = mpsc::channel(MOST_WAITING);
        let failed = Arc::default();
        self.following.spawn(follow(tail, tell, Arc::clone(&failed), self.closed.clone()));
        let (told, server) = (tokio::sync::Mutex::new(told), Mutex::new(Some(server)));
        Ok(Opened { began, told, failed, server })
    }

    async fn read(&self) -> Result<Vec<Tailed>, Failure> {
        let opened = self.opened().await?;
        let mut batch = Vec::new();
        opened.told.lock().await.recv_many(&mut batch, MOST_WAITING).await;
        let failed = || opened.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match batch.is_empty().then(failed).flatten() {
            Some(error) => Err(error.into()),
            None => Ok(batch),
        }
    }

    async fn close(&self) -> Result<(), Failure> {
        self.closed.cancel();
        self.following.close();
        self.following.wait().await;
        let Some(opened) = self.opened.get() else { return Ok(()) };
        let server = opened.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        match server {
            Some(server) => server.leave().await,
            None => Ok(()),
        }
    }
}

/// Tells what the tail brings until it fails or is closed.
async fn follow(
    mut tail: events::Tail,
    tell: mpsc::Sender<Tailed>,
    failed: Arc<Mutex<Option<chasquimq::Error>>>,
    closed: CancellationToken,
) {
    let told = async {
        loop {
            let next = match tail.next().await {
                Ok(next) => next,
                Err(error) => break Some(error),
            };
            if tell.send(next).await.is_err() {
                break None;
            }
        }
    };
    if let Some(Some(error)) = closed.run_until_cancelled(told).await {
        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
    drop(tell);
    tail.close().await;
}

impl std::convert::From<FollowOptions> for TailOptions {
    fn from(options: FollowOptions) -> Self {
        Self {
            from: match options.last_event_id.as_str() {
                "$" => From::Now,
                "0" | "0-0" => From::Beginning,
                _ => From::After(options.last_event_id),
            },
            count: options.count,
            connection: Credentials::tuning(options.credentials.as_ref()),
            block: options.block_ms.map_or(Self::default().block, Duration::from_millis),
        }
    }
}

/// Name, job id, job name, fields, id: the arguments of `QueueEvent`.
type Told<'py> = (String, String, String, Bound<'py, PyDict>, String);

/// A gap is an event too, so that no reader can miss it.
pub fn told(py: Python<'_>, tailed: Tailed) -> PyResult<Told<'_>> {
    let fields = PyDict::new(py);
    match tailed {
        Tailed::Event(Event { id, name, job_id, job_name, fields: pairs }) => {
            for (field, value) in pairs {
                fields.set_item(field, value)?;
            }
            Ok((name, job_id, job_name, fields, id))
        }
        Tailed::Gap { after } => {
            fields.set_item("after", &after)?;
            Ok((GAP.to_owned(), String::new(), String::new(), fields, after))
        }
    }
}
