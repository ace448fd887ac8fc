//! `Consumer`: the native half of `Worker`. Python runs the handlers; the engine does the rest.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chasquimq::lifecycle::Outcome;
use chasquimq::{ConsumerConfig, Report, Session};
use chasquimq_metrics::Exporter;
use chasquimq_metrics::exporter::Watch;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use tokio_util::sync::CancellationToken;

use crate::address::{Address, Server};
use crate::credentials::Credentials;
use crate::desk::{Desk, Lot};
use crate::errors::Failure;
use crate::job::Job;
use crate::mailbox::{Mailbox, Slot, Value};
use crate::options::ConsumerOptions;
use crate::runtime::Owner;

/// How long a consumer that was forgotten without `close` may take to hand its jobs back.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// Takes jobs from one queue, and their endings back. A mailbox is told when there are any.
#[pyclass(frozen, module = "chasquimq._native")]
pub struct Consumer {
    owner: Owner,
    link: Arc<Link>,
    credentials: Option<Credentials>,
}

struct Link {
    address: Address,
    config: ConsumerConfig,
    lot: Lot,
    metrics_addr: Option<String>,
    opened: OnceLock<Opened>,
    stopped: CancellationToken,
}

struct Opened {
    session: Session,
    desk: Desk,
    /// Where the exporter listens.
    metrics_addr: Option<String>,
    watch: Mutex<Option<Watch>>,
    server: Mutex<Option<Server>>,
}

#[pymethods]
impl Consumer {
    #[new]
    fn new(address: Address, options: ConsumerOptions) -> PyResult<Self> {
        let credentials = options.credentials.clone();
        let link = Link {
            address,
            metrics_addr: options.metrics_addr.clone(),
            lot: options.lot(),
            config: options.into(),
            opened: OnceLock::new(),
            stopped: CancellationToken::new(),
        };
        Ok(Self { owner: Owner::here()?, link: Arc::new(link), credentials })
    }

    /// This consumer's name in the group.
    #[getter]
    fn consumer_id(&self) -> &str {
        &self.link.config.consumer_id
    }

    /// Where its metrics are: as it was asked for, and the real address once it has started.
    #[getter]
    fn metrics_addr(&self) -> Option<&str> {
        let asked = &self.link.metrics_addr;
        self.link.opened.get().map_or(asked, |opened| &opened.metrics_addr).as_deref()
    }

    /// Raises in a forked child.
    fn check(&self) -> PyResult<()> {
        self.owner.check(&*self.link)
    }

    /// Connects and answers; from then on notices come under the same ticket.
    fn start(&self, mailbox: &Mailbox, ticket: u64) -> PyResult<()> {
        let (link, slot) = (Arc::clone(&self.link), mailbox.slot());
        let runtime = self.runtime()?;
        if let Some(credentials) = &self.credentials {
            credentials.listen(&mailbox.slot());
        }
        runtime.spawn(async move { link.run(&slot, ticket).await });
        Ok(())
    }

    /// The next job for a free slot; `None` when a notice will come.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Py<Job>>> {
        let Some(delivery) = self.desk().and_then(|desk| desk.next().pop()) else {
            return Ok(None);
        };
        Py::new(py, Job::begun(delivery, Instant::now())).map(Some)
    }

    /// The next jobs for a handler of batches; `None` when a notice will come.
    fn next_batch<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let lot = self.desk().map(Desk::next).unwrap_or_default();
        if lot.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        let jobs = lot.into_iter().map(|delivery| Py::new(py, Job::begun(delivery, now)));
        PyList::new(py, jobs.collect::<PyResult<Vec<_>>>()?).map(Some)
    }

    /// Whether there is work for another free slot; if not, a notice will come.
    fn look(&self) -> bool {
        self.desk().is_some_and(Desk::look)
    }

    /// A job is done, whatever its handler returned; `False` when it was settled before.
    fn finish(&self, job: &Bound<'_, Job>, _returned: &Bound<'_, PyAny>) -> bool {
        let ending = job.get().end(Outcome::Done);
        let counts = ending.is_some();
        if let Some(desk) = self.desk() {
            desk.end(ending);
        }
        counts
    }

    /// Jobs of a batch are done; how many of them were not settled before.
    fn finish_batch(&self, jobs: &Bound<'_, PyList>) -> PyResult<usize> {
        let (now, count) = (Instant::now(), u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        let mut endings = Vec::with_capacity(jobs.len());
        for job in jobs {
            endings.extend(job.cast::<Job>()?.get().done(now, count));
        }
        let counted = endings.len();
        if let Some(desk) = self.desk() {
            desk.end(endings);
        }
        Ok(counted)
    }

    /// Hands over all endings: jobs done, (job, error text, unrecoverable) failed, jobs handed back,
    /// and what was finished. Returns how many count: a job that was settled before is passed over.
    fn settle(
        &self,
        done: &Bound<'_, PyList>,
        failed: &Bound<'_, PyList>,
        released: &Bound<'_, PyList>,
    ) -> PyResult<usize> {
        self.runtime()?;
        let mut endings = Vec::with_capacity(done.len() + failed.len() + released.len());
        for job in done {
            endings.extend(job.cast::<Job>()?.get().end(Outcome::Done));
        }
        for failure in failed {
            let (job, error, unrecoverable): (Bound<'_, Job>, Bound<'_, PyString>, _) =
                failure.extract()?;
            // It may hold what is no Unicode.
            let error = error.to_string_lossy().into_owned();
            let outcome = Outcome::Failed { panicked: false, unrecoverable, error };
            endings.extend(job.get().end(outcome));
        }
        for job in released {
            endings.extend(job.cast::<Job>()?.get().end(Outcome::Interrupted));
        }
        let count = endings.len();
        if let Some(desk) = self.desk() {
            desk.end(endings);
            desk.store();
        }
        Ok(count)
    }

    /// Takes no more jobs; those that Python has not fetched go back.
    fn stop(&self) -> PyResult<()> {
        self.runtime()?;
        self.link.stop();
        Ok(())
    }

    /// Stops, stores what was settled within the grace, disconnects; answers the report.
    fn close(&self, mailbox: &Mailbox, ticket: u64, grace_ms: u64) -> PyResult<()> {
        let (link, slot) = (Arc::clone(&self.link), mailbox.slot());
        self.runtime()?.spawn(async move {
            let report = link.close(Duration::from_millis(grace_ms)).await;
            slot.reply(ticket, report.map(Value::Report));
        });
        Ok(())
    }

    /// The last fault of reading, until a read works again.
    fn last_error(&self) -> Option<String> {
        self.link.opened.get().and_then(|opened| opened.session.health().last_error)
    }
}

impl Consumer {
    fn desk(&self) -> Option<&Desk> {
        self.link.opened.get().map(|opened| &opened.desk)
    }

    fn runtime(&self) -> PyResult<&'static tokio::runtime::Handle> {
        self.owner.runtime(&*self.link)
    }
}

/// Forgotten without `close`: what it holds goes back.
impl Drop for Consumer {
    fn drop(&mut self) {
        let link = Arc::clone(&self.link);
        match self.owner.handle() {
            Some(runtime) if !link.stopped.is_cancelled() => {
                runtime.spawn(async move { link.close(LAST_GRACE).await });
            }
            Some(_) => {}
            // What it holds belongs to the parent.
            None => std::mem::forget(link),
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the worker of queue {:?}", self.config.queue_name)
    }
}

impl Link {
    async fn run(&self, slot: &Slot, ticket: u64) {
        let opened = tokio::select! {
            () = self.stopped.cancelled() => Err(Failure::Closed(self.to_string())),
            opened = self.open() => opened,
        };
        let desk = match opened {
            Ok(opened) => &self.opened.get_or_init(|| opened).desk,
            Err(failure) => return slot.reply(ticket, Err(failure)),
        };
        if self.stopped.is_cancelled() {
            // `close` has come and gone before there was anything to close.
            let closed = self.close(LAST_GRACE).await;
            return slot.reply(ticket, closed.and(Err(Failure::Closed(self.to_string()))));
        }
        slot.reply(ticket, Ok(Value::Nothing));
        slot.notify(ticket, false);
        tokio::select! {
            () = desk.watch(|| slot.notify(ticket, false)) => {}
            () = desk.tidy() => {}
        }
        slot.notify(ticket, true);
    }

    async fn open(&self) -> Result<Opened, Failure> {
        // First, for it fails soonest.
        let exporter = match &self.metrics_addr {
            Some(address) => Some(Exporter::start(address).await?),
            None => None,
        };
        let mut config = self.config.clone();
        if let Some(exporter) = &exporter {
            config.metrics = Arc::new(exporter.sink(config.queue_name.as_str()));
        }
        let server = self.address.resolve(&config.queue_name).await?;
        let session = Session::start(&server.url, config).await;
        let session = session.map_err(|error| server.refused(error))?;
        let watch = exporter.as_ref().map(|exporter| exporter.watch(Arc::new(session.clone())));
        Ok(Opened {
            desk: Desk::new(session.clone(), self.lot),
            session,
            metrics_addr: exporter.map(|exporter| exporter.address().to_string()),
            watch: Mutex::new(watch),
            server: Mutex::new(Some(server)),
        })
    }

    fn stop(&self) {
        self.stopped.cancel();
        if let Some(opened) = self.opened.get() {
            opened.session.stop();
            opened.desk.close();
        }
    }

    async fn close(&self, grace: Duration) -> Result<Report, Failure> {
        self.stop();
        let Some(opened) = self.opened.get() else { return Ok(Report::default()) };
        opened.desk.store();
        let report = opened.session.close(grace).await;
        // The last scrapes may see the end of the last jobs; with the last watch the exporter ends.
        drop(opened.watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        let server = opened.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.leave().await?;
        }
        Ok(report)
    }
}
