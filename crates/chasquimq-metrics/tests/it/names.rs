//! Names are the promised ones, well formed, documented and described.

use std::io::Write;
use std::process::{Command, Stdio};

use chasquimq_metrics::QueueLabeled;
use chasquimq_metrics::names::{ALL, Kind, Metric};

use crate::support::{recorder, samples, tell_everything};

/// Series without the queue's label, and what they are after every event once.
const SAMPLES: [(&str, f64); 33] = [
    ("handler_duration_seconds_sum", 0.75),
    ("handler_duration_seconds_count", 3.0),
    ("retry_backoff_seconds_sum", 0.1),
    ("jobs_completed_total", 1.0),
    ("jobs_failed_total{kind=\"error\"}", 1.0),
    ("jobs_failed_total{kind=\"panic\"}", 1.0),
    ("dlq_routed_total{reason=\"unrecoverable\"}", 1.0),
    ("dlq_routed_total{reason=\"malformed\"}", 0.0),
    ("promoter_depth", 3.0),
    ("promoter_oldest_lag_seconds", 1.5),
    ("promoter_promoted_total", 2.0),
    ("promoter_leader", 1.0),
    ("promoter_leader_changes_total", 1.0),
    ("consumer_batch_size_sum", 5.0),
    ("consumer_reclaimed_total", 1.0),
    ("jobs_started_total", 1.0),
    ("job_queue_wait_seconds_sum", 0.002),
    ("job_start_lateness_seconds_sum", 0.003),
    ("job_start_lateness_seconds_count", 1.0),
    ("queue_ready_jobs", 11.0),
    ("queue_inflight_jobs", 12.0),
    ("queue_delayed_jobs", 13.0),
    ("queue_retrying_jobs", 14.0),
    ("queue_dead_jobs", 15.0),
    ("queue_oldest_ready_age_seconds", 2.5),
    ("events_dropped_total", 6.0),
    ("retries_scheduled_total", 1.0),
    ("lease_renewals_total{result=\"renewed\"}", 7.0),
    ("lease_renewals_total{result=\"lost\"}", 1.0),
    ("stale_settlements_total", 1.0),
    ("ghost_entries_total", 1.0),
    ("store_command_seconds_sum{op=\"settle\"}", 0.002),
    ("task_restarts_total{task=\"reader\"}", 1.0),
];

#[test]
fn every_event_shows_under_its_name_with_its_value_in_base_units() {
    let (inner, handle) = recorder();
    let sink = QueueLabeled::new(inner, "q");
    tell_everything(&sink);
    let samples = samples(&handle.render());
    for (series, value) in SAMPLES {
        let (name, own) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let mut labels = vec![own, "queue=\"q\""];
        labels.retain(|label| !label.is_empty());
        labels.sort_unstable();
        let series = format!("chasquimq_{name}{{{}}}", labels.join(","));
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let (inner, handle) = recorder();
    tell_everything(&QueueLabeled::new(inner.with_job_names(5), "q"));
    let exposition = handle.render();
    let not_ours = ["chasquimq_workers", "chasquimq_workers_live", "chasquimq_workers_ready"];
    for metric in ALL.iter().filter(|metric| !not_ours.contains(&metric.name)) {
        assert!(exposition.contains(&format!("# HELP {} ", metric.name)), "{}", metric.name);
    }
    assert_well_formed(&exposition);
}

/// Asks `promtool check metrics`.
pub fn assert_well_formed(exposition: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in Debian's package prometheus");
    promtool.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && told.is_empty(), "{told}");
}

#[test]
fn the_readme_documents_each_metric() {
    let rows: Vec<_> = ALL.iter().map(|metric| row(metric)).collect();
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&rows.concat()), "the table is to be:\n{}", rows.concat());
}

fn row(metric: &Metric) -> String {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let Metric { name, help, unit, .. } = metric;
    format!("| `{name}` | {kind} | {} | {} | {help} |\n", unit.as_str(), labels.join(", "))
}
