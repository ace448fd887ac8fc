//! The engine on real servers: one binary, one file a behaviour.
//!
//! Which server is chosen by `CHASQUIMQ_TEST_SERVER`; see `chasquimq-testkit`.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do with an error")]

mod support;

mod batching;
mod bounds;
mod crash;
mod delayed;
mod delivery;
mod dlq;
mod events;
mod example;
mod faults;
mod late;
mod lead;
mod leases;
mod packed;
mod shutdown;
mod sinks;
mod told;
