//! A server process that cannot outlive the test process.
//!
//! A shell stands between the two and reads from a pipe whose other end only the test process holds. That
//! takes no signal handler and no unsafe code, and it covers `abort()` and `kill -9`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The same script serves the Python tests.
const WATCHDOG: &str = include_str!("../../../tests/servers/watchdog");

/// A running server and its watchdog. Dropping it kills the server and keeps the folder.
pub(crate) struct Process {
    watchdog: Child,
    stdin: ChildStdin,
    server: Pid,
}

impl Process {
    /// Starts `binary`, perhaps as a Sentinel, with the configuration file `server.conf` of `dir`, logging
    /// to its `server.log`.
    pub(crate) fn spawn(binary: &Path, dir: &Path, sentinel: bool) -> Result<Self> {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(dir)
            .arg(binary)
            .arg(dir.join("server.conf"))
            .args(sentinel.then_some("--sentinel"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C goes to the tests alone: the server must be there until they have ended.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let stdin = watchdog.stdin.take().context("the watchdog has no stdin")?;
        let stdout = watchdog.stdout.take().context("the watchdog has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let server = line.trim().parse().ok().and_then(Pid::from_raw);
        let server = server.with_context(|| format!("not a process id: {line:?}"))?;
        Ok(Self { watchdog, stdin, server })
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.server, signal).context("cannot signal the server")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only when the watchdog is gone, and with it what it watched.
        let _ = self.stdin.write_all(b"\n");
        let _ = self.watchdog.wait();
    }
}
