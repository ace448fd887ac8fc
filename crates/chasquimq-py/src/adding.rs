//! Jobs on their way in: rows from Python, engine jobs out of them, and what became of each.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chasquimq::{ErrorKind, JobId, Producer, RawJob};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::errors::Failure;
use crate::job::Job;
use crate::options::JobOptions;

/// Where what stands in a row.
const NAME: usize = 0;
const PAYLOAD: usize = 1;
const OPTIONS: usize = 2;
const DATA: usize = 3;

/// The most that the engine adds all or none.
const ALL_OR_NONE: usize = 500;

/// The jobs that these rows tell of: name, encoded data, options or `None`, data.
pub fn jobs(rows: &Bound<'_, PyList>) -> PyResult<Vec<RawJob>> {
    // One buffer for all: a piece of it costs less than one of its own.
    let (mut bytes, mut heads) = (Vec::new(), Vec::with_capacity(rows.len()));
    for row in rows {
        let row = row.cast::<PyTuple>()?;
        let name = row.get_borrowed_item(NAME)?;
        let options = row.get_borrowed_item(OPTIONS)?.extract::<Option<JobOptions>>()?;
        bytes.extend_from_slice(row.get_borrowed_item(PAYLOAD)?.cast::<PyBytes>()?.as_bytes());
        heads.push((text(&name)?, options, bytes.len()));
    }
    let (bytes, mut begin) = (Bytes::from(bytes), 0);
    let jobs = heads.into_iter().map(|(name, options, end)| {
        let payload = bytes.slice(std::mem::replace(&mut begin, end)..end);
        JobOptions::job(options, name, payload)
    });
    Ok(jobs.collect())
}

fn text(name: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(name.cast::<PyString>()?.to_str()?.to_owned())
}

/// Adds jobs of several callers: the error of one is not the others'.
pub async fn add_each(engine: &Producer<()>, jobs: Vec<RawJob>) -> Vec<Result<JobId, Failure>> {
    let (mut outcomes, mut jobs) = (Vec::with_capacity(jobs.len()), jobs.into_iter().peekable());
    while let Some(first) = jobs.next() {
        let (delayed, durability) = (first.delay.is_some(), first.options.durability);
        let is_alike =
            |job: &RawJob| job.delay.is_some() == delayed && job.options.durability == durability;
        let mut batch = vec![first];
        while batch.len() < ALL_OR_NONE {
            let Some(job) = jobs.next_if(is_alike) else { break };
            batch.push(job);
        }
        add_batch(engine, batch, &mut outcomes).await;
    }
    outcomes
}

/// Adds jobs that the engine adds all or none; one by one where it refuses them together.
async fn add_batch(
    engine: &Producer<()>,
    batch: Vec<RawJob>,
    outcomes: &mut Vec<Result<JobId, Failure>>,
) {
    let count = batch.len();
    let again = if count > 1 { batch.clone() } else { vec![] };
    match engine.add_raw(batch).await {
        Ok(ids) => outcomes.extend(ids.into_iter().map(Ok)),
        Err(error) if count > 1 && was_refused(&error) => {
            for job in again {
                let added = engine.add_raw(vec![job]).await;
                let id = added.map(|ids| ids.into_iter().next().unwrap_or_default());
                outcomes.push(id.map_err(Failure::from));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            let failure = |n: usize| match error.job_ids().get(n) {
                Some(id) => Failure::Unknown(Arc::clone(&error), id.clone()),
                None => Failure::Engine(Arc::clone(&error)),
            };
            outcomes.extend((0..count).map(|n| Err(failure(n))));
        }
    }
}

/// Nothing was added, for a reason that need not be every job's.
fn was_refused(error: &chasquimq::Error) -> bool {
    matches!(error.kind(), ErrorKind::Config | ErrorKind::Encode | ErrorKind::QueueFull)
}

/// What became of added jobs.
#[pyclass(frozen, module = "chasquimq._native")]
pub struct Added(Mutex<Vec<Result<JobId, Failure>>>);

impl From<Vec<Result<JobId, Failure>>> for Added {
    fn from(outcomes: Vec<Result<JobId, Failure>>) -> Self {
        Self(Mutex::new(outcomes))
    }
}

#[pymethods]
impl Added {
    /// The jobs, once: those of this list that were added get their ids, errors stand in the place
    /// of the others.
    fn jobs<'py>(&self, py: Python<'py>, jobs: Bound<'py, PyList>) -> PyResult<Bound<'py, PyList>> {
        let outcomes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (at, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(id) => jobs.get_item(at)?.cast::<Job>()?.get().was_added(id),
                Err(failure) => jobs.set_item(at, PyErr::from(failure).into_value(py))?,
            }
        }
        Ok(jobs)
    }
}

/// The jobs of these rows, without ids until they have been [`Added`]: they can be made while they
/// are on their way.
#[pyfunction]
pub fn without_ids<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyList>,
    created_at_ms: u64,
) -> PyResult<Bound<'py, PyList>> {
    let jobs = PyList::empty(py);
    let mut last: Option<(Bound<'_, PyAny>, Arc<str>)> = None;
    for row in rows {
        let row = row.cast::<PyTuple>()?;
        let (name, data) = (row.get_item(NAME)?, row.get_item(DATA)?);
        let shared = match &last {
            Some((last, shared)) if last.is(&name) => Arc::clone(shared),
            _ => name.cast::<PyString>()?.to_str()?.into(),
        };
        let job = Job::without_id(Arc::clone(&shared), data.unbind(), created_at_ms);
        jobs.append(Py::new(py, job)?)?;
        last = Some((name, shared));
    }
    Ok(jobs)
}
