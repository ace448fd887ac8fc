//! What can go wrong with the embedded server; every text says what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the embedded server could not be started, joined or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is not of a known form.
    #[error(
        "`{url}` is no embedded URL: use embedded://, embedded://name (letters, digits, `.`, `_`, `-`, \
         at most 64) or embedded:///absolute/path"
    )]
    InvalidUrl {
        /// The URL as given.
        url: String,
    },
    /// `CHASQUIMQ_ENV=production` is set.
    #[error(
        "the embedded server is for development and CHASQUIMQ_ENV is `production`: set CHASQUIMQ_URL to \
         a Redis or Valkey server, or CHASQUIMQ_EMBEDDED_FORCE=1 if you mean it"
    )]
    Production,
    /// No folder for the data can be derived from the environment.
    #[error("no home folder for the embedded server: set HOME or CHASQUIMQ_EMBEDDED_HOME")]
    NoHome,
    /// No usable server binary was found.
    #[error("no Valkey or Redis server >= 6.2 for {instance}{skipped}. {help}")]
    NoServer {
        /// The instance that needed one.
        instance: String,
        /// What was found and why it was not used; empty, or a clause in parentheses.
        skipped: String,
        /// How to install one on this operating system.
        help: &'static str,
    },
    /// The folder cannot hold an instance.
    #[error("{path} cannot hold an embedded server: {reason}")]
    UnusableFolder {
        /// The folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The server process ended before it was ready.
    #[error(
        "{server} ended while it started on {folder}; the end of its log: {log}. If the data there are \
         not needed, `chasqui embedded reset` deletes them"
    )]
    StartFailed {
        /// The server binary, or what is known of it.
        server: String,
        /// The folder of the instance.
        folder: PathBuf,
        /// The last lines of the log, joined by ` | `.
        log: String,
    },
    /// A server owns the data but does not answer.
    #[error(
        "the embedded server of {folder}{pid} did not answer within {waited:?}: see server.log there, \
         or end it with `chasqui embedded stop`"
    )]
    Unresponsive {
        /// The folder of the instance.
        folder: PathBuf,
        /// ` (pid N)` when the process is known, else empty.
        pid: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The server did not end in time.
    #[error(
        "the embedded server of {folder}{pid} did not end within {waited:?}: see server.log there"
    )]
    StillRunning {
        /// The folder of the instance.
        folder: PathBuf,
        /// ` (pid N)` when the process is known, else empty.
        pid: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Another process starts or stops the same server and does not finish.
    #[error("another process has held {path} for {waited:?}: it starts or stops the same server")]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// [`reset`](crate::reset) without `force` while other processes use the server.
    #[error(
        "the embedded server of {folder} is in use by other processes: end them first, or force the reset"
    )]
    InUse {
        /// The folder of the instance.
        folder: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The verb: `open`, `create`, ...
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The server answered something unexpected.
    #[error("the embedded server of {folder} refused {command}: {reply}")]
    Refused {
        /// The folder of the instance.
        folder: PathBuf,
        /// The command.
        command: &'static str,
        /// The server's reply.
        reply: String,
    },
}

impl Error {
    /// For `map_err`: an [`Error::Io`] that names the action and its object.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: source.into() }
    }
}
