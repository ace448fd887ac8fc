//! One run: a server, its fleet, the harm that is planned, and what is left when all is over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use chasquimq_testkit::{Server, ServerKind};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::fleet::{Fleet, WORKERS};
use crate::inspect::{Inspector, lighten};
use crate::log::{Line, State};
use crate::oracle::{Rules, memory_limit};
use crate::peer::{Peer, quiet};
use crate::plan::{Durability, Faults, Step, crashes, network_and_workers};
use crate::workload::{BATCH, CONCURRENCY, LEASE, MAX_ATTEMPTS};

/// How long producers may wait for their last answers, and the queue may take to become empty.
const FINISHING: Duration = Duration::from_mins(1);
/// How long consumers and memory may take to go.
const CLEARING: Duration = Duration::from_secs(15);

/// What a run is.
#[derive(Clone, Debug)]
pub struct Setup {
    pub kind: ServerKind,
    pub seed: u64,
    /// How long jobs are added and harm is done.
    pub length: Duration,
    pub faults: Faults,
    /// The server is killed again and again; its AOF is synced like this.
    pub crash: Option<Durability>,
    /// Jobs a second.
    pub rate: u64,
    /// Whose processes are harmed.
    pub peer: Peer,
}

impl Setup {
    fn plan(&self) -> Vec<Step> {
        match (self.crash, self.faults) {
            (Some(_), _) => crashes(self.length),
            (None, Faults::All) => network_and_workers(self.seed, self.length),
            (None, Faults::None) => vec![],
        }
    }

    /// Tells the run from others of its suite.
    pub fn name(&self) -> String {
        let queue = if self.peer.is_ours() { "" } else { self.peer.name() };
        let words = [self.kind.name(), self.harm(), queue, &self.seed.to_string()].join("-");
        words.replace([' ', ',', '.'], "")
    }

    /// What is done, in a word.
    pub fn harm(&self) -> &'static str {
        match (self.crash, self.faults) {
            (Some(Durability::Always), _) => "server, AOF always",
            (Some(Durability::Everysec), _) => "server, AOF everysec",
            (None, Faults::All) => "network, workers",
            (None, Faults::None) => "none",
        }
    }

    async fn server(&self) -> Server {
        let server = Server::builder().kind(self.kind.clone()).aof(self.crash.is_some());
        match self.crash {
            Some(Durability::Everysec) => server.config("appendfsync", "everysec").start().await,
            _ => server.start().await,
        }
    }

    /// What the checker must know.
    pub fn rules(&self) -> Rules {
        let may_lose = match self.crash {
            Some(Durability::Everysec) => Duration::from_secs(2),
            _ => Duration::ZERO,
        };
        Rules {
            lease: LEASE,
            max_attempts: MAX_ATTEMPTS,
            concurrency: CONCURRENCY as u64,
            in_flight: (CONCURRENCY + 2 * BATCH) as u64,
            may_lose,
        }
    }
}

/// Runs it; what happened stands in the logs of `folder`.
pub async fn run(setup: &Setup, folder: &Path) -> Result<()> {
    let server = setup.server().await;
    lighten(&server).await;
    let memory_before = Inspector::of(&server).await?.memory(0, Duration::ZERO).await;
    let fleet = Arc::new(Fleet::start(server, folder, setup).await?);
    carry_out(&fleet, setup.plan()).await?;
    fleet.produced(setup.length + FINISHING).await?;
    let mut state = if setup.peer.is_ours() {
        look(&fleet, memory_before).await?
    } else {
        let drained = quiet(folder).await?;
        fleet.stop_workers().await?;
        State { drained, ..State::default() }
    };
    state.misdeeds = fleet.misdeeds();
    fleet.log().write(&Line::State(state))
}

/// Steps may overlap: some take seconds.
async fn carry_out(fleet: &Arc<Fleet>, plan: Vec<Step>) -> Result<()> {
    let begun = Instant::now();
    let mut steps = JoinSet::new();
    for step in plan {
        sleep_until(begun + step.at).await;
        let fleet = Arc::clone(fleet);
        steps.spawn(async move { fleet.harm(step).await });
    }
    while let Some(done) = steps.join_next().await {
        done.context("a step panicked")??;
    }
    Ok(())
}

/// Waits for the end, and tells what is left then.
async fn look(fleet: &Fleet, memory_before: u64) -> Result<State> {
    let inspector = Inspector::of(fleet.server()).await?;
    let drained = inspector.drained(FINISHING).await;
    let living = WORKERS as u64;
    let consumers = inspector.consumers(living, CLEARING).await;
    fleet.stop_workers().await?;
    let dead = inspector.dead().await?;
    let leftovers = inspector.leftovers().await?;
    let memory_after = inspector.memory(memory_limit(memory_before), CLEARING).await;
    Ok(State {
        drained,
        dead,
        leftovers,
        consumers,
        living,
        memory_before,
        memory_after,
        misdeeds: vec![],
    })
}
