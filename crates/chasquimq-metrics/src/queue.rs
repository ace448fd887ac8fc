//! The gauges of a whole queue.

use chasquimq::QueueCounts;
use metrics::Gauge;

use crate::names;
use crate::series::{Lazy, Scope};

/// One gauge a number of [`QueueCounts`].
pub(crate) struct QueueGauges([Lazy<Gauge>; 6]);

impl Default for QueueGauges {
    fn default() -> Self {
        let metrics = [
            &names::QUEUE_READY,
            &names::QUEUE_INFLIGHT,
            &names::QUEUE_DELAYED,
            &names::QUEUE_RETRYING,
            &names::QUEUE_DEAD,
            &names::QUEUE_OLDEST_READY_AGE,
        ];
        Self(metrics.map(Lazy::new))
    }
}

impl QueueGauges {
    pub fn register(&self, scope: Scope<'_>) {
        for gauge in &self.0 {
            gauge.get(scope);
        }
    }

    pub fn set(&self, scope: Scope<'_>, counts: QueueCounts) {
        let QueueCounts { ready, in_flight, delayed, retrying, dead, oldest_ready_age_ms } = counts;
        let age = oldest_ready_age_ms as f64 / 1e3;
        let jobs = [ready, in_flight, delayed, retrying, dead].map(|jobs| jobs as f64);
        for (gauge, value) in self.0.iter().zip(jobs.into_iter().chain([age])) {
            gauge.get(scope).set(value);
        }
    }

    /// What Prometheus has for a number that is not known: no comparison with it is true.
    #[cfg(feature = "exporter")]
    pub fn unknown(&self, scope: Scope<'_>) {
        for gauge in &self.0 {
            gauge.get(scope).set(f64::NAN);
        }
    }
}
