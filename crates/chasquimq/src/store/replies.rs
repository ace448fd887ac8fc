//! PURE: what the server answered, as values. Whatever it answers, nothing here panics, and nothing
//! is larger than the reply.

use std::time::Duration;

use super::feed::RawEvent;
use super::transport::Reply;
use super::{Claimed, DeadEntry, Entry, Tick, moves};
use crate::inspect::QueueCounts;

/// The entries of one stream, read by XREADGROUP.
pub(crate) fn delivered(reply: Reply) -> Vec<Entry> {
    let entry = |entry: Reply| {
        let [id, fields] = <[Reply; 2]>::try_from(entry.into_items()).ok()?;
        let fields = fields.into_items().into_iter().map(Reply::into_bytes).collect();
        Some(Entry { id: id.into_bytes(), fields, deliveries: 1, settled: bytes::Bytes::new() })
    };
    of_one_stream(reply).into_iter().filter_map(entry).collect()
}

/// The entries of the events stream, read by XREAD.
pub(crate) fn events(reply: Reply) -> Vec<RawEvent> {
    let event = |entry: &Reply| {
        let (id, fields) = split(entry)?;
        Some((id.text(), fields.chunks_exact(2).map(|f| (f[0].text(), f[1].text())).collect()))
    };
    of_one_stream(reply).iter().filter_map(event).collect()
}

/// Dead jobs, as dead.lua lists them.
pub(crate) fn dead(list: &[Reply]) -> Vec<DeadEntry> {
    let entry = |entry: &Reply| {
        let (id, fields) = split(entry)?;
        let fields = fields.chunks_exact(2).map(|f| (f[0].text(), f[1].bytes())).collect();
        Some(DeadEntry { dlq_id: id.text(), fields })
    };
    list.iter().filter_map(entry).collect()
}

/// What claim.lua found.
pub(crate) fn claimed(reply: &Reply) -> Option<Claimed> {
    let [_, cursor, ghosts, entries @ ..] = reply.items() else { return None };
    Some(Claimed { entries: taken(entries), cursor: cursor.bytes(), ghosts: count(ghosts) })
}

/// Entries as claim.lua and missed.lua list them: id, fields, deliveries, settled bitmap.
pub(crate) fn taken(list: &[Reply]) -> Vec<Entry> {
    let entry = |entry: &[Reply]| Entry {
        id: entry[0].bytes(),
        fields: entry[1].items().iter().map(Reply::bytes).collect(),
        deliveries: u32::try_from(count(&entry[2])).unwrap_or(u32::MAX).max(1),
        settled: entry[3].bytes(),
    };
    list.chunks_exact(4).map(entry).collect()
}

/// What promote.lua did.
pub(crate) fn tick(reply: &Reply) -> Option<Tick> {
    match reply.items() {
        [led, promoted, depth, lag, wait, _, fault] if led.int() == 1 => Some(Tick::Led {
            promoted: count(promoted),
            depth: count(depth),
            lag_ms: count(lag),
            next_due: u64::try_from(wait.int()).ok().map(Duration::from_millis),
            fault: moves::fault(fault),
        }),
        [_, left] => Some(Tick::Held { lock_left: Duration::from_millis(count(left)) }),
        _ => None,
    }
}

/// What inspect.lua counted.
pub(crate) fn counts(reply: &Reply) -> Option<QueueCounts> {
    let [ready, in_flight, waiting, retrying, dead, age] = reply.items() else { return None };
    Some(QueueCounts {
        ready: count(ready),
        in_flight: count(in_flight),
        delayed: count(waiting).saturating_sub(count(retrying)),
        retrying: count(retrying),
        dead: count(dead),
        oldest_ready_age_ms: count(age),
    })
}

/// RESP2 answers [[stream, entries]], RESP3 {stream: entries}; one stream was asked for.
fn of_one_stream(reply: Reply) -> Vec<Reply> {
    let mut stream = reply.into_items();
    if let [Reply::List(pair)] = &mut stream[..] {
        stream = std::mem::take(pair);
    }
    stream.into_iter().nth(1).map_or(vec![], Reply::into_items)
}

/// An entry's id, and field, value, …
fn split(entry: &Reply) -> Option<(&Reply, &[Reply])> {
    let [id, fields] = entry.items() else { return None };
    Some((id, fields.items()))
}

fn count(item: &Reply) -> u64 {
    u64::try_from(item.int()).unwrap_or(0)
}
