//! A sink may be used before a recorder is installed. A process has one global recorder, so this is
//! one test in a program of its own.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::thread;

use chasquimq::MetricsSink;
use chasquimq_metrics::{MetricsFacadeSink, QueueLabeled};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

#[test]
fn a_sink_follows_the_recorder_that_the_facade_has_at_the_time_of_an_event() {
    let sink = QueueLabeled::new(MetricsFacadeSink, "q");
    let tell = |count| {
        MetricsFacadeSink.stale_settlements(count);
        sink.stale_settlements(10 * count);
    };

    tell(1);

    // One that is local to a thread, before there is a global one, and then another in its place.
    for _ in 0..2 {
        let local = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&local, || tell(2));
        metrics::with_local_recorder(&local, || tell(1));
        assert_eq!(counts(&local.handle()), (3, 30));
        tell(4);
        assert_eq!(counts(&local.handle()), (3, 30), "it is local no more");
    }

    let global = PrometheusBuilder::new().build_recorder();
    let handle = global.handle();
    metrics::set_global_recorder(global).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| tell(1)));
        }
    });
    assert_eq!(counts(&handle), (400, 4000), "from the installation on, every event");

    let local = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&local, || tell(5));
    assert_eq!(counts(&local.handle()), (5, 50));
    assert_eq!(counts(&handle), (400, 4000));
    tell(1);
    assert_eq!(counts(&handle), (401, 4010));
}

fn counts(handle: &PrometheusHandle) -> (u64, u64) {
    let metrics = handle.render();
    let count = |series: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)).unwrap();
        line.trim().parse().unwrap()
    };
    let name = "chasquimq_stale_settlements_total";
    (count(&format!("{name} ")), count(&format!("{name}{{queue=\"q\"}}")))
}
