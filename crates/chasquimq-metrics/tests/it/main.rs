//! What is exported is what happened: shown with real servers, and a real Prometheus.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::float_cmp, reason = "counts, and sums of few, are exact")]

mod examples;
mod exporter;
mod labels;
mod names;
mod operations;
mod page;
mod probes;
mod prometheus;
mod promoter;
mod support;
