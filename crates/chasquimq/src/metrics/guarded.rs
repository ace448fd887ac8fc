//! A sink behind a wall: its panics stop here, and a slow one is noticed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::MetricsSink;

/// A call that takes longer is reported.
const SLOW: Duration = Duration::from_millis(10);
/// One call in so many is timed, on each thread: reading the clock twice costs more than most sinks.
const TIMED: u8 = 16;
/// Whether there is any telling in this build: all of it passes through [`Guarded::tell`], and what is
/// made for it alone through [`Guarded::is_heard`]. Only the benchmark of its cost says no, by
/// `--cfg chasquimq_without_metrics`; to ask for silence otherwise, take a
/// [`NoopSink`](super::NoopSink).
const EMITTED: bool = cfg!(not(chasquimq_without_metrics));

thread_local! {
    static CALLS: Cell<u8> = const { Cell::new(0) };
}

/// One guard a sink, so that a bad sink is reported once.
pub(crate) struct Guarded {
    /// `None` for a sink that wants to hear nothing.
    sink: Option<Arc<dyn MetricsSink>>,
    panicked: AtomicBool,
    slow: AtomicBool,
}

impl Guarded {
    pub(crate) fn new(sink: Arc<dyn MetricsSink>) -> Self {
        let sink = Some(sink).filter(|sink| !sink.is_noop());
        Self { sink, panicked: AtomicBool::new(false), slow: AtomicBool::new(false) }
    }

    /// Whether anybody hears what is told.
    pub(crate) fn is_heard(&self) -> bool {
        EMITTED && self.sink.is_some()
    }

    /// Tells the sink, and survives it.
    pub(crate) fn tell(&self, event: impl FnOnce(&dyn MetricsSink)) {
        let Some(sink) = self.sink.as_ref().filter(|_| EMITTED) else { return };
        let begun = is_timed().then(Instant::now);
        let told = catch_unwind(AssertUnwindSafe(|| event(&**sink)));
        if told.is_err() && is_first(&self.panicked) {
            tracing::error!(
                "the metrics sink panicked; the engine goes on, further panics of it are not logged"
            );
        }
        if let Some(took) = begun.map(|begun| begun.elapsed()).filter(|took| *took > SLOW)
            && is_first(&self.slow)
        {
            tracing::warn!(
                ?took,
                "the metrics sink is slow, and the engine waits for it: make it lock-free, or let it \
                 hand its work to a thread of its own; this is not logged again"
            );
        }
    }
}

fn is_timed() -> bool {
    let call = CALLS.get();
    CALLS.set(call.wrapping_add(1));
    call.is_multiple_of(TIMED)
}

fn is_first(seen: &AtomicBool) -> bool {
    !seen.load(Ordering::Relaxed) && !seen.swap(true, Ordering::Relaxed)
}
