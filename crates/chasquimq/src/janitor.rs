//! Forgets the consumers of workers that died, as long as this promoter leads.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Store;

/// The longest time between two looks.
const INTERVAL: Duration = Duration::from_mins(5);
/// Consumers forgotten in one look, at most.
const MOST: usize = 1000;

/// Looks for consumers that have long been silent.
pub(crate) struct Janitor {
    silence: Duration,
    due: Instant,
    failing: bool,
}

impl Janitor {
    /// One that forgets consumers after so much silence; never, where it is zero.
    pub(crate) fn new(silence: Duration) -> Self {
        Self { silence, due: Instant::now(), failing: false }
    }

    /// Looks, if it is time to; how long until the next look.
    pub(crate) async fn tick(&mut self, store: &Store) -> Duration {
        if self.silence.is_zero() {
            return Duration::MAX;
        }
        if self.due <= Instant::now() {
            self.due = Instant::now() + INTERVAL.min(self.silence / 2);
            self.look(store).await;
        }
        self.due.saturating_duration_since(Instant::now())
    }

    /// A failure is no reason to stop promoting; it is logged when it begins.
    async fn look(&mut self, store: &Store) {
        match store.forget_consumers(self.silence, MOST).await {
            Ok(forgotten) => {
                self.failing = false;
                if forgotten > 0 {
                    tracing::info!(forgotten, "forgot consumers of workers that died");
                }
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, "cannot look for consumers of workers that died; they stay");
            }
            Err(_) => {}
        }
    }
}
