//! What a command line does with an instance: look at it, stop it, delete its data.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::client::{self, Probe, ServerInfo};
use crate::instance::Instance;
use crate::lock::{self, Kind, Lock};
use crate::server::connect_url;
use crate::{Error, Options, process, socket};

/// What is known of an instance without joining it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The folder of the instance; it may not exist yet.
    pub folder: PathBuf,
    /// Whether and how the server runs.
    pub state: State,
}

/// Whether and how a server runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum State {
    /// No process owns the data.
    Stopped,
    /// It answers commands.
    Running {
        /// The URL by which an engine connects.
        url: String,
        /// What it says of itself.
        info: ServerInfo,
    },
    /// It loads its data and will answer soon.
    Loading,
    /// A process owns the data, but nothing answers on the socket.
    Unresponsive,
}

/// Looks at the instance of `url`; changes and starts nothing.
///
/// # Errors
///
/// [`Error::InvalidUrl`], [`Error::NoHome`] or [`Error::Io`].
pub fn status(url: &str, options: &Options) -> Result<Status, Error> {
    let instance = Instance::resolve(url, options)?;
    let folder = instance.folder().to_owned();
    if !process::is_alive(&instance)? {
        return Ok(Status { folder, state: State::Stopped });
    }
    let socket = socket::locate(&folder);
    let state = match client::probe(&socket, process::ANSWER_TIMEOUT) {
        Probe::Ready(info) => State::Running { url: connect_url(&socket), info },
        Probe::Loading => State::Loading,
        Probe::Silent => State::Unresponsive,
    };
    Ok(Status { folder, state })
}

/// The connect URL of the instance of `url` if its server runs and answers; always `None` in production.
///
/// To rely on it, [`attach`](crate::EmbeddedServer::attach) instead: without a lease the server may end
/// at any moment.
///
/// # Errors
///
/// As [`status`].
pub fn running(url: &str, options: &Options) -> Result<Option<String>, Error> {
    if options.production {
        return Ok(None);
    }
    Ok(match status(url, options)?.state {
        State::Running { url, .. } => Some(url),
        State::Stopped | State::Loading | State::Unresponsive => None,
    })
}

/// The folder of the instance of `url`, which may not exist yet.
///
/// # Errors
///
/// [`Error::InvalidUrl`] or [`Error::NoHome`].
pub fn path(url: &str, options: &Options) -> Result<PathBuf, Error> {
    Instance::resolve(url, options).map(|instance| instance.folder().to_owned())
}

/// Ends the server of `url`, whoever uses it, and keeps the data. False: none ran.
///
/// # Errors
///
/// [`Error::StillRunning`], [`Error::Refused`], [`Error::Busy`] or those of [`status`].
pub fn stop(url: &str, options: &Options) -> Result<bool, Error> {
    let instance = Instance::resolve(url, options)?;
    if !instance.exists() {
        return Ok(false);
    }
    let _boot = Lock::acquire(&instance.boot(), Kind::Exclusive, options.stop_timeout)?;
    process::stop(&instance, options)
}

/// Ends the server of `url` and deletes its data. False: there was nothing to delete.
///
/// # Errors
///
/// [`Error::InUse`] while other processes hold leases and `force` is false, else those of [`stop`].
pub fn reset(url: &str, options: &Options, force: bool) -> Result<bool, Error> {
    let instance = Instance::resolve(url, options)?;
    if !instance.exists() {
        return Ok(false);
    }
    // With the boot lock no lease comes or goes until the data are gone.
    let _boot = Lock::acquire(&instance.boot(), Kind::Exclusive, options.stop_timeout)?;
    if !force && lock::is_taken(&instance.lease(), Kind::Exclusive)? {
        return Err(Error::InUse { folder: instance.folder().to_owned() });
    }
    process::stop(&instance, options)?;
    match fs::remove_dir_all(instance.data()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        outcome => {
            outcome.map_err(Error::io("delete", &instance.data()))?;
            Ok(true)
        }
    }
}
