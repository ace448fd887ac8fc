//! Jobs on their way in: parallel lists from Python, engine jobs out of them, and what became of each.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chasquimq::{ErrorKind, JobId, Producer, RawJob};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::errors::Failure;
use crate::job::Job;
use crate::options::JobOptions;

/// The most that the engine adds all or none.
const ALL_OR_NONE: usize = 500;

/// Jobs of which item `n` of each list tells; no options at all are `None`.
pub fn jobs(
    names: &Bound<'_, PyList>,
    payloads: &Bound<'_, PyList>,
    options: Option<&Bound<'_, PyList>>,
) -> PyResult<Vec<RawJob>> {
    // One buffer for all: a piece of it costs less than one of its own.
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(payloads.len()));
    for payload in payloads {
        bytes.extend_from_slice(payload.cast::<PyBytes>()?.as_bytes());
        ends.push(bytes.len());
    }
    let (bytes, mut begin) = (Bytes::from(bytes), 0);
    let mut jobs = Vec::with_capacity(ends.len());
    for (index, (name, end)) in names.iter().zip(ends).enumerate() {
        let options = options.map(|options| options.get_item(index)).transpose()?;
        let options = options.map(|options| options.extract::<Option<JobOptions>>()).transpose()?;
        let name = name.cast::<PyString>()?.to_str()?.to_owned();
        jobs.push(JobOptions::job(options.flatten(), name, bytes.slice(begin..end)));
        begin = end;
    }
    Ok(jobs)
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
    /// The jobs, once: what was added under these names with these data; errors in their place.
    fn jobs<'py>(
        &self,
        py: Python<'py>,
        names: &Bound<'py, PyList>,
        data: &Bound<'py, PyList>,
        created_at_ms: u64,
    ) -> PyResult<Bound<'py, PyList>> {
        let outcomes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let jobs = PyList::empty(py);
        let mut last: Option<(Bound<'_, PyAny>, Arc<str>)> = None;
        for ((outcome, name), data) in outcomes.into_iter().zip(names).zip(data) {
            let id = match outcome {
                Ok(id) => id,
                Err(failure) => {
                    jobs.append(PyErr::from(failure))?;
                    continue;
                }
            };
            let shared = match &last {
                Some((last, shared)) if last.is(&name) => Arc::clone(shared),
                _ => name.cast::<PyString>()?.to_str()?.into(),
            };
            jobs.append(Py::new(
                py,
                Job::added(id, Arc::clone(&shared), data.unbind(), created_at_ms),
            )?)?;
            last = Some((name, shared));
        }
        Ok(jobs)
    }
}
