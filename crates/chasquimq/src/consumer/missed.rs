//! Entries that were delivered here in a reply that was lost: they are fetched, and run, as if it had come.
//! Left to their lease they would count as if a worker had died.

use std::sync::atomic::Ordering;

use super::reader::accept;
use super::session::Shared;
use crate::error::{Error, Result};

/// The most that are fetched at once.
const MOST: usize = 100;

/// After this error a reply may be lost. A read that still waits on a dead connection may lose another,
/// so that they are looked for until half a lease has passed.
pub(super) fn expect(shared: &Shared, error: &Error) {
    if error.kind().is_outcome_unknown() {
        let half = shared.config.claim_min_idle_ms / 2;
        let until = shared.hold.clock_ms().saturating_add(half);
        shared.counts.missing_until_ms.fetch_max(until, Ordering::Relaxed);
    }
}

/// Fetches what a lost reply may have brought. Only between two reads, and not beside a claim: what the
/// reply to one of those is bringing looks the same.
pub(super) async fn fetch(shared: &Shared) -> Result<()> {
    let begun_ms = shared.hold.clock_ms();
    if begun_ms >= shared.counts.missing_until_ms.load(Ordering::Relaxed) {
        return Ok(());
    }
    let (group, consumer) = (shared.group(), shared.consumer());
    let _alone = shared.taking_over.lock().await;
    // What was delivered before this session began was a dead worker's of the same name.
    let found = shared.store.missed(group, consumer, begun_ms, &shared.hold.ids(), MOST).await;
    let entries = found.inspect_err(|error| expect(shared, error))?;
    let deliveries = accept(shared, entries, begun_ms).await;
    shared.hold.deliver(deliveries);
    Ok(())
}
