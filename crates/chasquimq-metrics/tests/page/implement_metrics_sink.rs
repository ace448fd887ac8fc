use chasquimq::{
    ConsumerConfig, MetricsSink, JobOutcome, JobOutcomeKind, PromoterTick, ReaderBatch,
    RetryScheduled, DlqRouted, LockOutcome,
};
use std::sync::Arc;

struct LoggingSink;

impl MetricsSink for LoggingSink {
    fn job_outcome(&self, e: JobOutcome) {
        match e.kind {
            JobOutcomeKind::Ok => tracing::info!(?e, "job ok"),
            JobOutcomeKind::Err => tracing::warn!(?e, "job err"),
            JobOutcomeKind::Panic => tracing::error!(?e, "job panic"),
        }
    }
    fn dlq_routed(&self, e: DlqRouted) {
        tracing::warn!(?e, "dlq route");
    }
    // Other methods get default no-op implementations.
}

let cfg = ConsumerConfig {
    queue_name: "emails".into(),
    metrics: Arc::new(LoggingSink),
    ..Default::default()
};
