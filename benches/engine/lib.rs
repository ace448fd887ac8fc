//! What the benchmarks of the engine share: a server on one core, the client on the other, meters of both
//! sides' CPU time, and a report of medians.
//!
//! One binary a subject; `benches/run` starts them all. Absolute figures depend on the machine and on what
//! else it does: compare ratios of one run.

mod bench;
pub mod callgrind;
pub mod flat;
mod machine;
mod meter;
mod queue;
pub mod raw;
pub mod report;
pub mod sinks;
pub mod stats;

pub use bench::{Bench, Options, main};
pub use machine::Machine;
pub use meter::{Cost, Meter, open_files, resident_mb};
pub use queue::{
    Countdown, Worker, consumer_config, drain, epoch_ms, preload, preload_packed, producer, within,
};
