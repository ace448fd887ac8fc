//! A worker or a producer: mostly this program again.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

/// How often what needs a connection is tried again at the start of a process.
const PAUSE: Duration = Duration::from_millis(200);

/// A child process. It ends when this is dropped or its parent dies.
pub struct Process {
    child: Child,
    /// What tells the child that its parent lives. Waiting for a child would close it.
    _lifeline: Option<ChildStdin>,
}

impl Process {
    /// Starts a program, which is followed by its arguments; what it says goes to a file.
    pub fn start(command: &[OsString], says: &Path) -> Result<Self> {
        let says = File::options().create(true).append(true).open(says)?;
        let (program, args) = command.split_first().context("no program to start")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(says)
            .kill_on_drop(true)
            .spawn()
            .context("starting a process")?;
        let lifeline = child.stdin.take();
        Ok(Self { child, _lifeline: lifeline })
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Tells it to stop with SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        kill_process(pid.context("the process has ended")?, Signal::TERM)?;
        Ok(())
    }

    /// Waits for its end; `None` when it does not come in time.
    pub async fn wait(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        Ok(timeout(within, self.child.wait()).await.ok().transpose()?)
    }
}

/// Ends this process when its parent does, however that ends: the parent holds the other end of stdin.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let mut nothing = [0; 1];
        while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        std::process::exit(1);
    });
}

/// Repeats what needs a connection until there is one: a process may be started while its link is harmed.
pub async fn patiently<T, F: Future<Output = chasquimq::Result<T>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    loop {
        match attempt().await {
            Err(error) if error.kind().is_transient() => sleep(PAUSE).await,
            result => return Ok(result?),
        }
    }
}
