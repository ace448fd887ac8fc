//! The promoter moves due jobs from `delayed` to the stream. One leads a queue; the others wait.
//!
//! The leader sleeps until the next job is due and is woken when an earlier one is scheduled. The
//! script that promotes also takes or renews the lead, so a promoter that was paused past its
//! lock cannot do harm: every tick asks anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::PromoterConfig;
use crate::consumer::supervisor::supervise;
use crate::error::Result;
use crate::inspect::Collector;
use crate::janitor::Janitor;
use crate::metrics::{Guarded, LockOutcome, PromoterTick};
use crate::store::{Messages, Store, Tick};

/// A promoter on its own, for a queue whose consumers run with `delayed_enabled = false`.
pub struct Promoter {
    url: String,
    config: PromoterConfig,
}

impl Promoter {
    /// A promoter of this queue; nothing happens before [`Promoter::run`].
    pub fn new(url: impl Into<String>, config: PromoterConfig) -> Self {
        Self { url: url.into(), config }
    }

    /// Promotes until `shutdown` is cancelled, then gives up the lead.
    ///
    /// # Errors
    /// When it cannot start: a bad configuration, or a server that cannot be reached or used.
    /// Once started it goes on through every fault.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let Self { url, config } = self;
        config.validate()?;
        let metrics = Arc::new(Guarded::new(Arc::clone(&config.metrics)));
        let (queue, told) = (&config.queue_name, Some(Arc::clone(&metrics)));
        let store = Store::connect(&url, queue, &config.connection, &config.events, told).await?;
        let silence = Duration::from_secs(config.consumer_max_idle_secs);
        let lead =
            Lead::new(&config.holder_id, config.lock_ttl_secs, config.promote_batch, silence);
        lead.run(&store, &metrics, &shutdown).await;
        store.close().await;
        Ok(())
    }
}

/// One promoter's part in leading.
pub(crate) struct Lead {
    holder: String,
    lock_ttl: Duration,
    batch: usize,
    /// After which consumers are forgotten; zero: never.
    silence: Duration,
    last: std::sync::Mutex<Option<LockOutcome>>,
}

impl Lead {
    pub(crate) fn new(holder: &str, lock_ttl_secs: u64, batch: usize, silence: Duration) -> Self {
        let lock_ttl = Duration::from_secs(lock_ttl_secs);
        Self {
            holder: holder.to_owned(),
            lock_ttl,
            batch,
            silence,
            last: std::sync::Mutex::new(None),
        }
    }

    /// Promotes through every fault until `shutdown`.
    pub(crate) async fn run(&self, store: &Store, metrics: &Guarded, shutdown: &CancellationToken) {
        supervise("promoter", metrics, shutdown, || self.promote(store, metrics, shutdown)).await;
        if let Err(error) = store.unlock(&self.holder).await {
            tracing::debug!(%error, "could not give up the promoter lock; it expires");
        }
    }

    async fn promote(
        &self,
        store: &Store,
        metrics: &Guarded,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let mut reconnects = store.reconnects();
        let mut wakes = listen(store).await;
        let mut chores = self.chores();
        while !shutdown.is_cancelled() {
            let pause = self.tick(store, metrics, &mut chores).await?;
            tokio::select! {
                () = sleep(pause) => {}
                () = wakes.next() => {}
                () = reconnects.next() => wakes = listen(store).await,
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Promotes what is due; how long to sleep after it.
    async fn tick(
        &self,
        store: &Store,
        metrics: &Guarded,
        chores: &mut Chores,
    ) -> Result<Duration> {
        match store.promote(&self.holder, self.lock_ttl, self.batch).await? {
            Tick::Held { lock_left } => {
                *chores = self.chores();
                self.lock_is(LockOutcome::Held, metrics);
                Ok(lock_left.clamp(Duration::from_millis(50), self.lock_ttl))
            }
            Tick::Led { promoted, depth, lag_ms, next_due, fault } => {
                self.lock_is(LockOutcome::Acquired, metrics);
                let tick = PromoterTick { promoted, depth, oldest_pending_lag_ms: lag_ms };
                metrics.tell(|sink| sink.promoter_tick(tick));
                let look = chores.collector.tick(store, metrics).await;
                let pause = chores.janitor.tick(store).await.min(look).min(self.lock_ttl / 2);
                if let Some(fault) = fault {
                    return Err(fault.context("moving due jobs to the stream"));
                }
                Ok(next_due.map_or(pause, |due| due.min(pause)))
            }
        }
    }

    fn chores(&self) -> Chores {
        Chores { collector: Collector::default(), janitor: Janitor::new(self.silence) }
    }

    fn lock_is(&self, now: LockOutcome, metrics: &Guarded) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.replace(now) != Some(now) {
            metrics.tell(|sink| sink.promoter_lock_outcome(now));
        }
    }
}

/// What the leader does beside promoting.
struct Chores {
    collector: Collector,
    janitor: Janitor,
}

/// Wake-ups, or none for ever where the server does not let this user listen: then a job that is
/// scheduled earlier than all others waits for the next renewal of the lock.
async fn listen(store: &Store) -> Wakes {
    match store.wakes().await {
        Ok(messages) => Wakes(Some(messages)),
        Err(error) => {
            tracing::warn!(%error, "cannot listen for earlier jobs; short delays may start late");
            Wakes(None)
        }
    }
}

struct Wakes(Option<Messages>);

impl Wakes {
    async fn next(&mut self) {
        match &mut self.0 {
            Some(messages) => drop(messages.next().await),
            None => std::future::pending().await,
        }
    }
}
