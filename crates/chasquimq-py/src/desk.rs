//! Desk: between the engine and the handlers. Jobs are fetched from it when a slot is free, so that
//! none is held back here from other consumers; endings gather on it and are stored together.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chasquimq::{Delivery, Ending, Session};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Endings that are stored without waiting for more.
const ENOUGH: usize = 128;

/// How long an ending may wait for others while its slot goes on with the next job.
const PATIENCE: Duration = Duration::from_millis(1);

/// The desk of one consumer.
pub struct Desk {
    session: Session,
    lot: Lot,
    jobs: Mutex<Jobs>,
    /// Somebody has looked in vain.
    asked: Notify,
    endings: Mutex<Vec<Ending>>,
    /// Endings wait for the timer.
    timed: AtomicBool,
    timer: Notify,
}

/// How many jobs are handed over at a time, and how long the first of them waits for the others.
#[derive(Clone, Copy)]
pub struct Lot {
    pub size: usize,
    pub wait: Duration,
}

#[derive(Default)]
struct Jobs {
    gathered: Vec<Delivery>,
    /// They are a lot, complete or not.
    ripe: bool,
    /// [`Desk::watch`] gathers them and tells when they are ripe.
    watched: bool,
    closed: bool,
}

impl Desk {
    pub fn new(session: Session, lot: Lot) -> Self {
        Self {
            session,
            lot,
            jobs: Mutex::default(),
            asked: Notify::new(),
            endings: Mutex::default(),
            timed: AtomicBool::new(false),
            timer: Notify::new(),
        }
    }

    /// The next lot for the caller's free slot; none when [`Desk::watch`] is going to tell of one.
    pub fn next(&self) -> Vec<Delivery> {
        loop {
            let mut jobs = lock(&self.jobs);
            let has_waited = jobs.ripe;
            if !self.gather(&mut jobs) {
                return vec![];
            }
            jobs.ripe = false;
            let mut lot = std::mem::take(&mut jobs.gathered);
            drop(jobs);
            if has_waited {
                // Perhaps for a process that was stopped, or a loop that was blocked.
                lot.retain(|delivery| self.session.may_start(delivery));
            }
            if !lot.is_empty() {
                for delivery in &lot {
                    self.session.started(delivery);
                }
                return lot;
            }
        }
    }

    /// Whether there is a lot for another free slot; if not, [`Desk::watch`] is going to tell.
    pub fn look(&self) -> bool {
        self.gather(&mut lock(&self.jobs))
    }

    fn gather(&self, jobs: &mut Jobs) -> bool {
        if !jobs.watched && !jobs.ripe {
            let lacking = self.lot.size - jobs.gathered.len();
            // An inbox that is closed gives none at once: that is found out by watching, too.
            let taken = at_once(self.session.take(lacking)).unwrap_or_default();
            if jobs.gathered.is_empty() {
                // Nearly always, so the list itself instead of a copy.
                jobs.gathered = taken;
            } else {
                jobs.gathered.extend(taken);
            }
            let count = jobs.gathered.len();
            jobs.ripe = count == self.lot.size || count > 0 && self.lot.wait.is_zero();
            if !jobs.ripe && !jobs.closed {
                jobs.watched = true;
                self.asked.notify_one();
            }
        }
        if jobs.ripe {
            self.store_soon();
        } else {
            self.store();
        }
        jobs.ripe
    }

    /// Gathers lots that are asked for, and tells of each; ends with the session.
    pub async fn watch(&self, tell: impl Fn()) {
        loop {
            self.asked.notified().await;
            let gathered = std::mem::take(&mut lock(&self.jobs).gathered);
            let lot = self.session.take_batch(gathered, self.lot.size, self.lot.wait).await;
            let ended = lot.is_empty();
            let mut jobs = lock(&self.jobs);
            jobs.closed |= ended;
            if !jobs.closed {
                (jobs.gathered, jobs.ripe) = (lot, true);
            }
            jobs.watched = false;
            drop(jobs);
            if ended {
                return;
            }
            tell();
        }
    }

    /// Hands out no more; what nobody has fetched goes back.
    pub fn close(&self) {
        let mut jobs = lock(&self.jobs);
        (jobs.closed, jobs.ripe) = (true, false);
        drop(std::mem::take(&mut jobs.gathered));
        // So that the watch finds the session stopped.
        self.asked.notify_one();
    }

    /// Keeps endings until several are stored together: at the next look at the desk, or soon.
    pub fn end(&self, ended: impl IntoIterator<Item = Ending>) {
        let mut endings = lock(&self.endings);
        endings.extend(ended);
        if endings.len() >= ENOUGH {
            let endings = std::mem::take(&mut *endings);
            self.session.settle(endings);
        }
    }

    /// Has the endings stored.
    pub fn store(&self) {
        let endings = std::mem::take(&mut *lock(&self.endings));
        if !endings.is_empty() {
            self.session.settle(endings);
        }
    }

    /// Has the endings stored when others have had time to join them.
    fn store_soon(&self) {
        // Asked first, for it costs least: the timer is set for most jobs of a busy worker.
        if self.timed.load(Ordering::Acquire) || lock(&self.endings).is_empty() {
            return;
        }
        if !self.timed.swap(true, Ordering::AcqRel) {
            self.timer.notify_one();
        }
    }

    /// Stores endings that nobody else does.
    pub async fn tidy(&self) {
        loop {
            self.timer.notified().await;
            sleep(PATIENCE).await;
            self.timed.store(false, Ordering::Release);
            self.store();
        }
    }
}

/// What a future gives without waiting.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
