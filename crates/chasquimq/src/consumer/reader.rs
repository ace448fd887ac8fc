//! Reader: as many jobs as there is room for, new ones and those of dead workers, into one inbox.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::poll;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::delivery::{Content, Delivery, Ending, Parts};
use super::held::Entry;
use super::missed;
use super::session::Shared;
use crate::error::Result;
use crate::lifecycle::{self, Outcome};
use crate::metrics::{DlqReason, JobStarted, ReaderBatch};
use crate::msgpack::check_payload;
use crate::store::wire::{self, Broken, Item};
use crate::store::{self, Active, Intake};

/// The most entries taken over in one look.
const CLAIM_BATCH: usize = 100;

/// So few jobs are handed over before the next read is sent, so that they start at once.
const FEW: usize = 16;

/// How long a job waits for a free slot before another consumer may have it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads new entries until the session stops.
pub(super) async fn read(shared: &Shared) -> Result<()> {
    let wait = longest_wait(shared);
    let intake = shared.store.intake(wait).await?;
    let result = read_with(shared, &intake, wait).await;
    intake.close().await;
    note(shared, &result);
    result
}

async fn read_with(shared: &Shared, intake: &Intake, wait: Duration) -> Result<()> {
    let mut density = Density::default();
    let mut arrived = Vec::new();
    loop {
        if arrived.len() < FEW || shared.hold.room() == 0 {
            shared.hold.deliver(std::mem::take(&mut arrived));
        }
        missed::fetch(shared).await?;
        let room = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Ok(()),
            room = shared.hold.wait_for_room() => room,
        };
        let count = density.entries_for(room).min(shared.config.batch);
        let sent_ms = shared.hold.clock_ms();
        let mut reading = pin!(next(shared, intake, count, wait));
        if !arrived.is_empty() {
            // The server looks for more while these run, and they may keep this thread busy.
            let early = poll!(&mut reading);
            yield_now().await;
            shared.hold.deliver(std::mem::take(&mut arrived));
            if let Poll::Ready(entries) = early {
                arrived = take_in(shared, entries?, sent_ms, &mut density).await;
                continue;
            }
        }
        let entries = reading.await?;
        arrived = take_in(shared, entries, sent_ms, &mut density).await;
        if shared.stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// Takes entries in: what cannot run to the settler; what can.
async fn take_in(
    shared: &Shared,
    entries: Vec<store::Entry>,
    sent_ms: u64,
    density: &mut Density,
) -> Vec<Delivery> {
    note(shared, &Ok(()));
    let read = entries.len();
    let deliveries = accept(shared, entries, sent_ms).await;
    density.saw(read, deliveries.len());
    shared.hold.adapt();
    deliveries
}

/// One read. It is never dropped half way: the server may have delivered already. At shutdown it is
/// ended from outside and its reply awaited.
async fn next(
    shared: &Shared,
    intake: &Intake,
    count: usize,
    wait: Duration,
) -> Result<Vec<store::Entry>> {
    let reading = intake.read(shared.group(), shared.consumer(), count, wait);
    tokio::pin!(reading);
    tokio::select! {
        entries = &mut reading => return entries,
        () = shared.stop.cancelled() => {}
    }
    loop {
        shared.store.wake(intake).await;
        // The wake can come before the read has reached the server, and is then without effect.
        if let Ok(entries) = timeout(Duration::from_millis(50), &mut reading).await {
            return entries;
        }
    }
}

/// Waits short enough that a lease counted from the sending of the read is still fresh.
fn longest_wait(shared: &Shared) -> Duration {
    Duration::from_millis(shared.config.block_ms).min(shared.config.lease() / 4)
}

fn note(shared: &Shared, result: &Result<()>) {
    let counts = &shared.counts;
    let mut last = counts.last_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match result {
        Ok(()) => {
            counts.last_read_ms.store(shared.hold.clock_ms(), Ordering::Relaxed);
            *last = None;
        }
        Err(error) => {
            *last = Some(error.to_string());
            missed::expect(shared, error);
        }
    }
}

/// Looks for entries of dead workers until the session stops, ten times a lease.
pub(super) async fn sweep(shared: &Shared) -> Result<()> {
    let pause =
        (shared.config.lease() / 10).clamp(Duration::from_millis(100), Duration::from_secs(2));
    let mut cursor = Bytes::from_static(b"0-0");
    while !shared.stop.is_cancelled() {
        shared.counts.last_turn_ms.store(shared.hold.clock_ms(), Ordering::Relaxed);
        shared.hold.adapt();
        shared.hold.hand_back(PATIENCE);
        let room = shared.hold.room().min(CLAIM_BATCH);
        let found = if room > 0 { claim(shared, room, &mut cursor).await? } else { 0 };
        if found == 0 || cursor == "0-0" {
            tokio::select! {
                () = sleep(pause) => {}
                () = shared.stop.cancelled() => {}
            }
        }
    }
    Ok(())
}

async fn claim(shared: &Shared, room: usize, cursor: &mut Bytes) -> Result<usize> {
    let (group, consumer) = (shared.group(), shared.consumer());
    let _alone = shared.taking_over.lock().await;
    let sent_ms = shared.hold.clock_ms();
    let claimed = shared.store.claim(group, consumer, shared.config.lease(), room, cursor).await;
    let claimed = claimed.inspect_err(|error| missed::expect(shared, error))?;
    *cursor = claimed.cursor;
    if claimed.ghosts > 0 {
        tracing::warn!(
            ghosts = claimed.ghosts,
            "entries were deleted from the stream while pending; acknowledged"
        );
        shared.metrics.tell(|sink| sink.ghost_entries(claimed.ghosts));
    }
    let found = claimed.entries.len();
    let deliveries = accept(shared, claimed.entries, sent_ms).await;
    shared.hold.deliver(deliveries);
    Ok(found)
}

/// Opens entries: what cannot run goes to the settler, what can comes back, counted as running.
pub(super) async fn accept(
    shared: &Shared,
    entries: Vec<store::Entry>,
    sent_ms: u64,
) -> Vec<Delivery> {
    if entries.is_empty() {
        return vec![];
    }
    let size = entries.len();
    let reclaimed = entries.iter().filter(|entry| entry.deliveries > 1).count();
    let batch = ReaderBatch { size: size as u64, reclaimed: reclaimed as u64 };
    shared.metrics.tell(|sink| sink.reader_batch(batch));
    let (mut deliveries, mut rejected) = (Vec::with_capacity(size), Vec::new());
    for entry in entries {
        open(shared, entry, sent_ms, &mut deliveries, &mut rejected);
    }
    shared.hold.admit(deliveries.len());
    if !rejected.is_empty() {
        shared.hold.reject(rejected);
    }
    if shared.store.tells_active() {
        tell_active(shared, &deliveries).await;
    }
    deliveries
}

/// Publishes that these jobs are about to run: before they are taken, so that it is told before
/// their end. Jobs wait for it no longer than [`PATIENCE`].
async fn tell_active(shared: &Shared, deliveries: &[Delivery]) {
    let active = |delivery: &Delivery| (delivery.name(), delivery.attempt().saturating_add(1));
    let named: Vec<_> = deliveries.iter().map(active).collect();
    let jobs = deliveries.iter().zip(&named);
    let jobs: Vec<_> =
        jobs.map(|(job, (name, run))| Active { id: job.id(), name, run: *run }).collect();
    if !matches!(timeout(PATIENCE, shared.store.tell_active(&jobs)).await, Ok(Ok(()))) {
        shared.metrics.tell(|sink| sink.events_dropped(jobs.len() as u64));
    }
}

fn open(
    shared: &Shared,
    entry: store::Entry,
    sent_ms: u64,
    deliveries: &mut Vec<Delivery>,
    rejected: &mut Vec<Ending>,
) {
    let value = match &entry.fields[..] {
        [field, value] if field == "j" => value,
        _ => return rejected.extend(foreign(shared, entry, sent_ms)),
    };
    let parts = wire::take_apart(value);
    let total = parts.len();
    let is_settled = |index: usize| entry.settled.get(index) == Some(&b'1');
    let left = (0..total).filter(|index| !is_settled(*index)).count();
    let Some(held) = shared.hold.lease(&entry.id, total, left, sent_ms) else { return };
    let died = entry.deliveries - 1;
    for (index, part) in parts.into_iter().enumerate() {
        if is_settled(index) {
            continue;
        }
        let entry = Arc::clone(&held);
        match part {
            Ok(item) => match job(shared, entry, index, item, died) {
                Ok(delivery) => deliveries.push(delivery),
                Err(ending) => rejected.push(ending),
            },
            Err(broken) => rejected.push(unreadable(entry, index, broken, died)),
        }
    }
}

/// A job to be run, or the end of one that may not.
fn job(
    shared: &Shared,
    entry: Arc<Entry>,
    index: usize,
    Item { record, raw, due_ms }: Item,
    died: u32,
) -> Result<Delivery, Ending> {
    let lost = record.lost.saturating_add(died);
    let name = shared.name(&record.name);
    let content = Content::Job { record, raw };
    let parts = Box::new(Parts { entry, index, content, name, lost, due_ms });
    match refusal(shared, &parts) {
        Some((reason, error)) => Err(reject(parts, reason, error)),
        None => Ok(Delivery { parts: Some(parts), hold: Arc::clone(&shared.hold) }),
    }
}

/// What cannot be read goes to the dead-letter queue as it is; the entry's other jobs run.
fn unreadable(entry: Arc<Entry>, index: usize, broken: Broken, lost: u32) -> Ending {
    let content = Content::Foreign { fields: vec![Bytes::from_static(b"j"), broken.raw] };
    let parts = Parts { entry, index, content, name: "".into(), lost, due_ms: None };
    let error = format!("the record cannot be read: {}", broken.why.0);
    reject(Box::new(parts), DlqReason::DecodeFailed, error)
}

/// An entry that is none of ours goes to the dead-letter queue as it is.
fn foreign(shared: &Shared, entry: store::Entry, sent_ms: u64) -> Option<Ending> {
    let reason = "the entry has other fields than the one named j";
    let held: Arc<Entry> = shared.hold.lease(&entry.id, 1, 1, sent_ms)?;
    let content = Content::Foreign { fields: entry.fields.into_vec() };
    let (name, lost, due_ms) = ("".into(), entry.deliveries - 1, None);
    let parts = Parts { entry: held, index: 0, content, name, lost, due_ms };
    Some(reject(Box::new(parts), DlqReason::Malformed { reason }, reason.to_owned()))
}

/// Why a job may not run, if it may not.
fn refusal(shared: &Shared, parts: &Parts) -> Option<(DlqReason, String)> {
    let payload = parts.record().map_or(&[][..], |record| &record.payload);
    let size = payload.len();
    let most = shared.config.max_payload_bytes;
    if size > most {
        return Some((
            DlqReason::OversizePayload,
            format!("the payload is {size} bytes and may be {most}"),
        ));
    }
    if let Err(invalid) = check_payload(payload) {
        return Some((
            DlqReason::DecodeFailed,
            format!("the payload of {size} bytes cannot be decoded: {}", invalid.0),
        ));
    }
    let standing = parts.standing();
    let reason = lifecycle::refuse(standing, &shared.policy)?;
    let text = match reason {
        DlqReason::WorkerLost => {
            format!("its worker died {} times while running it", standing.lost)
        }
        _ => format!("it has failed {} times already", standing.attempt),
    };
    Some((reason, text))
}

fn reject(parts: Box<Parts>, reason: DlqReason, error: String) -> Ending {
    let outcome = Outcome::Rejected { reason, error };
    Ending { parts: Some(parts), outcome, duration: Duration::ZERO, resent: false }
}

/// Tells that a handler is about to run.
#[inline]
pub(super) fn tell_started(shared: &Shared, delivery: &Delivery) {
    if shared.metrics.is_heard() {
        tell_of_start(shared, delivery);
    }
}

fn tell_of_start(shared: &Shared, delivery: &Delivery) {
    let (attempt, name) = (delivery.attempt().saturating_add(1), delivery.name());
    let parts = delivery.parts.as_ref();
    let queue_wait_us = parts.and_then(|parts| ready_ms(&parts.entry)).and_then(us_since);
    let start_lateness_us = parts.and_then(|parts| parts.due_ms).and_then(us_since);
    let event = JobStarted { attempt, queue_wait_us, start_lateness_us, name };
    shared.metrics.tell(|sink| sink.job_started(event));
}

/// When the entry became ready: the time in its id, by the server's clock.
fn ready_ms(entry: &Entry) -> Option<u64> {
    let (ms, _) = std::str::from_utf8(&entry.id).ok()?.split_once('-')?;
    ms.parse().ok()
}

/// From then to now by the local clock.
fn us_since(epoch_ms: u64) -> Option<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let past = now.checked_sub(Duration::from_millis(epoch_ms))?;
    u64::try_from(past.as_micros()).ok()
}

/// How many jobs an entry holds, of late: so that room for jobs becomes a count of entries.
#[derive(Default)]
struct Density {
    jobs_an_entry: f64,
}

impl Density {
    fn entries_for(&self, room: usize) -> usize {
        ((room as f64 / self.jobs_an_entry.max(1.0)) as usize).max(1)
    }

    fn saw(&mut self, entries: usize, jobs: usize) {
        if entries > 0 {
            let seen = jobs as f64 / entries as f64;
            self.jobs_an_entry = self.jobs_an_entry.mul_add(0.5, seen * 0.5);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Density;

    #[test]
    fn asks_for_fewer_entries_when_they_hold_many_jobs() {
        let mut density = Density::default();
        assert_eq!(density.entries_for(100), 100);
        for _ in 0..10 {
            density.saw(10, 80);
        }
        assert_eq!(density.entries_for(100), 12);
        assert_eq!(density.entries_for(1), 1);
    }
}
