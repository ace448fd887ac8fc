//! The server process: started detached, known by the lock it holds, ended by command.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::instance::Instance;
use crate::lock::{self, Kind, poll_until};
use crate::{Error, Options, binary, child, client, socket};

/// Longest wait for one answer of the server.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const LOG_LINES: usize = 4;
/// Hands the lock over on stdin and moves it to a descriptor that the server, daemonized, keeps open.
const LAUNCHER: &str = r#"exec "$0" "$@" 9<&0 </dev/null"#;

/// Whether a server process owns the data of the instance, answering or not.
pub(crate) fn is_alive(instance: &Instance) -> Result<bool, Error> {
    let path = instance.alive();
    if !path.exists() {
        return Ok(false);
    }
    lock::is_taken(&path, Kind::Shared)
}

/// Starts the server; it may still load its data on return. The caller holds the boot lock.
pub(crate) fn start(instance: &Instance, options: &Options) -> Result<(), Error> {
    let binary = binary::find(instance, options)?;
    let alive = lock::open(&instance.alive())?;
    lock::lock_within(&alive, &instance.alive(), Kind::Exclusive, options.stop_timeout)?;
    let socket = socket::place(instance.folder(), options)?;
    remove_if_there(&instance.pid_file())?;
    fs::create_dir_all(instance.data()).map_err(Error::io("create", &instance.data()))?;
    launch(instance, &binary, &socket, alive, options.start_timeout)
}

/// The error for a server that ended before it was ready.
pub(crate) fn start_failed(instance: &Instance, server: &str) -> Error {
    let log = fs::read_to_string(instance.log()).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ");
    Error::StartFailed {
        server: server.to_owned(),
        folder: instance.folder().to_owned(),
        log: if tail.is_empty() { "empty".to_owned() } else { tail },
    }
}

/// Ends the server, if any, and waits for its end. False: none ran. The caller holds the boot lock.
pub(crate) fn stop(instance: &Instance, options: &Options) -> Result<bool, Error> {
    if !is_alive(instance)? {
        return Ok(false);
    }
    let deadline = Instant::now() + options.stop_timeout;
    let socket = socket::locate(instance.folder());
    match client::shutdown(&socket, options.stop_timeout) {
        Ok(None) => {}
        Ok(Some(reply)) => {
            let folder = instance.folder().to_owned();
            return Err(Error::Refused { folder, command: "SHUTDOWN", reply });
        }
        Err(error) => {
            tracing::debug!(%error, "the server does not answer; sending it SIGTERM");
            terminate(instance)?;
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let ended = poll_until(left, || is_alive(instance).map(|alive| (!alive).then_some(())))?;
    ended.ok_or_else(|| Error::StillRunning {
        folder: instance.folder().to_owned(),
        pid: pid_text(instance),
        waited: options.stop_timeout,
    })?;
    socket::clear(instance.folder())?;
    Ok(true)
}

/// ` (pid N)` of a server that does not answer, or nothing when no process is surely it.
pub(crate) fn pid_text(instance: &Instance) -> String {
    pid(instance).map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn launch(
    instance: &Instance,
    binary: &Path,
    socket: &Path,
    alive: File,
    timeout: Duration,
) -> Result<(), Error> {
    let log = File::create(instance.log()).map_err(Error::io("create", &instance.log()))?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(LAUNCHER).arg(binary);
    command.args(["--port", "0", "--daemonize", "yes", "--supervised", "no"]);
    command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
    command.args(["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"]);
    command.arg("--unixsocket").arg(socket).args(["--unixsocketperm", "700"]);
    command.arg("--dir").arg(instance.data()).arg("--logfile").arg(instance.log());
    command.arg("--pidfile").arg(instance.pid_file());
    command.stdin(alive).stdout(Stdio::null()).stderr(log);
    let mut launcher = command.spawn().map_err(Error::io("start", binary))?;
    // The command holds copies of the descriptors: the server must be the lock's last holder.
    drop(command);
    match child::wait(&mut launcher, timeout).map_err(Error::io("start", binary))? {
        Some(true) => Ok(()),
        Some(false) | None => Err(start_failed(instance, &binary.display().to_string())),
    }
}

/// For a server without a usable socket; a process that is not surely the server is left alone.
fn terminate(instance: &Instance) -> Result<(), Error> {
    if let Some(pid) = pid(instance).and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)
            .map_err(Error::io("end the server of", instance.folder()))?;
    }
    Ok(())
}

/// The server's process id by its own file, verified, because ids are used again.
fn pid(instance: &Instance) -> Option<i32> {
    let pid = fs::read_to_string(instance.pid_file()).ok()?.trim().parse().ok()?;
    holds_alive(pid, instance).then_some(pid)
}

/// Whether the process has the instance's `alive` file open.
#[cfg(target_os = "linux")]
fn holds_alive(pid: i32, instance: &Instance) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let alive = instance.alive();
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|path| path == alive))
}

/// Without `/proc`: whether the process is a server that was started with the instance's socket.
#[cfg(not(target_os = "linux"))]
fn holds_alive(pid: i32, instance: &Instance) -> bool {
    let socket = socket::locate(instance.folder());
    Command::new("ps").args(["-ww", "-o", "command=", "-p", &pid.to_string()]).output().is_ok_and(
        |found| String::from_utf8_lossy(&found.stdout).contains(&*socket.to_string_lossy()),
    )
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
