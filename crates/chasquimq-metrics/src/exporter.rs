//! An HTTP server that shows a process's metrics and health, for programs that bring no recorder
//! of their own, such as a Python worker.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | the metrics, in Prometheus' text format |
//! | `/livez` | 200 while the loops of all workers turn, else 503 |
//! | `/readyz` | 200 while all workers claim jobs and all inspectors count, and there is one, else 503 |
//! | `/scale?queue=NAME` | `{"backlog":3,"oldest_age_s":1.5,"inflight":7}`, for autoscalers |
//!
//! Several workers of a process share one exporter. It installs no global recorder.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::labels::QueueLabeled;
use crate::sink::{RecorderSink, SharedRecorder};

mod address;
mod http;
mod inspector;
mod probe;
mod server;
mod state;

pub use address::ExporterError;
pub use inspector::Inspector;
pub use probe::{BoxError, Probe, Scale, ScaleFuture};

use state::State;

/// How long the last exporter of an address may take to let go of it.
const RETIREMENT: Duration = Duration::from_secs(2);

/// The exporters of this process, by the address that was asked for.
static RUNNING: Mutex<Option<HashMap<SocketAddr, Running>>> = Mutex::new(None);

struct Running {
    /// A forked child inherits the map, but no server.
    process: u32,
    exporter: Weak<Inner>,
    server: AbortHandle,
}

/// A running exporter. Clones share it; when the last clone and the last [`Watch`] are dropped, it
/// stops listening.
#[derive(Clone)]
pub struct Exporter {
    inner: Arc<Inner>,
}

struct Inner {
    address: SocketAddr,
    state: Arc<State>,
    server: AbortOnDropHandle<()>,
}

/// Keeps a worker's probe registered. Dropping it takes the probe away.
pub struct Watch {
    id: u64,
    exporter: Exporter,
}

impl Exporter {
    /// Listens on `address`, or joins the exporter that this process already has there. It runs on
    /// the current tokio runtime and ends with it.
    ///
    /// `address` is `HOST:PORT`; a bare `PORT` or `:PORT` means `127.0.0.1`, for nothing here asks
    /// who is looking. Port 0 takes any free port ([`Exporter::address`] tells which); all that ask
    /// a process for the same address share one exporter, with port 0 too.
    ///
    /// # Errors
    /// When the address cannot be understood, is in use by another process, or may not be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start(address: &str) -> Result<Self, ExporterError> {
        let address = address::resolve(address).await?;
        let deadline = Instant::now() + RETIREMENT;
        loop {
            match claim(address)? {
                Some(exporter) => return Ok(exporter),
                None if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
                None => return Err(ExporterError::Taken { address }),
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// A sink for the configuration of a worker of this queue. Make one for each worker.
    pub fn sink(&self, queue: impl Into<Arc<str>>) -> QueueLabeled<RecorderSink> {
        QueueLabeled::new(RecorderSink::new(self.recorder()), queue)
    }

    /// The recorder behind `/metrics`, for sinks with further labels or job names.
    #[must_use]
    pub fn recorder(&self) -> SharedRecorder {
        self.inner.state.recorder()
    }

    /// Lets `/livez`, `/readyz`, `/scale` and the gauges of workers ask this worker, until the
    /// returned guard is dropped.
    #[must_use = "the worker is watched until this is dropped"]
    pub fn watch(&self, probe: Arc<dyn Probe>) -> Watch {
        Watch { id: self.inner.state.add(probe), exporter: self.clone() }
    }
}

impl Watch {
    /// The exporter that watches.
    #[must_use]
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.exporter.inner.state.remove(self.id);
    }
}

/// The exporter of this address; `None` while the last one still holds it.
fn claim(address: SocketAddr) -> Result<Option<Exporter>, ExporterError> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let running = running.get_or_insert_default();
    let process = process::id();
    running.retain(|_, entry| entry.process == process && !entry.server.is_finished());
    if let Some(entry) = running.get(&address) {
        return Ok(entry.exporter.upgrade().map(|inner| Exporter { inner }));
    }
    let exporter = Exporter::serve(address::listen(address)?, address)?;
    let inner = &exporter.inner;
    let (exporting, server) = (Arc::downgrade(inner), inner.server.abort_handle());
    running.insert(address, Running { process, exporter: exporting, server });
    Ok(Some(exporter))
}

impl Exporter {
    fn serve(listener: std::net::TcpListener, asked: SocketAddr) -> Result<Self, ExporterError> {
        let failed = |source| ExporterError::Listen { address: asked, source };
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = Arc::new(State::new()?);
        let server =
            AbortOnDropHandle::new(tokio::spawn(server::run(listener, Arc::clone(&state))));
        tracing::info!(%address, "metrics exporter listens");
        Ok(Self { inner: Arc::new(Inner { address, state, server }) })
    }
}
