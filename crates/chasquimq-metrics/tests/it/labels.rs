//! Wrappers compose: one sample, one series, all labels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chasquimq::{DlqReason, DlqRouted, JobOutcome, JobOutcomeKind, MetricsSink};
use chasquimq_metrics::{LabelAware, Labeled, QueueLabeled};

use crate::support::{recorder, samples, tell_everything};

#[test]
fn three_wrappers_write_each_sample_once_to_one_series_with_all_labels() {
    let (inner, handle) = recorder();
    let (plain, plain_handle) = recorder();
    let sink =
        Labeled::new(QueueLabeled::new(Labeled::new(inner, "tenant", "acme"), "q"), "region", "eu");
    for sink in [&sink as &dyn MetricsSink, &plain] {
        tell_everything(sink);
    }
    let (labeled, plain) = (samples(&handle.render()), samples(&plain_handle.render()));
    assert_eq!(
        labeled["chasquimq_jobs_completed_total{queue=\"q\",region=\"eu\",tenant=\"acme\"}"],
        1.0
    );
    for series in labeled.keys() {
        for label in ["tenant=\"acme\"", "queue=\"q\"", "region=\"eu\""] {
            assert_eq!(series.matches(label).count(), 1, "{series}");
        }
    }
    // As many series as without wrappers, with the same values.
    let stripped = labeled.iter().map(|(series, value)| (without_wrappers(series), *value));
    let untimed = |samples: &mut dyn Iterator<Item = (String, f64)>| {
        samples.filter(|(series, _)| !series.contains("timestamp")).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(untimed(&mut { stripped }), untimed(&mut plain.clone().into_iter()));
    assert_eq!(labeled.len(), plain.len());
}

fn without_wrappers(series: &str) -> String {
    let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
    let is_wrappers =
        |label: &&str| ["tenant=", "queue=", "region="].iter().any(|key| label.starts_with(key));
    let own: Vec<_> = labels.split(',').filter(|label| !is_wrappers(label)).collect();
    if own.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", own.join(",")) }
}

#[test]
fn a_label_set_again_has_its_last_value_and_a_taken_key_is_kept_apart() {
    let (inner, handle) = recorder();
    let sink = QueueLabeled::new(QueueLabeled::new(inner, "old"), "new");
    let sink = Labeled::new(Labeled::new(sink, "reason", "mine"), "le", "5");
    let (reason, name) = (DlqReason::WorkerLost, "".into());
    sink.dlq_routed(DlqRouted { reason, attempt: 0, name });
    let samples = samples(&handle.render());
    let series = "chasquimq_dlq_routed_total\
                  {exported_le=\"5\",exported_reason=\"mine\",queue=\"new\",reason=\"worker_lost\"}";
    assert_eq!(samples[series], 1.0);
    assert!(samples.keys().all(|series| !series.contains("\"old\"")));
}

#[test]
fn job_names_are_a_label_only_when_asked_for_and_at_most_so_many() {
    let outcome = |name: &str| JobOutcome {
        kind: JobOutcomeKind::Ok,
        attempt: 1,
        handler_duration_us: 1,
        name: name.into(),
    };
    let (inner, handle) = recorder();
    let sink = QueueLabeled::new(inner.with_job_names(2), "q");
    for name in ["a", "b", "c", "d", "a"] {
        sink.job_outcome(outcome(name));
    }
    sink.dlq_routed(DlqRouted { reason: DlqReason::DecodeFailed, attempt: 0, name: "z".into() });
    let named = samples(&handle.render());
    let completed: Vec<_> =
        named.iter().filter(|(series, _)| series.contains("completed")).collect();
    let series =
        |name: &str| format!("chasquimq_jobs_completed_total{{name=\"{name}\",queue=\"q\"}}");
    assert_eq!(completed, [(&series("a"), &2.0), (&series("b"), &1.0), (&series("other"), &2.0)]);
    let dead = "chasquimq_dlq_routed_total{name=\"other\",queue=\"q\",reason=\"decode_failed\"}";
    assert_eq!(named[dead], 1.0);

    let (sink, handle) = recorder();
    sink.job_outcome(outcome("a"));
    assert!(samples(&handle.render()).keys().all(|series| !series.contains("name=")));
}

/// A sink that somebody else wrote can take part.
#[derive(Clone, Default)]
struct Foreign(Arc<Mutex<Vec<String>>>, Vec<String>);

impl MetricsSink for Foreign {
    fn stale_settlements(&self, count: u64) {
        self.0.lock().unwrap().push(format!("{count} {}", self.1.join(",")));
    }
}

impl LabelAware for Foreign {
    type Labeled = Self;

    fn with_label(mut self, key: Arc<str>, value: Arc<str>) -> Self {
        self.1.push(format!("{key}={value}"));
        self
    }
}

#[test]
fn a_sink_of_ones_own_can_be_wrapped() {
    let foreign = Foreign::default();
    let sink: Arc<dyn MetricsSink> =
        Arc::new(Labeled::new(QueueLabeled::new(foreign.clone(), "q"), "tenant", "acme"));
    sink.stale_settlements(3);
    assert_eq!(*foreign.0.lock().unwrap(), ["3 queue=q,tenant=acme"]);
}
