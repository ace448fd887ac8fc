//! What can go wrong, by kind: match on [`Error::kind`], print the error itself.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::job::JobId;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, small enough to match on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, limit or URL that cannot work; nothing was sent.
    Config,
    /// A payload could not be encoded, or is larger than the limit; nothing was sent.
    Encode,
    /// Stored bytes could not be read back.
    Decode,
    /// The queue holds as many jobs as it may (`max_queue_len`); nothing was added.
    QueueFull,
    /// The server is too old or lacks something without which jobs could be lost.
    Unsupported,
    /// The server could not be reached, or the connection broke before the reply.
    Connection,
    /// No reply came before the deadline; the command may or may not have been carried out.
    Timeout,
    /// Jobs that may or may not have been added: no sending was answered in time, or the replicas or
    /// the disk that had to have them did not in time ([`Durability`](crate::Durability)). The error carries
    /// their [ids](Error::job_ids), under which adding them again through the same producer is safe.
    Unknown,
    /// The server refused the user name, the password, or a command for lack of rights.
    Auth,
    /// The server is out of memory (`OOM`); it works again when memory is freed.
    OutOfMemory,
    /// The server cannot serve right now: loading, failing over, read-only, busy.
    Unavailable,
    /// The stream or its consumer group is gone (`NOGROUP`, deleted key).
    NoGroup,
    /// A key of the queue holds another type than the queue wrote.
    WrongType,
    /// Any other error reply.
    Server,
    /// The producer or consumer was shut down.
    Shutdown,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing anything but the server.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Timeout
                | Self::Unknown
                | Self::OutOfMemory
                | Self::Unavailable
                | Self::NoGroup
        )
    }

    /// Whether the command may have been carried out although this error came back.
    #[must_use]
    pub fn is_outcome_unknown(self) -> bool {
        matches!(self, Self::Connection | Self::Timeout | Self::Unknown)
    }
}

/// An error of the engine: a [kind](ErrorKind) to match, a sentence to print, often a source.
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Source>,
    job_ids: Box<[JobId]>,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None, job_ids: Box::default() }
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, of another kind.
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error, of jobs that may have been added.
    pub(crate) fn with_job_ids(mut self, ids: Box<[JobId]>) -> Self {
        self.job_ids = ids;
        self
    }

    /// The same error, told of the act it stopped: `adding to queue "emails": …`.
    pub(crate) fn context(mut self, act: impl fmt::Display) -> Self {
        self.message = format!("{act}: {}", self.message).into();
        self
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The ids of the jobs of a failed add, in their order, when some or all of them may have been
    /// added: always of the kind [`Unknown`](ErrorKind::Unknown), and when a bulk of more than 500 was
    /// refused half-way. Otherwise empty: nothing was added.
    ///
    /// To add what is missing, add all of them again under these ids, through the same producer and
    /// within five minutes: those that had been added are left out, even when they have been done.
    #[must_use]
    pub fn job_ids(&self) -> &[JobId] {
        &self.job_ids
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {})", self.kind, self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What a handler answers when its job did not succeed.
///
/// Any error converts with `?` and is retried by the [`RetryConfig`](crate::RetryConfig);
/// [`HandlerError::unrecoverable`] sends the job to the dead-letter queue at once.
pub struct HandlerError {
    unrecoverable: bool,
    source: Source,
}

impl HandlerError {
    /// A failure worth another attempt.
    pub fn new(source: impl Into<Source>) -> Self {
        Self { unrecoverable: false, source: source.into() }
    }

    /// A failure that no further attempt can mend.
    pub fn unrecoverable(source: impl Into<Source>) -> Self {
        Self { unrecoverable: true, source: source.into() }
    }

    /// Whether further attempts are pointless.
    #[must_use]
    pub fn is_unrecoverable(&self) -> bool {
        self.unrecoverable
    }

    /// The cause.
    #[must_use]
    pub fn source_err(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
    }

    /// The cause, owned.
    #[must_use]
    pub fn into_source(self) -> Source {
        self.source
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("unrecoverable", &self.unrecoverable)
            .field("source", &self.source)
            .finish()
    }
}

// No `StdError` for `HandlerError`: it would forbid the blanket `From` that makes `?` work in handlers.
impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(source: E) -> Self {
        Self::new(source)
    }
}
