//! What a consumer holds: entries under lease, deliveries not ended, endings not stored.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::delivery::{Delivery, Ending, Parts};
use super::inbox::Inbox;
use super::pace::Pace;

/// How long endings wait for those of the other jobs of their entry.
const PATIENCE: Duration = Duration::from_millis(2);

/// An entry under lease.
#[derive(Debug)]
pub(crate) struct Entry {
    pub id: Bytes,
    /// Jobs in it, settled ones included.
    pub total: usize,
    /// Jobs of it that this consumer has not seen settled.
    open: AtomicUsize,
    /// When the lease last began, in milliseconds since the hold was made.
    leased_ms: AtomicU64,
    /// Another consumer has it.
    lost: AtomicBool,
}

impl Entry {
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn age_ms(&self, now_ms: u64) -> u128 {
        now_ms.saturating_sub(self.leased_ms.load(Ordering::Relaxed)).into()
    }
}

/// The three places a delivered job can be in, all bounded: the reader asks for no more than
/// [`Hold::room`].
#[derive(Debug)]
pub(crate) struct Hold {
    epoch: Instant,
    limits: Limits,
    entries: Mutex<HashMap<Bytes, Arc<Entry>, RandomState>>,
    inbox: Inbox,
    endings: Mutex<VecDeque<Ending>>,
    ended: Notify,
    /// Delivered, not ended.
    running: AtomicUsize,
    /// Ended, not stored.
    unsettled: AtomicUsize,
    freed: Notify,
    /// Ended, all in all.
    ended_ever: AtomicU64,
    pace: Mutex<Pace>,
    /// Jobs to hold ready now.
    depth: AtomicUsize,
}

/// How much may be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Jobs that run at the same time.
    pub concurrency: usize,
    /// Jobs held ready beside them; `None`: as many as end within some milliseconds.
    pub prefetch: Option<usize>,
    /// The most held ready where their number follows the pace.
    pub most_ahead: usize,
    /// Endings that may wait for the store.
    pub most_unsettled: usize,
    /// How long entries are held without a word of the server.
    pub lease: Duration,
}

impl Hold {
    pub fn new(limits: Limits) -> Self {
        Self {
            epoch: Instant::now(),
            limits,
            entries: Mutex::default(),
            inbox: Inbox::default(),
            endings: Mutex::default(),
            ended: Notify::new(),
            running: AtomicUsize::new(0),
            unsettled: AtomicUsize::new(0),
            freed: Notify::new(),
            ended_ever: AtomicU64::new(0),
            pace: Mutex::new(Pace::new(limits.most_ahead)),
            depth: AtomicUsize::new(limits.prefetch.unwrap_or(0)),
        }
    }

    /// How many more jobs may be taken in. None while there is enough to do for some milliseconds:
    /// few large reads cost less than many small ones.
    pub fn room(&self) -> usize {
        if self.unsettled() >= self.limits.most_unsettled {
            return 0;
        }
        let depth = self.depth();
        let room = (self.limits.concurrency + depth).saturating_sub(self.running());
        if room * 2 < depth && self.limits.prefetch.is_none() { 0 } else { room }
    }

    fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Fits the number of jobs held ready to the pace at which they end.
    pub fn adapt(&self) {
        if self.limits.prefetch.is_none() {
            let ended = self.ended_ever.load(Ordering::Relaxed);
            let depth = lock(&self.pace).saw(self.epoch.elapsed(), ended);
            self.depth.store(depth, Ordering::Relaxed);
        }
    }

    /// Hands back jobs that have waited for a free slot in vain: another consumer may have one.
    pub fn hand_back(&self, patience: Duration) {
        if self.limits.prefetch.is_none() {
            // Dropped, they become endings that release them.
            drop(self.inbox.give_up(patience, self.depth()));
        }
    }

    /// Waits until there is room; how much.
    pub async fn wait_for_room(&self) -> usize {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let room = self.room();
            if room > 0 {
                return room;
            }
            freed.await;
        }
    }

    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    pub fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    /// Milliseconds since the hold was made, for [`Hold::lease`].
    pub fn clock_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Begins to hold an entry, `None` when it is held already: its job still runs here.
    pub fn lease(&self, id: &Bytes, total: usize, open: usize, now_ms: u64) -> Option<Arc<Entry>> {
        let mut entries = lock(&self.entries);
        let place = match entries.entry(id.clone()) {
            Slot::Vacant(place) => place,
            Slot::Occupied(held) => {
                held.get().leased_ms.store(now_ms, Ordering::Relaxed);
                return None;
            }
        };
        let entry = Arc::new(Entry {
            id: id.clone(),
            total,
            open: AtomicUsize::new(open),
            leased_ms: AtomicU64::new(now_ms),
            lost: AtomicBool::new(false),
        });
        place.insert(Arc::clone(&entry));
        Some(entry)
    }

    /// Entries whose lease is at least so old. One whose jobs are all gone unsettled, which takes a
    /// panic of the engine, is held no longer: its lease runs out and its jobs come back.
    pub fn leases_older_than(&self, age: Duration) -> Vec<Arc<Entry>> {
        let limit = self.clock_ms().saturating_sub(age.as_millis() as u64);
        let mut entries = lock(&self.entries);
        entries.retain(|_, entry| Arc::strong_count(entry) > 1);
        let old = |entry: &&Arc<Entry>| entry.leased_ms.load(Ordering::Relaxed) <= limit;
        entries.values().filter(old).cloned().collect()
    }

    /// Whether the local clock says that nobody else can have claimed the entry by `now_ms`.
    pub fn is_fresh(&self, entry: &Entry, now_ms: u64) -> bool {
        !entry.is_lost() && entry.age_ms(now_ms) * 2 < self.limits.lease.as_millis()
    }

    /// Whether another consumer can have claimed the entry by `now_ms`. The local clock has run since
    /// before the server's: an entry that is younger and yet not this consumer's has been settled,
    /// by a settlement whose reply was lost.
    pub fn may_be_lost(&self, entry: &Entry, now_ms: u64) -> bool {
        entry.age_ms(now_ms) >= self.limits.lease.as_millis()
    }

    pub fn renewed(entry: &Entry, now_ms: u64) {
        entry.leased_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Another consumer has the entry: it is no longer renewed, and its endings are checked.
    /// `false` when it was settled meanwhile, which looks the same to a renewal.
    pub fn lost(&self, entry: &Entry) -> bool {
        let held = self.let_go(entry);
        if held {
            entry.lost.store(true, Ordering::Relaxed);
        }
        held
    }

    /// Holds the entry no longer, unless it is another lease of the same id that is held.
    fn let_go(&self, entry: &Entry) -> bool {
        let mut entries = lock(&self.entries);
        match entries.remove_entry(&entry.id) {
            None => false,
            Some((_, held)) if std::ptr::eq(&raw const *held, entry) => true,
            Some((id, other)) => {
                entries.insert(id, other);
                false
            }
        }
    }

    /// Counts deliveries that are to be handed over or dropped.
    pub fn admit(&self, count: usize) {
        self.running.fetch_add(count, Ordering::AcqRel);
    }

    /// Hands [admitted](Hold::admit) deliveries over to whoever takes them.
    pub fn deliver(&self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        // Those of a closed inbox go back when dropped.
        drop(self.inbox.put(deliveries));
    }

    /// Takes in what is to be settled without having been delivered.
    pub fn reject(&self, endings: Vec<Ending>) {
        self.admit(endings.len());
        self.settle(endings);
    }

    /// Waits for deliveries; at most `max`, none when the inbox is closed.
    pub async fn take(&self, max: usize) -> Vec<Delivery> {
        loop {
            let mut taken = self.inbox.take(max).await;
            let is_closed = taken.is_empty();
            let now_ms = self.clock_ms();
            taken.retain(|delivery| self.may_start(delivery, now_ms));
            if is_closed || !taken.is_empty() {
                return taken;
            }
        }
    }

    /// Waits for one delivery; `None` when the inbox is closed.
    pub async fn take_one(&self) -> Option<Delivery> {
        loop {
            let delivery = self.inbox.take_one().await?;
            if self.may_start(&delivery, self.clock_ms()) {
                return Some(delivery);
            }
        }
    }

    /// Whether nobody else can have the job. One that came late, or waited through an outage, may run
    /// elsewhere by now: dropped, it goes back if it is still this consumer's.
    pub fn may_start(&self, delivery: &Delivery, now_ms: u64) -> bool {
        let is_held =
            |parts: &Parts| !parts.entry.is_lost() && !self.may_be_lost(&parts.entry, now_ms);
        delivery.parts.as_deref().is_some_and(is_held)
    }

    /// The ids of the entries that are held.
    pub fn ids(&self) -> Vec<Bytes> {
        lock(&self.entries).keys().cloned().collect()
    }

    /// No more deliveries: what waits goes back.
    pub fn close_inbox(&self) {
        drop(self.inbox.close());
    }

    /// Hands endings to the settler.
    pub fn settle(&self, endings: impl IntoIterator<Item = Ending>) {
        let mut queue = lock(&self.endings);
        let before = queue.len();
        queue.extend(endings.into_iter().filter(|ending| ending.parts.is_some()));
        let count = queue.len() - before;
        // Counted before the settler can see them, and count them off.
        self.unsettled.fetch_add(count, Ordering::AcqRel);
        self.running.fetch_sub(count, Ordering::AcqRel);
        self.ended_ever.fetch_add(count as u64, Ordering::Relaxed);
        drop(queue);
        self.ended.notify_one();
        self.freed.notify_waiters();
    }

    /// Waits for endings; at most `max`. The last entry is left for the next time where not all of
    /// its jobs have ended: to settle an entry in pieces costs the server several times as much. But
    /// they wait no longer than [`PATIENCE`] for the others.
    pub async fn endings(&self, max: usize) -> Vec<Ending> {
        let (mut late, mut until) = (false, None);
        loop {
            let ended = self.ended.notified();
            let waiting = {
                let mut queue = lock(&self.endings);
                let most = queue.len().min(max);
                let count = if late { most } else { whole_entries(queue.range(..most)) };
                if count > 0 {
                    return queue.drain(..count).collect();
                }
                most
            };
            if waiting == 0 {
                ended.await;
            } else {
                // One wait for all of them, however many come one by one meanwhile.
                let until = *until.get_or_insert_with(|| tokio::time::Instant::now() + PATIENCE);
                late = waiting == max || timeout_at(until, ended).await.is_err();
            }
        }
    }

    /// Jobs are settled for good, stored or stale.
    pub fn settled<'a>(&self, entries: impl IntoIterator<Item = &'a Arc<Entry>>) {
        let mut count = 0;
        for entry in entries {
            count += 1;
            if entry.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.let_go(entry);
            }
        }
        self.unsettled.fetch_sub(count, Ordering::AcqRel);
        self.freed.notify_waiters();
    }

    /// Waits until nothing is in hand.
    pub async fn drained(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.running() == 0 && self.unsettled() == 0 {
                return;
            }
            freed.await;
        }
    }
}

/// How many of these endings to take, so that the last entry is not torn apart.
fn whole_entries<'a>(
    endings: impl DoubleEndedIterator<Item = &'a Ending> + ExactSizeIterator,
) -> usize {
    let count = endings.len();
    let mut entries =
        endings.rev().filter_map(|ending| ending.parts.as_ref()).map(|parts| &parts.entry);
    let Some(last) = entries.next() else { return count };
    let ended = 1 + entries.take_while(|entry| Arc::ptr_eq(entry, last)).count();
    if ended < last.open.load(Ordering::Acquire) { count - ended } else { count }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::delivery::Content;
    use super::*;
    use crate::lifecycle::Outcome;

    fn hold() -> Hold {
        hold_for(Duration::from_secs(30))
    }

    fn hold_for(lease: Duration) -> Hold {
        let prefetch = Some(0);
        Hold::new(Limits { concurrency: 10, prefetch, most_ahead: 0, most_unsettled: 10, lease })
    }

    #[test]
    fn an_entry_is_renewed_while_a_job_of_it_lives_and_forgotten_when_all_are_gone() {
        let (hold, id) = (hold(), Bytes::from_static(b"1-1"));
        let entry = hold.lease(&id, 1, 1, 0).unwrap();
        assert_eq!(hold.leases_older_than(Duration::ZERO).len(), 1);
        assert!(hold.lease(&id, 1, 1, 0).is_none(), "its job still runs here");
        drop(entry);
        assert!(hold.leases_older_than(Duration::ZERO).is_empty());
        assert!(hold.lease(&id, 1, 1, 0).is_some(), "it may be delivered anew");
    }

    #[test]
    fn a_lost_lease_does_not_end_a_later_one_of_the_same_entry() {
        let (hold, id) = (hold(), Bytes::from_static(b"1-1"));
        let lost = hold.lease(&id, 1, 1, 0).unwrap();
        assert!(hold.lost(&lost));
        let again = hold.lease(&id, 1, 1, 0).unwrap();
        hold.unsettled.store(1, Ordering::Relaxed);
        hold.settled([&lost]);
        assert!(hold.lease(&id, 1, 1, 0).is_none(), "the later lease is still held");
        assert!(!hold.lost(&lost) && hold.lost(&again));
    }

    #[test]
    fn nobody_else_can_have_an_entry_before_a_lease_has_passed() {
        for (lease, passed) in [(Duration::from_secs(30), false), (Duration::ZERO, true)] {
            let hold = hold_for(lease);
            let entry = hold.lease(&Bytes::from_static(b"1-1"), 1, 1, hold.clock_ms()).unwrap();
            let now_ms = hold.clock_ms();
            let judged = (hold.may_be_lost(&entry, now_ms), hold.is_fresh(&entry, now_ms));
            assert_eq!(judged, (passed, !passed));
        }
    }

    fn ending(hold: &Arc<Hold>, entry: &Arc<Entry>, index: usize) -> Ending {
        let content = Content::Foreign { fields: vec![] };
        let entry = Arc::clone(entry);
        let parts = Parts { entry, index, content, name: "".into(), lost: 0, due_ms: None };
        hold.admit(1);
        Delivery { parts: Some(Box::new(parts)), hold: Arc::clone(hold) }
            .end(Outcome::Done, Duration::ZERO)
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_entry_is_settled_whole_unless_its_other_jobs_take_long() {
        let hold = Arc::new(hold());
        let entry = |id: &'static str| hold.lease(&Bytes::from(id), 2, 2, 0).unwrap();
        let (whole, torn) = (entry("1-1"), entry("2-1"));
        hold.settle([0, 1].map(|index| ending(&hold, &whole, index)));
        hold.settle([ending(&hold, &torn, 0)]);
        assert_eq!(hold.endings(10).await.len(), 2, "the torn entry waits");
        let other = async {
            tokio::task::yield_now().await;
            hold.settle([ending(&hold, &torn, 1)]);
        };
        assert_eq!(tokio::join!(hold.endings(10), other).0.len(), 2, "for its other job");

        hold.settle([ending(&hold, &whole, 0)]);
        assert_eq!(hold.endings(10).await.len(), 1, "a while");
        hold.settle([0, 1].map(|index| ending(&hold, &whole, index)));
        assert_eq!(hold.endings(1).await.len(), 1, "one that is too large is torn at once");
        hold.endings(10).await;

        let many = hold.lease(&Bytes::from_static(b"3-1"), 100, 100, 0).unwrap();
        let one_by_one = async {
            for index in 0..50 {
                hold.settle([ending(&hold, &many, index)]);
                tokio::time::sleep(PATIENCE / 2).await;
            }
        };
        let taken = tokio::select! {
            taken = hold.endings(10) => taken.len(),
            () = one_by_one => 50,
        };
        assert!((1..=3).contains(&taken), "a while in all, not a while each: {taken}");
    }
}
