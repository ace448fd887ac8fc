//! Inbox: jobs that were delivered and wait for a free slot.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::delivery::Delivery;

/// Deliveries in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Instant, Delivery)>,
    closed: bool,
    /// A taker has been woken and has not looked yet: it wakes the next.
    waking: bool,
}

impl Inbox {
    /// Takes deliveries in; `Err` gives them back when it is closed.
    pub fn put(&self, deliveries: Vec<Delivery>) -> Result<(), Vec<Delivery>> {
        let now = Instant::now();
        let mut state = self.state();
        if state.closed {
            return Err(deliveries);
        }
        state.waiting.extend(deliveries.into_iter().map(|delivery| (now, delivery)));
        self.wake_next(state);
        Ok(())
    }

    /// Waits for deliveries; at most `max`, none when the inbox is closed.
    pub async fn take(&self, max: usize) -> Vec<Delivery> {
        let several = |waiting: &mut VecDeque<(Instant, Delivery)>| {
            let count = waiting.len().min(max);
            let taken: Vec<_> = waiting.drain(..count).map(|(_, delivery)| delivery).collect();
            (count > 0).then_some(taken)
        };
        self.wait_for(several).await.unwrap_or_default()
    }

    /// Waits for one delivery; `None` when the inbox is closed.
    pub async fn take_one(&self) -> Option<Delivery> {
        self.wait_for(|waiting| waiting.pop_front().map(|(_, delivery)| delivery)).await
    }

    /// When the oldest has waited for `patience` and no slot has become free: all but the oldest
    /// `keep`.
    pub fn give_up(&self, patience: Duration, keep: usize) -> Vec<Delivery> {
        let mut state = self.state();
        let waits = |(since, _): &(Instant, Delivery)| since.elapsed() >= patience;
        if !state.waiting.front().is_some_and(waits) || state.waiting.len() <= keep {
            return vec![];
        }
        state.waiting.drain(keep..).map(|(_, delivery)| delivery).collect()
    }

    /// Takes no more in; what waits.
    pub fn close(&self) -> Vec<Delivery> {
        let mut state = self.state();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.arrived.notify_one();
        waiting.into_iter().map(|(_, delivery)| delivery).collect()
    }

    async fn wait_for<T>(
        &self,
        pick: impl Fn(&mut VecDeque<(Instant, Delivery)>) -> Option<T>,
    ) -> Option<T> {
        let mut woken = false;
        loop {
            {
                let mut state = self.state();
                state.waking &= !woken;
                if let Some(picked) = pick(&mut state.waiting) {
                    self.wake_next(state);
                    return Some(picked);
                }
                if state.closed {
                    self.arrived.notify_one();
                    return None;
                }
            }
            // A wake-up that is on its way while nobody listens is kept.
            self.arrived.notified().await;
            woken = true;
        }
    }

    /// Wakes one taker while something waits; it wakes the next when it has taken.
    fn wake_next(&self, mut state: MutexGuard<'_, State>) {
        if !state.waiting.is_empty() && !state.waking {
            state.waking = true;
            drop(state);
            self.arrived.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
