//! The engine's `tracing` lines, on their way to Python's `logging`.
//!
//! They wait in a bounded buffer; every event loop that has a mailbox is woken and the first one there
//! fetches them.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::mem::take;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pyo3::pyfunction;
use tracing::field::{Field, Visit};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::mailbox::Slot;
use crate::runtime;

/// Lines that may wait; the rest is counted and dropped.
const MOST_LINES: usize = 1024;

/// The least level that is kept, in the numbers of Python's `logging`.
static LEAST_LEVEL: AtomicU8 = AtomicU8::new(20);

/// Keeps lines of this level of Python's `logging` and above.
#[pyfunction]
pub fn set_log_level(level: u8) {
    LEAST_LEVEL.store(level, Ordering::Relaxed);
}

/// Fetches the lines that have come.
#[pyfunction]
pub fn drain_log() -> Vec<Line> {
    runtime::logs().map(LogBuffer::drain).unwrap_or_default()
}

/// A line: level in the numbers of `logging`, target, text.
pub type Line = (u8, String, String);

#[derive(Default)]
pub struct LogBuffer {
    lines: Mutex<Lines>,
    listeners: Mutex<Vec<Weak<Slot>>>,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<Line>,
    dropped: usize,
    /// Of those that were dropped, the greatest.
    dropped_level: u8,
}

impl LogBuffer {
    /// Wakes this mailbox too when a line comes.
    pub fn listen(&self, mailbox: &Arc<Slot>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(mailbox));
    }

    /// Fetches what has come.
    pub fn drain(&self) -> Vec<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut drained: Vec<Line> = lines.waiting.drain(..).collect();
        let (dropped, level) = (take(&mut lines.dropped), take(&mut lines.dropped_level));
        if dropped > 0 {
            let text = format!("{dropped} more lines came faster than the event loop fetched them");
            drained.push((level, module_path!().into(), text));
        }
        drained
    }

    fn push(&self, line: Line) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.waiting.len() == MOST_LINES {
            lines.dropped += 1;
            lines.dropped_level = lines.dropped_level.max(line.0);
            return;
        }
        lines.waiting.push_back(line);
        let first = lines.waiting.len() == 1;
        drop(lines);
        if first {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.ring());
        }
    }
}

/// Receives the engine's lines, unless the program has a subscriber of its own in Rust.
pub fn install() {
    // Fails in a forked child, which has inherited it.
    let _ = set_global_default(Collector);
}

struct Collector;

impl Subscriber for Collector {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && python_level(*metadata.level()) >= LEAST_LEVEL.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(logs) = runtime::logs() else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        logs.push((python_level(*metadata.level()), metadata.target().to_owned(), text.finish()));
    }

    // Spans are not followed: each line of the engine names what it is about.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn python_level(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

/// `message (field=value field=value)`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        if self.fields.is_empty() {
            self.message
        } else {
            format!("{} ({})", self.message, self.fields)
        }
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            let gap = if self.fields.is_empty() { "" } else { " " };
            write!(self.fields, "{gap}{}={value:?}", field.name())
        };
    }
}
