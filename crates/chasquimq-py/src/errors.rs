//! Errors on their way to Python: the classes are declared in `chasquimq.errors`.

use std::sync::Arc;

use chasquimq::{ErrorKind, JobId};
use chasquimq_metrics::ExporterError;
use pyo3::PyErr;
use pyo3::import_exception;

import_exception!(chasquimq.errors, AuthError);
import_exception!(chasquimq.errors, BrokerOutOfMemory);
import_exception!(chasquimq.errors, BrokerUnavailable);
import_exception!(chasquimq.errors, ChasquiError);
import_exception!(chasquimq.errors, CommandTimeout);
import_exception!(chasquimq.errors, ConfigError);
import_exception!(chasquimq.errors, ConnectionFailed);
import_exception!(chasquimq.errors, DecodeError);
import_exception!(chasquimq.errors, EmbeddedServerError);
import_exception!(chasquimq.errors, EncodeError);
import_exception!(chasquimq.errors, MetricsAddressError);
import_exception!(chasquimq.errors, OutcomeUnknown);
import_exception!(chasquimq.errors, QueueFull);
import_exception!(chasquimq.errors, ServerError);
import_exception!(chasquimq.errors, ShutdownError);
import_exception!(chasquimq.errors, UnsupportedServer);
import_exception!(chasquimq.errors, WrongType);

/// Why a call failed; made by Rust tasks, turned into an exception when Python fetches it.
#[derive(Debug)]
pub enum Failure {
    /// The engine's own, which several calls may share.
    Engine(Arc<chasquimq::Error>),
    /// Nobody knows whether this job was added.
    Unknown(Arc<chasquimq::Error>, JobId),
    /// There is none at the last resort.
    NoServer(chasquimq::Error),
    /// The development server's.
    Embedded(String),
    /// The exporter's.
    Metrics(ExporterError),
    /// The object was made before a fork.
    Forked(String),
    /// It was closed while the call was under way.
    Closed(String),
    /// It ended without an answer.
    Lost,
}

impl From<chasquimq::Error> for Failure {
    fn from(error: chasquimq::Error) -> Self {
        Self::Engine(Arc::new(error))
    }
}

impl From<ExporterError> for Failure {
    fn from(error: ExporterError) -> Self {
        Self::Metrics(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Engine(error) => engine(&error),
            Failure::Unknown(error, id) => OutcomeUnknown::new_err((error.to_string(), vec![id])),
            Failure::NoServer(error) => ConnectionFailed::new_err(format!(
                "{error}; neither redis_url nor CHASQUIMQ_URL is set: set one, or use embedded:// for \
                 a development server"
            )),
            Failure::Embedded(text) => EmbeddedServerError::new_err(text),
            Failure::Metrics(error @ ExporterError::Address { .. }) => {
                ConfigError::new_err(error.to_string())
            }
            Failure::Metrics(error) => MetricsAddressError::new_err(error.to_string()),
            Failure::Forked(what) => ChasquiError::new_err(format!(
                "{what} was used before fork(); create it in the child"
            )),
            Failure::Closed(what) => ShutdownError::new_err(format!("{what} was closed")),
            Failure::Lost => ChasquiError::new_err(
                "the call broke off without an answer: a bug in chasquimq, please report it",
            ),
        }
    }
}

fn engine(error: &chasquimq::Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Config => ConfigError::new_err(text),
        ErrorKind::Encode => EncodeError::new_err(text),
        ErrorKind::Decode => DecodeError::new_err(text),
        ErrorKind::QueueFull => QueueFull::new_err(text),
        ErrorKind::Unsupported => UnsupportedServer::new_err(text),
        ErrorKind::Connection => ConnectionFailed::new_err(text),
        ErrorKind::Timeout => CommandTimeout::new_err(text),
        ErrorKind::Unknown => OutcomeUnknown::new_err((text, error.job_ids().to_vec())),
        ErrorKind::Auth => AuthError::new_err(text),
        ErrorKind::OutOfMemory => BrokerOutOfMemory::new_err(text),
        ErrorKind::Unavailable | ErrorKind::NoGroup => BrokerUnavailable::new_err(text),
        ErrorKind::WrongType => WrongType::new_err(text),
        ErrorKind::Shutdown => ShutdownError::new_err(text),
        // `Server`, and kinds that a newer engine adds.
        _ => ServerError::new_err(text),
    }
}
