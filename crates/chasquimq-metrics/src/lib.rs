#![doc = include_str!("../README.md")]

#[cfg(feature = "exporter")]
pub mod exporter;
mod facade;
mod family;
mod labels;
pub mod names;
mod queue;
mod series;
mod sink;

#[cfg(feature = "exporter")]
pub use exporter::{Exporter, ExporterError, Inspector, Probe, Scale};
pub use facade::MetricsFacadeSink;
pub use labels::{LabelAware, Labeled, QueueLabeled};
pub use names::{buckets, describe};
pub use sink::{RecorderSink, SharedRecorder};
