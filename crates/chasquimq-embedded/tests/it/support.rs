//! A home of its own for each test, a client, and this test binary as other processes.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use chasquimq_embedded::{DEFAULT_URL, EmbeddedServer, Options, State};
use tempfile::TempDir;

pub const URL: &str = DEFAULT_URL;

/// A folder for named instances; ends whatever server is left in it.
pub struct Home {
    folder: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn options(&self) -> Options {
        Options::from_env().home(self.path()).start_timeout(Duration::from_secs(20))
    }

    pub fn join(&self) -> EmbeddedServer {
        EmbeddedServer::join(URL, &self.options()).unwrap()
    }

    pub fn state(&self) -> State {
        chasquimq_embedded::status(URL, &self.options()).unwrap().state
    }

    pub fn is_stopped(&self) -> bool {
        matches!(self.state(), State::Stopped)
    }

    pub fn instance(&self) -> PathBuf {
        chasquimq_embedded::path(URL, &self.options()).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = chasquimq_embedded::stop(URL, &self.options())
            && !std::thread::panicking()
        {
            panic!("a server is left: {error}");
        }
    }
}

/// One command as inline protocol; the reply up to its first line end, or the first bulk.
pub fn call(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let lines: Vec<&str> = reply.lines().collect();
    lines.iter().take(lines.len() - 1).copied().collect::<Vec<_>>().join(" ")
}

/// Waits for a condition with a deadline, and says what did not happen.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Another process that joins, says so, and leaves when its input ends.
pub struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What a [`Peer`] says after it has joined.
#[derive(Debug)]
pub struct Joined {
    pub server_pid: u32,
    pub started: bool,
}

const TAG: &str = "peer:";

impl Peer {
    pub fn start(home: &Path) -> Self {
        Self::start_with(home, [])
    }

    pub fn start_with<'a>(
        home: &Path,
        variables: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
    ) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["support::peer", "--exact", "--ignored", "--nocapture"])
            .env("CHASQUIMQ_EMBEDDED_HOME", home)
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    pub fn joined(&mut self) -> Joined {
        let line = self.line();
        let mut words = line.split(' ');
        Joined {
            server_pid: words.next().unwrap().parse().unwrap_or_else(|_| panic!("{line}")),
            started: words.next().unwrap() == "true",
        }
    }

    /// The next thing that the peer says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.split_once(TAG) {
                return said.trim().to_owned();
            }
            line.clear();
        }
        panic!("the peer ended without a word");
    }

    /// Lets the peer leave; whether it was the last one.
    pub fn leave(mut self) -> bool {
        drop(self.input.take());
        let last = self.line() == "true";
        assert!(self.child.wait().unwrap().success());
        last
    }

    /// As `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "runs as a child process of other tests"]
fn peer() {
    let say = |text: String| writeln!(std::io::stdout(), "{TAG}{text}").unwrap();
    match EmbeddedServer::join(URL, &Options::from_env()) {
        Ok(server) => {
            say(format!("{} {}", server.pid(), server.started_here()));
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            say(server.leave().unwrap().to_string());
        }
        Err(error) => say(format!("error {error}")),
    }
}
