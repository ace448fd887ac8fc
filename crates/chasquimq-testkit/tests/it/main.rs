//! The kit itself, on real servers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod proxy;
mod server;
mod topologies;
