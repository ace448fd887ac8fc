//! Which server a command talks to.

use std::fmt;
use std::sync::Arc;

use chasquimq_embedded::{DEFAULT_URL, EmbeddedServer, Options, is_embedded_url};

use crate::{Host, Ui};

const FALLBACK: &str = "redis://127.0.0.1:6379";

/// The server's URL, as every command takes it.
#[derive(Clone, clap::Args)]
pub(crate) struct Url {
    #[arg(
        long = "url",
        visible_alias = "redis-url",
        value_name = "URL",
        help = "The server; default: $CHASQUIMQ_URL, else the running embedded server, else redis://127.0.0.1:6379"
    )]
    url: Option<String>,
}

/// A server to talk to. The embedded one stays up as long as this lives.
#[derive(Clone)]
pub(crate) struct Place {
    pub url: String,
    _lease: Option<Arc<EmbeddedServer>>,
}

// URLs may hold passwords.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Url").field(&self.url.as_deref().map(chasquimq::redact)).finish()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&chasquimq::redact(&self.url)).finish()
    }
}

impl Url {
    /// The argument.
    pub(crate) fn given(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Finds the server: the argument, `CHASQUIMQ_URL`, the running embedded server, or localhost.
    /// What was not said by an argument is said on stderr.
    pub(crate) fn find(&self, host: &Host, ui: &Ui) -> anyhow::Result<Place> {
        let options = Options::from_env().candidates(host.server_binaries.iter().cloned());
        let given = self.url.clone().or_else(|| std::env::var("CHASQUIMQ_URL").ok());
        if let Some(url) = given.filter(|url| !url.is_empty()) {
            return Place::at(url, &options);
        }
        if let Some(server) = EmbeddedServer::attach(DEFAULT_URL, &options)? {
            ui.note("chasqui: using the running embedded server");
            return Ok(Place { url: server.url(), _lease: Some(Arc::new(server)) });
        }
        ui.note(format!("chasqui: using {FALLBACK}"));
        Ok(Place { url: FALLBACK.to_owned(), _lease: None })
    }
}

impl Place {
    fn at(url: String, options: &Options) -> anyhow::Result<Self> {
        if !is_embedded_url(&url) {
            return Ok(Self { url, _lease: None });
        }
        let server = EmbeddedServer::join(&url, options)?;
        Ok(Self { url: server.url(), _lease: Some(Arc::new(server)) })
    }
}
