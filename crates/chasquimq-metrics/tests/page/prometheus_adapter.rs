use chasquimq_metrics::{MetricsFacadeSink, QueueLabeled};
use metrics_exporter_prometheus::PrometheusBuilder;
use std::sync::Arc;

PrometheusBuilder::new()
    .with_http_listener(([0, 0, 0, 0], 9090))
    .install()?;

let sink = Arc::new(QueueLabeled::new(MetricsFacadeSink, "emails"));

let cfg = ConsumerConfig {
    queue_name: "emails".into(),
    metrics: sink,
    ..Default::default()
};
