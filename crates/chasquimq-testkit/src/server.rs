//! A server of one's own: started, hurt, restarted, and gone when dropped.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::certificates::{Authority, Identity};
use crate::client::Client;
use crate::kind::ServerKind;
use crate::login::Login;
use crate::process::Process;
use crate::reply::Reply;

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(10);
/// What servers call the file that they save their data to.
const DUMP: &str = "dump.rdb";

/// What a server is to be before it starts. Made by [`Server::builder`].
#[derive(Clone, Debug, Default)]
pub struct ServerBuilder {
    kind: Option<ServerKind>,
    aof: bool,
    config: Vec<(String, String)>,
    role: Option<Role>,
    tls: bool,
    dump: Option<PathBuf>,
}

/// What a server process is, if it is not what `CHASQUIMQ_TEST_TOPOLOGY` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A server of its own.
    Alone,
    /// A node of a cluster whose slots somebody else will give it.
    Node,
    /// A cluster of one node, which owns every slot.
    OneNodeCluster,
    /// A Sentinel.
    Sentinel,
}

impl Role {
    /// `cluster` in `CHASQUIMQ_TEST_TOPOLOGY` makes a cluster of one node of every plain server.
    fn of_environment() -> Self {
        match std::env::var("CHASQUIMQ_TEST_TOPOLOGY").as_deref() {
            Ok("cluster") => Self::OneNodeCluster,
            _ => Self::Alone,
        }
    }

    fn is_clustered(self) -> bool {
        matches!(self, Self::Node | Self::OneNodeCluster)
    }

    /// The user that `CHASQUIMQ_TEST_ACL` makes of the code under test; Sentinels have none.
    fn login(self) -> Option<Login> {
        Login::of_environment().filter(|_| self != Self::Sentinel)
    }
}

impl ServerBuilder {
    /// Which server; default [`ServerKind::chosen`]. On one that is named here the user of
    /// `CHASQUIMQ_TEST_ACL` may do everything, since those rights are spelled for the chosen one.
    #[must_use]
    pub fn kind(mut self, kind: ServerKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Whether it keeps its data on disk, each write before its reply; default no. Then
    /// [`Server::restart`] loses nothing.
    #[must_use]
    pub fn aof(mut self, aof: bool) -> Self {
        self.aof = aof;
        self
    }

    /// A line of its configuration file, such as `("maxmemory", "1mb")`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Begins with the data of this file, which [`Server::dump`] of another server made.
    #[must_use]
    pub fn dump(mut self, dump: PathBuf) -> Self {
        self.dump = Some(dump);
        self
    }

    /// No node of a cluster, whatever `CHASQUIMQ_TEST_TOPOLOGY` says: for a primary and its replica.
    #[must_use]
    pub fn standalone(self) -> Self {
        self.role(Role::Alone)
    }

    /// Speaks TLS alone on its port, with this certificate; asks clients for one that `clients` signed.
    /// See [`ServerKind::has_tls`].
    #[must_use]
    pub fn tls(mut self, identity: &Identity, clients: Option<&Authority>) -> Self {
        self.tls = true;
        // The nodes of a cluster would want certificates of each other's, too.
        self.role = Some(Role::Alone);
        let path = |path: &Path| path.display().to_string();
        let ca = clients.map_or_else(|| identity.cert.clone(), Authority::file);
        self.config("tls-cert-file", &path(&identity.cert))
            .config("tls-key-file", &path(&identity.key))
            .config("tls-ca-cert-file", &path(&ca))
            .config("tls-auth-clients", if clients.is_some() { "yes" } else { "no" })
    }

    pub(crate) fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer within 10 s; the message holds its log.
    pub async fn start(self) -> Server {
        let started = spawn_blocking(move || self.start_blocking()).await;
        match started {
            Ok(Ok(server)) => server,
            Ok(Err(error)) => panic!("no test server: {error:#}"),
            Err(error) => panic!("no test server: {error}"),
        }
    }

    fn start_blocking(self) -> Result<Server> {
        let kind = self.kind.clone().map_or_else(ServerKind::chosen, Ok)?;
        let version = kind.version()?;
        let role = self.role.unwrap_or_else(Role::of_environment);
        let dir = tempfile::Builder::new().prefix("chasquimq-test-").tempdir()?;
        if let Some(dump) = &self.dump {
            std::fs::copy(dump, dir.path().join(DUMP)).context("the dump is not there")?;
        }
        let deadline = Instant::now() + START;
        loop {
            let port = free_port(role.is_clustered())?;
            let file = self.config_file(role, dir.path(), port);
            std::fs::write(dir.path().join("server.conf"), file)?;
            match launch(kind.path(), dir.path(), role)? {
                Launched::Ready(process) => {
                    let running = Mutex::new(Some(process));
                    let client = Arc::new(Mutex::new(self.client(dir.path())));
                    let server = Server { running, client, kind, version, port, dir, role };
                    if role == Role::OneNodeCluster {
                        server.own_every_slot()?;
                    }
                    return Ok(server);
                }
                Launched::PortTaken if Instant::now() < deadline => {}
                Launched::PortTaken => bail!("no free port on 127.0.0.1"),
            }
        }
    }

    fn client(&self, dir: &Path) -> Client {
        let mut lines = self.config.iter();
        let password =
            lines.find(|(name, _)| name == "requirepass").map(|(_, value)| value.clone());
        Client::new(dir.join("server.sock"), password)
    }

    fn config_file(&self, role: Role, dir: &Path, port: u16) -> String {
        let dir = dir.display();
        let ports =
            if self.tls { format!("port 0\ntls-port {port}") } else { format!("port {port}") };
        let mut file = format!(
            "bind 127.0.0.1\n{ports}\nunixsocket {dir}/server.sock\ndir {dir}\ndaemonize no\n"
        );
        if role != Role::Sentinel {
            let aof = if self.aof { "yes" } else { "no" };
            let _ = writeln!(file, "save \"\"\nappendonly {aof}\nappendfsync always");
        }
        if role.is_clustered() {
            file.push_str("cluster-enabled yes\n");
        }
        if let Some(login) = role.login() {
            let line = if self.kind.is_none() { login.line() } else { login.line_of_all_rights() };
            let _ = writeln!(file, "{line}");
        }
        for (name, value) in &self.config {
            let value = if value.is_empty() { "\"\"" } else { value };
            let _ = writeln!(file, "{name} {value}");
        }
        file
    }
}

/// A server of one's own on 127.0.0.1, with a folder of its own. Dropping it kills it.
pub struct Server {
    running: Mutex<Option<Process>>,
    client: Arc<Mutex<Client>>,
    kind: ServerKind,
    version: String,
    port: u16,
    dir: TempDir,
    role: Role,
}

impl Server {
    /// Starts the server of this test run ([`ServerKind::chosen`]) without persistence.
    ///
    /// # Panics
    /// As [`ServerBuilder::start`].
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A server that differs from the plain one.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// `redis://127.0.0.1:port`, or `redis-cluster://…` when it is a node of a cluster; with user and
    /// password when `CHASQUIMQ_TEST_ACL` says who the code under test is to be.
    pub fn url(&self) -> String {
        self.role.login().map_or_else(|| self.place(""), |login| self.url_as(&login.words()))
    }

    /// The same for a user of the test's own, `name:password`.
    pub fn url_as(&self, login: &str) -> String {
        self.place(&format!("{login}@"))
    }

    fn place(&self, login: &str) -> String {
        let scheme = if self.role.is_clustered() { "redis-cluster" } else { "redis" };
        format!("{scheme}://{login}127.0.0.1:{}", self.port)
    }

    /// The name of its kind, such as `redis-7.0`.
    pub fn name(&self) -> &str {
        self.kind.name()
    }

    /// Its version, such as `7.0.15`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its TCP port; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("server.sock")
    }

    /// Saves its data to a file, for [`ServerBuilder::dump`]; gone with this server.
    ///
    /// # Panics
    /// When the server refuses or is down.
    pub async fn dump(&self) -> PathBuf {
        let reply = self.command(&["SAVE"]).await;
        assert_eq!(reply.error(), None, "no dump");
        self.dir.path().join(DUMP)
    }

    /// Kills it as the kernel would; nothing is flushed. Nothing happens when it is down.
    pub fn kill9(&self) {
        lock(&self.running).take();
    }

    /// Starts it again on its port, in its folder and with its configuration; kills it first when it runs.
    ///
    /// # Panics
    /// When it does not answer within 10 s.
    pub async fn restart(&self) {
        self.kill9();
        let (binary, dir) = (self.kind.path().to_owned(), self.dir.path().to_owned());
        let (role, client) = (self.role, Arc::clone(&self.client));
        let relaunched = spawn_blocking(move || relaunch(&binary, &dir, role, &client)).await;
        match relaunched {
            Ok(Ok(process)) => *lock(&self.running) = Some(process),
            Ok(Err(error)) => panic!("the test server does not come back: {error:#}"),
            Err(error) => panic!("the test server does not come back: {error}"),
        }
    }

    /// Stops it where it stands (SIGSTOP): connections stay open, nothing is answered.
    ///
    /// # Panics
    /// When it is down.
    pub fn stop_signal(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    /// When it is down.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn own_every_slot(&self) -> Result<()> {
        let slots = (0..16384).map(|slot: u16| slot.to_string().into_bytes());
        let words = [b"CLUSTER".to_vec(), b"ADDSLOTS".to_vec()];
        lock(&self.client).command(&words.into_iter().chain(slots).collect::<Vec<_>>())?;
        await_slots(&self.client)
    }

    fn signal(&self, signal: Signal) {
        let running = lock(&self.running);
        let process = running.as_ref().expect("the test server is down");
        process.signal(signal).expect("the test server takes signals");
    }

    /// Sends a command over a connection apart from everything under test and returns the reply; an error
    /// of the server is a [`Reply::Error`].
    ///
    /// # Panics
    /// When the server is down or does not answer within 10 s.
    pub async fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> Reply {
        match self.try_command(args).await {
            Ok(reply) => reply,
            Err(error) => panic!("the test server does not answer: {error}"),
        }
    }

    /// As [`Server::command`], for a server that may be down.
    ///
    /// # Errors
    /// When the server cannot be reached or does not answer within 10 s.
    pub async fn try_command<A: AsRef<[u8]>>(&self, args: &[A]) -> io::Result<Reply> {
        let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_ref().to_vec()).collect();
        // Blocking, because tests share one connection and each test has a runtime of its own.
        let client = Arc::clone(&self.client);
        spawn_blocking(move || lock(&client).command(&args)).await.map_err(io::Error::other)?
    }
}

enum Launched {
    Ready(Process),
    PortTaken,
}

/// Starts the server of `dir` and waits until it answers.
fn launch(binary: &Path, dir: &Path, role: Role) -> Result<Launched> {
    let log = dir.join("server.log");
    std::fs::write(&log, "")?;
    let process = Process::spawn(binary, dir, role == Role::Sentinel)?;
    // Its Unix socket, since another server might answer on the port.
    let mut client = Client::new(dir.join("server.sock"), None);
    let deadline = Instant::now() + START;
    loop {
        // Every answer counts, a refusal for want of a password too.
        if client.command(&[b"PING".to_vec()]).is_ok_and(|reply| !is_loading(&reply)) {
            return Ok(Launched::Ready(process));
        }
        let text = std::fs::read_to_string(&log).context("the server has no log")?;
        if text.contains("already in use") {
            return Ok(Launched::PortTaken);
        }
        if Instant::now() > deadline || text.contains("FATAL CONFIG") {
            bail!("{} does not answer; its log:\n{text}", binary.display());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The port is the same as before, so one that is taken for a moment is waited for.
fn relaunch(binary: &Path, dir: &Path, role: Role, client: &Mutex<Client>) -> Result<Process> {
    let deadline = Instant::now() + START;
    loop {
        match launch(binary, dir, role)? {
            Launched::Ready(process) => {
                if role == Role::OneNodeCluster {
                    await_slots(client)?;
                }
                return Ok(process);
            }
            Launched::PortTaken if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Launched::PortTaken => bail!("its port is taken"),
        }
    }
}

/// Waits until a cluster of one node serves its slots, which takes it two seconds after each start.
fn await_slots(client: &Mutex<Client>) -> Result<()> {
    let deadline = Instant::now() + START;
    let info = [b"CLUSTER".to_vec(), b"INFO".to_vec()];
    while !lock(client).command(&info)?.text().contains("cluster_state:ok") {
        if Instant::now() > deadline {
            bail!("the cluster of one node does not serve its slots");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn is_loading(reply: &Reply) -> bool {
    reply.error().is_some_and(|error| error.starts_with("LOADING"))
}

/// A port below those that the kernel gives to outgoing connections: a client that dials a dead server on
/// one of those may connect to itself and hold the port.
fn free_port(with_bus: bool) -> Result<u16> {
    /// A node of a cluster listens on a second port, so far above the first.
    const BUS: u16 = 10_000;
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..COUNT {
        // Processes that start together spread out by their ids.
        let start = std::process::id() as u16;
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_mul(61).wrapping_add(step) % COUNT;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && (!with_bus || is_free(port + BUS)) {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
