//! A running consumer without a dispatcher: the verbs that a dispatcher or a binding needs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::delivery::{Delivery, Ending};
use super::held::{Hold, Limits};
use super::supervisor::supervise;
use super::{leases, reader, settler};
use crate::config::ConsumerConfig;
use crate::error::{ErrorKind, Result};
use crate::lifecycle::Policy;
use crate::metrics::{Guarded, QueueCounts};
use crate::promoter::Lead;
use crate::store::Store;

/// Job names remembered as shared strings; beyond that each delivery makes its own.
const MOST_NAMES: usize = 1024;
/// Endings that may wait for the store before the reader stops asking for more.
const MOST_UNSETTLED: usize = 4096;
/// Full reads whose jobs may be held ready, where jobs are so short that even these last milliseconds.
const READS_AHEAD: usize = 8;

/// The longest that a loop pauses between two rounds, with time to spare.
const LONGEST_TURN: Duration = Duration::from_secs(20);

/// A running consumer. Clones share it; when the last is dropped everything stops, and what was
/// held comes back to other consumers within one lease. [`Session::close`] hands it back at once.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<Option<Tasks>>>,
}

/// What every task of a session sees.
pub(super) struct Shared {
    pub store: Store,
    pub config: ConsumerConfig,
    pub policy: Policy,
    pub metrics: Arc<Guarded>,
    pub hold: Arc<Hold>,
    /// Ends reading and everything that depends on it.
    pub stop: CancellationToken,
    pub counts: Counts,
    /// Held from asking for pending entries until those that came are held.
    pub taking_over: tokio::sync::Mutex<()>,
    names: Mutex<HashMap<Bytes, Arc<str>>>,
    no_name: Arc<str>,
}

/// What a session has done so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub finished: AtomicU64,
    pub released: AtomicU64,
    pub last_read_ms: AtomicU64,
    /// When the sweeper last began a round.
    pub last_turn_ms: AtomicU64,
    /// Until when entries may be found that came in a reply that was lost.
    pub missing_until_ms: AtomicU64,
    pub last_error: Mutex<Option<String>>,
}

/// One attempt at a task's work.
type Task = fn(Arc<Shared>) -> BoxFuture<'static, Result<()>>;

struct Tasks {
    intake: JoinSet<()>,
    rest: JoinSet<()>,
    _stop_on_drop: DropGuard,
}

/// What became of the jobs a consumer was given.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Jobs done, retried or dead: their end is stored.
    pub finished: u64,
    /// Jobs handed back unfinished.
    pub released: u64,
    /// Jobs whose end could not be stored in time; they come back within one lease.
    pub abandoned: u64,
}

/// Whether a session works.
#[derive(Clone, Debug)]
pub struct Health {
    /// Its loops turn, whatever the server does, or it has been told to stop.
    pub live: bool,
    /// It reads, or waits for a free slot.
    pub reading: bool,
    /// Milliseconds since a read or a wait for work last ended well.
    pub last_read_ms_ago: u64,
    /// Jobs delivered and not ended.
    pub running: usize,
    /// The last fault of a read, until one works again.
    pub last_error: Option<String>,
}

impl Session {
    /// Connects, makes the consumer group where it is missing, and starts to read.
    ///
    /// # Errors
    /// A bad configuration, a server that cannot be reached or is too old, or a queue that another
    /// group consumes.
    pub async fn start(url: &str, config: ConsumerConfig) -> Result<Self> {
        config.validate()?;
        let metrics = Arc::new(Guarded::new(Arc::clone(&config.metrics)));
        let (name, told) = (&config.queue_name, Some(Arc::clone(&metrics)));
        let store = Store::connect(url, name, &config.connection, &config.events, told).await?;
        store.warn_of_eviction().await;
        let queue = format!("starting to consume queue {:?}", config.queue_name);
        enter(&store, &config.group).await.map_err(|error| error.context(queue))?;
        let shared = Arc::new(Shared::new(store, metrics, config));
        let tasks = Tasks::spawn(&shared);
        Ok(Self { shared, tasks: Arc::new(Mutex::new(Some(tasks))) })
    }

    /// Waits for jobs; at most `max`. None means that the session stops: ask no more.
    pub async fn take(&self, max: usize) -> Vec<Delivery> {
        self.shared.hold.take(max.max(1)).await
    }

    /// Waits for jobs, and after the first for `wait` until there are `max`. `begun` may hold some
    /// already. None means that the session stops.
    pub async fn take_batch(
        &self,
        begun: Vec<Delivery>,
        max: usize,
        wait: Duration,
    ) -> Vec<Delivery> {
        let mut batch = if begun.is_empty() { self.take(max).await } else { begun };
        let until = Instant::now() + wait;
        while !batch.is_empty() && batch.len() < max {
            let more = timeout_at(until, self.take(max - batch.len())).await.unwrap_or_default();
            if more.is_empty() {
                break;
            }
            batch.extend(more);
        }
        batch
    }

    /// Waits for one job; `None` means that the session stops.
    pub(super) async fn take_one(&self) -> Option<Delivery> {
        self.shared.hold.take_one().await
    }

    /// Whether nobody else can have a job that was taken, but waits for its handler. One whose lease has ended
    /// may run elsewhere: drop it, and it goes back if it is still this consumer's.
    #[must_use]
    pub fn may_start(&self, delivery: &Delivery) -> bool {
        let hold = &self.shared.hold;
        hold.may_start(delivery, hold.clock_ms())
    }

    /// Hands over how deliveries ended; they are stored in batches. Never blocks.
    pub fn settle(&self, endings: impl IntoIterator<Item = Ending>) {
        self.shared.hold.settle(endings);
    }

    /// Tells the metrics that a handler is about to run.
    pub fn started(&self, delivery: &Delivery) {
        reader::tell_started(&self.shared, delivery);
    }

    /// Stops reading. Deliveries that nobody has taken go back at once, attempt unchanged.
    pub fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.hold.close_inbox();
    }

    /// Stops, waits until every ending is stored, but no longer than `grace`, and leaves the group.
    /// Deliveries that are still running are reported as abandoned.
    pub async fn close(&self, grace: Duration) -> Report {
        self.stop();
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            if timeout(grace, tasks.end(&self.shared.hold)).await.is_err() {
                tracing::warn!("not everything was stored within {grace:?}; see the report");
            }
            tasks.rest.shutdown().await;
            if timeout(Duration::from_secs(1), self.shared.leave()).await.is_err() {
                tracing::warn!("could not leave the consumer group in time");
            }
        }
        self.shared.counts.report(&self.shared.hold)
    }

    /// The queue that it consumes.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.shared.config.queue_name
    }

    /// What the queue holds now, all its consumers together.
    ///
    /// # Errors
    /// Those of the connection and the server.
    pub async fn counts(&self) -> Result<QueueCounts> {
        self.shared.store.inspect().await
    }

    /// Whether it works.
    #[must_use]
    pub fn health(&self) -> Health {
        let (counts, hold) = (&self.shared.counts, &self.shared.hold);
        let last_error = counts.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ms_ago =
            |then: &AtomicU64| hold.clock_ms().saturating_sub(then.load(Ordering::Relaxed));
        let stopping = self.shared.stop.is_cancelled();
        // A round may wait for a reply for as long as a command may.
        let turn = LONGEST_TURN + self.shared.config.connection.command_timeout;
        Health {
            live: stopping || u128::from(ms_ago(&counts.last_turn_ms)) < turn.as_millis(),
            reading: !stopping && last_error.is_none(),
            last_read_ms_ago: ms_ago(&counts.last_read_ms),
            running: hold.running(),
            last_error,
        }
    }
}

impl Shared {
    fn new(store: Store, metrics: Arc<Guarded>, config: ConsumerConfig) -> Self {
        let policy = Policy {
            max_attempts: config.max_attempts,
            max_lost: config.max_lost,
            retry: config.retry.clone(),
        };
        Self {
            metrics,
            hold: Arc::new(Hold::new(Limits {
                concurrency: config.concurrency,
                prefetch: config.prefetch,
                most_ahead: READS_AHEAD * config.batch,
                most_unsettled: MOST_UNSETTLED,
                lease: config.lease(),
            })),
            stop: CancellationToken::new(),
            counts: Counts::default(),
            taking_over: tokio::sync::Mutex::default(),
            names: Mutex::default(),
            no_name: "".into(),
            store,
            config,
            policy,
        }
    }

    pub fn group(&self) -> &str {
        &self.config.group
    }

    pub fn consumer(&self) -> &str {
        &self.config.consumer_id
    }

    /// A job's name as a shared string.
    pub fn name(&self, name: &Bytes) -> Arc<str> {
        if name.is_empty() {
            return Arc::clone(&self.no_name);
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = String::from_utf8_lossy(name).into();
        if names.len() < MOST_NAMES {
            names.insert(Bytes::copy_from_slice(name), Arc::clone(&new));
        }
        new
    }

    /// Makes the group again after the stream, or the whole data set, has gone.
    pub async fn recover_group(&self) -> Result<()> {
        tracing::error!(
            queue = self.config.queue_name,
            "the queue's stream is gone (FLUSHALL, DEL, or a restart without persistence): jobs may \
             be lost; making the consumer group again"
        );
        enter(&self.store, self.group()).await
    }

    /// Runs a task's work once. Where it failed for want of the group, that is made again first.
    async fn attempt(self: &Arc<Self>, task: Task) -> Result<()> {
        match task(Arc::clone(self)).await {
            Err(error) if error.kind() == ErrorKind::NoGroup => {
                self.recover_group().await?;
                Err(error)
            }
            result => result,
        }
    }

    async fn leave(&self) {
        match self.store.leave(self.group(), self.consumer()).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("left with jobs in hand; they come back within one lease"),
            Err(error) => tracing::warn!(%error, "could not leave the consumer group"),
        }
        self.store.close().await;
    }
}

async fn enter(store: &Store, group: &str) -> Result<()> {
    store.enter(group).await.map(drop)
}

impl Counts {
    fn report(&self, hold: &Hold) -> Report {
        Report {
            finished: self.finished.load(Ordering::Relaxed),
            released: self.released.load(Ordering::Relaxed),
            abandoned: (hold.running() + hold.unsettled()) as u64,
        }
    }
}

impl Tasks {
    fn spawn(shared: &Arc<Shared>) -> Self {
        let (mut intake, mut rest) = (JoinSet::new(), JoinSet::new());
        // Settling and renewing outlive reading; they end with their set.
        let never = CancellationToken::new();
        let stop = shared.stop.clone();
        Self::add(&mut intake, shared, &stop, "reader", |s| {
            async move { reader::read(&s).await }.boxed()
        });
        Self::add(&mut intake, shared, &stop, "sweeper", |s| {
            async move { reader::sweep(&s).await }.boxed()
        });
        Self::add(&mut rest, shared, &never, "settler", |s| {
            async move { settler::run(&s).await }.boxed()
        });
        Self::add(&mut rest, shared, &never, "leases", |s| {
            async move { leases::run(&s).await }.boxed()
        });
        if shared.config.delayed_enabled {
            let (shared, stop) = (Arc::clone(shared), stop.clone());
            intake.spawn(async move {
                let config = &shared.config;
                let lead = Lead::new(
                    &config.consumer_id,
                    config.delayed_lock_ttl_secs,
                    config.delayed_promote_batch,
                    config.consumer_max_idle(),
                );
                lead.run(&shared.store, &shared.metrics, &stop).await;
            });
        }
        Self { intake, rest, _stop_on_drop: stop.drop_guard() }
    }

    fn add(
        set: &mut JoinSet<()>,
        shared: &Arc<Shared>,
        until: &CancellationToken,
        name: &'static str,
        task: Task,
    ) {
        let (shared, until) = (Arc::clone(shared), until.clone());
        set.spawn(async move {
            let attempt = || shared.attempt(task);
            supervise(name, &shared.metrics, &until, attempt).await;
        });
    }

    /// Waits for the reader's last reply, hands back what it brought, and for every ending.
    async fn end(&mut self, hold: &Hold) {
        while self.intake.join_next().await.is_some() {}
        hold.close_inbox();
        hold.drained().await;
    }
}
