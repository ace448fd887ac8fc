//! Kernel file locks (`flock`) with a deadline, safe against forks.
//!
//! A lock belongs to the open file description. A forked child inherits that description, so closing
//! alone would leave the lock with the child: the owner unlocks explicitly, and a child never does.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::Error;

const POLL: Duration = Duration::from_millis(5);

/// How a lock is shared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Shared,
    Exclusive,
}

/// A held lock; released by drop in the process that took it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    owner: u32,
}

impl Lock {
    /// Takes the lock on the file at `path`, which is created when missing.
    pub(crate) fn acquire(path: &Path, kind: Kind, timeout: Duration) -> Result<Self, Error> {
        let file = open(path)?;
        lock_within(&file, path, kind, timeout)?;
        Ok(Self { file, owner: std::process::id() })
    }

    /// Turns a shared lock into the exclusive one. False: others hold it, and this one may be lost.
    pub(crate) fn try_upgrade(&self, path: &Path) -> Result<bool, Error> {
        try_lock(&self.file, Kind::Exclusive).map_err(Error::io("lock", path))
    }

    /// False in a child that was forked after the lock was taken.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_ours()
            && let Err(error) = flock(&self.file, FlockOperation::Unlock)
        {
            tracing::warn!(%error, "cannot unlock a lock file of the embedded server");
        }
    }
}

/// Opens a lock file, close-on-exec as all files of std, readable by its user only.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open", path))
}

/// Locks an open file; the caller decides who unlocks it.
pub(crate) fn lock_within(
    file: &File,
    path: &Path,
    kind: Kind,
    timeout: Duration,
) -> Result<(), Error> {
    let acquired = poll_until(timeout, || try_lock(file, kind).map(|locked| locked.then_some(())))
        .map_err(Error::io("lock", path))?;
    acquired.ok_or_else(|| Error::Busy { path: path.to_owned(), waited: timeout })
}

/// Whether somebody else holds a lock that conflicts; takes and gives back the lock to find out.
pub(crate) fn is_taken(path: &Path, kind: Kind) -> Result<bool, Error> {
    let probe = Lock { file: open(path)?, owner: std::process::id() };
    try_lock(&probe.file, kind).map(|free| !free).map_err(Error::io("lock", path))
}

/// One attempt. False: somebody else holds a lock that conflicts.
fn try_lock(file: &File, kind: Kind) -> Result<bool, Errno> {
    let operation = match kind {
        Kind::Shared => FlockOperation::NonBlockingLockShared,
        Kind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Asks `step` every few milliseconds until it has a value. `None`: the time is up.
pub(crate) fn poll_until<T, E>(
    timeout: Duration,
    mut step: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = step()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}
