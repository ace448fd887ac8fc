//! Leases: what is in hand is renewed four times a lease, whatever handlers do meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use super::held::{Entry, Hold};
use super::session::Shared;
use crate::error::Result;
use crate::metrics::LeasesRenewed;

/// Renews until the session has ended.
pub(super) async fn run(shared: &Shared) -> Result<()> {
    let quarter = shared.config.lease() / 4;
    let mut ticks = interval(quarter);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A lease begun since the last tick has three quarters left: the next tick renews it.
        let due = shared.hold.leases_older_than(quarter / 2);
        if !due.is_empty() {
            renew(shared, &due).await?;
        }
    }
}

async fn renew(shared: &Shared, due: &[Arc<Entry>]) -> Result<()> {
    let sent_ms = shared.hold.clock_ms();
    let ids: Vec<Bytes> = due.iter().map(|entry| entry.id.clone()).collect();
    let owned = shared.store.renew(shared.group(), shared.consumer(), &ids).await?;
    let (now_ms, mut renewed, mut lost) = (shared.hold.clock_ms(), 0, 0);
    for (entry, owned) in due.iter().zip(owned) {
        if owned {
            Hold::renewed(entry, sent_ms);
            renewed += 1;
        } else if shared.hold.may_be_lost(entry, now_ms) && shared.hold.lost(entry) {
            lost += 1;
        }
    }
    if lost > 0 {
        tracing::warn!(
            lost,
            "leases were lost: these jobs are delivered again elsewhere, and their results here are \
             ignored; was this process or the server stopped for longer than the lease?"
        );
    }
    shared.metrics.tell(|sink| sink.leases_renewed(LeasesRenewed { renewed, lost }));
    Ok(())
}
