//! [`MetricsFacadeSink`]: the facade's recorder, as a unit value.

use crate::sink::RecorderSink;

/// Writes the engine's events to the recorder of the `metrics` facade, whichever
/// `metrics_exporter_*` has installed one, before or after.
///
/// All values of this type are one sink without labels. Programs with several queues wrap it in
/// [`QueueLabeled`](crate::QueueLabeled), which makes a sink of its own each time.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricsFacadeSink;

static SHARED: RecorderSink = RecorderSink::facade();

impl MetricsFacadeSink {
    /// The same, with the job's name as a label: see [`RecorderSink::with_job_names`].
    #[must_use]
    pub fn with_job_names(cap: usize) -> RecorderSink {
        RecorderSink::facade().with_job_names(cap)
    }

    pub(crate) fn shared() -> &'static RecorderSink {
        &SHARED
    }
}
