//! The engine on real servers: one binary, one file a behaviour.
//!
//! Which server is chosen by `CHASQUIMQ_TEST_SERVER`; see `chasquimq-testkit`.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do with an error")]

mod support;

mod batching;
mod bounds;
mod cluster;
mod crash;
mod credentials;
mod delayed;
mod delivery;
mod dlq;
mod durability;
mod events;
mod example;
mod faults;
mod janitor;
mod late;
mod lead;
mod leases;
mod limits;
mod load;
mod packed;
mod remains;
mod sentinel;
mod shutdown;
mod sinks;
mod tls;
mod told;
mod upgrade;
