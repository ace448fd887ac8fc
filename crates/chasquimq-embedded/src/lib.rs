//! A real Valkey or Redis server for development, shared by all processes of a user.
//!
//! [`EmbeddedServer::join`] starts the server of an `embedded://` URL, or joins the one that runs. The
//! returned value is a lease: the server lives while any process holds one and ends, its data kept, when
//! the last one leaves. Everything here blocks for at most the timeouts of [`Options`]; asynchronous
//! callers use a blocking thread.
//!
//! | URL | instance |
//! |---|---|
//! | `embedded://` | the user's instance `default` |
//! | `embedded://name` | the user's instance `name` |
//! | `embedded:///abs/path` | an instance in a folder of its own; the path is taken literally |
//!
//! # How processes agree
//!
//! Every instance has one folder (mode 0700) with three lock files. The kernel releases their locks
//! whatever kills a process, so none of them can be stale, and no process id is ever trusted.
//!
//! | file | locked by | meaning |
//! |---|---|---|
//! | `boot` | one process, briefly | somebody starts or stops the server |
//! | `lease` | shared, each [`EmbeddedServer`] | somebody uses the server |
//! | `alive` | the server process itself (it inherits the descriptor) | a server owns this data |
//!
//! Not here: no runtime, no printing, no environment reads outside [`Options::from_env`].

mod admin;
mod binary;
mod child;
mod client;
mod error;
mod instance;
mod lock;
mod options;
mod process;
mod server;
mod socket;

pub use admin::{State, Status, path, reset, running, status, stop};
pub use client::ServerInfo;
pub use error::Error;
pub use options::Options;
pub use server::EmbeddedServer;

/// The URL of the user's default instance.
pub const DEFAULT_URL: &str = "embedded://";

/// Whether `url` names an embedded server, well-formed or not.
pub fn is_embedded_url(url: &str) -> bool {
    url.starts_with(DEFAULT_URL)
}
