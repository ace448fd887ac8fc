//! Waits for a child process, with a deadline and whoever else waits for children in this program.

use std::io;
use std::process::Child;
use std::time::Duration;

use rustix::io::Errno;

use crate::lock::poll_until;

/// Waits for the end; whether it was a success. `None`: it took too long and was killed.
///
/// A program that ignores SIGCHLD, or waits for any child, takes the status away: success is assumed then,
/// and what the child was for has to show itself.
pub(crate) fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<bool>> {
    let ended = poll_until(timeout, || match child.try_wait() {
        Ok(status) => Ok(status.map(|status| status.success())),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::CHILD) => Ok(Some(true)),
        Err(error) => Err(error),
    })?;
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(ended)
}
