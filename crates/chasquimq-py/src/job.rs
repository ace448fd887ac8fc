//! `Job`: what a handler receives and `Queue.add` returns.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chasquimq::lifecycle::Outcome;
use chasquimq::{Delivery, Ending};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A job; its strings and its data become Python objects when somebody looks at them.
#[pyclass(frozen, weakref, module = "chasquimq")]
pub struct Job {
    /// Not there until a producer's job has been added; nobody is given it before.
    id: OnceLock<Arc<str>>,
    name: Arc<str>,
    payload: Bytes,
    /// Failed runs so far: 0 in the first run.
    #[pyo3(get)]
    attempt: u32,
    /// Deliveries so far whose worker died.
    #[pyo3(get)]
    lost: u32,
    /// When the producer made it, in milliseconds since the epoch.
    #[pyo3(get)]
    created_at_ms: u64,
    decoded: OnceLock<Py<PyAny>>,
    run: Mutex<Run>,
}

/// A delivery until it is settled, and the stopwatch of its run.
#[derive(Default)]
struct Run {
    delivery: Option<Delivery>,
    started: Option<Instant>,
    took: Option<Duration>,
}

impl Job {
    /// A job as its producer sees it, but for its id.
    pub fn without_id(name: Arc<str>, data: Py<PyAny>, created_at_ms: u64) -> Self {
        Self {
            id: OnceLock::new(),
            name,
            payload: Bytes::new(),
            attempt: 0,
            lost: 0,
            created_at_ms,
            decoded: OnceLock::from(data),
            run: Mutex::default(),
        }
    }

    /// Gives it its id, once.
    pub fn was_added(&self, id: String) {
        let _ = self.id.set(id.into());
    }

    /// A delivery that a handler is about to run.
    pub fn begun(delivery: Delivery, now: Instant) -> Self {
        Self {
            id: OnceLock::from(delivery.shared_id()),
            name: delivery.name(),
            payload: delivery.payload().clone(),
            attempt: delivery.attempt(),
            lost: delivery.lost(),
            created_at_ms: delivery.created_at_ms(),
            decoded: OnceLock::new(),
            run: Mutex::new(Run { delivery: Some(delivery), started: Some(now), took: None }),
        }
    }

    /// Stops the stopwatch; `jobs` have shared the time.
    pub fn stop(&self, now: Instant, jobs: u32) {
        self.run().stop(now, jobs);
    }

    /// The end of a delivery that is done; `jobs` have shared the time. `None` when it was settled
    /// before.
    pub fn done(&self, now: Instant, jobs: u32) -> Option<Ending> {
        let mut run = self.run();
        run.stop(now, jobs);
        run.end(Outcome::Done)
    }

    /// The delivery's end; `None` when it was settled before.
    pub fn end(&self, outcome: Outcome) -> Option<Ending> {
        self.run().end(outcome)
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn stop(&mut self, now: Instant, jobs: u32) {
        self.took = self.started.map(|started| (now - started) / jobs.max(1));
    }

    fn end(&mut self, outcome: Outcome) -> Option<Ending> {
        let delivery = self.delivery.take()?;
        let took = self.took.or_else(|| self.started.map(|started| started.elapsed()));
        Some(delivery.end(outcome, took.unwrap_or_default()))
    }
}

#[pymethods]
impl Job {
    #[new]
    #[pyo3(signature = (id, name, data, *, attempt=0, lost=0, created_at_ms=0))]
    fn new(
        id: &str,
        name: &str,
        data: Py<PyAny>,
        attempt: u32,
        lost: u32,
        created_at_ms: u64,
    ) -> Self {
        let id = OnceLock::from(Arc::from(id));
        Self { id, attempt, lost, ..Self::without_id(name.into(), data, created_at_ms) }
    }

    #[getter]
    fn id(&self) -> &str {
        self.id.get().map_or("", |id| id)
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// 1.3's second name of `attempt`.
    #[getter]
    fn attempts_made(&self) -> u32 {
        self.attempt
    }

    /// The property `data`. It is Python's: decoding may run Python code, and see lib.rs.
    #[classattr]
    fn data(py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(py.import("chasquimq._codec")?.getattr("job_data")?.unbind())
    }

    /// The encoded data.
    fn _payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.payload)
    }

    /// The data that `_keep` was given first.
    fn _kept(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.decoded.get().map(|data| data.clone_ref(py))
    }

    /// Keeps the decoded data.
    fn _keep(&self, data: Py<PyAny>) {
        // Two threads may have decoded at the same time: the first is kept.
        let _ = self.decoded.set(data);
    }

    /// Stops the stopwatch; so many jobs have shared the time.
    #[pyo3(signature = (jobs=1))]
    fn _finish(&self, jobs: u32) {
        self.stop(Instant::now(), jobs);
    }

    fn __repr__(&self) -> String {
        format!("Job(id={:?}, name={:?}, attempt={})", self.id(), self.name, self.attempt)
    }
}
