//! Workers and producers, each behind a proxy of its own, and the harm that is done to them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use chasquimq_testkit::{ChaosProxy, Server};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::inspect::lighten;
use crate::log::{Fault, Harm, Line, Log, Nanos, now};
use crate::plan::Step;
use crate::process::Process;
use crate::run::Setup;

pub const WORKERS: usize = 3;
pub const PRODUCERS: u64 = 2;

/// The last worker is never killed, so that its memory can be watched.
const MORTALS: usize = WORKERS - 1;

/// How long a stall and a dribble last.
const SPELL: Duration = Duration::from_secs(2);
/// How long a process may take to begin.
const STARTING: Duration = Duration::from_secs(5);
/// How long a worker may take to stop: its own deadline and what storing takes beside it.
const STOPPING: Duration = Duration::from_secs(12);

/// All processes of a run.
pub struct Fleet {
    server: Server,
    folder: PathBuf,
    log: Log,
    workers: Vec<Worker>,
    producers: Vec<Producer>,
    misdeeds: StdMutex<Vec<String>>,
    /// What starts a process, before its role.
    command: Vec<OsString>,
}

/// The place of a worker: when one is killed, the next takes it.
struct Worker {
    place: String,
    proxy: ChaosProxy,
    now: Mutex<Incarnation>,
}

struct Incarnation {
    number: u32,
    process: Process,
}

struct Producer {
    name: String,
    proxy: ChaosProxy,
    process: Mutex<Process>,
}

impl Fleet {
    /// Starts everybody.
    pub async fn start(server: Server, folder: &Path, setup: &Setup) -> Result<Self> {
        let log = Log::open(&folder.join("runner.log"))?;
        let (mut workers, mut producers) = (Vec::new(), Vec::new());
        let command = setup.peer.command()?;
        for number in 0..WORKERS {
            let (place, proxy) = (format!("w{number}"), ChaosProxy::start(server.port()).await);
            let process = worker(&command, folder, &proxy, &place, 0)?;
            workers.push(Worker {
                place,
                proxy,
                now: Mutex::new(Incarnation { number: 0, process }),
            });
        }
        for number in 1..=PRODUCERS {
            let (name, proxy) = (format!("p{number}"), ChaosProxy::start(server.port()).await);
            let process = Mutex::new(producer(&command, folder, &proxy, (&name, number), setup)?);
            producers.push(Producer { name, proxy, process });
        }
        let folder = folder.to_owned();
        let misdeeds = StdMutex::default();
        Ok(Self { server, folder, log, workers, producers, misdeeds, command })
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What processes did that they must not.
    pub fn misdeeds(&self) -> Vec<String> {
        self.misdeeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does what the plan says, and writes it down.
    pub async fn harm(&self, step: Step) -> Result<()> {
        let from = now();
        let whom = match step.harm {
            Harm::Kill => return self.replace(step, true).await,
            Harm::Stop => return self.replace(step, false).await,
            Harm::FlushScripts => self.command(&["SCRIPT", "FLUSH"]).await?,
            // The connection of this command is spared.
            Harm::KillClients => {
                self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?
            }
            Harm::Crash => self.crash().await?,
            network => self.disturb(network, step.victim).await,
        };
        self.note(step.harm, whom, from)
    }

    fn note(&self, what: Harm, whom: String, from: Nanos) -> Result<()> {
        self.log.write(&Line::Fault(Fault { what, whom, from, to: now() }))
    }

    async fn command(&self, args: &[&str]) -> Result<String> {
        self.server.try_command(args).await?;
        Ok(String::new())
    }

    async fn crash(&self) -> Result<String> {
        self.server.kill9();
        sleep(Duration::from_millis(300)).await;
        self.server.restart().await;
        lighten(&self.server).await;
        // So that the next crash also meets a file that has been written anew.
        self.command(&["BGREWRITEAOF"]).await
    }

    /// Hurts one connection; whose.
    async fn disturb(&self, harm: Harm, victim: usize) -> String {
        let workers = self.workers.iter().map(|worker| (&worker.place, &worker.proxy));
        let producers = self.producers.iter().map(|producer| (&producer.name, &producer.proxy));
        let links: Vec<_> = workers.chain(producers).collect();
        let (whom, proxy) = links[victim % links.len()];
        match harm {
            Harm::Stall => {
                proxy.stall(true);
                sleep(SPELL).await;
                proxy.stall(false);
            }
            Harm::Dribble => {
                proxy.dribble(true);
                sleep(SPELL).await;
                proxy.dribble(false);
            }
            Harm::HalfClose => proxy.half_close(),
            Harm::LostReply => {
                proxy.lose_replies();
                // A blocked read is answered, and so lost, within half a second.
                sleep(Duration::from_millis(500)).await;
            }
            _ => proxy.cut(),
        }
        whom.clone()
    }

    /// Ends a worker and starts the next in its place.
    async fn replace(&self, step: Step, kill: bool) -> Result<()> {
        let worker = &self.workers[step.victim % MORTALS];
        let mut incarnation = worker.now.lock().await;
        let whom = format!("{}.{}", worker.place, incarnation.number);
        let from = now();
        if kill {
            self.check_alive(&whom, &mut incarnation.process)?;
            incarnation.process.kill().await?;
            self.note(Harm::Kill, whom, from)?;
            sleep(Duration::from_millis(500)).await;
        } else {
            self.stop(&whom, &mut incarnation.process).await?;
            self.note(Harm::Stop, whom, from)?;
        }
        incarnation.number += 1;
        let Worker { place, proxy, .. } = worker;
        incarnation.process =
            self::worker(&self.command, &self.folder, proxy, place, incarnation.number)?;
        Ok(())
    }

    fn check_alive(&self, whom: &str, process: &mut Process) -> Result<()> {
        if let Some(status) = process.ended()? {
            self.misdeed(format!("{whom} ended by itself: {status}"));
        }
        Ok(())
    }

    async fn stop(&self, whom: &str, process: &mut Process) -> Result<()> {
        self.check_alive(whom, process)?;
        if process.ended()?.is_some() {
            return Ok(());
        }
        self.begun(whom).await;
        process.terminate()?;
        match process.wait(STOPPING).await? {
            Some(status) if status.success() => {}
            Some(status) => self.misdeed(format!("{whom} ended with {status} when told to stop")),
            None => {
                self.misdeed(format!("{whom} did not stop within {STOPPING:?}"));
                process.kill().await?;
            }
        }
        Ok(())
    }

    /// Waits until a worker can be told to stop: before that the signal would merely end it.
    async fn begun(&self, whom: &str) {
        let log = self.folder.join(format!("{whom}.log"));
        let written = async {
            while !log.exists() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(STARTING, written).await.is_err() {
            self.misdeed(format!("{whom} did not begin within {STARTING:?}"));
        }
    }

    fn misdeed(&self, what: String) {
        self.misdeeds.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Waits until all producers have ended.
    pub async fn produced(&self, within: Duration) -> Result<()> {
        for Producer { name, process, .. } in &self.producers {
            let status = process.lock().await.wait(within).await?;
            let status = status.with_context(|| format!("{name} did not end within {within:?}"))?;
            if !status.success() {
                self.misdeed(format!("{name} ended with {status}"));
            }
        }
        Ok(())
    }

    /// Stops all workers.
    pub async fn stop_workers(&self) -> Result<()> {
        for worker in &self.workers {
            let mut incarnation = worker.now.lock().await;
            let whom = format!("{}.{}", worker.place, incarnation.number);
            self.stop(&whom, &mut incarnation.process).await?;
        }
        Ok(())
    }
}

fn worker(
    command: &[OsString],
    folder: &Path,
    proxy: &ChaosProxy,
    place: &str,
    number: u32,
) -> Result<Process> {
    let name = format!("{place}.{number}");
    let log = folder.join(format!("{name}.log"));
    let mut command = command.to_vec();
    command.extend(["worker", "--url", &proxy.url(), "--name", &name, "--log"].map(OsString::from));
    command.push(log.into());
    Process::start(&command, &folder.join(format!("{name}.err")))
}

fn producer(
    command: &[OsString],
    folder: &Path,
    proxy: &ChaosProxy,
    (name, number): (&str, u64),
    setup: &Setup,
) -> Result<Process> {
    let numbers = [
        ("--number", number),
        ("--seed", setup.seed),
        ("--millis", setup.length.as_millis() as u64),
        ("--rate", (setup.rate / PRODUCERS).max(1)),
    ];
    let mut command = command.to_vec();
    command.extend(["producer", "--url", &proxy.url()].map(OsString::from));
    for (name, value) in numbers {
        command.extend([name.into(), value.to_string().into()]);
    }
    command.extend(["--log".into(), folder.join(format!("{name}.log")).into()]);
    Process::start(&command, &folder.join(format!("{name}.err")))
}
