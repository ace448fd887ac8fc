//! The engine's `tracing` lines, on their way to Python's `logging`.
//!
//! They wait in a bounded buffer; every event loop that has a mailbox is woken and the first one there
//! fetches them.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::mem::take;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use chasquimq::JOBS_TARGET;
use pyo3::pyfunction;
use tracing::field::{Field, Visit};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::mailbox::Slot;
use crate::runtime;

/// Lines that may wait; the rest is counted and dropped.
const MOST_LINES: usize = 1024;

/// The least levels that are kept, in the numbers of Python's `logging`.
static ENGINE_LEVEL: AtomicU8 = AtomicU8::new(20);
static JOBS_LEVEL: AtomicU8 = AtomicU8::new(30);

/// Keeps lines of these levels of Python's `logging` and above: those about failed and dead jobs, and
/// all others.
#[pyfunction]
pub fn set_log_levels(engine: u8, jobs: u8) {
    ENGINE_LEVEL.store(engine, Ordering::Relaxed);
    JOBS_LEVEL.store(jobs, Ordering::Relaxed);
}

/// Fetches the lines that have come.
#[pyfunction]
pub fn drain_log() -> Vec<Line> {
    runtime::logs().map(LogBuffer::drain).unwrap_or_default()
}

/// A line: level in the numbers of `logging`, target, text.
pub type Line = (u8, String, String);

/// Those about jobs wait apart: a storm of failures costs no other line.
#[derive(Default)]
pub struct LogBuffer {
    engine: Mutex<Lines>,
    jobs: Mutex<Lines>,
    listeners: Mutex<Vec<Weak<Slot>>>,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<Line>,
    dropped: usize,
    /// The greatest of those that were dropped.
    dropped_level: u8,
}

impl LogBuffer {
    /// Wakes this mailbox too when a line comes.
    pub fn listen(&self, mailbox: &Arc<Slot>) {
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(mailbox));
    }

    /// Fetches what has come.
    pub fn drain(&self) -> Vec<Line> {
        let mut drained = lock(&self.engine).drain(module_path!());
        drained.append(&mut lock(&self.jobs).drain(JOBS_TARGET));
        drained
    }

    fn push(&self, line: Line) {
        let mut lines = lock(if line.1 == JOBS_TARGET { &self.jobs } else { &self.engine });
        if lines.waiting.len() == MOST_LINES {
            lines.dropped += 1;
            lines.dropped_level = lines.dropped_level.max(line.0);
            return;
        }
        lines.waiting.push_back(line);
        let first = lines.waiting.len() == 1;
        drop(lines);
        if first {
            let listeners = lock(&self.listeners);
            listeners.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.ring());
        }
    }
}

impl Lines {
    fn drain(&mut self, target: &str) -> Vec<Line> {
        let mut drained: Vec<Line> = self.waiting.drain(..).collect();
        let (dropped, level) = (take(&mut self.dropped), take(&mut self.dropped_level));
        if dropped > 0 {
            let text = format!("{dropped} more lines came faster than the event loop fetched them");
            drained.push((level, target.into(), text));
        }
        drained
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let least = if metadata.target() == JOBS_TARGET { &JOBS_LEVEL } else { &ENGINE_LEVEL };
        metadata.is_event() && python_level(*metadata.level()) >= least.load(Ordering::Relaxed)
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
