//! What the exporter shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Gauge, Label};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::probe::Probe;
use crate::names;
use crate::series::Scope;
use crate::sink::SharedRecorder;

/// The recorder, and the workers of this process.
pub(super) struct State {
    recorder: Arc<PrometheusRecorder>,
    metrics: PrometheusHandle,
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    next_id: u64,
    probes: BTreeMap<u64, Arc<dyn Probe>>,
    /// Of every queue that was ever seen: one whose workers have gone shows 0.
    gauges: BTreeMap<String, WorkerGauges>,
}

struct WorkerGauges {
    all: Gauge,
    live: Gauge,
    ready: Gauge,
}

impl State {
    pub fn new() -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in names::buckets() {
            builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
        }
        let recorder = Arc::new(builder.build_recorder());
        names::describe_to(&*recorder);
        Ok(Self { metrics: recorder.handle(), recorder, workers: Mutex::default() })
    }

    pub fn recorder(&self) -> SharedRecorder {
        Arc::<PrometheusRecorder>::clone(&self.recorder)
    }

    /// Registers a worker; the id takes it away again.
    pub fn add(&self, probe: Arc<dyn Probe>) -> u64 {
        let mut workers = self.workers();
        let id = workers.next_id;
        workers.next_id += 1;
        workers.probes.insert(id, probe);
        id
    }

    pub fn remove(&self, id: u64) {
        let probe = self.workers().probes.remove(&id);
        // Outside of the lock: its destructor is the user's.
        drop(probe);
    }

    /// The workers, in the order in which they came.
    pub fn probes(&self) -> Vec<Arc<dyn Probe>> {
        self.workers().probes.values().cloned().collect()
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.count_workers();
        self.metrics.render()
    }

    /// Folds samples into buckets. Until then, or until the next [`State::render`], histograms
    /// keep every sample.
    pub fn tidy(&self) {
        self.metrics.run_upkeep();
    }

    fn count_workers(&self) {
        let probes = self.probes();
        let asked: Vec<_> = probes
            .iter()
            .filter(|probe| probe.is_worker())
            .map(|worker| (worker.queue(), worker.live(), worker.ready()))
            .collect();
        let mut workers = self.workers();
        for (queue, _, _) in &asked {
            if !workers.gauges.contains_key(*queue) {
                workers.gauges.insert((*queue).to_owned(), self.gauges(queue));
            }
        }
        for (queue, gauges) in &workers.gauges {
            let of_queue = || asked.iter().filter(|(name, _, _)| name == queue);
            gauges.all.set(of_queue().count() as f64);
            gauges.live.set(of_queue().filter(|(_, live, _)| *live).count() as f64);
            gauges.ready.set(of_queue().filter(|(_, _, ready)| *ready).count() as f64);
        }
    }

    fn gauges(&self, queue: &str) -> WorkerGauges {
        let labels = [Label::new("queue", queue.to_owned())];
        let scope = Scope { recorder: &*self.recorder, labels: &labels };
        WorkerGauges {
            all: scope.register(&names::WORKERS, &[]),
            live: scope.register(&names::WORKERS_LIVE, &[]),
            ready: scope.register(&names::WORKERS_READY, &[]),
        }
    }

    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
