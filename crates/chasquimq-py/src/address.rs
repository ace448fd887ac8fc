//! Where the server is: a URL, or the development server that is started, joined or found.

use std::path::PathBuf;

use chasquimq::ErrorKind;
use chasquimq_embedded::{DEFAULT_URL, EmbeddedServer, Options, is_embedded_url};
use pyo3::FromPyObject;
use tokio::task::spawn_blocking;

use crate::errors::Failure;

/// The last resort.
const LOCALHOST: &str = "redis://127.0.0.1:6379";

/// What Python knows of the server.
#[derive(Clone, FromPyObject)]
pub struct Address {
    url: Option<String>,
    /// Where the URL comes from, for the log.
    source: String,
    /// Server binaries for `embedded://` that PATH does not have.
    candidates: Vec<PathBuf>,
}

/// A server to connect to; an embedded one lives at least as long as this.
pub struct Server {
    pub url: String,
    /// Nobody named it: it is the last resort.
    is_guessed: bool,
    lease: Option<EmbeddedServer>,
}

impl Address {
    /// Finds the server, starting it if it is an embedded one.
    pub async fn resolve(&self, queue: &str) -> Result<Server, Failure> {
        let address = self.clone();
        let server = blocking(move || address.find()).await?;
        let found = match &server.lease {
            Some(lease) => lease.notice(),
            None => format!("using {}", chasquimq::redact(&server.url)),
        };
        tracing::info!("queue {queue:?}: {found} ({})", self.source);
        Ok(server)
    }

    fn find(&self) -> Result<Server, chasquimq_embedded::Error> {
        let options = Options::from_env().candidates(self.candidates.iter().cloned());
        let lease = match &self.url {
            Some(url) if is_embedded_url(url) => Some(EmbeddedServer::join(url, &options)?),
            Some(_) => None,
            None => attach(&options),
        };
        let is_guessed = lease.is_none() && self.url.is_none();
        let url = match (&lease, &self.url) {
            (Some(lease), _) => lease.url(),
            (None, Some(url)) => url.clone(),
            (None, None) => LOCALHOST.to_owned(),
        };
        Ok(Server { url, is_guessed, lease })
    }
}

/// Without a URL a development server that cannot be looked at is as good as none.
fn attach(options: &Options) -> Option<EmbeddedServer> {
    EmbeddedServer::attach(DEFAULT_URL, options).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot tell whether the embedded server runs");
        None
    })
}

impl Server {
    /// Why it could not be connected to.
    pub fn refused(&self, error: chasquimq::Error) -> Failure {
        if self.is_guessed && error.kind() == ErrorKind::Connection {
            Failure::NoServer(error)
        } else {
            error.into()
        }
    }

    /// Gives the lease back; the last one out waits for the end of an embedded server.
    pub async fn leave(self) -> Result<(), Failure> {
        let Some(lease) = self.lease else { return Ok(()) };
        blocking(move || lease.leave().map(drop)).await
    }
}

async fn blocking<T, F>(work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, chasquimq_embedded::Error> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Failure::Embedded(error.to_string())),
        Err(panicked) => Err(Failure::Embedded(panicked.to_string())),
    }
}
