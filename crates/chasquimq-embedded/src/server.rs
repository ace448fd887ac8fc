//! Joining and leaving: an [`EmbeddedServer`] is a lease on the server that all processes share.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::{self, Probe, ServerInfo};
use crate::instance::Instance;
use crate::lock::{Kind, Lock, poll_until};
use crate::{Error, Options, process, socket};

/// A lease on the embedded server: it runs at least as long as this value lives.
///
/// Drop leaves as [`leave`](Self::leave) does, but can only log a failure. A process that is killed
/// loses its lease at once; if it was the last one the server goes on until the next process joins and
/// leaves, or until [`stop`](crate::stop).
///
/// **Fork.** A forked child that inherits this value has no lease of its own: in it drop does nothing,
/// and the server ends when the parent leaves as the last one. A child that uses the server joins itself.
#[derive(Debug)]
#[must_use = "the server may end when this value is dropped"]
pub struct EmbeddedServer {
    lease: Option<Lock>,
    instance: Instance,
    options: Options,
    socket: PathBuf,
    info: ServerInfo,
    started_here: bool,
}

impl EmbeddedServer {
    /// Joins the server of `url`, starting it when none runs. Blocks for at most the start timeout, with
    /// a full set of slow candidates a few seconds more.
    ///
    /// # Errors
    ///
    /// Every [`Error`] but those of [`stop`](crate::stop) and [`reset`](crate::reset); most common is
    /// [`Error::NoServer`].
    pub fn join(url: &str, options: &Options) -> Result<Self, Error> {
        if options.production {
            return Err(Error::Production);
        }
        let instance = Instance::prepare(url, options)?;
        let joined = Self::enter(&instance, options, true)?;
        joined.ok_or_else(|| process::start_failed(&instance, "the server"))
    }

    /// Joins the server of `url` if one runs; it is never started. `None`: none runs, or this is production.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn attach(url: &str, options: &Options) -> Result<Option<Self>, Error> {
        if options.production {
            return Ok(None);
        }
        let instance = Instance::resolve(url, options)?;
        if !process::is_alive(&instance)? {
            return Ok(None);
        }
        Self::enter(&instance, options, false)
    }

    /// The URL by which an engine connects, `redis+unix:///…/server.sock`.
    pub fn url(&self) -> String {
        connect_url(&self.socket)
    }

    /// The server's Unix socket.
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// The folder of the instance: data, log, lock files.
    pub fn data_dir(&self) -> &Path {
        self.instance.folder()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.info.pid
    }

    /// What the server said of itself on joining.
    pub fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// Whether this call started the server.
    pub fn started_here(&self) -> bool {
        self.started_here
    }

    /// One sentence for the user: that this is a development server, and where its data are.
    pub fn notice(&self) -> String {
        let (product, version) = (self.info.product, &self.info.version);
        let (verb, pid) = (if self.started_here { "started" } else { "joined" }, self.info.pid);
        format!(
            "{verb} the embedded development server {url} ({product} {version}, pid {pid}, data in \
             {folder}); it ends with its last user and is not for production",
            url = self.instance.url(),
            folder = self.instance.folder().display(),
        )
    }

    /// Gives the lease back. The last one out ends the server, keeping its data, and waits for its end.
    /// True: this was the last one.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`], [`Error::Refused`] or [`Error::Io`]; the lease is given back all the same.
    pub fn leave(mut self) -> Result<bool, Error> {
        self.give_back()
    }

    fn enter(instance: &Instance, options: &Options, start: bool) -> Result<Option<Self>, Error> {
        let deadline = Instant::now() + options.start_timeout;
        let _boot = Lock::acquire(&instance.boot(), Kind::Exclusive, options.start_timeout)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let lease = Lock::acquire(&instance.lease(), Kind::Shared, left)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let Some((info, started_here)) = ensure_running(instance, options, left, start)? else {
            return Ok(None);
        };
        let socket = socket::locate(instance.folder());
        Ok(Some(Self {
            lease: Some(lease),
            instance: instance.clone(),
            options: options.clone(),
            socket,
            info,
            started_here,
        }))
    }

    fn give_back(&mut self) -> Result<bool, Error> {
        let Some(lease) = self.lease.take().filter(Lock::is_ours) else { return Ok(false) };
        let boot = match Lock::acquire(
            &self.instance.boot(),
            Kind::Exclusive,
            self.options.stop_timeout,
        ) {
            Ok(boot) => boot,
            // Whoever holds it that long either ends the server or has a lease and leaves after us.
            Err(Error::Busy { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let last = lease.try_upgrade(&self.instance.lease())?;
        if last {
            process::stop(&self.instance, &self.options)?;
        }
        // In this order: nobody may see the lease taken while the boot lock is free.
        drop(lease);
        drop(boot);
        Ok(last)
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::warn!(%error, "could not end the embedded server");
        }
    }
}

pub(crate) fn connect_url(socket: &Path) -> String {
    format!("redis+unix://{}", socket.display())
}

/// Waits for the server that runs, or starts one. True: started here. `None`: none runs, none wanted.
fn ensure_running(
    instance: &Instance,
    options: &Options,
    timeout: Duration,
    start: bool,
) -> Result<Option<(ServerInfo, bool)>, Error> {
    let mut started = false;
    let ready = poll_until(timeout, || {
        let socket = socket::locate(instance.folder());
        if process::is_alive(instance)? {
            let probe = client::probe(&socket, process::ANSWER_TIMEOUT.min(timeout));
            return Ok(match probe {
                Probe::Ready(info) => Some(Some((info, started))),
                Probe::Loading | Probe::Silent => None,
            });
        }
        if !start {
            return Ok(Some(None));
        }
        if started {
            return Err(process::start_failed(instance, "the server"));
        }
        process::start(instance, options)?;
        started = true;
        Ok(None)
    })?;
    ready.ok_or_else(|| Error::Unresponsive {
        folder: instance.folder().to_owned(),
        pid: process::pid_text(instance),
        waited: timeout,
    })
}
