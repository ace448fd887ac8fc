//! `Beside`: an event loop beside a call that it waits for, and whether it has something else to do.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An epoll in which Python puts what the loop waits at.
pub struct Beside(AsyncFd<OwnedFd>);

impl Beside {
    /// One without anything in it, for the runtime that this is called in.
    pub fn new() -> io::Result<Self> {
        #[expect(deprecated, reason = "its successor is unsafe: this descriptor stays what it is")]
        AsyncFd::with_interest(epoll()?, Interest::READABLE).map(Self)
    }

    pub fn fileno(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Waits until there is something to do.
    pub async fn has_work(&self) {
        // An error would come again at once: the loop is to go on its own way then.
        while let Ok(mut seen) = self.0.readable().await {
            // What was seen may have been done since.
            if self.has_work_now() {
                return;
            }
            seen.clear_ready();
        }
    }

    /// Whether there is something to do.
    pub fn has_work_now(&self) -> bool {
        let mut epoll = [PollFd::new(self.0.get_ref(), PollFlags::IN)];
        poll(&mut epoll, Some(&Timespec::default())) != Ok(0)
    }
}

#[cfg(target_os = "linux")]
fn epoll() -> io::Result<OwnedFd> {
    use rustix::event::epoll::{CreateFlags, create};
    Ok(create(CreateFlags::CLOEXEC)?)
}

#[cfg(not(target_os = "linux"))]
fn epoll() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}
